"""Whether a source bears a sentence out, on sentences that say it, and that say something else."""

import time
from collections.abc import Sequence

import pytest

from graph.sentences import LONGEST, sentences
from graph.source_text import read_source
from graph.state import Source
from graph.support import Evidence, Finding
from graph.words import words

BUOYS = """Backups of the buoy data are kept for 90 days in the data centre in Skelmouth. The
harbour master may delete older backups, but the crew must not.

Sensors are calibrated twice a year. Firmware 2.8.0 fixed the radio.
The pump was replaced in March 2024. Logs are written to /var/log/buoy.log unless LOGDIR is set.
The siren is tested on the first Monday of each month. Set `MAXAGE` in ups.conf to 15 seconds."""
TIDES = """* The alarm sounds at 4.90 m above chart datum.
* The driver never reaches the radio, e.g. Dr. Brook's, without --with-drvpath.
* The state Calm ends at 20,000 litres per hour."""


def source(text: str, name: str = "buoys.md") -> Source:
    return {
        "id": "5f1b1c0a-0000-4000-8000-000000000001",
        "document_id": None,
        "document_name": name,
        "page_number": None,
        "text": text,
        "url": None,
        "heading": "",
        "context": text,
    }


def evidence(*texts: str, question: str = "") -> Evidence:
    return Evidence([source(text) for text in texts or (BUOYS, TIDES)], question)


@pytest.mark.parametrize(
    ("sentence", "quote"),
    [
        (
            "Buoy data backups are kept for 90 days.",
            "Backups of the buoy data are kept for 90 days in the data centre in Skelmouth.",
        ),
        (
            "According to the handbook, **backups** of buoy data are kept for ninety days.",
            "Backups of the buoy data are kept for 90 days in the data centre in Skelmouth.",
        ),
        ("Sensors are calibrated twice per year.", "Sensors are calibrated twice a year."),
        ("The radio was fixed by firmware 2.8.0.", "Firmware 2.8.0 fixed the radio."),
        ("The pump was replaced in March 2024.", "The pump was replaced in March 2024."),
        (
            "In short, the siren is tested on the first Monday of every month",
            "The siren is tested on the first Monday of each month.",
        ),
        (
            "Set MAXAGE to 15 s in `ups.conf`.",
            "Set `MAXAGE` in ups.conf to 15 seconds.",
        ),
        (
            "Yes, the alarm sounds at 4.9 metres above chart datum.",
            "* The alarm sounds at 4.90 m above chart datum.",
        ),
        (
            "Without --with-drvpath the driver never reaches the radio.",
            "* The driver never reaches the radio, e.g. Dr. Brook's, without --with-drvpath.",
        ),
        (
            "Calm ends at 20000 litres per hour.",
            "* The state Calm ends at 20,000 litres per hour.",
        ),
    ],
)
def test_a_sentence_that_says_the_same_is_borne_out(sentence: str, quote: str) -> None:
    finding = evidence().bearing_out(sentence)
    assert finding is not None
    assert (finding.quote, finding.supported) == (quote, True)
    assert evidence().judge(sentence, finding.index) == finding


@pytest.mark.parametrize(
    "sentence",
    [
        "Backups of the buoy data are kept for 80 days.",
        "Backups of the buoy data are kept for 90 weeks.",
        "Backups of the buoy data are not kept for 90 days.",
        "Backups of the buoy data are kept for 90 days in the data centre in London.",
        "The crew may delete older backups.",
        "The harbour master must delete older backups.",
        "Nobody may delete older backups.",
        "Sensors are calibrated once a year.",
        "Sensors are calibrated three times a year.",
        "Firmware 2.8.1 fixed the radio.",
        "Firmware 2.8 fixed the radio.",
        "The pump was replaced in April 2024.",
        "Logs are written to /var/log/buoys.log unless LOGDIR is set.",
        "Logs are written to /var/log/buoy.log if LOGDIR is set.",
        "The siren is tested on the last Monday of each month.",
        "The siren is tested on the first Tuesday of each month.",
        "The alarm sounds at 4.90 m below chart datum.",
        "The driver reaches the radio without --with-drvpath.",
        "The driver never reaches the radio without --with-path.",
        "A battery should be replaced every three to five years.",
    ],
)
def test_a_sentence_that_says_something_else_is_not(sentence: str) -> None:
    asked = evidence()
    assert asked.bearing_out(sentence) is None
    assert [asked.judge(sentence, index).supported for index in (1, 2)] == [False, False]


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "Yes.",
        "According to",
        "Are backups of the buoy data kept for 90 days in the data centre?",
        "Let me know whether backups of the buoy data are kept for 90 days.",
        "I think that backups of the buoy data are kept for 90 days.",
        "Here is how long the backups of the buoy data are kept.",
        "The documents do not say how long backups of the buoy data are kept.",
        "The sources don't mention the crew.",
        "It is not specified how often the sensors are calibrated.",
        "There is no information about the siren in the provided documents.",
        "How old backups may become is not in the documents.",
    ],
)
def test_what_is_no_claim_is_neither_cited_nor_wrong(sentence: str) -> None:
    assert evidence().bearing_out(sentence) is None
    assert evidence().judge(sentence, 1) == Finding(1, supported=True)


