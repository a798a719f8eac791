"""Markers that the service adds while an answer streams past, and its word on the model's."""

import random
from collections.abc import Sequence
from time import thread_time
from timeit import repeat

import pytest
from cuts import batched, cut
from test_support import source

from graph.citations import MarkerCheck
from graph.marking import Marking
from graph.support import Evidence

ALARM = "The alarm sounds at 4.90 m above chart datum."
CREW = "Buoys are checked every three weeks by the harbour crew."
KEEPER = "The keeper must never switch the siren off."
EVIDENCE = Evidence(
    [source(f"{ALARM} {CREW}"), source(f"Tides.\n\n{KEEPER} `MAXAGE` in ups.conf is 15 seconds.")]
)
PARTS = [
    *(ALARM, CREW, KEEPER, ALARM[:-1], "\n- " + CREW[:-1], "`MAXAGE` in ups.conf is 15 seconds!"),
    *(
        " ",
        "  ",
        "\n",
        "\n\n",
        "\n---\n",
        "\n===",
        "\n# ",
        "\n> ",
        "\n1. ",
        "\n| ",
        "\n    ",
        "\n***",
    ),
    *(
        "\n    ```\n",
        "\n- ```\n",
        "\n> ~~~\n",
        "```\n",
        "\n```\n",
        "`",
        "~~~",
        "**",
        "_",
        '"',
        ")",
        "|",
        "[",
        "x",
        "e.g.",
        "...",
        "?",
        "-1",
    ),
    *("[1]", " [2]", " [9]", "[1, 2]", ". ", "Next ", "Is it so? "),
]

Found = tuple[int, str, bool]


def run(batches: Sequence[Sequence[str]]) -> tuple[list[str], list[Found]]:
    """What leaves, and (number, by, supported) for each marker, as the node has it."""
    check, marking = MarkerCheck(2), Marking(EVIDENCE)
    out = [token for batch in batches for token in marking.feed(check.feed(batch))]
    out += [*marking.feed(check.close()), *marking.close()]
    checks = marking.checks()
    return out, [(c.finding.index, c.by, c.finding.supported) for c in checks]


@pytest.mark.parametrize("unit", [".", "[1]", "a. ", "`a` ", f"{ALARM} "])
def test_time_is_linear_in_what_comes_at_once(unit: str) -> None:
    text = (unit * 200_000)[:200_000]
    started = thread_time()
    run([[text]])
    assert thread_time() - started < 15


@pytest.mark.parametrize("seed", range(20))
def test_where_the_text_is_cut_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        text = "".join(rng.choices(PARTS, k=rng.randint(1, 14)))
        whole, found = run([[text]])
        tokens = cut(text, rng, rng.choice([1, 3, 8]))
        cut_up, found_cut_up = run(batched(tokens, rng))
        # Where spaces end a token with text, a marker out of range cannot take them along.
        if " [9]" not in text:
            assert "".join(cut_up) == "".join(whole), repr(text)
        assert found_cut_up == found, repr(text)
        assert "" not in cut_up


@pytest.mark.parametrize("seed", range(10))
def test_how_tokens_are_batched_changes_no_token(seed: int) -> None:
    rng = random.Random(200 + seed)
    for _ in range(60):
        text = "".join(rng.choices(PARTS, k=rng.randint(1, 14)))
        tokens = cut(text, rng, rng.choice([1, 3, 8]))
        one_by_one = run([[token] for token in tokens])
        assert run([tokens]) == one_by_one, repr(tokens)
        assert run(batched(tokens, rng)) == one_by_one, repr(tokens)


@pytest.mark.parametrize("seed", range(10))
def test_nothing_but_markers_is_added(seed: int) -> None:
    rng = random.Random(100 + seed)
    parts = [part for part in PARTS if "[" not in part]
    for _ in range(60):
        tokens = rng.choices(parts, k=rng.randint(1, 14))
        out, found = run(batched(tokens, rng))
        added = [token for token in out if token.strip() in ("[1]", "[2]")]
        assert "".join(token for token in out if token not in added) == "".join(tokens)
        assert [int(token.strip()[1]) for token in added] == [index for index, _, _ in found]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ALARM} Next.", f"{ALARM} [1] Next."),
        (ALARM, f"{ALARM} [1]"),
        (ALARM[:-1], f"{ALARM[:-1]} [1]"),
        (f"{ALARM}\n\n{CREW}\n", f"{ALARM} [1]\n\n{CREW} [1]\n"),
        (f"{ALARM} {KEEPER} {CREW}", f"{ALARM} [1] {KEEPER} [2] {CREW} [1]"),
        (f"**{ALARM}** Next", f"**{ALARM}** [1] Next"),
        (f"“{ALARM}” (E.g. so.)", f"“{ALARM}” [1] (E.g. so.)"),
        (f"- {ALARM}\n- {CREW[:-1]}\n", f"- {ALARM} [1]\n- {CREW[:-1]} [1]\n"),
        (f"1. {ALARM[:-1]}\n2. Next", f"1. {ALARM[:-1]} [1]\n2. Next"),
        (f"> {ALARM[:-1]}\n\nNext", f"> {ALARM[:-1]} [1]\n\nNext"),
        (
            "The alarm sounds at 4.90 m\nabove chart datum.\nNext",
            "The alarm sounds at 4.90 m\nabove chart datum. [1]\nNext",
        ),
        (
            "`MAXAGE` in `ups.conf` is 15 seconds. Next",
            "`MAXAGE` in `ups.conf` is 15 seconds. [2] Next",
        ),
        (f"{KEEPER[:-1]}!\n***\n", f"{KEEPER[:-1]}! [2]\n***\n"),
        (f"```\nx\n```\n{ALARM}", f"```\nx\n```\n{ALARM} [1]"),
        (f"- ```\n  x\n  ```\n\n{ALARM}", f"- ```\n  x\n  ```\n\n{ALARM} [1]"),
        (f"> ```\n> x\n\n{ALARM}", f"> ```\n> x\n\n{ALARM} [1]"),
    ],
)
def test_a_sentence_that_a_source_bears_out_is_marked(text: str, expected: str) -> None:
    assert "".join(run([[text]])[0]) == expected
    assert "".join(run([[char] for char in text])[0]) == expected


