"""What the full-text index counts, and what a question asks for."""

from time import thread_time

import pytest

from graph.knowledge.questions import Question, understood
from graph.knowledge.terms import terms, words

MARKS = "\u0301\u0323"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The valves were opening", ["valv", "open"]),
        (
            "Set --with-drvpath in ups.conf.",
            ["set", "with-drvpath", "drvpath", "ups.conf", "up", "conf"],
        ),
        ("version 2.8.0", ["version", "2.8.0", "2", "8", "0"]),
        ("I'll say it doesn't", ["say"]),
        ("Größe ﬁnden", ["grösse", "finden"]),
        ("/var/lock", ["var/lock", "var", "lock"]),
        ("x" * 252 + " Gro\u0308ße", ["grösse"]),
        ("水位計の値", ["水位", "位計", "計の", "の値"]),
        ("a" * 65, []),
        ("", []),
    ],
)
def test_terms_are_stems_of_wholes_and_parts(text: str, expected: list[str]) -> None:
    assert terms(text) == expected


def test_words_are_not_stemmed() -> None:
    assert words("The valves of UPS.conf") == ["valves", "ups.conf", "ups", "conf"]


@pytest.mark.parametrize(
    ("text", "before", "earlier"),
    [
        ("Which package ships it?", ["What is grep-excuses?"], "What is grep-excuses?"),
        ("And on Debian?", ["How do I install NUT?"], "How do I install NUT?"),
        ("What about the second one?", ["Which pumps are there?"], "Which pumps are there?"),
        ("Why?", ["May I delete the cache?"], "May I delete the cache?"),
        ("Why does that happen, and how often?", ["Why is it loud?"], "Why is it loud?"),
        ("Why did the files of editors stop sharing a folder?", ["What is NUT?"], ""),
        ("Is that so?", ["Is it new?", "Which pump is oldest?"], "Which pump is oldest?"),
        (
            "And its price?",
            ["Which pump is the oldest here?", "How loud is it?"],
            "Which pump is the oldest here?\nHow loud is it?",
        ),
        ("Where does the harbour master keep the keys?", ["What is NUT?"], ""),
        ("Which package ships it?", [], ""),
    ],
)
def test_a_question_that_leans_on_earlier_ones_takes_them_along(
    text: str, before: list[str], earlier: str
) -> None:
    assert understood(text, before) == Question(text, earlier)


def test_earlier_terms_count_less_and_the_question_s_own_count_whole() -> None:
    question = understood("Which pump is it?", ["Where is the oldest pump?"])
    assert question.terms == {"oldest": 0.4, "pump": 1.0}
    assert question.whole == "Where is the oldest pump?\nWhich pump is it?"


@pytest.mark.parametrize("unit", ["that  ", " ", "is ", "the ", "-", "n't", MARKS])
def test_a_long_question_takes_time_in_proportion(unit: str) -> None:
    text = "Say that" + (unit * 50_000)[:50_000] + "pump house"
    started = thread_time()
    assert understood(text, ["Which valve?"]) == Question(text, "")
    assert thread_time() - started < 2
