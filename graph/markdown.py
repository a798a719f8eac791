"""Markdown as it streams: what stands in code, and what a line is; and where front matter ends."""

import re
from typing import Literal, NamedTuple, cast

LineKind = Literal[
    "blank", "text", "item", "heading", "table", "rule", "underline", "fence", "indented"
]

FRONT_MATTER = re.compile(
    r"\A(?=---[ \t]*\n(?:#.*\n)*([\"']?)[\w.-]+\1[ \t]*:\s"
    r"|\+\+\+[ \t]*\n(?:#.*\n)*(?:\[|[\w.\"'-]+[ \t]*=))"
    r"(---|\+\+\+)[ \t]*\n(?:.*\n){0,200}?\2[ \t]*(?:\n|\Z)"
)
"""The YAML or TOML at the top of a document, which begins with a key; a rule there is none."""

_PIECE = re.compile(r"`+|~+|\n|[^`~\n]+")
# What may stand before a fence in its line: an indent, quotes, items of lists.
_LEAD = re.compile(r"(?:[ \t\r>]|(?:[-+*]|[0-9]{1,9}[.)])[ \t])*+")
_LEAD_ENDS = " \t\r>-+*.)0123456789"
_LONGEST_LEAD = 1000
_Beginning = LineKind | Literal["open"]
_BEGINNING = re.compile(
    r"(?P<blank>\n)"
    r"|(?P<open>(?:#{1,6}|\+|-+|=+|\*+|_+|\d{1,9}[.)]?|`{1,2}|~{1,2})?\Z)"
    r"|(?P<heading>#{1,6}[ \t\n])"
    r"|(?P<table>\|)"
    r"|(?P<underline>(?:-{2,}|=+)[ \t\n])"
    r"|(?P<rule>(?:\*{3,}|_{3,})[ \t\n])"
    r"|(?P<item>(?:[-+*]|\d{1,9}[.)])[ \t\n])"
    r"|(?P<fence>```|~~~)"
    r"|(?P<text>)"
)

_TEXT, _INFO, _FENCE, _CLOSING = "text", "info", "fence", "closing"


class _Fence(NamedTuple):
    char: str
    length: int
    column: int
    quotes: int


class Code:
    """Tells whether the text so far ends inside Markdown code, however it is cut into pieces.

    A fence may stand at any indent, and behind the marks of an item or a quote. It ends with the
    line that closes it, or with its quote.
    """

    def __init__(self) -> None:
        self._mode = _TEXT
        self._span = 0
        self._fence = _Fence("`", 0, 0, 0)
        self._run_char = ""
        self._run_length = 0
        self._run_leads = False
        self._lead = ""
        self._leads = True

    @property
    def idle(self) -> bool:
        """Nothing is open, not even a run of backticks that may go on."""
        return self._mode is _TEXT and not self._span and not self._run_length

    @property
    def fenced(self) -> bool:
        """Whether the text so far ends in a fenced block, or in the line that opens it."""
        return self._mode is not _TEXT

    def inside(self) -> bool:
        """Whether the next character, which is neither backtick nor tilde, stands in code."""
        self._end_run()
        return self._mode is not _TEXT or self._span > 0

    def advance(self, text: str) -> None:
        """Takes the next piece of the text."""
        if not (self._run_length or "`" in text or "~" in text):
            if "\n" not in text:
                if self._leads or self._mode is _CLOSING:
                    self._fill_line(text)
                return
            if self.idle or (self._mode is _FENCE and not self._fence.quotes):
                text = text[text.rfind("\n") :]
        for piece in _PIECE.findall(text):
            if piece[0] in "`~":
                self._extend_run(piece)
            elif piece == "\n":
                self._end_line()
            else:
                self._fill_line(piece)

    def _extend_run(self, piece: str) -> None:
        if self._run_char != piece[0]:
            self._end_run()
        if not self._run_length:
            self._run_char = piece[0]
            self._run_leads = self._leads
        self._run_length += len(piece)
        self._leads = False

    def _end_run(self) -> None:
        char, length, self._run_length = self._run_char, self._run_length, 0
        if not length:
            return
        leads = length >= 3 and self._run_leads and _LEAD.fullmatch(self._lead) is not None
        if self._mode is _CLOSING:
            self._mode = _FENCE
        elif self._mode is _FENCE:
            if leads and self._closes(char, length):
                self._mode = _CLOSING
        else:
            self._end_run_in_text(char, length, leads)

    def _closes(self, char: str, length: int) -> bool:
        fence, lead = self._fence, self._lead
        return (
            char == fence.char
            and length >= fence.length
            and len(lead.expandtabs(4)) <= fence.column + 3
            and lead.count(">") <= fence.quotes
            and not lead.strip(" \t\r>")
        )

    def _end_run_in_text(self, char: str, length: int, leads: bool) -> None:
        if leads and (char == "~" or length != self._span):
            self._mode = _INFO if char == "`" else _FENCE
            column, quotes = len(self._lead.expandtabs(4)), self._lead.count(">")
            self._fence = _Fence(char, length, column, quotes)
        elif char == "`":
            if self._mode is _INFO:
                # A fence's info string holds no backtick: what looked like a fence is a span.
                self._mode, self._span = _TEXT, self._span or self._fence.length
            if self._span in (0, length):
                self._span = length - self._span

    def _end_line(self) -> None:
        self._end_run()
        if self._mode is _INFO:
            self._mode = _FENCE
        elif self._mode is _CLOSING or (self._fence.quotes and self._has_left_quote()):
            self._mode = _TEXT
        if self._mode is _FENCE or (self._leads and not self._lead.strip(" \t\r>")):
            self._span = 0
        self._lead, self._leads = "", True

    def _has_left_quote(self) -> bool:
        lead = _LEAD.match(self._lead, 0, _LONGEST_LEAD)
        return lead is not None and lead[0].count(">") < self._fence.quotes

    def _fill_line(self, piece: str) -> None:
        self._end_run()
        if self._leads:
            self._lead += piece
            self._leads = piece[-1:] in _LEAD_ENDS and len(self._lead) < _LONGEST_LEAD
        elif self._mode is _CLOSING and piece.strip(" \t\r"):
            self._mode = _FENCE


def line_kind(start: str) -> LineKind | None:
    """What the line is that begins with `start`; null while that cannot be told yet.

    `start` may end with the line's `\\n`. In a quote (`>`) it is what the quoted line is.
    """
    text = start.lstrip(" \t>")
    begun = _BEGINNING.match(text)
    kind = cast(_Beginning, begun.lastgroup) if begun else "text"
    if kind == "text" and len(start.expandtabs(4)) - len(text.expandtabs(4)) >= 4:
        return "indented"
    return None if kind == "open" else kind
