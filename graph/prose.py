"""Follows an answer's Markdown as it streams, and tells where its sentences end."""

import re
from collections.abc import Generator, Iterator
from typing import Literal

from graph.markdown import Code, LineKind, line_kind
from graph.sentences import ends_sentence

Step = tuple[Literal["ended", "free", "taken", "marker"], int]

_PLAIN = re.compile(r"[^\n`~|\[.!?…]+")
_CODE = re.compile(r"[^\n`~]+")
_ATOM = re.compile(
    r"\n|`+|~+|\||\[[0-9]{1,16}\]|[.!?…]|[\"'”’)*_\]]+|[ \t\r]+|\["
    r"|[^\n`~|\[.!?…\"'”’)*_\] \t\r]+"
)
_MARKER = re.compile(r"\[[0-9]{1,16}\]")
_LONGEST = 1000
_LONGEST_START = 100
_CLOSERS = frozenset("\"'”’)*_]")
_MARKS = frozenset(".!?…")
_WORD = re.compile(r"\w+")


class Prose:
    """Reads a text in pieces, each marker `[n]` whole in one, and gives (event, place in it).

    "ended": a sentence is complete, and a marker may go here if it is "free" afterwards; it is
    "taken" if a marker of the text's own follows, or if it was no sentence. "marker": here
    stands a marker, `number`, behind `claim`. Nothing ends inside of code, headings and tables.
    Where the pieces are cut changes nothing.
    """

    def __init__(self) -> None:
        self.number = 0
        self.marked = False
        self._code = Code()
        self._start: str | None = ""
        self._blank_before = True
        self._off = False
        self._phase: Literal["inside", "mark", "gap", "break"] = "inside"
        self._text = ""
        self._since = 0
        self._claim = ""

    @property
    def sentence(self) -> str:
        """The sentence so far, or the one that has just ended; of a very long one the end."""
        return self._text

    @property
    def claim(self) -> str:
        """What the marker stands behind: what the sentence says since the one before it."""
        segment = self._text[-self._since :] if self._since else ""
        said = len(_WORD.findall(segment))
        if said == 0 and self._claim:
            return self._claim
        return segment if said > 2 else self._text

    @property
    def _is_open(self) -> bool:
        """Whether nothing is under way but a sentence."""
        return self._phase == "inside" and self._code.idle

    def skip(self, text: str) -> bool:
        """Take `text` at once if nothing can happen in it."""
        if self._start is not None or not self._is_open or not _PLAIN.fullmatch(text):
            return False
        self._code.advance(text)
        self._add(text)
        return True

    def read(self, text: str) -> Iterator[Step]:
        """Take the next piece."""
        at = 0
        while at < len(text):
            if self._start is not None:
                taken = yield from self._begin_line(text[at], at)
                at += taken
            elif self._is_open and (plain := _PLAIN.match(text, at)):
                self._code.advance(plain[0])
                self._add(plain[0])
                at = plain.end()
            elif text[at] not in "\n`~" and self._code.inside() and self._code.fenced:
                at = self._pass_code(text, at)
            elif atom := _ATOM.match(text, at):
                yield from self._take(atom[0], at)
                at = atom.end()

    def _pass_code(self, text: str, at: int) -> int:
        """Take what of a fenced line is no fence; gives where that ends."""
        # Only here: it goes on to the end of the line.
        code = _CODE.match(text, at)
        assert code is not None
        self._code.advance(code[0])
        return code.end()

    def close(self) -> Iterator[Step]:
        """The text has come to its end."""
        if self._phase in ("inside", "mark"):
            if not self._text or self._off or self._code.inside():
                return
            yield "ended", 0
        yield "free", 0

    def _begin_line(self, char: str, at: int) -> Generator[Step, None, int]:
        """Read a line's first characters, until it is clear what it is; gives how many it took."""
        start = f"{self._start}{char}"
        kind = line_kind(start) if len(start) < _LONGEST_START else "text"
        if kind is None:
            self._start = start
            self._code.advance(char)
            return 1
        if self._phase == "break":
            yield from self._end_break(kind, at)
        self._off = kind in ("heading", "table", "rule", "underline", "fence") or (
            kind == "indented" and self._blank_before
        )
        self._blank_before = kind == "blank"
        self._start = None
        if kind in ("text", "indented"):
            self._add(start[:-1].lstrip(" \t>"))
            return 0
        self._code.advance(char)
        self._start = "" if char == "\n" else None
        return 1

    def _end_break(self, kind: LineKind, at: int) -> Iterator[Step]:
        """A line has ended without an end mark; the next one tells whether its sentence has."""
        if kind in ("text", "indented"):
            self._phase = "inside"
            yield "taken", at
        else:
            # What is underlined is a heading.
            yield ("taken" if kind == "underline" else "free"), at
            self._reset()

    def _take(self, atom: str, at: int) -> Iterator[Step]:
        if atom[0] in "`~":
            yield from self._go_on(at)
            self._code.advance(atom)
        elif atom == "\n":
            yield from self._end_line(at)
        elif self._code.inside():
            self._code.advance(atom)
            self._add(atom)
        else:
            self._code.advance(atom)
            yield from self._take_prose(atom, at)

    def _take_prose(self, atom: str, at: int) -> Iterator[Step]:
        if atom.isspace():
            if self._phase == "mark":
                self._phase = "gap"
                yield "ended", at
            self._add(atom)
        elif atom[0] == "[" and _MARKER.fullmatch(atom):
            yield from self._take_marker(atom, at)
        elif atom == "|":
            yield "taken", at
            self._reset()
            self._off = True
        elif self._phase == "mark" and atom[0] in _CLOSERS:
            self._add(atom)
        else:
            yield from self._go_on(at)
            self._add(atom)
            if atom in _MARKS and not self._off and ends_sentence(self.sentence):
                self._phase = "mark"

    def _take_marker(self, atom: str, at: int) -> Iterator[Step]:
        yield "taken", at
        self.marked, self.number, self._claim = True, int(atom[1:-1]), self.claim
        self._since = 0
        yield "marker", at

    def _go_on(self, at: int) -> Iterator[Step]:
        """Something follows: a new sentence behind a gap; behind a mark, it was no end."""
        if self._phase == "gap":
            yield "free", at
            self._reset()
        self._phase = "inside"

    def _end_line(self, at: int) -> Iterator[Step]:
        was_fenced = self._code.fenced
        self._code.advance("\n")
        if was_fenced or self._code.fenced:
            self._reset()
        elif self._phase in ("mark", "gap"):
            if self._phase == "mark":
                yield "ended", at
            yield "free", at
            self._reset()
        elif self._off:
            self._reset()
        elif self._text:
            self._add(" ")
            self._phase = "break"
            yield "ended", at
        self._start = None if self._code.fenced else ""

    def _add(self, text: str) -> None:
        self._text = (self._text + text)[-_LONGEST:]
        self._since = min(self._since + len(text), _LONGEST)

    def _reset(self) -> None:
        self._text, self._since, self._claim = "", 0, ""
        self._phase, self.marked = "inside", False
