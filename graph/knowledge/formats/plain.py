"""Plain text: paragraphs, whose lines stay."""

import re

from graph.knowledge.blocks import Block, Page
from graph.knowledge.encodings import decoded

_LINE_ENDS = re.compile("\r\n|[\r\f\v\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")


def read(data: bytes, name: str) -> list[Page]:
    """Read a text file; whether a line's end means something cannot be known, so it stays."""
    text = decoded(data)
    parts = _BLANK_LINES.split(_LINE_ENDS.sub("\n", text))
    return [Page(None, [Block("text", part.strip("\n")) for part in parts if part.strip()])]
