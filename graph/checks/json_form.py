"""Checks a document that is due as JSON: that it can be read, and its keys."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from graph.checks.findings import Finding
from graph.checks.order import misplaced
from graph.checks.outline import Outline, Prose

_FENCE = re.compile(r"[ \t]{0,3}(`{3,}|~{3,})[ \t]*(?:json)?[ \t]*\Z", re.IGNORECASE)
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)
_CONSTANT = re.compile(r'"(?:[^"\\]|\\.)*"|(-?Infinity|NaN)', re.DOTALL)


class String(NamedTuple):
    """A string of a JSON text: the key that it belongs to, how deep (from 1), in which object."""

    text: str
    line: int
    is_key: bool
    key: str
    depth: int
    owner: int


@dataclass(frozen=True, slots=True)
class Json:
    """The JSON of a document, and how many lines stand before it.

    `fenced`: it stood in Markdown. `error`: why it cannot be read, and the line from 1; then it
    has no `strings`.
    """

    text: str
    before: int
    fenced: bool
    error: tuple[str, int] | None
    strings: tuple[String, ...]

    @property
    def outline(self) -> Outline:
        """The strings as prose; the `column` of each is the key that it belongs to."""
        prose = [
            Prose(one.text, one.line, "value", column=one.key, first=one.key.casefold() == "id")
            for one in self.strings
            if not one.is_key
        ]
        return Outline(prose=prose)


def read_json(text: str) -> Json:
    """Read a document that is due as JSON; a fence and remarks around it are passed over."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    before, fenced = 0, False
    if text.lstrip()[:1] not in ("{", "[") and (inside := _in_fence(text)):
        (text, before), fenced = inside, True
    error = parse_error(text)
    return Json(text, before, fenced, error, () if error else tuple(_strings(text, before + 1)))


def json_findings(document: Json, keys: Sequence[str]) -> list[Finding]:
    """What is wrong with a document that is due as a JSON object with `keys`, in that order."""
    findings = []
    if document.fenced:
        message = "The JSON stands in Markdown; leave only the JSON, without fence and remarks."
        findings.append(Finding("json_in_fence", message, document.before))
    if document.error:
        reason, line = document.error
        message = f"The document is no valid JSON: {reason}."
        return [*findings, Finding("invalid_json", message, line + document.before)]
    if not document.text.lstrip().startswith("{"):
        shown = f" with the keys {', '.join(keys)}" if keys else ""
        message = f"The document must be one JSON object{shown}."
        return [*findings, Finding("missing_key", message, document.before + 1)]
    found = [string for string in document.strings if string.is_key]
    last_line = document.before + document.text.rstrip().count("\n") + 1
    missing = _missing(found, keys, last_line)
    return [*findings, *_repeated(found), *missing, *_out_of_order(found, keys)]


def parse_error(text: str) -> tuple[str, int] | None:
    """Why `text` is no JSON, and the line from 1; null if it is."""
    try:
        # Numbers are left as they stand: Python refuses long ones.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        return _explained(error)
    except RecursionError:
        return "it is nested too deeply to be read", 1
    except _NoNumber as error:
        found = next(one for one in _CONSTANT.finditer(text) if one[1])
        return f"{error} is no JSON number", text.count("\n", 0, found.start()) + 1
    return None


def _in_fence(text: str) -> tuple[str, int] | None:
    """What stands in the only code fence that may hold JSON, and the lines before it."""
    found: list[tuple[str, int]] = []
    mark, start, lines = "", 0, text.split("\n")
    for at, line in enumerate(lines):
        if mark and (line.strip() == mark or at == len(lines) - 1):
            inside = "\n".join(lines[start : at if line.strip() == mark else at + 1])
            if inside.lstrip()[:1] in ("{", "["):
                found.append((inside, start))
            mark = ""
        elif not mark and (opened := _FENCE.match(line)):
            mark, start = opened[1], at + 1
    return found[0] if len(found) == 1 else None


class _NoNumber(ValueError):
    pass


def _refuse(constant: str) -> Any:  # noqa: ANN401
    raise _NoNumber(constant)


def _explained(error: json.JSONDecodeError) -> tuple[str, int]:
    """The reason and the line, in the same words for every version of Python."""
    text, at = error.doc, error.pos
    before = text[:at].rstrip()
    if text[at : at + 1] in ("}", "]") and before.endswith(","):
        return "a comma has nothing after it", before.count("\n") + 1
    if text[at : at + 1] == "," and text[at + 1 :].lstrip()[:1] in ("}", "]"):
        return "a comma has nothing after it", error.lineno
    if error.msg.startswith("Unterminated string"):
        return f"the string at column {error.colno} is never closed", error.lineno
    if at >= len(text.rstrip()):
        reason = "it breaks off before its end" if before else "it is empty"
        return reason, before.count("\n") + 1
    return f"{error.msg[0].lower()}{error.msg[1:]}, at column {error.colno}", error.lineno


def _strings(source: str, line: int) -> Iterator[String]:
    """The strings of a JSON text that can be read and that begins at `line`."""
    tokens = list(_TOKEN.finditer(source))
    done = 0
    owners, keys, opened = [0], [""], 0
    for at, token in enumerate(tokens):
        line += source.count("\n", done, token.start())
        done = token.start()
        if token[0] in "{[":
            opened += 1
            owners.append(opened)
            keys.append(keys[-1])
        elif token[0] in "}]":
            owners.pop()
            keys.pop()
        elif token[0][0] == '"':
            is_key = at + 1 < len(tokens) and tokens[at + 1][0] == ":"
            text = json.loads(token[0])
            if is_key:
                keys[-1] = text
            yield String(text, line, is_key, keys[-1], len(keys) - 1, owners[-1])


def _repeated(keys: Sequence[String]) -> Iterator[Finding]:
    seen: dict[tuple[int, str], int] = {}
    for key in keys:
        if (key.owner, key.text) in seen:
            first = seen[key.owner, key.text]
            message = f"The key {key.text!r} stands here again, after line {first}; keep one."
            yield Finding("repeated_key", message, key.line)
        seen.setdefault((key.owner, key.text), key.line)


def _missing(found: Sequence[String], keys: Sequence[str], last_line: int) -> Iterator[Finding]:
    there = {key.text: key.line for key in reversed(found) if key.depth == 1}
    for at, key in enumerate(keys):
        if key not in there:
            line = next((there[after] for after in keys[at:] if after in there), last_line)
            message = f"The key {key!r} is missing from the object; add it."
            yield Finding("missing_key", message, line)


def _out_of_order(found: Sequence[String], keys: Sequence[str]) -> Iterator[Finding]:
    due = list(dict.fromkeys(keys))
    lines: dict[str, int] = {}
    for key in found:
        if key.depth == 1 and key.text in due:
            lines.setdefault(key.text, key.line)
    for name, where in misplaced(list(lines), due):
        message = f"The key {name!r} is out of order: {where}."
        yield Finding("key_out_of_order", message, lines[name])
