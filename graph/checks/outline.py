"""What a Markdown document is made of, each part with its line. Read once for all checks.

markdown-it finds the blocks. What stands inside of a line is read here: its tokens have no
lines, and its time is not linear for every text.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from graph.markdown import FRONT_MATTER

Kind = Literal["text", "item", "heading", "cell", "value"]

# Stands for code, addresses and comments in prose: neither a letter nor a space.
MASK = "\ufffc"

_WRAPPED = re.compile(r"\A\s*(`{3,}|~{3,})[ \t]*(?:markdown|md)?[ \t]*\n", re.IGNORECASE)
_TITLE = re.compile(r"^#{1,2} ", re.MULTILINE)
_OPENING = re.compile(r"\\.|`+|<!--", re.DOTALL)
_TICKS = re.compile(r"`+")
_TARGET = re.compile(r"\]\([ \t]*(?:<([^<>\n]*)>|([^\s()<>]*(?:\([^\s()<>]*\)[^\s()<>]*)*))")
_TAGS = "a b br code dd del details div dl dt em hr i img kbd li ol p picture pre s small source"
_TAGS += " span strong sub summary sup table tbody td th thead tr u ul h1 h2 h3 h4 h5 h6"
_NO_PROSE = re.compile(
    r"(?:https?|ftp|mailto|file):[^\s<>)\]]+"
    rf"|</?(?:{_TAGS.replace(' ', '|')})(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[*`]|(?<![^\W_])_|_(?![^\W_])|!?\[|\]\([^()]*\)|\]")
_SHOWN = re.compile(r"[^\n]")
_BREAK = re.compile(r"\n")


class Heading(NamedTuple):
    """A heading without its markup."""

    level: int
    title: str
    line: int


class Fence(NamedTuple):
    """A fenced block of code: its info string, its text, and the line of the opening fence."""

    info: str
    text: str
    line: int
    closed: bool


class Link(NamedTuple):
    """Where a link or an image points to."""

    target: str
    line: int


class Piece(NamedTuple):
    """The text of a comment or of inline code."""

    text: str
    line: int


class Row(NamedTuple):
    """A row of a table: the text of its cells."""

    cells: tuple[str, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Prose:
    """A run of text as people read it: a paragraph, a heading, the cell of a table.

    In `text`, code, addresses and comments are masked, so that places stay what they are.
    `headings` are the titles above it, the outermost first; `column` is the head of a cell's
    column; `first` says that it is the first cell of its row; `breaks` is where lines end.
    """

    text: str
    line: int
    kind: Kind
    headings: tuple[str, ...] = ()
    column: str = ""
    first: bool = False
    breaks: tuple[int, ...] = ()

    def line_at(self, place: int) -> int:
        """The line of the document on which the character at `place` stands."""
        return self.line + bisect_left(self.breaks, place)


@dataclass(frozen=True, slots=True)
class Table:
    """A table: the text of its head and of its rows."""

    head: tuple[str, ...]
    rows: tuple[Row, ...]
    headings: tuple[str, ...]


@dataclass(slots=True)
class Outline:
    """The parts of one document, each in the document's order.

    `wrapped`: the whole document stood in a Markdown fence, which is read as if it did not.
    """

    headings: list[Heading] = field(default_factory=list)
    prose: list[Prose] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    fences: list[Fence] = field(default_factory=list)
    comments: list[Piece] = field(default_factory=list)
    code: list[Piece] = field(default_factory=list)
    wrapped: bool = False


def outline_of(text: str) -> Outline:
    """Read a Markdown document (CommonMark with tables)."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n") + "\n"
    text = FRONT_MATTER.sub(lambda found: "\n" * found[0].count("\n"), text, count=1)
    inside = _inside_of_fence(text)
    found: dict[str, Any] = {}
    reader = _Reader(Outline(wrapped=inside is not None))
    reader.read(_markdown().parse(text if inside is None else inside, found))
    reader.read_references(found.get("references", {}))
    return reader.outline


def plain(title: str) -> str:
    """The words of a heading or cell: without emphasis, links and code marks."""
    return " ".join(_MARKUP.sub("", title).split())


@cache
def _markdown() -> MarkdownIt:
    blocks = MarkdownIt("commonmark", {"maxNesting": 20}).enable("table")
    return blocks.disable(["inline", "text_join"])


def _inside_of_fence(text: str) -> str | None:
    """The document inside of a fence that goes from its first line to its last, lines kept."""
    opened = _WRAPPED.match(text)
    if opened is None:
        return None
    inside, _, last = text.rstrip().rpartition("\n")
    if last.strip() != opened[1] or not _TITLE.search(inside):
        return None
    return "\n" * opened[0].count("\n") + inside[opened.end() :]


