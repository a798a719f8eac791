"""Reads the domain language of a project: its terms, and the words to avoid."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from graph.checks.form import folded
from graph.checks.outline import Outline, Table, outline_of
from graph.checks.phrases import Phrases, word_set, words_of

_TERM = word_set("term word concept expression")
DEFINITION = frozenset(["definition", "meaning", "what it means", "means", "explanation"])
_AVOID = frozenset(["avoid", "do not write", "do not use", "do not say", "word to avoid", "not"])
_INSTEAD = frozenset(
    ["write instead", "use instead", "say instead", "instead", "write", "use", "say", "preferred"]
)
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
    """The terms of a project, each with its definition, and the words to avoid."""

    definitions: list[Definition] = field(default_factory=list)
    terms: Phrases[Definition] = field(default_factory=Phrases)
    avoided: Phrases[Avoided] = field(default_factory=Phrases)
    words: set[str] = field(default_factory=set)


def language_of(text: str) -> Language:
    """Read a document of the type DOMAIN_LANGUAGE."""
    outline = outline_of(text)
    language = Language(definitions=list(definitions_in(outline)))
    for definition in language.definitions:
        language.terms.add(definition.term, definition)
    avoided = list(_avoided(outline))
    kept = Phrases[None]()
    for one in avoided:
        kept.add(one.instead, None)
    for one in avoided:
        if one.word not in language.terms and one.word not in kept:
            language.avoided.add(one.word, one)
    language.words = {word.text.casefold() for word in words_of(text)}
    return language


def definitions_in(outline: Outline) -> Iterator[Definition]:
    """The terms that a document defines in tables."""
    for table in outline.tables:
        columns = _columns(table, _TERM, DEFINITION)
        if columns is None:
            continue
        for row in table.rows:
            term, meaning = row.cells[columns[0]], row.cells[columns[1]]
            if _is_phrase(term) and meaning:
                yield Definition(term, meaning, row.line)


def _avoided(outline: Outline) -> Iterator[Avoided]:
    for table in outline.tables:
        columns = _columns(table, _AVOID, _INSTEAD)
        if columns is None:
            continue
        for row in table.rows:
            instead = row.cells[columns[1]]
            for word in row.cells[columns[0]].replace(" or ", ",").replace(";", ",").split(","):
                if _is_phrase(word) and instead:
                    yield Avoided(word.strip(" \"'“”‘’"), instead)


def _columns(table: Table, *names: frozenset[str]) -> list[int] | None:
    """The first column of each of the names; null where one is missing."""
    head = [folded(title) for title in table.head]
    found = [next((at for at, title in enumerate(head) if title in any_of), -1) for any_of in names]
    return None if -1 in found else found


def _is_phrase(cell: str) -> bool:
    return 0 < len(words_of(cell)) <= _MOST_WORDS and "[" not in cell and "(" not in cell
