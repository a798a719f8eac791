"""What a document is made of once it is parsed: pages of headings, text, tables and code."""

from dataclasses import dataclass
from typing import Literal

MOST_PAGES = 5_000
MOST_CHARACTERS = 20_000_000

Kind = Literal["heading", "text", "table", "code"]


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, a paragraph or list, a table or a piece of code, as plain text.

    A paragraph is one line; a list has one line an item, `- ` before it; a table is in pipes, its
    header row first; code keeps its lines. `level` is 1 to 6 for headings, otherwise 0.
    """

    kind: Kind
    text: str
    level: int = 0


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a PDF, a slide or a sheet: `number` counts from 1; None where there are none."""

    number: int | None
    blocks: list[Block]


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file's MIME type and all its pages in order, the empty ones too."""

    mime_type: str
    pages: list[Page]
