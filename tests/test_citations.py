"""The check of citation markers, against a plain reading of the whole text."""

import random
import re
from collections.abc import Sequence
from itertools import accumulate
from time import thread_time
from timeit import repeat

import pytest
from cuts import batched, cut

from graph.citations import MarkerCheck

MARKER = re.compile(r"\[([0-9]{1,16}(?:, ?[0-9]{1,16})*)\]")
JOINS = r"\[[0-9]*\0[0-9\]]|`\0`|~\0~"
LEAD = r"(?:[ \t>]|(?:[-+*]|[0-9]{1,9}[.)])[ \t])*+"
PARTS = [
    *("[", "]", "0", "1", "2", "9", ",", ", ", " ", "  ", "\n", "\n\n", "\t", "    ", "a", "word"),
    *("`", "``", "```", "~~~", "~~~~", "\n```", "\n~~~\n", "\n````\n", "```\n", "`a`", "-"),
    *(
        "- ",
        "> ",
        "1. ",
        "10)",
        "\n> ",
        "\n\t",
        "\n- ```\n",
        "\n> ```\n",
        "\n> > ~~~\n",
        "\n      ```\n",
    ),
    *("[1]", "[2]", " [3]", "[9]", " [9]", "[1, 2]", "[1,9]", "[[9]", "[01]", "12345678901234567"),
]


def run(source_count: int, *batches: Sequence[str]) -> list[str]:
    check = MarkerCheck(source_count)
    return [token for batch in batches for token in check.feed(batch)] + check.close()


def one_by_one(source_count: int, tokens: Sequence[str]) -> list[str]:
    return run(source_count, *[[token] for token in tokens])


def columns(lead: str) -> int:
    return len(lead.expandtabs(4))


def code_mask(text: str) -> list[bool]:
    """For each character, whether it stands in code; read line by line, not as a stream."""
    mask: list[bool] = []
    fence, column, quotes, span = "", 0, 0, 0
    for line in text.split("\n"):
        opening = re.fullmatch(rf"({LEAD})(`{{3,}}|~{{3,}})(.*)", line)
        if fence:
            closing = re.fullmatch(rf"([ \t>]*){fence[0]}{{{len(fence)},}}[ \t]*", line)
            is_closed = closing and columns(closing[1]) <= column and line.count(">") <= quotes
            has_left = re.match(LEAD, line)[0].count(">") < quotes
            fence = "" if is_closed or has_left else fence
            mask += [True] * (len(line) + 1)
        elif opening and (
            opening[2][0] == "~" or ("`" not in opening[3] and len(opening[2]) != span)
        ):
            fence, column, quotes = opening[2], columns(opening[1]) + 3, opening[1].count(">")
            span = 0
            mask += [True] * (len(line) + 1)
        else:
            span = span if line.strip(" \t>") else 0
            for piece in re.findall("`+|[^`]+", line):
                if piece[0] == "`" and span in (0, len(piece)):
                    span = len(piece) - span
                mask += [span > 0] * len(piece)
            mask.append(span > 0)
    return mask[: len(text)]


def whole_text(text: str, source_count: int) -> str:
    """The expected answer. Code is what reads as code in the answer, not in the model's text."""
    done = 0
    while marker := next((m for m in MARKER.finditer(text, done) if is_text(text, m)), None):
        before, after = text[: marker.start()], text[marker.end() :]
        numbers = re.findall("[0-9]+", marker[1])
        if all(1 <= int(number) <= source_count for number in numbers):
            before += "".join(f"[{number}]" for number in numbers)
        elif len(numbers) > 1:
            before += marker[0]
        else:
            before = text[:done] + text[done : marker.start()].rstrip(" ")
            after = " " + after if re.search(JOINS, f"{before}\0{after}") else after
        text, done = before + after, len(before)
    return text


def is_text(text: str, marker: re.Match[str]) -> bool:
    return not code_mask(text)[marker.start()] and len(marker[0]) <= 64


def single_markers(text: str) -> list[re.Match[str]]:
    mask = code_mask(text)
    return [m for m in re.finditer(r"\[[0-9]{1,16}\]", text) if not mask[m.start()]]


@pytest.mark.parametrize("seed", range(40))
def test_where_the_text_is_cut_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        text = "".join(rng.choices(PARTS, k=rng.randint(1, 40)))
        source_count = rng.choice([0, 2, 12])
        tokens = run(source_count, *batched(cut(text, rng, rng.choice([1, 3, 8])), rng))
        assert "".join(tokens) == whole_text(text, source_count), repr(text)
        assert "" not in tokens


