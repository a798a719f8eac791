"""What a check of templates and prompts finds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class TextFinding:
    """Something in the text at `path`; `line` counts from 1.

    No error can be written over HTTP. `code` is for programs, `message` is a sentence.
    """

    path: str
    severity: Severity
    code: str
    line: int
    message: str


def error(path: str, line: int, code: str, message: str) -> TextFinding:
    """A finding that cannot be written over HTTP; a file with it may still be used."""
    return TextFinding(path, "error", code, line, message)


def warning(path: str, line: int, code: str, message: str) -> TextFinding:
    """A finding that can be written over HTTP."""
    return TextFinding(path, "warning", code, line, message)


def in_order(found: Iterable[TextFinding]) -> list[TextFinding]:
    """The findings by path and line, each once."""
    return sorted(dict.fromkeys(found), key=lambda one: (one.path, one.line, one.code, one.message))


def first_of(found: Iterable[TextFinding]) -> list[TextFinding]:
    """The findings of one text, or the first of them, errors before warnings, and how many more."""
    ranked = sorted(in_order(found), key=lambda one: one.severity)
    kept, left = ranked[:_MOST], ranked[_MOST:]
    if not left:
        return kept
    first = left[0]
    sentence = f"{len(left)} more findings are not shown. Put the others right first."
    return [*kept, TextFinding(first.path, first.severity, "more", first.line, sentence)]


_MOST = 100
