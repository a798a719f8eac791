"""Takes active HTML out of what people type, and leaves their Markdown and code as it is.

Why it is ours: nh3, bleach and justhtml parse HTML and write HTML back. A message
is Markdown and prose: they drop `<String>` from `List<String>`, make `&lt;` of `a < b`, and don't
know code blocks. Bleach's maintainers say the same (mozilla/bleach#238: "Bleach operates on HTML,
not on Markdown"). This is no replacement for them: whoever renders a text must still sanitize it.
"""

import asyncio
import html
import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from itertools import accumulate

from markdown_it import MarkdownIt


def _entity(code: int) -> str:
    return rf"&#0*{code}(?![0-9]);?|&#x0*{code:x}(?![0-9a-f]);?"


def _letter(letter: str) -> str:
    return f"(?:{letter}|{_entity(ord(letter))}|{_entity(ord(letter.upper()))})"


_GAP = rf"(?:[\s\x00-\x20]|&tab;|&newline;|{_entity(9)}|{_entity(10)}|{_entity(13)})*+"
_SCHEME = _GAP.join(map(_letter, "javascript")) + rf"{_GAP}\\?(?::|&colon;|{_entity(58)})"
_DESTINATION = r"(?:[^\s()<>]|\([^\s()<>]*+\))*+"
_URL = rf"(?P<before_url>\][(:][\s<]*+{_GAP}|<)(?:{_SCHEME}){_DESTINATION}"
_SCRIPT_URL = re.compile(_URL, re.IGNORECASE)
_SPECIAL = re.compile(
    rf"\\[\\`]|(?P<ticks>`+)|{_URL}|<(?P<closing>/?)(?P<name>[a-z][^\s/<>\]]*+)", re.IGNORECASE
)


def _attribute_pattern(quoted: str) -> re.Pattern[str]:
    value = rf"\"[^\"{quoted}]*+\"|'[^'{quoted}]*+'|[^\s<>]*+"
    return re.compile(
        rf"(?P<gap>[\s/]*+)(?:(?P<name>[^\s/=<>\"'`]++)(?:\s*+=\s*+(?P<value>{value}))?+)?+"
    )


# A browser takes a quoted value whole. To a Markdown renderer, what looks like a tag may be none,
# and then a tag inside of the quotes is one. Both readings are cleaned.
_READINGS = (_attribute_pattern(quoted=""), _attribute_pattern(quoted="<"))
_TAG_START = re.compile(r"</?[a-zA-Z]")
_WHOLE_TAG = re.compile(
    r"</?[a-zA-Z][a-zA-Z0-9-]*+"
    r"(?:\s++[a-zA-Z_:][\w.:-]*+(?:\s*+=\s*+(?:\"[^\"]*+\"|'[^']*+'|[^\s\"'=<>`]++))?+)*+\s*+/?>"
)
_STRAY = re.compile(r"[=\"']++|.", re.DOTALL)
_TICKS = re.compile("`+")
_HANDLER = re.compile(r"on[a-z]{3,}", re.IGNORECASE)
_HINT = re.compile(r"=|\][(:]|<j|script|iframe|object|embed|&#", re.IGNORECASE)
_BLANK_LINE = re.compile(r"\n[ \t]*(?=\n)")
_QUOTE = re.compile(r"(?m)^[ \t]*+(?:(?:[-+*]|[0-9]+[.)])[ \t]++)*+>(?:.*\n(?=.*\S))*+.*")
_QUOTE_MARKS = re.compile(r"\n[ \t]*+>[ \t>]*+")
_BLOCK_START = re.compile(r"\n(?=[ \t]*(?:\n|[#>*+=<|~-]|[0-9]+[.)]))")
_MAY_BE_CODE = re.compile(r"`{3}|~{3}| {4}|\t")
_BLOCKS_AND_DEFINITIONS = MarkdownIt("commonmark").disable(["inline", "text_join"])
_BLOCKS = MarkdownIt("commonmark").disable(["inline", "text_join", "reference"])