@pytest.mark.parametrize("seed", range(20))
def test_no_marker_is_split_and_none_is_out_of_range(seed: int) -> None:
    rng = random.Random(1000 + seed)
    for _ in range(150):
        text = "".join(rng.choices(PARTS, k=rng.randint(1, 40)))
        tokens = run(2, *batched(cut(text, rng, 2), rng))
        answer = "".join(tokens)
        markers = single_markers(answer)
        ends = set(accumulate(map(len, tokens)))
        split = [m[0] for m in markers if ends & set(range(m.start() + 1, m.end()))]
        numbers = sorted({int(m[0][1:-1]) for m in markers})
        assert split == [], repr(text)
        assert [n for n in numbers if n not in (1, 2)] == [], repr(text)


@pytest.mark.parametrize("seed", range(10))
def test_tokens_without_brackets_leave_as_they_came(seed: int) -> None:
    rng = random.Random(2000 + seed)
    parts = [part for part in PARTS if "[" not in part] + ["one ", " two", "three.\n"]
    for _ in range(100):
        tokens = rng.choices(parts, k=rng.randint(1, 30))
        assert run(3, *batched(tokens, rng)) == tokens


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([" [", "1", "]", " ok"], [" [1]", " ok"]),
        (["Fact", " [", "9", "]", "."], ["Fact", "."]),
        (["Fact", " ", "[9]", "."], ["Fact", "."]),
        (["Fact", " ", " [", "1] and"], ["Fact", "  [1] and"]),
        (["Fact [9]."], ["Fact."]),
        (["Fact [0]", "."], ["Fact", "."]),
        (["a [", "x", "]"], ["a", " [x", "]"]),
        (["[", "1", "][", "2", "]"], ["[1]", "[2]"]),
        (["[1] [9] [2]"], ["[1] [2]"]),
        (["see [1, ", "3]"], ["see", " [1][3]"]),
        (["see [1,3]"], ["see [1][3]"]),
        (["see [1, 9]"], ["see [1, 9]"]),
        (["the interval [0, 1]"], ["the interval [0, 1]"]),
        (["[1,  3]"], ["[1,  3]"]),
        (["[ 1]", "[1 ]"], ["[ 1]", "[1 ]"]),
        (["[١]", "[²]"], ["[١]", "[²]"]),
        (["[01]", "[00]"], ["[01]"]),
        (["[12345678901234567]"], ["[12345678901234567]"]),
        (["x[", "1"], ["x", "[1"]),
        (["a", "", "b ", "", " "], ["a", "b ", " "]),
        (["one ", "two ", "three "], ["one ", "two ", "three "]),
        (["[[9]", "9]"], ["[", " 9]"]),
        (["[1 [9]", "2]"], ["[1", " 2]"]),
        (["[9]", "[9]`a`[9]`b` [9]."], ["`a` `b`."]),
        (["[9]```\n[9]"], ["```\n[9]"]),
        (["- [ ] open", "\n- [x] done"], ["- [ ] open", "\n- [x] done"]),
    ],
)
def test_tokens_that_leave(tokens: list[str], expected: list[str]) -> None:
    assert one_by_one(3, tokens) == expected
    assert run(3, tokens) == expected


def test_a_batch_without_markers_costs_one_look() -> None:
    check, tokens = MarkerCheck(5), [" token"] * 480 + ["\n"] * 20
    assert min(repeat(lambda: check.feed(tokens), timer=thread_time, number=1, repeat=50)) < 0.0001


def test_spaces_that_left_with_their_word_cannot_be_taken_back() -> None:
    assert one_by_one(3, ["Fact ", "[9]", "."]) == ["Fact ", "."]


def test_a_token_waits_only_for_what_may_be_a_marker() -> None:
    check = MarkerCheck(3)
    assert check.feed(["Yes", " ["]) == ["Yes"]
    assert check.feed(["1"]) == []
    assert check.feed(["]"]) == [" [1]"]
    assert check.feed([" one "]) == [" one "]
    assert check.feed(["[1,"]) == []
    assert check.feed(["x"]) == ["[1,x"]
    assert check.close() == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"[{'1,' * 30}12]", "[1]" * 30 + "[12]"),
        (f"[{'1,' * 31}1]", f"[{'1,' * 31}1]"),
    ],
    ids=["64", "65"],
)
def test_a_list_of_more_than_64_characters_is_not_a_marker(text: str, expected: str) -> None:
    assert "".join(one_by_one(12, list(text))) == expected
    assert "".join(run(12, [text])) == expected


