"""Lines of a printed page into paragraphs, lists and code."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from graph.knowledge.blocks import Block

# PDFium puts it where a hyphen at a line's end was; the other is the soft hyphen.
HYPHENS = "\ufffe\u0002\u00ad"

_BULLETS = "•‣▪▫◦∙●○■□➢➤✓·–—*-"
_ITEM = re.compile(rf"([{_BULLETS}]|\(?(?:\d{{1,3}}|[a-z]|[ivx]{{1,4}})[.)])\s+(?=\S)")
_ENDS_SENTENCE = (".", ":", "?", "!", ";")
# A step to the next line is a gap when it is so many times the usual one.
_GAP = 1.2
# A line that ends a sentence before this part of the width ends its paragraph.
_SHORT = 0.75
# The width of a letter of a font in which all are as wide, in sizes.
_LETTER = 0.6


@dataclass(slots=True)
class Line:
    """A line of text with its place, in points from the page's lower left corner.

    `y` and `end_y` are the feet of its first and last letter: where hyphenated lines were joined
    they differ.
    """

    text: str
    left: float
    right: float
    y: float
    end_y: float
    size: float
    is_bold: bool = False
    is_code: bool = False


def usual_size(pages: Iterable[Sequence[Line]]) -> float:
    """Give the size of most letters, in points; 0 where there are none."""
    sizes: Counter[float] = Counter()
    for line in (line for lines in pages for line in lines):
        sizes[line.size] += len(line.text)
    [(size, _)] = sizes.most_common(1) or [(0.0, 0)]
    return size


def usual_step(pages: Iterable[Sequence[Line]]) -> float:
    """Give the usual distance between two lines, in sizes of the letters."""
    steps = [
        (before.end_y - line.y) / line.size
        for lines in pages
        for before, line in zip(lines, lines[1:], strict=False)
        if line.size and 0.8 < (before.end_y - line.y) / line.size < 2.2
    ]
    return median(steps) if len(steps) > 4 else 1.2


def blocks(lines: Sequence[Line], step: float) -> Iterator[Block]:
    """Give paragraphs, lists and code; `step` is the usual distance between two lines."""
    items: list[str] = []
    lefts: list[float] = []
    for paragraph in _paragraphs(lines, step):
        first = paragraph[0]
        if not first.is_code and (match := _ITEM.match(first.text)):
            lefts = [*(left for left in lefts if left < first.left - 2), first.left]
            items.append(_item(match, _joined(paragraph), len(lefts) - 1))
        elif items and not first.is_code and first.left > lefts[-1] + 2:
            items.append("  " * len(lefts) + _joined(paragraph))
        else:
            yield from _ended(items)
            items, lefts = [], []
            yield _code(paragraph) if first.is_code else Block("text", _joined(paragraph))
    yield from _ended(items)


def _ended(items: list[str]) -> Iterator[Block]:
    if items:
        yield Block("text", "\n".join(items))


def _item(match: re.Match[str], text: str, depth: int) -> str:
    marker = "-" if match[1] in _BULLETS else match[1]
    return f"{'  ' * depth}{marker} {text[match.end() :]}"


def _paragraphs(lines: Sequence[Line], step: float) -> Iterator[list[Line]]:
    paragraph: list[Line] = []
    for line in lines:
        if paragraph and _begins(line, paragraph, step):
            yield paragraph
            paragraph = []
        elif line.is_code and paragraph and not paragraph[-1].is_code:
            # A line of code within a sentence.
            line.is_code = False
        paragraph.append(line)
    if paragraph:
        yield paragraph


def _begins(line: Line, paragraph: list[Line], step: float) -> bool:
    """Tell whether a line begins a new paragraph."""
    before = paragraph[-1]
    down = before.end_y - line.y
    if abs(down) < 0.5 * line.size:
        return line.left < before.right - line.size
    if down < 0 or down > _GAP * step * max(line.size, before.size):
        return not _goes_on(line, before, down)
    if abs(line.size - before.size) > 0.1 * line.size:
        return True
    if line.is_code or before.is_code:
        return _is_edge_of_code(line, paragraph)
    if _ITEM.match(line.text):
        return _begins_item(line, paragraph)
    if line.left > before.left + 0.8 * line.size:
        # After an item's first line the text may be indented; elsewhere that is a new paragraph.
        return not (before is paragraph[0] and _ITEM.match(before.text))
    return before.text.endswith(_ENDS_SENTENCE) and before.right < _SHORT * _widest(paragraph)


def _goes_on(line: Line, before: Line, down: float) -> bool:
    """Tell whether a sentence goes on at the top of the next column."""
    is_column = down < -10 * line.size and line.left > before.left + 10 * line.size
    is_open = not before.text.endswith(_ENDS_SENTENCE)
    return is_column and is_open and line.text[:1].islower() and line.size == before.size


def _is_edge_of_code(line: Line, paragraph: list[Line]) -> bool:
    before = paragraph[-1]
    if line.is_code and not before.is_code:
        indented = abs(line.left - paragraph[0].left) > line.size / 2
        return before.text.endswith(":") or indented
    return not line.is_code


def _begins_item(line: Line, paragraph: list[Line]) -> bool:
    before = paragraph[-1]
    beside_item = abs(line.left - paragraph[0].left) < 2 and bool(_ITEM.match(paragraph[0].text))
    return line.text[0] in "•‣▪◦●○■□➢➤✓" or beside_item or abs(line.left - before.left) > 2


def _widest(paragraph: list[Line]) -> float:
    return max(line.right for line in paragraph)


def _joined(lines: Iterable[Line]) -> str:
    text = ""
    for line in lines:
        gap = "" if not text or text[-1] in HYPHENS else " "
        text = text.rstrip(HYPHENS) + gap + line.text
    return re.sub(f"[{HYPHENS}]", "", text)


def _code(lines: list[Line]) -> Block:
    edge = min(line.left for line in lines)
    rows = [" " * round((line.left - edge) / (_LETTER * line.size)) + line.text for line in lines]
    return Block("code", re.sub(f"[{HYPHENS}]", "-", "\n".join(rows)))
