"""Checks the citation markers of an answer while it streams past."""

import re
from collections.abc import Sequence

_LONGEST = 64
_SINGLE = re.compile(r"\[([0-9]{1,16})\]")
_MARKER = re.compile(r"\[([0-9]{1,16}(?:, ?[0-9]{1,16})*)\]")
_START = re.compile(r"\[(?:[0-9]{1,16}(?:, ?[0-9]{1,16})*(?:, ?)?)?")
_MARKER_BEGUN = re.compile(r"\[[0-9]*\Z")
_PIECE = re.compile(r"`+|~+|\n|[^`~\n]+")

_TEXT, _INFO, _FENCE, _CLOSING = "text", "info", "fence", "closing"
_NOT_BLANK = 1_000_000


class _Code:
    """Tells whether the text so far ends inside Markdown code, however it is cut into pieces."""

    def __init__(self) -> None:
        self._mode = _TEXT
        self._span = 0
        self._fence = ("`", 0)
        self._run_char = ""
        self._run_length = 0
        self._run_leads = False
        self._indent = 0

    @property
    def idle(self) -> bool:
        """Nothing is open, not even a run of backticks that may go on."""
        return self._mode is _TEXT and not self._span and not self._run_length

    def inside(self) -> bool:
        """Whether the next character, which is neither backtick nor tilde, stands in code."""
        self._end_run()
        return self._mode is not _TEXT or self._span > 0

    def advance(self, text: str) -> None:
        """Takes the next piece of the text."""
        if self.idle and "`" not in text and "~" not in text:
            text = text[max(text.rfind("\n"), 0) :]
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
            self._run_leads = self._indent <= 3
        self._run_length += len(piece)
        self._indent = _NOT_BLANK

    def _end_run(self) -> None:
        char, length, self._run_length = self._run_char, self._run_length, 0
        if not length:
            return
        leads = self._run_leads and length >= 3
        if self._mode is _CLOSING:
            self._mode = _FENCE
        elif self._mode is _FENCE:
            if leads and char == self._fence[0] and length >= self._fence[1]:
                self._mode = _CLOSING
        else:
            self._end_run_in_text(char, length, leads)

    def _end_run_in_text(self, char: str, length: int, leads: bool) -> None:
        if leads and (char == "~" or length != self._span):
            self._mode = _INFO if char == "`" else _FENCE
            self._fence = (char, length)
        elif char == "`":
            if self._mode is _INFO:
                # A fence's info string holds no backtick: what looked like a fence is a span.
                self._mode, self._span = _TEXT, self._span or self._fence[1]
            if self._span in (0, length):
                self._span = length - self._span

    def _end_line(self) -> None:
        self._end_run()
        if self._mode is _INFO:
            self._mode = _FENCE
        elif self._mode is _CLOSING:
            self._mode = _TEXT
        if self._mode is _FENCE or self._indent < _NOT_BLANK:
            self._span = 0
        self._indent = 0

    def _fill_line(self, piece: str) -> None:
        self._end_run()
        if not piece.strip(" \t\r"):
            self._indent += len(piece.expandtabs(4))
            return
        self._indent = _NOT_BLANK
        if self._mode is _CLOSING:
            self._mode = _FENCE


