"""Finds what a draft was to fill in and did not: placeholders and the template's guidance."""

import re
from collections.abc import Iterator

from graph.checks.findings import Finding, gathered
from graph.checks.outline import Outline, Prose
from graph.fences import CONSONANTS
from graph.sanitizing import one_line

_TODO = re.compile(r"\[\s?TODO\b(?:[^\[\]\n`]{0,200}\])?", re.IGNORECASE)
_MARK = re.compile(r"(?<![\w\[/.-])(?:TODO|FIXME|TBD|XXX):(?!:)|(?<![\w/.-])(?:TBD|TBC)(?![\w/:-])")
_ALONE = re.compile(r"(?:^|[:(–—])[ \t*]*(?:TODO|FIXME|XXX|TBA|\?\?\?)[ \t*]*(?=$|[.,;)])", re.M)
_NAMES = (
    "your|insert|enter|fill in|add|specify|describe|replace|placeholder|to be|name of|link to"
    "|(?:project|company|team|product|author)[ _-]name|xxx+"
)
_BLANK = re.compile(
    rf"\[(?:{_NAMES})\b[^\[\]\n]*\](?![(\[])|<(?:{_NAMES})\b[^<>\n]*>"
    r"|(?<!\$)\{\{[^{}\n]*\}\}|\{%[^{}\n]*%\}|\blorem ipsum\b",
    re.IGNORECASE,
)
# What `graph/fences.py` puts around each text that the model is shown.
_DELIMITER = re.compile(rf"</?[a-z]+-[{CONSONANTS}]{{8}}(?: [a-z]+=[^<>\n]*)?>")
# "without a TBD" speaks of placeholders.
_SPOKEN_OF = re.compile(r"\b(?:an?|any|each|every|no|nor|not|or|the)[ \t\"'“‘*]+\Z", re.IGNORECASE)
# Comments that are written for a tool.
_FOR_TOOLS = re.compile(
    r"<!--\s*(?:/?[\w:.-]+\s*(?:-->|\Z)"
    r"|(?:markdownlint|prettier|eslint|textlint|vale|cspell|toc|spdx|begin|end|start|stop)\b)",
    re.IGNORECASE,
)


def placeholder_findings(text: str, outline: Outline) -> list[Finding]:
    """What was left open in a document, one finding a line, or for all lines that say the same.

    `[TODO` counts in code too.
    """
    left: dict[int, list[str]] = {}
    for line, shown in _left_open(text, outline):
        left.setdefault(line, []).append(one_line(shown.strip(" \t:(–—*"), 60))
    findings = [Finding("open_placeholder", _told(shown), line) for line, shown in left.items()]
    findings += [
        Finding("guidance_left", "A delimiter of the prompt was left; delete it.", number)
        for number, line in enumerate(_lines(text), 1)
        if _DELIMITER.match(line.strip())
    ]
    for comment in outline.comments:
        if not _FOR_TOOLS.match(comment.text):
            message = "A comment of the template's guidance was left; delete it."
            findings.append(Finding("guidance_left", message, comment.line))
    return gathered(findings)


def _left_open(text: str, outline: Outline) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_lines(text), 1):
        if "[" in line:
            yield from ((number, found[0]) for found in _TODO.finditer(line))
    for prose in outline.prose:
        yield from _in_prose(prose)


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _in_prose(prose: Prose) -> Iterator[tuple[int, str]]:
    for pattern in (_MARK, _ALONE, _BLANK):
        for found in pattern.finditer(prose.text):
            before = prose.text[max(found.start() - 20, 0) : found.start()]
            if pattern is _MARK and _SPOKEN_OF.search(before):
                continue
            yield prose.line_at(found.end() - 1), found[0]


def _told(shown: list[str]) -> str:
    if len(shown) == 1:
        return f"{shown[0]!r} is left open; fill it in or take it out."
    named = " and ".join([", ".join(repr(one) for one in shown[:2]), *_more(shown[2:])])
    return f"{len(shown)} placeholders are left open: {named}; fill them in or take them out."


def _more(others: list[str]) -> list[str]:
    return [f"{len(others)} more"] if others else []
