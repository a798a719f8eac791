"""Finds technologies in prose, by the names in `technologies.toml`."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from graph.checks.outline import MASK, Prose
from graph.checks.phrases import Match, Phrases, Word, is_name_of_code, word_set, words_of

_DATA = Path(__file__).with_name("technologies.toml")
_CARE = ("exact", "mid_sentence", "ambiguous")
_GAP = re.compile(r"[ \n./-]{0,2}")
_STARTS = re.compile(r"(?:\A|[.!?:\n])[\s*_\"'“(]*\Z")
_SIGNS_BEFORE = re.compile(
    r"\b(?:written|built|coded|implemented|programmed|developed|services?|modules?|backend|code) in"
    r"|\b(?:built|managed|deployed|configured|provisioned|made) (?:with|on|by)"
    r"|\b(?:using|uses?|runs? on|based on|powered by|served by|hosted on|an?)",
    re.IGNORECASE,
)
_SIGNS_AFTER = word_set(
    "framework application app service services server servers backend frontend client module"
    " modules code library package program programs version project cluster database api"
    " compiler binary binaries developer developers recipe recipes playbook runtime test tests"
    " component components template templates boot stack"
)


class Technology(NamedTuple):
    """A technology and the categories that it belongs to."""

    name: str
    category: str


@dataclass(frozen=True, slots=True)
class _Name:
    technology: Technology
    spelling: str
    care: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All technologies known here.

    `nouns` are what categories are called; `together` are the categories whose technologies do
    not exclude each other; `brings` says what comes with a technology.
    """

    names: Phrases[_Name]
    nouns: Phrases[tuple[str, ...]]
    together: frozenset[str]
    brings: dict[str, list[str]]


class Named(NamedTuple):
    """A technology named in a text, and where."""

    technology: Technology
    start: int
    end: int


@cache
def catalogue() -> Catalogue:
    """What `technologies.toml` says."""
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    brings = data.pop("brings")
    names, nouns = Phrases[_Name](), dict[str, tuple[str, ...]]()
    for category, about in data.items():
        care = {name: key for key in _CARE for name in about.get(key, [])}
        for line in about["technologies"]:
            spellings = line.split("|")
            technology = Technology(spellings[0], category)
            for one in spellings:
                names.add(one, _Name(technology, one, care.get(one, "")))
        for noun in about.get("nouns", []):
            nouns[noun] = (*nouns.get(noun, ()), category)
    phrases = Phrases[tuple[str, ...]]()
    for noun, categories in nouns.items():
        phrases.add(noun, categories)
    together = frozenset(name for name, about in data.items() if about.get("together"))
    return Catalogue(names, phrases, together, brings)


def technologies_in(prose: Prose, *, trusting: bool = False) -> Iterator[Named]:
    """The technologies that a text names.

    A name that is an English word too needs a sign that the technology is meant; `trusting`
    takes every name in the right spelling, for places where only technologies stand.
    """
    words = words_of(prose.text)
    for match in catalogue().names.find(words):
        found = words[match.first : match.last]
        start, end = found[0].start, found[-1].end
        if not _spelt(prose.text, found, match.value):
            continue
        if trusting or _is_meant(prose, words, match):
            yield Named(match.value.technology, start, end)


def _spelt(text: str, found: Sequence[Word], name: _Name) -> bool:
    due = words_of(name.spelling)
    for word, wanted in zip(found, due, strict=True):
        same = word.text == wanted.text if name.care else word.text.lower() == wanted.text.lower()
        if not same:
            return False
    if name.spelling.startswith(".") and text[found[0].start - 1 : found[0].start] != ".":
        return False
    gaps = (text[one.end : two.start] for one, two in zip(found, found[1:], strict=False))
    return all(_GAP.fullmatch(gap) for gap in gaps)


def _is_meant(prose: Prose, words: Sequence[Word], match: Match[_Name]) -> bool:
    text, name = prose.text, match.value
    start, end = words[match.first].start, words[match.last - 1].end
    if is_name_of_code(text, start, end):
        return False
    before = text[max(start - 40, 0) : start]
    if name.care in ("", "exact"):
        return True
    if text.strip(f" *_.{MASK}") == name.spelling:
        return name.care == "mid_sentence" or "technolog" in prose.column.lower()
    if name.care == "mid_sentence" and not _STARTS.search(before):
        return True
    return _has_sign(text, before, end, words, match)


def _has_sign(text: str, before: str, end: int, words: Sequence[Word], match: Match[_Name]) -> bool:
    after = words[match.last] if match.last < len(words) else None
    if after and after.text in _SIGNS_AFTER and not text[end : after.start].strip(" \n*_"):
        return True
    leading = before.rstrip(" \n*_")
    return any(found.end() == len(leading) for found in _SIGNS_BEFORE.finditer(leading)) and (
        not leading.lower().endswith((" a", " an")) or after is None
    )