_WITH_CONTENT = frozenset({"script", "iframe", "object"})
_FORBIDDEN = _WITH_CONTENT | {"embed"}
_ELEMENT = re.compile(
    r"address|article|aside|audio|base|basefont|blockquote|body|button|canvas|caption|center"
    r"|col|colgroup|dd|details|dialog|dir|div|dl|dt|fieldset|figcaption|figure|font|footer"
    r"|form|frame|frameset|h[1-6]|head|header|hr|html|image|img|input|isindex|keygen|label"
    r"|legend|li|link|main|map|marquee|math|menu|menuitem|meta|nav|noframes|ol|optgroup"
    r"|option|p|param|picture|pre|search|section|select|source|span|style|summary|svg|table"
    r"|tbody|td|template|textarea|tfoot|th|thead|title|tr|track|ul|video",
    re.IGNORECASE,
)
_MAX_PASSES = 5
_SHORT = 10_000


async def stripped(*texts: str) -> list[str]:
    """Each as `strip_active_html` gives it; in a thread, unless a quick look finds nothing in them.

    A hostile text of 20 000 characters takes a second.
    """
    if sum(map(len, texts)) <= _SHORT and not any(map(_HINT.search, texts)):
        return list(texts)
    return await asyncio.to_thread(lambda: list(map(strip_active_html, texts)))


def strip_active_html(text: str) -> str:
    """A person's message without active HTML; all else comes through byte for byte.

    Removed are `script`, `iframe`, `object` and `embed` elements (the first three with what is in
    them, if they are closed), `on...=` attributes in tags, and `javascript:` URLs in attributes,
    Markdown links and autolinks. Code spans are not looked into, nor what CommonMark reads as a
    fenced or an indented block. What is left of a removal is looked at again until nothing more
    is found. Expects text that went through `clean`. Time is linear in the text.
    """
    if not _HINT.search(text):
        return text
    for _ in range(_MAX_PASSES):
        stripped = "".join(_stripped_parts(text))
        if stripped == text:
            return text
        text = stripped
    # Only a text nested to outlast the passes comes here.
    return text.replace("<", "").replace("](", "] (").replace("]:", "] :")


def _stripped_parts(text: str) -> Iterator[str]:
    for is_code, part in _parts(text):
        yield part if is_code or not _HINT.search(part) else _without_active(part)


def _without_active(text: str) -> str:
    for attribute in _READINGS:
        text = _Pass(text, text, attribute).run()
        # What a line begins with may be the end of a tag or the mark of a quote.
        if (read := _without_quote_marks(text)) != text:
            text = _Pass(text, read, attribute).run()
    return text


def _without_quote_marks(text: str) -> str:
    """`text` with spaces for the marks that a quote's lines have behind its first."""
    return _QUOTE.sub(lambda quote: _QUOTE_MARKS.sub(_blanked, quote[0]), text)


def _blanked(marks: re.Match[str]) -> str:
    return marks[0].replace(">", " ")


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """The code blocks of `text` (True) and what lies between them (False)."""
    pos = 0
    for start, end in _code_blocks(text):
        yield False, text[pos:start]
        yield True, text[start:end]
        pos = end
    yield False, text[pos:]


def _code_blocks(text: str) -> Iterator[tuple[int, int]]:
    """Where code blocks stand, without the end of their last line."""
    if not _MAY_BE_CODE.search(text):
        return
    blocks = set(_lines_of_code(_BLOCKS, text))
    # Parsers differ in what continues a paragraph that begins with the definition of a link.
    if "]:" in text:
        blocks &= set(_lines_of_code(_BLOCKS_AND_DEFINITIONS, text))
    starts = list(accumulate((len(line) + 1 for line in text.split("\n")), initial=0))
    for first, end in sorted(blocks):
        yield starts[first], min(starts[end] - 1, len(text))


def _lines_of_code(parser: MarkdownIt, text: str) -> Iterator[tuple[int, int]]:
    """The first line of each code block, and the one behind its last."""
    # Without a line's end, the parser may look for a character behind the last.
    for token in parser.parse(text + "\n"):
        if token.type == "html_block" and _is_left_open(token.content):
            return
        if token.type in ("fence", "code_block") and token.map:
            yield token.map[0], token.map[1]


def _is_left_open(block: str) -> bool:
    """Whether a browser takes what follows for a value that the block begins with its quote."""
    rest = _WHOLE_TAG.sub("", block)
    tag = _TAG_START.search(rest)
    return tag is not None and ("'" in rest[tag.end() :] or '"' in rest[tag.end() :])


