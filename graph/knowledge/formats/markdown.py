"""Markdown (CommonMark with tables and strikethrough), by way of HTML."""

import re
from collections import Counter

from markdown_it import MarkdownIt
from markdown_it.token import Token

from graph.knowledge.blocks import Page
from graph.knowledge.encodings import decoded
from graph.knowledge.formats.html import UNSEEN, blocks
from graph.markdown import FRONT_MATTER

# Elements that take all up to their end tag for something else than prose; one that ends in
# itself takes nothing, and nothing ends `plaintext`.
_TAKING = "|".join(sorted({*UNSEEN, "noembed", "plaintext", "pre", "xmp"}))
_TAG = re.compile(
    rf"<(/(?!plaintext))?({_TAKING})(?=[\s/>]|\Z)(?!(?:[^<>]*[\s\"'])?/>)", re.IGNORECASE
)


def read(data: bytes, name: str) -> list[Page]:
    """Read a Markdown file; its front matter is left out."""
    text = decoded(data)
    text = FRONT_MATTER.sub("", text.replace("\r\n", "\n"), count=1)
    markdown = MarkdownIt("commonmark", {"maxNesting": 100}).enable(["table", "strikethrough"])
    # Without a line's end, the parser may look for a character behind the last.
    tokens = markdown.parse(text + "\n")
    _show_unclosed([token for token in tokens if token.type == "html_block"])
    for token in tokens:
        _show_unclosed([one for one in token.children or () if one.type == "html_inline"])
    return [Page(None, blocks(markdown.renderer.render(tokens, markdown.options, {})))]


def _show_unclosed(tokens: list[Token]) -> None:
    """Make text of the tags that no end tag follows in these: prose names them.

    The first of them would take the rest of the document.
    """
    ends: Counter[str] = Counter()
    for token in reversed(tokens):
        token.content = _without_open_comment(_without_unclosed(token.content, ends))


def _without_unclosed(html: str, ends: Counter[str]) -> str:
    """The same with `&lt;` in tags that none of `ends` is left for, the end tags that follow."""
    parts: list[str] = []
    done = len(html)
    for tag in reversed(list(_TAG.finditer(html))):
        name = tag[2].lower()
        if tag[1]:
            ends[name] += 1
        elif ends[name]:
            ends[name] -= 1
        else:
            parts += [html[tag.start() + 1 : done], "&lt;"]
            done = tag.start()
    return "".join([html[:done], *reversed(parts)])


def _without_open_comment(html: str) -> str:
    before, end, after = html.rpartition("-->")
    return before + end + after.replace("<!--", "&lt;!--")
