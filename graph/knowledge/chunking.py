"""Cuts pages into overlapping chunks without losing a word.

Each chunk but a page's first begins with the last words of the chunk before it. Which words
follows from that chunk's text alone (`overlap`), so that neighbours can be joined again.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from langchain_text_splitters import RecursiveCharacterTextSplitter, TextSplitter

from graph.knowledge.blocks import Page, Parsed

CHUNK_SIZE = 900
OVERLAP = 120

_HEADING = r"\n#{1,6} "
_GAPS = ["\n\n", "\n", " ", ""]


@dataclass(frozen=True)
class Chunk:
    """A part of one page, `CHUNK_SIZE` characters at most.

    `position` counts from 0 through the whole document. White space at the ends is kept.
    """

    position: int
    page_number: int | None
    text: str


def cut(parsed: Parsed) -> list[Chunk]:
    """Cut all pages; blank ones give nothing. Blocks for long documents."""
    splitter = _splitter()
    texts = (
        (page.number, text)
        for page in parsed.pages
        for text in _overlapping(_pieces(splitter, _text(page)))
    )
    return [Chunk(position, number, text) for position, (number, text) in enumerate(texts)]


def overlap(text: str) -> str:
    """Give the last words of `text`, `OVERLAP` characters at most: the next chunk's beginning."""
    if len(text) <= OVERLAP:
        return text
    end = text[-OVERLAP:]
    space = re.search(r"\s+", end)
    return end[space.end() :] if space else end


def without_overlap(text: str, before: str) -> str:
    """Give what `text` adds to `before`, the chunk that precedes it on the same page."""
    return text.removeprefix(overlap(before))


def _text(page: Page) -> str:
    """Join a page's blocks, its headings marked as in Markdown."""
    return "\n\n".join(
        "#" * block.level + " " * bool(block.level) + block.text for block in page.blocks
    )


def _splitter() -> TextSplitter:
    return RecursiveCharacterTextSplitter(
        # MarkdownTextSplitter is not used: it takes its pattern for headings literally.
        separators=[_HEADING, *_GAPS],
        is_separator_regex=True,
        keep_separator="start",
        strip_whitespace=False,
        chunk_size=CHUNK_SIZE - OVERLAP,
        # The overlap is added here, since the splitter's own cannot be told from a repetition.
        chunk_overlap=0,
    )


def _pieces(splitter: TextSplitter, text: str) -> Iterator[str]:
    for piece in splitter.split_text(text):
        if piece.strip():
            yield piece


def _overlapping(pieces: Iterable[str]) -> Iterator[str]:
    before = ""
    for piece in pieces:
        before = overlap(before) + piece
        yield before
