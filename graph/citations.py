"""Checks the citation markers of an answer while it streams past."""

import re
from collections.abc import Sequence

from graph.markdown import Code

_LONGEST = 64
_MARKER = re.compile(r"\[([0-9]{1,16}(?:, ?[0-9]{1,16})*)\]")
_START = re.compile(r"\[(?:[0-9]{1,16}(?:, ?[0-9]{1,16})*(?:, ?)?)?")
_MARKER_BEGUN = re.compile(r"\[[0-9]*\Z")


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
        self._code = Code()
        self._spaces: list[str] = []
        self._lead = ""
        self._marker = ""
        self._out: list[str] = []
        self._tail = ""
        self._seam = False

    def feed(self, tokens: Sequence[str]) -> list[str]:
        """Takes the next tokens of the model; gives those that may leave now."""
        if not self._waits and _is_plain("".join(tokens)):
            return self._pass(tokens)
        out: list[str] = []
        at = 0
        while at < len(tokens):
            end = at if self._waits else _first_not_plain(tokens, at)
            if end > at:
                out += self._pass(tokens[at:end])
                at = end
            else:
                out += self._check(tokens[at])
                at += 1
        return out

    def close(self) -> list[str]:
        """Gives what still waits, once the model has ended: it did not become a marker."""
        waiting = [*self._spaces, self._lead + self._marker]
        self._spaces, self._lead, self._marker = [], "", ""
        return [token for token in waiting if token]

    @property
    def _waits(self) -> bool:
        """Whether what stands in the next token depends on what came before."""
        return bool(self._marker or self._spaces or self._seam)

    def _pass(self, tokens: Sequence[str]) -> list[str]:
        """Let plain tokens go, but for those at the end that are nothing but spaces."""
        passed = list(filter(None, tokens))
        end = len(passed)
        while end and not passed[end - 1].strip(" "):
            end -= 1
        spaces = passed[end:]
        self._code.advance("".join(passed[:end]))
        if spaces and self._code.inside():
            self._code.advance("".join(spaces))
            end = len(passed)
        self._spaces = passed[end:]
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


def _is_plain(text: str) -> bool:
    return not ("[" in text or "`" in text or "~" in text)


def _first_not_plain(tokens: Sequence[str], start: int) -> int:
    for at in range(start, len(tokens)):
        if not _is_plain(tokens[at]):
            return at
    return len(tokens)


def _would_join(before: str, after: str) -> bool:
    """Whether removing what stood between makes a new marker (of `[[9]9]`) or a longer fence."""
    if after[0] in "`~":
        return before.endswith(after[0])
    return after[0] in "0123456789]" and _MARKER_BEGUN.search(before) is not None
