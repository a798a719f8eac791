"""Reads the domain language of a project: its terms, and the words to avoid."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from graph.checks.misspellings import misspellings
from graph.checks.outline import Outline, Table, outline_of, plain
from graph.checks.phrases import Phrases, words_of

# Heads of columns, or how they begin.
_TERM = re.compile(r"\W*(?:terms?|words?|concepts?|expressions?)\b(?! to)", re.I)
_DEFINITION = re.compile(r"\W*(?:definitions?|meanings?|what it means|means|explanation)\b", re.I)
_AVOID = re.compile(
    r"\W*(?:(?:(?:words?|terms?) to )?avoid|(?:do not|don['’]t) (?:write|use|say)|instead of"
    r"|not\W*$)",
    re.I,
)
_INSTEAD = re.compile(
    r"\W*(?:(?:write|use|say)(?: this| instead)?\W*$|instead\W*$|prefer(?:red)?\b|(?:write|use) )",
    re.I,
)
_AVOID_HEADING = re.compile(r"\bavoid\b|\bnot (?:write|use|say)\b", re.I)
# As in "User → write player" and "Do not say user: say player".
_AVOID_ITEM = re.compile(
    r"\W{0,9}(?:(?:avoid|not|do not|don['’]t|never)\b)?(?: (?:write|use|say)\b)?([^→:;.–—]{1,60})"
    r"(?:(?:→|->|=>)\W{0,9}(?:write |use |say )?|[:;.–—]\W{0,9}(?:write|use|say)\b\W{0,9})"
    r"([^.,;:(\n\"”]{1,60})",
    re.I,
)
_OR = re.compile(r",|;|/|\bor\b")
_MOST_WORDS = 4


class Definition(NamedTuple):
    """A term and what it means, with the line of its definition."""

    term: str
    meaning: str
    line: int


class Avoided(NamedTuple):
    """A word to avoid, and what to write instead."""

    word: str
    instead: str


@dataclass(slots=True)
class Language:
    """The terms of a project, each with its definition, and the words to avoid.

    `misspelt` is likely misspellings of terms, each with its term; `words` is all words used.
    """

    terms: Phrases[Definition] = field(default_factory=Phrases)
    avoided: Phrases[Avoided] = field(default_factory=Phrases)
    misspelt: dict[str, str] = field(default_factory=dict)
    words: set[str] = field(default_factory=set)


# The same document is read for each draft of a project.
@lru_cache(maxsize=16)
def language_of(text: str) -> Language:
    """Read a document of the type DOMAIN_LANGUAGE."""
    outline = outline_of(text)
    language = Language()
    definitions = list(definitions_in(outline))
    for definition in definitions:
        language.terms.add(definition.term, definition)
    avoided = [*_avoided_in_tables(outline), *_avoided_in_lists(outline)]
    kept = Phrases[None]()
    for one in avoided:
        kept.add(one.instead, None)
    for one in avoided:
        if one.word not in language.terms and one.word not in kept:
            language.avoided.add(one.word, one)
    language.misspelt = misspellings(definition.term for definition in definitions)
    language.words = {word.text.casefold() for word in words_of(text)}
    return language


def definitions_in(outline: Outline) -> Iterator[Definition]:
    """The terms that a document defines in tables."""
    for table in outline.tables:
        columns = _columns(table, _TERM, _DEFINITION)
        if columns is None:
            continue
        for row in table.rows:
            term = row.cells[columns[0]].partition(" (")[0]
            meaning = row.cells[columns[1]]
            if _is_phrase(term) and meaning:
                yield Definition(term, meaning, row.line)


def is_definition(column: str) -> bool:
    """Whether a column of this head holds definitions."""
    return _DEFINITION.match(column) is not None


def _avoided_in_tables(outline: Outline) -> Iterator[Avoided]:
    for table in outline.tables:
        if columns := _columns(table, _AVOID, _INSTEAD):
            for row in table.rows:
                yield from _each(row.cells[columns[0]], row.cells[columns[1]])


def _avoided_in_lists(outline: Outline) -> Iterator[Avoided]:
    for prose in outline.prose:
        if prose.kind != "item" or not any(map(_AVOID_HEADING.search, prose.headings[1:])):
            continue
        if found := _AVOID_ITEM.match(plain(prose.text)):
            yield from _each(found[1], found[2])


def _each(words: str, instead: str) -> Iterator[Avoided]:
    instead = instead.strip(" \"'“”‘’")
    for word in _OR.split(words):
        if _is_phrase(word) and words_of(instead):
            yield Avoided(word.strip(" \"'“”‘’"), instead)


def _columns(table: Table, *heads: re.Pattern[str]) -> list[int] | None:
    """The first column of each of the heads; null where one is missing."""
    found = [
        next((at for at, title in enumerate(table.head) if head.match(title)), -1) for head in heads
    ]
    return None if -1 in found else found


def _is_phrase(cell: str) -> bool:
    return 0 < len(words_of(cell)) <= _MOST_WORDS and "[" not in cell and "(" not in cell
