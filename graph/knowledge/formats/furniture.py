"""What stands on pages but belongs to none: running heads and feet, page numbers, contents."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from graph.knowledge.formats.lines import Line, usual_size

_EDGE_LINES = 2
_FEWEST_PAGES = 3
# The part of the pages on which the same words stand when they are a running head, and on which
# numbers go up with the pages when they count them (a preface has its own).
_SAME_WORDS = 0.3
_SAME_COUNT = 0.05
_LONGEST_HEAD = 120
_FIRST_NUMBER = re.compile(r"^\W*(\d{1,5}|[ivxlc]{1,7})(?![\w.])", re.IGNORECASE)
_LAST_NUMBER = re.compile(
    r"(?<![\w.])(\d{1,5}|[ivxlc]{1,7})(?:\s*(?:/|of|von|de|sur)\s*\d{1,5})?\W*$", re.IGNORECASE
)
_ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_LEADER = re.compile(r"(?:\s*[.…·_]){4,}\s*(\d{1,5}|[ivxlc]{1,7})$")
_ENTRY = re.compile(r"(?:^|\s)(\d{1,5}|[ivxlc]{1,7})$")
_FEWEST_ENTRIES = 5

# The words at a place, or a count of the pages at a place: the place is a height.
_Mark = tuple[str | int, int]


def without_furniture(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """Give the pages' lines without running heads, page numbers and tables of contents."""
    if len(pages) < _FEWEST_PAGES:
        return [list(lines) for lines in pages]
    largest = 1.05 * usual_size(pages)
    edges = [_edges(lines, largest) for lines in pages]
    words = _common((map(_words, found) for found in edges), _SAME_WORDS)
    counts = _common((_all_counts(found, at) for at, found in enumerate(edges)), _SAME_COUNT)
    running = {
        id(line)
        for at, found in enumerate(edges)
        for line in found
        if _words(line) in words or not counts.isdisjoint(_counts(line, at))
    }
    return [
        _without_contents([line for line in lines if id(line) not in running]) for lines in pages
    ]


def _edges(lines: Sequence[Line], largest: float) -> list[Line]:
    """Give the lines at the top and at the foot, but no titles."""
    ordered = sorted(lines, key=lambda line: line.y)
    edges = {id(line): line for line in (*ordered[:_EDGE_LINES], *ordered[-_EDGE_LINES:])}
    return [
        line for line in edges.values() if line.size <= largest and len(line.text) <= _LONGEST_HEAD
    ]


def _common(pages: Iterable[Iterable[_Mark]], part: float) -> set[_Mark]:
    """Give the marks that so large a part of the pages has."""
    found = [set(marks) for marks in pages]
    fewest = max(_FEWEST_PAGES, part * len(found))
    counts = Counter(mark for marks in found for mark in marks)
    return {mark for mark, count in counts.items() if count >= fewest}


def _words(line: Line) -> _Mark:
    return line.text.casefold(), _place(line)


def _all_counts(lines: Iterable[Line], at: int) -> list[_Mark]:
    return [count for line in lines for count in _counts(line, at)]


def _counts(line: Line, at: int) -> list[_Mark]:
    """Give what the line's numbers differ by from the place of its page in the file."""
    numbers = [pattern.search(line.text) for pattern in (_FIRST_NUMBER, _LAST_NUMBER)]
    return [(_value(number[1].lower()) - at, _place(line)) for number in numbers if number]


def _value(number: str) -> int:
    if number.isdigit():
        return int(number)
    values = [_ROMAN[letter] for letter in number]
    return sum(
        -value if value < after else value
        for value, after in zip(values, [*values[1:], 0], strict=True)
    )


def _place(line: Line) -> int:
    return round(line.y / 4)


def _without_contents(lines: list[Line]) -> list[Line]:
    """Leave out entries of a table of contents, which lead with dots to a page's number."""
    if sum(bool(_LEADER.search(line.text)) for line in lines) < _FEWEST_ENTRIES:
        return lines
    return [line for line in lines if not _ENTRY.search(line.text)]