def test_a_paraphrase_is_not_cited_unasked_but_counts_where_the_model_cites() -> None:
    sentence = "Every buoy's data is backed up for 90 days in Skelmouth."
    assert evidence().bearing_out(sentence) is None
    assert evidence().judge(sentence, 1).supported


@pytest.mark.parametrize(
    ("answer", "index"),
    [("90 days.", 1), ("80 days.", None), ("15 seconds.", None), ("Yes.", None)],
)
def test_a_short_answer_is_borne_out_by_the_place_that_answers_its_question(
    answer: str, index: int | None
) -> None:
    asked = evidence(TIDES, BUOYS, question="For how long are backups of the buoy data kept?")
    finding = asked.bearing_out(answer)
    assert (finding and finding.index) == (index and 2)
    assert evidence().bearing_out(answer) is None


ROWS = """The server compares the water level of every buoy with three thresholds, in metres above
chart datum.
State Water level Colour Action
Watch 4.00 m or more yellow The duty officer is alerted
Warning 4.40 m or more orange A warning is proposed
Alarm 4.90 m or more red The siren is proposed"""


def test_a_row_of_a_table_stands_for_itself() -> None:
    asked = evidence(ROWS)
    finding = asked.bearing_out("Alarm means 4.90 m or more: red, and the siren is proposed.")
    assert finding is not None
    assert finding.quote == "Alarm 4.90 m or more red The siren is proposed"
    assert not asked.judge("The level of the state Warning is 4.90 m or more.", 1).supported
    assert asked.bearing_out("The level of the state Warning is 4.90 m or more.") is None


def test_the_nearest_words_are_quoted_where_nothing_is_borne_out() -> None:
    finding = evidence().judge("The pump was replaced in May 2019.", 1)
    assert (finding.quote, finding.supported) == ("The pump was replaced in March 2024.", False)
    assert evidence().judge("Whales sing.", 1) == Finding(1)


@pytest.mark.parametrize("text", ["word " * 500, "Tide, " * 200 + "end.", "x" * 2000])
def test_a_quote_is_bounded_and_stands_in_the_source(text: str) -> None:
    spread = f"Backups last. {text}. Buoys sing."
    finding = evidence(spread).judge("Backups of buoys last and sing a word, tide or x.", 1)
    assert 0 < len(finding.quote) <= LONGEST
    assert finding.quote in spread


def test_of_several_sources_the_nearest_is_cited() -> None:
    far = "Backups of the buoy data and of logs are, if nobody objects, kept for 90 days by hand."
    finding = evidence(far, TIDES, BUOYS).bearing_out(
        "Backups of the buoy data are kept for 90 days in the data centre."
    )
    assert finding is not None
    assert finding.index == 3


def test_without_sources_nothing_is_borne_out() -> None:
    assert Evidence([]).bearing_out("Backups of the buoy data are kept for 90 days.") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        ("Use ups.conf 2.8.0, e.g. here. Or not.", ["Use ups.conf 2.8.0, e.g. here.", "Or not."]),
        ("It is 4 m. At 12 V. So", ["It is 4 m.", "At 12 V.", "So"]),
        ("Dr. J. Brook said... yes. (So.) End", ["Dr. J. Brook said... yes.", "(So.)", "End"]),
        ("# Head\n\nText\ngoes on\n- item\n2. next. And", ["# Head", "Text\ngoes on", "- item",
                                                          "2. next.", "And"]),
        ("Run:\n```sh\nmake\n```\nDone.", ["Run:", "make", "Done."]),
        (" \n ", []),
    ],
)  # fmt: skip
def test_where_sentences_end(text: str, expected: Sequence[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == expected


@pytest.mark.parametrize(
    ("text", "forms"),
    [
        ("The 3-day delays of NMUs", ["3", "d", "delay", "nmu"]),
        ("three weeks, 1,000 GB and 4.90m", ["3", "week", "1000", "gb", "4.9", "m"]),
        ("Set -t and /etc/nut/ups.conf!", ["set", "-t", "/etc/nut/ups.conf"]),
        ("MaxConcurrentChecks=512", ["maxconcurrentchecks=512"]),
    ],
)
def test_the_words_that_are_compared(text: str, forms: Sequence[str]) -> None:
    assert [word.form for word in words(text)] == forms


def test_a_source_that_is_shown_again_is_not_read_again() -> None:
    assert read_source(TIDES + " ") is read_source("".join([TIDES, " "]))


def test_a_sentence_is_checked_against_ten_long_sources_within_a_millisecond() -> None:
    texts = [f"{BUOYS} {number}. {TIDES}\n" * 2 for number in range(10)]
    asked = evidence(*texts)
    took = []
    for _ in range(20):
        began = time.thread_time()
        asked.bearing_out("Backups of the buoy data are kept for 90 days in Skelmouth.")
        took.append(time.thread_time() - began)
    assert min(took) < 0.001