class MarkerCheck:
    """Lets through only the citation markers `[n]` that name a source, each as one token.

    Tokens leave as they came, except:
    - text that may be the start of a marker waits until that is decided, and then leaves as one
      token; a token of nothing but spaces waits for the one after it, and leaves unchanged;
    - a marker out of range goes, with the spaces directly before it (not those at the end of a
      token with other text: that token is long with its reader);
    - `[1, 3]` becomes `[1][3]` where both are in range, and is not touched otherwise.

    A marker has at most 16 digits a number and 64 characters in all. What stands in fenced
    code or in a code span is not a marker. Empty tokens don't leave. Where the tokens are cut
    changes nothing in the text that leaves, but for the spaces of the second point.
    """

    def __init__(self, source_count: int) -> None:
        """`source_count`: how many sources there are; markers count from 1."""
        self._source_count = source_count
        self._code = _Code()
        self._spaces: list[str] = []
        self._lead = ""
        self._marker = ""
        self._out: list[str] = []
        self._tail = ""
        self._seam = False

    def feed(self, tokens: Sequence[str]) -> list[str]:
        """Takes the next tokens of the model; gives those that may leave now."""
        text = "".join(tokens)
        if self._is_plain(text):
            return self._pass(tokens, text)
        return [checked for token in tokens for checked in self._check(token)]

    def close(self) -> list[str]:
        """Gives what still waits, once the model has ended: it did not become a marker."""
        waiting = [*self._spaces, self._lead + self._marker]
        self._spaces, self._lead, self._marker = [], "", ""
        return [token for token in waiting if token]

    def _is_plain(self, text: str) -> bool:
        waits = self._marker or self._spaces or self._seam or not self._code.idle
        return not (waits or "[" in text or "`" in text or "~" in text)

    def _pass(self, tokens: Sequence[str], text: str) -> list[str]:
        passed = list(filter(None, tokens))
        end = len(passed)
        while end and not passed[end - 1].strip(" "):
            end -= 1
        self._spaces = passed[end:]
        self._code.advance(text[: len(text) - sum(map(len, self._spaces))])
        if end:
            self._tail = ""
        return passed[:end]

    def _check(self, token: str) -> list[str]:
        if self._spaces and not token.strip(" "):
            self._spaces.append(token)
            return []
        spaces, self._spaces = self._spaces, []
        if token.lstrip(" ").startswith("["):
            token, spaces = "".join([*spaces, token]), []
        for space in spaces:
            self._emit(space)
        return [checked for checked in [*spaces, self._scan(token)] if checked]

    def _scan(self, token: str) -> str:
        self._out = []
        pos = 0
        while pos < len(token):
            pos = self._resume(token, pos) if self._marker else self._seek(token, pos)
        return "".join(self._out)

    def _seek(self, token: str, pos: int) -> int:
        start = token.find("[", pos)
        end = start if start >= 0 else len(token)
        if pos == 0 and not token.strip(" ") and not self._code.inside():
            self._spaces.append(token)
            return end
        if start < 0:
            self._emit(token[pos:])
            return end
        text = token[pos:end].rstrip(" ")
        lead = token[pos + len(text) : end]
        self._emit(text)
        if self._code.inside():
            self._emit(lead + "[")
        else:
            self._lead, self._marker = lead, "["
        return end + 1

    def _resume(self, token: str, pos: int) -> int:
        candidate = (self._marker + token[pos : pos + _LONGEST])[:_LONGEST]
        whole = _MARKER.match(candidate)
        if whole:
            pos += whole.end() - len(self._marker)
            self._settle(whole[1])
        elif len(candidate) < _LONGEST and _START.fullmatch(candidate):
            self._marker = candidate
            return len(token)
        else:
            self._emit(self._lead + self._marker)
        self._lead, self._marker = "", ""
        return pos

    def _settle(self, inner: str) -> None:
        numbers = [number.strip() for number in inner.split(",")]
        if all(0 < int(number) <= self._source_count for number in numbers):
            self._emit(self._lead + "".join(f"[{number}]" for number in numbers))
        elif len(numbers) > 1:
            self._emit(f"{self._lead}[{inner}]")
        else:
            self._seam = True

    def _emit(self, text: str) -> None:
        if self._seam and text:
            self._seam = False
            text = " " + text if _would_join(self._tail, text) else text
        self._code.advance(text)
        self._out.append(text)
        self._tail = (self._tail + text[-_LONGEST:])[-_LONGEST:]


def _would_join(before: str, after: str) -> bool:
    """Whether removing what stood between makes a new marker (of `[[9]9]`) or a longer fence."""
    if after[0] in "`~":
        return before.endswith(after[0])
    return after[0] in "0123456789]" and _MARKER_BEGUN.search(before) is not None


def cited(text: str, source_count: int) -> list[int]:
    """The numbers (from 1) of the markers `[n]` in `text` that name one of `source_count` sources.

    Each once, ascending. Markers in code do not count, and lists such as `[1, 3]` neither:
    `MarkerCheck` has made single markers of those that it could.
    """
    code = _Code()
    found: set[int] = set()
    pos = 0
    for marker in _SINGLE.finditer(text):
        code.advance(text[pos : marker.start()])
        pos = marker.start()
        if not code.inside():
            found.add(int(marker[1]))
    return sorted(number for number in found if 0 < number <= source_count)