def test_held_text_is_released_at_64_characters() -> None:
    check = MarkerCheck(3)
    text = "[" + "1," * 40
    assert [check.feed([char]) for char in text[:63]] == [[]] * 63
    assert check.feed([text[63]]) == [text[:64]]


@pytest.mark.parametrize(
    "text",
    [
        "`a [9]`",
        "``a ` [9] ``",
        "`a\n[9]`",
        "```\nx [9]\n```",
        "```python\nx[9]\n",
        "~~~\n[9]\n```\n[9]\n~~~",
        "````\n```\n[9]\n````",
        "   ```\n[9]\n   ```",
        "```\n[9]\n``` x\n[9]",
        "```\n[9]\n    ```\n[9]",
        "a ```b` [9]``` c",
        "```b [9]``` c",
        "`open\n~~~\n[9]\n~~~",
        "`open\n```\n[9]\n```",
        "`a\n```b``` [9]`",
        "~~~ info ` string\n[9]",
        "a\n \t\n```\n\n[9]\n```",
        "- Step:\n  - Do it:\n\n    ```python\n    x\n\n    y = argv[9]\n    ```\n",
        "10. Run\n\n    ~~~\n    x\n\n    [9]\n    ~~~\n",
        "1. a\n\n\t```\n\tx\n\n\t[9]\n\t```\n",
        "- ```python\n  x\n\n  [9]\n  ```\n",
        "1. ```text\n   x\n\n   [9]\n   ```\n",
        "> ```\n> x\n>\n> [9]\n> ```\n",
        "> - 2) ```\n>       x\n>\n>       [9]\n>      ```\n",
        "```\n- ```\n[9]\n> ```\n[9]\n```",
        "> ```\n> > ```\n> [9]\n> ```",
        "- ```\n      ```\n  [9]\n  ```",
    ],
)
def test_code_is_not_touched(text: str) -> None:
    assert "".join(one_by_one(3, list(text))) == text
    assert run(3, [text]) == [text]


@pytest.mark.parametrize("fence", ["~~~\n", "```\n", "an `"])
def test_tokens_in_code_leave_as_they_came(fence: str) -> None:
    tokens = [fence, " ", "[9]", " ", "[", "1", "]"]
    assert one_by_one(3, tokens) == tokens
    assert run(3, tokens[:2], tokens[2:]) == tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`a` [9].", "`a`."),
        ("```\nx\n``` \n[9].", "```\nx\n``` \n."),
        ("~~~\nx\n~~~~~\n[9].", "~~~\nx\n~~~~~\n."),
        ("``` x ``` [9].", "``` x ```."),
        ("an open ` tick\n\n[9].", "an open ` tick\n\n."),
        ("an open ` tick\n \t\r\n[9].", "an open ` tick\n \t\r\n."),
        ("- ```\n  x\n  ```\n\n[9].", "- ```\n  x\n  ```\n\n."),
        ("- a\n\n    ```\n    x\n    ```\n[9].", "- a\n\n    ```\n    x\n    ```\n."),
        ("> ```\n> x\n> ```\n> So [9].", "> ```\n> x\n> ```\n> So."),
        ("> ```\n> x\n\n[9].", "> ```\n> x\n\n."),
        ("> ```\n> x\n```\n[9].", "> ```\n> x\n```\n."),
        ("> an open ` tick\n>\n> So [9].", "> an open ` tick\n>\n> So."),
        ("-```\n\n[9].", "-```\n\n."),
        ("1234567890. ```\n\n[9].", "1234567890. ```\n\n."),
        ("- ``` x ``` [9].", "- ``` x ```."),
        ("~~gone~~ [9].", "~~gone~~."),
        ("a ~~~ [9].", "a ~~~."),
        ("`a\n```b``` c` [9].", "`a\n```b``` c`."),
        ("```\nx\n```\n```\ny\n```\n[9].", "```\nx\n```\n```\ny\n```\n."),
    ],
)
def test_text_beside_code_is_checked(text: str, expected: str) -> None:
    assert "".join(one_by_one(3, list(text))) == expected
    assert "".join(run(3, [text])) == expected
