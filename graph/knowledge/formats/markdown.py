"""Markdown (CommonMark with tables and strikethrough), by way of HTML."""

import re

from markdown_it import MarkdownIt

from graph.knowledge.blocks import Page
from graph.knowledge.encodings import decoded
from graph.knowledge.formats.html import blocks

_FRONT_MATTER = re.compile(r"\A(---|\+\+\+)[ \t]*\n(?:.*\n){0,200}?\1[ \t]*(?:\n|\Z)")


def read(data: bytes, name: str) -> list[Page]:
    """Read a Markdown file; its front matter is left out."""
    text = decoded(data)
    text = _FRONT_MATTER.sub("", text.replace("\r\n", "\n"), count=1)
    markdown = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
    return [Page(None, blocks(markdown.render(text)))]
