"""Finds the headings among the lines of a PDF: by its outline, or by the size of the letters."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from graph.knowledge.formats.lines import HYPHENS, Line, usual_size

_MOST_LINES = 4
_LONGEST = 150
_LOWEST = 6
# A heading's letters are larger than the text's at least so many times.
_LARGER = 1.12
_NOT_LETTERS = re.compile(r"[\W_]+")
# What may stand before a title that the outline gives without it.
_NUMBERING = re.compile(r"(chapter|appendix|part|section)?(\d|[ivxlc]{1,5}(?=\d|$)|[a-z](?=\d|$))*")


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a PDF's outline: where it leads to, `y` in points from the page's foot."""

    title: str
    level: int
    page: int
    y: float | None


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading in place of `lines` lines from `at` on; 0 lines where the page only leads to it."""

    text: str
    level: int
    at: int
    lines: int


def by_outline(entries: Iterable[Entry], pages: Sequence[Sequence[Line]]) -> list[list[Heading]]:
    """Give the headings of each page, in order."""
    found: list[list[Heading]] = [[] for _ in pages]
    for entry in entries:
        if 0 <= entry.page < len(pages) and entry.title.strip():
            headings, lines = found[entry.page], pages[entry.page]
            start = headings[-1].at + headings[-1].lines if headings else 0
            headings.append(_located(entry, lines, start))
    return found


def _located(entry: Entry, lines: Sequence[Line], start: int) -> Heading:
    level = min(entry.level + 1, _LOWEST)
    title = " ".join(entry.title.split())
    below = next((at for at, line in enumerate(lines) if entry.y and line.y < entry.y), len(lines))
    matches = list(_matches(title, lines, start))
    if not matches:
        return Heading(title, level, max(below if entry.y else 0, start), 0)
    # The same words may stand on the page before the place that the outline leads to.
    text, at, count = min(matches, key=lambda match: (match[1] < below, match[2], match[1]))
    return Heading(text, level, at, count)


def _matches(title: str, lines: Sequence[Line], start: int) -> Iterator[tuple[str, int, int]]:
    """Give each place of a title: its text there, the first line and the number of lines."""
    wanted = _letters(title)
    for at in range(start, len(lines) if wanted else 0):
        text = ""
        for count, line in enumerate(lines[at : at + _MOST_LINES], 1):
            text = f"{text} {line.text}".strip()
            before, found, after = _letters(text).rpartition(wanted)
            if found and not after and _NUMBERING.fullmatch(before):
                yield (text if before else title), at, count
            if len(text) > 2 * len(title) + 40:
                break


def _letters(text: str) -> str:
    return _NOT_LETTERS.sub("", text.casefold())


def by_size(pages: Sequence[Sequence[Line]]) -> list[list[Heading]]:
    """Give the headings of each page, told by letters that are larger than the text's, or bold."""
    body = usual_size(pages)
    ranks = [[_rank(lines, at, body) for at in range(len(lines))] for lines in pages]
    used = sorted({rank for page in ranks for rank in page if rank}, reverse=True)
    levels = {rank: min(level, _LOWEST) for level, rank in enumerate(used, 1)}
    return [list(_of_page(lines, page, levels)) for lines, page in zip(pages, ranks, strict=True)]


def _rank(lines: Sequence[Line], at: int, body: float) -> float:
    """Give the size of a heading's letters, 0 for another line."""
    line = lines[at]
    is_title = len(line.text) <= _LONGEST and any(map(str.isalpha, line.text))
    if not is_title or line.is_code:
        return 0
    if line.size >= _LARGER * body:
        return line.size
    return line.size if line.size >= body and _stands_out(lines, at) else 0


def _stands_out(lines: Sequence[Line], at: int) -> bool:
    """Tell whether a line is bold, short, and alone."""
    line = lines[at]
    near = [lines[one] for one in (at - 1, at + 1) if 0 <= one < len(lines)]
    is_short = len(line.text) <= _LONGEST // 2 and not line.text.endswith((".", ",", ":", ";"))
    is_alone = not any(one.is_bold and one.size == line.size for one in near)
    return line.is_bold and is_short and is_alone


def _of_page(
    lines: Sequence[Line], ranks: Sequence[float], levels: dict[float, int]
) -> Iterator[Heading]:
    at = 0
    while at < len(lines):
        count = 1
        if ranks[at]:
            while _goes_on(lines, ranks, at + count) and count < _MOST_LINES:
                count += 1
            text = " ".join(line.text for line in lines[at : at + count])
            yield Heading(re.sub(f"[{HYPHENS}]", "", text), levels[ranks[at]], at, count)
        at += count


def _goes_on(lines: Sequence[Line], ranks: Sequence[float], at: int) -> bool:
    if at >= len(lines) or ranks[at] != ranks[at - 1]:
        return False
    return 0 < lines[at - 1].end_y - lines[at].y < 1.6 * lines[at].size
