"""Checks references to items that the project's documents number, such as FR-12 or R3."""

import re
from collections.abc import Iterator, Mapping
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
_FEWEST, _FEWEST_OWN = 2, 3
# T-20417 is none of the threats T-1 to T-9.
_FAR = 100


class _Series(NamedTuple):
    """The numbers that a document gives to items of one prefix, and those that it mentions."""

    owners: list[str]
    defined: set[int]
    known: set[int]


def number_findings(text: str, outline: Outline, kind: Kind, project: Project) -> Iterator[Finding]:
    """Items that the draft names and that no document which numbers such items has."""
    series = _series(kind, project)
    own = _own(text, series)
    for prefix, numbers in own.items():
        if "-" in prefix and prefix not in series and _is_series(prefix, numbers, _FEWEST_OWN):
            series[prefix] = _Series(["this document"], numbers, numbers)
    for prose in outline.prose if series else ():
        for found in _MENTION.finditer(prose.text):
            prefix, number = _read(found)
            one = series.get(prefix)
            if one is None or number in one.known or number in own.get(prefix, ()):
                continue
            low, high = min(one.defined), max(one.defined)
            if number >= _FAR * high:
                continue
            owners = " and ".join(file_name(name) for name in one.owners[:2])
            message = (
                f"There is no {found[0]} in {owners}, where {len(one.defined)} are numbered,"
                f" from {prefix}{low} to {prefix}{high}; name one of those, or add it there."
            )
            yield Finding("broken_reference", message, prose.line_at(found.start()))


def _own(text: str, series: Mapping[str, _Series]) -> dict[str, set[int]]:
    """The numbers that the draft gives, rather than those of another document that it lists.

    Prefixes of one letter always count as given: two documents may both number from R1.
    """
    own = {}
    for prefix, numbers in _numbers(_DEFINITION, text).items():
        defined = series[prefix].defined if prefix in series else set[int]()
        lists = "-" in prefix and 2 * len(numbers & defined) >= len(numbers)
        if not lists or len(numbers) >= len(defined):
            own[prefix] = numbers
    return own


def _is_series(prefix: str, numbers: set[int], fewest: int) -> bool:
    return len(numbers) >= fewest and prefix not in _STANDARDS


def _series(kind: Kind, project: Project) -> dict[str, _Series]:
    """Prefix to series, of all documents but the former version of the draft."""
    found: dict[str, _Series] = {}
    for name, text in project.documents.items():
        if file_name(name) == file_name(kind.output_path):
            continue
        mentioned: dict[str, set[int]] | None = None
        for prefix, numbers in _numbers(_DEFINITION, text).items():
            if not _is_series(prefix, numbers, _FEWEST):
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