@pytest.mark.parametrize(
    "text",
    [
        f"# {ALARM}\n",
        f"{ALARM[:-1]}\n=====\n",
        f"{ALARM[:-1]}\n---\n",
        f"| {ALARM} | 1 |\n",
        f"level | {ALARM}\n",
        f"```\n{ALARM} Next\n```\n",
        f"~~~\n{ALARM}\n\n{CREW}",
        f"- Step:\n  - Log:\n\n    ```text\n    x\n\n    {ALARM} Next\n    ```\n",
        f"- ```text\n  {ALARM} Next\n\n  {CREW}\n  ```\n",
        f"> ```\n> x\n>\n> {ALARM} Next\n> ```\n",
        f"An open `{ALARM} Next",
        f"\n    {ALARM}\n",
        "The alarm sounds at 4.90 m above chart datum:\n",
        "Does the alarm sound at 4.90 m above chart datum?",
        "The alarm sounds at 5.90 m above chart datum.",
        "The keeper must switch the siren off. The sources do not say when.",
        "The moon is made of cheese. Let me know.",
    ],
)
def test_no_marker_goes_where_none_belongs(text: str) -> None:
    assert run([[text]]) == ([text], [])
    assert "".join(run([[char] for char in text])[0]) == text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{ALARM[:-1]} [1]. Next", [(1, "model", True)]),
        (f"{ALARM} [1] Next", [(1, "model", True)]),
        (f"{ALARM}[1] Next", [(1, "model", True)]),
        (f"{ALARM}  [2] [1]\n", [(2, "model", False), (1, "model", True)]),
        ("The alarm [1] sounds at 4.90 m above chart datum.", [(1, "model", True)]),
        (
            "The alarm sounds at 4.90 m above chart datum [1], and the keeper sleeps [2].",
            [(1, "model", True), (2, "model", False)],
        ),
        (f"| {ALARM[:-1]} [1] | x |\n# The siren [2]", [(1, "model", True), (2, "model", True)]),
        ("The sources do not say [1].", [(1, "model", True)]),
        ("As [2] says: yes.", [(2, "model", True)]),
    ],
)
def test_what_the_model_marked_is_judged_and_left_alone(text: str, found: list[Found]) -> None:
    assert run([[text]]) == ([text], found)
    assert "".join(run([[char] for char in text])[0]) == text


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["The alarm sounds", " at 4.90 m above chart datum", ".", " Next"],
         ["The alarm sounds", " at 4.90 m above chart datum", ".", " [1]", " Next"]),
        ([f"{ALARM[:-1]}", ". Next", " one"], [ALARM[:-1], ".", " [1]", " Next", " one"]),
        ([ALARM, " ", " ", "\n", "Next"], [ALARM, " [1]", " ", " ", "\n", "Next"]),
        ([ALARM, " ", "[", "2", "]", " x"], [ALARM, " [2]", " x"]),
        ([f"{ALARM[:-1]}  ", "\n", "\n"], [f"{ALARM[:-1]}  ", "[1]", "\n", "\n"]),
    ],
)  # fmt: skip
def test_a_marker_is_a_token_of_its_own(tokens: list[str], expected: list[str]) -> None:
    assert run([[token] for token in tokens])[0] == expected
    assert run([tokens])[0] == expected


def test_only_the_gap_behind_a_sentence_to_be_marked_waits() -> None:
    marking = Marking(EVIDENCE)
    assert marking.feed(["The alarm sounds at 4.90 m"]) == ["The alarm sounds at 4.90 m"]
    assert marking.feed([" above chart datum."]) == [" above chart datum."]
    assert marking.feed([" "]) == []
    assert marking.feed(["Next. "]) == [" [1]", " ", "Next. "]
    assert marking.feed([f"- {CREW[:-1]}"]) == [f"- {CREW[:-1]}"]
    assert marking.feed(["\n"]) == []
    assert marking.feed(["-"]) == []
    assert marking.feed([" "]) == [" [1]", "\n", "-", " "]
    assert marking.close() == []


def test_without_sources_tokens_leave_as_they_came() -> None:
    marking = Marking(Evidence([]))
    assert marking.feed([f"{ALARM} ", "Next", " [1]"]) == [f"{ALARM} ", "Next", " [1]"]
    assert marking.close() == []


def test_a_batch_without_a_sentence_end_costs_one_look() -> None:
    marking, tokens = Marking(EVIDENCE), [" token"] * 500
    marking.feed(["A"])
    assert (
        min(repeat(lambda: marking.feed(tokens), timer=thread_time, number=1, repeat=50)) < 0.0001
    )


@pytest.mark.parametrize(
    "piece", [".", "a. ", "[1] ", "x [1] ", "`", "\n", "- ", "-", ">", " ", "word "]
)
def test_a_long_answer_takes_time_in_proportion(piece: str) -> None:
    marking, tokens = Marking(EVIDENCE), [piece] * 2000
    assert min(repeat(lambda: marking.feed(tokens), timer=thread_time, number=1, repeat=3)) < 0.5
