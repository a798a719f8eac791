"""Checks references to items that the project's documents number, such as FR-12 or R3."""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from graph.checks.findings import Finding
from graph.checks.outline import Outline
from graph.checks.phrases import word_set
from graph.checks.project import Kind, Project, file_name

# "R3" only with letters that do not also stand for something else (P95, H2, Q3, S3).
_ID = r"(?:([A-Z]{1,6}-)(\d{1,5})|([ADEFGKLNORU])(\d{1,2}))"
_MENTION = re.compile(rf"(?<![\w/.#-]){_ID}(?![\w-])(?!\.\d)")
_DEFINITION = re.compile(
    r"^[ \t]{0,12}(?:(?:[-*+|]|\d{1,3}[.)]|#{1,6})[ \t]{1,4})?[*_\[`]{0,3}"
    rf"{_ID}(?=[ .:)*_|`\]]|$)(?!\.\d)"
    rf'|"(?:id|ID|key)"\s{{0,4}}:\s{{0,4}}"{_ID}"',
    re.MULTILINE,
)
_STANDARDS = word_set(
    "AES- ANSI- CVE- CWE- DIN- EN- EU- GDPR- HTTP- IEC- IEEE- ISO- NIST- OWASP- PCI- RFC- RSA- SHA-"
    " SSL- TLS- UTC- UTF- WCAG- BSI- GMT- MD- CC- BY- GPL- LGPL- AGPL- MIT- BSD- WS- A4 B2"
)
_FEWEST = 2


class _Series(NamedTuple):
    """The numbers that a document gives to items of one prefix, and those that it mentions."""

    owners: list[str]
    defined: set[int]
    known: set[int]


def number_findings(text: str, outline: Outline, kind: Kind, project: Project) -> Iterator[Finding]:
    """Items that the draft names and that neither it nor the document that numbers them has."""
    series = _series(kind, project)
    if not series:
        return
    own = _numbers(_DEFINITION, text)
    for prose in outline.prose:
        for found in _MENTION.finditer(prose.text):
            prefix, number = _read(found)
            one = series.get(prefix)
            if one is None or number in one.known or number in own.get(prefix, ()):
                continue
            owners = " and ".join(file_name(name) for name in one.owners[:2])
            low, high = min(one.defined), max(one.defined)
            message = (
                f"There is no {found[0]}: {owners} numbers {prefix}{low} to {prefix}{high}."
                if len(one.owners) == 1
                else f"There is no {found[0]} in {owners}, which number {prefix}{low} to"
                f" {prefix}{high}."
            )
            yield Finding("broken_reference", message, prose.line_at(found.start()))


def _series(kind: Kind, project: Project) -> dict[str, _Series]:
    """Prefix to series, of all documents but the former version of the draft."""
    found: dict[str, _Series] = {}
    for name, text in project.documents.items():
        if file_name(name) == file_name(kind.output_path):
            continue
        mentioned: dict[str, set[int]] | None = None
        for prefix, numbers in _numbers(_DEFINITION, text).items():
            if len(numbers) < _FEWEST or prefix in _STANDARDS:
                continue
            mentioned = mentioned or _numbers(_MENTION, text)
            one = found.setdefault(prefix, _Series([], set(), set()))
            one.owners.append(name)
            one.defined.update(numbers)
            one.known.update(numbers, mentioned.get(prefix, ()))
    return found


# The same documents are read for each draft of a project.
@lru_cache(maxsize=128)
def _numbers(pattern: re.Pattern[str], text: str) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for one in pattern.finditer(text):
        prefix, number = _read(one)
        found.setdefault(prefix, set()).add(number)
    return found


def _read(found: re.Match[str]) -> tuple[str, int]:
    prefix, number = (group for group in found.groups() if group)
    return prefix, int(number)
