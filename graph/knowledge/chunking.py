"""Cuts a document into chunks along its sections, without losing a word.

A chunk stays within one page and, where a section is not tiny, within one section. Code and rows of
tables are kept whole. A heading of more than 200 characters is taken for text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from graph.knowledge.blocks import Block, Page, Parsed

CHUNK_SIZE = 1000
"""Characters that a chunk of running text has at most."""

WHOLE_SIZE = 2000
"""Characters up to which code is kept in one piece."""

_SMALL_SECTION = 200
# An embedding model reads some 700 characters of a chunk, its headings first.
_LONGEST_HEADING = 200
_LONGEST_PATH = 300
_PATH_MARK = " › "
_GAPS = [re.compile(gap) for gap in (r"\n", r"[.!?:;][)\]\"'”’]*\s+", r"\s+")]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of one page. `position` counts from 0 through the whole document.

    `heading` is the path of headings above its first word, joined by ` › `: the inner ones where
    all of them would be longer than 300 characters.
    """

    position: int
    page_number: int | None
    heading: str
    text: str

    @property
    def searchable(self) -> str:
        """The text under its headings, as it is indexed."""
        return f"{self.heading}\n{self.text}" if self.heading else self.text


def cut(parsed: Parsed) -> list[Chunk]:
    """Cut all pages; those without text give nothing. Blocks for long documents."""
    outline = _Outline()
    pieces = ((page, *piece) for page in parsed.pages for piece in _of_page(page, outline))
    return [
        Chunk(position, page.number, heading, text)
        for position, (page, heading, text) in enumerate(pieces)
    ]


class _Outline:
    """The headings that are open at the present place, through all pages."""

    def __init__(self) -> None:
        self._open: list[tuple[int, str]] = []

    def enter(self, heading: Block) -> None:
        above = [entry for entry in self._open if entry[0] < heading.level]
        self._open = [*above, (heading.level, heading.text)]

    @property
    def path(self) -> str:
        texts = [text for _, text in self._open]
        while len(path := _PATH_MARK.join(texts)) > _LONGEST_PATH:
            del texts[0]
        return path


class _Packed:
    """The chunk that is being filled."""

    def __init__(self) -> None:
        self.heading = ""
        self.texts: list[str] = []
        self.size = 0

    def add(self, text: str, path: str) -> None:
        if not self.texts:
            self.heading = path
        self.texts.append(text)
        self.size += len(text)

    def taken(self) -> Iterator[tuple[str, str]]:
        if self.texts:
            yield self.heading, "\n\n".join(self.texts)
        self.texts, self.size = [], 0


def _of_page(page: Page, outline: _Outline) -> Iterator[tuple[str, str]]:
    packed = _Packed()
    for block in page.blocks:
        if block.kind == "heading" and len(block.text) <= _LONGEST_HEADING:
            if packed.size > _SMALL_SECTION:
                yield from packed.taken()
            outline.enter(block)
            packed.add(block.text, outline.path)
            continue
        for piece in _pieces(block):
            if packed.size > _SMALL_SECTION and packed.size + len(piece) > CHUNK_SIZE:
                yield from packed.taken()
            packed.add(piece, outline.path)
    yield from packed.taken()


def _pieces(block: Block) -> list[str]:
    if block.kind == "table":
        return _pieces_of_table(block.text)
    if block.kind == "code" and len(block.text) <= WHOLE_SIZE:
        return [block.text]
    return _split(block.text, CHUNK_SIZE)


def _pieces_of_table(text: str) -> list[str]:
    """Rows, each piece under the table's header."""
    if len(text) <= CHUNK_SIZE:
        return [text]
    header, _, rows = text.partition("\n")
    room = CHUNK_SIZE - len(header)
    if not rows or room < CHUNK_SIZE // 2:
        return _split(text, CHUNK_SIZE)
    return [f"{header}\n{piece}" for piece in _split(rows, room)]


def _split(text: str, size: int) -> list[str]:
    pieces: list[str] = []
    start = 0
    while len(text) - start > size:
        end = _boundary(text, start, size)
        pieces.append(text[start:end].strip())
        start = end
    return [piece for piece in (*pieces, text[start:].strip()) if piece]


def _boundary(text: str, start: int, size: int) -> int:
    """The last good place to cut within `size` characters: a line, a sentence, a word."""
    window = text[start : start + size]
    for gap in _GAPS:
        ends = [found.end() for found in gap.finditer(window, size // 2)]
        if ends:
            return start + ends[-1]
    return start + size