class _Reader:
    """Goes through markdown-it's blocks."""

    def __init__(self, outline: Outline) -> None:
        self.outline = outline
        self._titles: list[Heading] = []
        self._head: tuple[str, ...] = ()
        self._rows: list[Row] = []
        self._cells: list[str] = []
        self._line = 0

    def read(self, tokens: Sequence[Token]) -> None:
        for at, token in enumerate(tokens):
            line = token.map[0] + 1 if token.map else 0
            match token.type:
                case "inline":
                    self._read_inline(token.content, line, tokens[at - 1], tokens[at - 2])
                case "html_block":
                    self._add(token.content, line, "text")
                case "fence":
                    closed = _length(token) > token.content.count("\n") + 1
                    fence = Fence(token.info.strip(), token.content, line, closed)
                    self.outline.fences.append(fence)
                case "table_open":
                    self._head, self._rows = (), []
                case "tr_open":
                    self._cells = []
                case "tr_close":
                    self._end_row(tokens[at - 1].type == "th_close")
                case "table_close":
                    table = Table(self._head, tuple(self._rows), self._above())
                    self.outline.tables.append(table)

    def read_references(self, references: Mapping[str, Mapping[str, Any]]) -> None:
        """Links that are defined apart from where they stand."""
        for reference in references.values():
            self.outline.links.append(Link(reference["href"], reference["map"][0] + 1))
        self.outline.links.sort(key=lambda link: link.line)

    def _read_inline(self, content: str, line: int, opening: Token, before: Token) -> None:
        match opening.type:
            case "heading_open":
                level = int(opening.tag[1])
                while self._titles and self._titles[-1].level >= level:
                    self._titles.pop()
                self._add(content, line, "heading")
                self._titles.append(Heading(level, plain(content), line))
                self.outline.headings.append(self._titles[-1])
            case "th_open" | "td_open":
                self._add_cell(content, line)
            case _:
                self._add(content, line, "item" if before.type == "list_item_open" else "text")

    def _add_cell(self, content: str, line: int) -> None:
        at = len(self._cells)
        column = self._head[at] if at < len(self._head) else ""
        self._cells.append(plain(content))
        self._line = line
        self._add(content, line, "cell", column, first=at == 0)

    def _end_row(self, head: bool) -> None:
        if head:
            self._head = tuple(self._cells)
        else:
            self._rows.append(Row(tuple(self._cells), self._line))

    def _above(self) -> tuple[str, ...]:
        return tuple(heading.title for heading in self._titles)

    def _add(
        self, content: str, line: int, kind: Kind, column: str = "", *, first: bool = False
    ) -> None:
        outline = self.outline
        breaks = tuple(found.start() for found in _BREAK.finditer(content))
        hidden = list(_hidden(content))
        for code, start, end in hidden:
            found = Piece(content[start:end], line + bisect_left(breaks, start))
            (outline.code if code else outline.comments).append(found)
        text = _masked(content, ((start, end) for _, start, end in hidden))
        targets = list(_TARGET.finditer(text))
        for link in targets:
            target = link[1] if link[1] is not None else link[2]
            outline.links.append(Link(target, line + bisect_left(breaks, link.start())))
        text = _masked(text, (link.span() for link in targets))
        text = _NO_PROSE.sub(lambda found: _SHOWN.sub(MASK, found[0]), text)
        if text.strip(f"{MASK} \n\t"):
            prose = Prose(text, line, kind, self._above(), column, first, breaks)
            outline.prose.append(prose)


def _length(token: Token) -> int:
    return token.map[1] - token.map[0] if token.map else 0


def _hidden(text: str) -> Iterator[tuple[bool, int, int]]:
    """Inline code (true) and comments (false): where they begin and end."""
    runs: dict[int, list[int]] = {}
    for run in _TICKS.finditer(text):
        runs.setdefault(len(run[0]), []).append(run.start())
    end = 0
    for opening in _OPENING.finditer(text):
        start, mark = opening.start(), opening[0]
        if start < end or mark[0] == "\\":
            continue
        if mark == "<!--":
            close = text.find("-->", start)
            end = len(text) if close < 0 else close + 3
            yield False, start, end
            continue
        closing = runs[len(mark)]
        at = bisect_right(closing, start)
        if at < len(closing):
            end = closing[at] + len(mark)
            yield True, start, end


def _masked(text: str, spans: Iterable[tuple[int, int]]) -> str:
    parts, done = [], 0
    for start, end in spans:
        parts += [text[done:start], _SHOWN.sub(MASK, text[start:end])]
        done = end
    return "".join([*parts, text[done:]])