class _Pass:
    """One look through a text without code blocks: what is found in `read` goes out of `text`.

    `read` is as long as `text`, which it is, or of which it has spaces for marks.
    """

    def __init__(self, text: str, read: str, attribute: re.Pattern[str]) -> None:
        self._source = text
        self._text = read
        self._pattern = attribute
        self._out: list[str] = []
        self._open_element: tuple[str, int] | None = None
        self._next_end = -1
        self._blank_lines = [match.start() for match in _BLANK_LINE.finditer(read)]
        self._block_starts = [match.start() for match in _BLOCK_START.finditer(text)]
        self._urls = [match.start() for match in _SCRIPT_URL.finditer(read)]
        self._runs: defaultdict[int, list[int]] = defaultdict(list)
        for run in _TICKS.finditer(read):
            self._runs[len(run[0])].append(run.start())

    def run(self) -> str:
        pos = 0
        while found := _SPECIAL.search(self._text, pos):
            self._copy(pos, found.start())
            pos = self._handle(found)
        self._copy(pos, len(self._text))
        return "".join(self._out)

    def _handle(self, found: re.Match[str]) -> int:
        if found["ticks"]:
            return self._copy(found.start(), self._span_end(found.start(), found.end()))
        if found["before_url"]:
            self._copy(*found.span("before_url"))
            return found.end()
        if not found["name"]:
            return self._copy(found.start(), found.end())
        if found["name"].lower() in _FORBIDDEN:
            return self._forbidden(found)
        self._copy(found.start(), found.end())
        return self._attributes(found)

    def _copy(self, start: int, end: int) -> int:
        self._out.append(self._source[start:end])
        return end

    def _span_end(self, start: int, end: int) -> int:
        """The end of the code span that a run of backticks opens; of the run, if it opens none."""
        closing = _next(self._runs[end - start], end, len(self._text))
        block = _next(self._block_starts, end, len(self._text))
        return closing + end - start if closing < block else end

    def _forbidden(self, tag: re.Match[str]) -> int:
        name, mark = tag["name"].lower(), len(self._out)
        end = self._attributes(tag)
        if self._out[mark:] and self._out[-1] == ">":
            del self._out[mark:]
        if not tag["closing"]:
            if name in _WITH_CONTENT and not self._open_element:
                self._open_element = (name, mark)
        elif self._open_element and self._open_element[0] == name:
            del self._out[self._open_element[1] :]
            self._open_element = None
        return end

    def _attributes(self, tag: re.Match[str]) -> int:
        """Copies what follows a tag's name, without active attributes, and tells where it ends."""
        pos, limit = tag.end(), self._limit(tag)
        while pos < limit:
            end = min(limit, _next(self._urls, pos, limit))
            attribute = self._pattern.match(self._text, pos, end)
            if attribute and attribute.end() > pos:
                self._attribute(attribute)
                pos = attribute.end()
            elif pos == end or _TAG_START.match(self._text, pos):
                return pos
            elif self._text[pos] == "`":
                pos = self._copy(pos, self._span_end(pos, _end(_TICKS, self._text, pos)))
            else:
                pos = self._copy(pos, _end(_STRAY, self._text, pos))
                if self._text[pos - 1] == ">":
                    return pos
        return pos

    def _limit(self, tag: re.Match[str]) -> int:
        """How far a tag may reach: known elements over blank lines; others must have an end."""
        pos = tag.end()
        if _ELEMENT.fullmatch(tag["name"]):
            return len(self._text)
        limit = _next(self._blank_lines, pos, len(self._text))
        if self._next_end < pos:
            found = self._text.find(">", pos)
            self._next_end = found if found >= 0 else len(self._text)
        return limit if self._next_end < limit else pos

    def _attribute(self, found: re.Match[str]) -> None:
        value = found["value"]
        if value is None:
            self._copy(*found.span())
        elif _HANDLER.fullmatch(found["name"]) or _is_script_url(value):
            after = self._text[found.end() : found.end() + 1]
            if not (after in "/<>" or after.isspace()):
                self._copy(*found.span("gap"))
        else:
            self._copy(*found.span())


def _end(pattern: re.Pattern[str], text: str, pos: int) -> int:
    found = pattern.match(text, pos)
    return found.end() if found else pos


def _next(places: list[int], pos: int, default: int) -> int:
    """The first of the ascending `places` that is not before `pos`."""
    index = bisect_left(places, pos)
    return places[index] if index < len(places) else default


def _is_script_url(value: str) -> bool:
    url = re.sub(r"[\x00-\x20]+", "", html.unescape(value.strip("\"'")))
    return url.lower().startswith("javascript:")
