"""What stands on pages but belongs to none: running heads and feet, page numbers, contents."""

import re
from collections import Counter
from collections.abc import Sequence

from graph.knowledge.formats.lines import Line, usual_size

_EDGE_LINES = 2
_FEWEST_PAGES = 3
# The part of the pages on which something must stand to be a running head, or to count pages.
_MOST_OF_THEM = 0.3
_NUMBER = re.compile(r"\d+|\b[ivxlc]{1,7}\b")
_FIRST_OR_LAST_NUMBER = re.compile(r"^\W*(\d{1,5})(?![\w.])|(?<![\w.])(\d{1,5})\W*$")
_LEADER = re.compile(r"(?:\s*[.…·_]){4,}\s*(\d{1,5}|[ivxlc]{1,7})$")
_ENTRY = re.compile(r"(?:^|\s)(\d{1,5}|[ivxlc]{1,7})$")
_FEWEST_ENTRIES = 5


def without_furniture(pages: Sequence[Sequence[Line]]) -> list[list[Line]]:
    """Give the pages' lines without running heads, page numbers and tables of contents."""
    if len(pages) < _FEWEST_PAGES:
        return [list(lines) for lines in pages]
    largest = 1.05 * usual_size(pages)
    edges = [_edges(lines, largest) for lines in pages]
    running = _running(edges)
    offset = _offset(edges)
    return [
        _without_contents(
            [
                line
                for line in lines
                if not (
                    id(line) in edges[at]
                    and (_key(line) in running or _is_number(line, at, offset))
                )
            ]
        )
        for at, lines in enumerate(pages)
    ]


def _edges(lines: Sequence[Line], largest: float) -> dict[int, Line]:
    """Give the lines at the top and at the foot by their ids, but no titles."""
    ordered = sorted(lines, key=lambda line: line.y)
    edges = (*ordered[:_EDGE_LINES], *ordered[-_EDGE_LINES:])
    return {id(line): line for line in edges if line.size <= largest}


def _key(line: Line) -> tuple[str, int]:
    return _NUMBER.sub("#", line.text.casefold()), round(line.y / 4)


def _running(edges: list[dict[int, Line]]) -> set[tuple[str, int]]:
    counts = Counter(key for lines in edges for key in {_key(line) for line in lines.values()})
    fewest = max(_FEWEST_PAGES, _MOST_OF_THEM * len(edges))
    return {key for key, count in counts.items() if count >= fewest}


def _offset(edges: list[dict[int, Line]]) -> int | None:
    """Give what the printed page numbers differ by from the place of the page, if there are any."""
    counts = Counter(
        offset
        for at, lines in enumerate(edges)
        for offset in {number - at for line in lines.values() for number in _numbers(line)}
    )
    [(offset, count)] = counts.most_common(1) or [(0, 0)]
    return offset if count >= max(_FEWEST_PAGES, _MOST_OF_THEM * len(edges)) else None


def _numbers(line: Line) -> list[int]:
    return [int(a or b) for a, b in _FIRST_OR_LAST_NUMBER.findall(line.text)]


def _is_number(line: Line, at: int, offset: int | None) -> bool:
    return offset is not None and at + offset in _numbers(line) and len(line.text) < 120


def _without_contents(lines: list[Line]) -> list[Line]:
    """Leave out entries of a table of contents, which lead with dots to a page's number."""
    if sum(bool(_LEADER.search(line.text)) for line in lines) < _FEWEST_ENTRIES:
        return lines
    return [line for line in lines if not _ENTRY.search(line.text)]
