"""A source's text as claims are held against it: its sentences, and which of them have a word."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from graph.sentences import sentences
from graph.words import negations, parts, words


class Sentence(NamedTuple):
    """Where a sentence stands, and what it says: the forms of its words, in order.

    `negated` are those that are negated wherever they stand in it; `negations`: how often it
    says "not".
    """

    start: int
    end: int
    forms: Sequence[str]
    negated: frozenset[str]
    negations: int


class SourceText(NamedTuple):
    """`places` tells which sentences (from 0) have a form, or a path with it as a part."""

    text: str
    sentences: Sequence[Sentence]
    places: Mapping[str, Sequence[int]]

    def has(self, form: str, at: int) -> bool:
        """Whether the sentence `at` has the form."""
        return at in self.places.get(form, ())

    def words_of(self, first: int, last: int) -> str:
        """The text from the sentence `first` to the sentence `last`."""
        return self.text[self.sentences[first].start : self.sentences[last].end]


# Some 10 MB for passages of 1 500 characters. The same ones are shown again and again.
@lru_cache(maxsize=500)
def read_source(text: str) -> SourceText:
    """Read the text: some 0.6 ms for 1 500 characters, and at once if it was read lately."""
    found: list[Sentence] = []
    places: dict[str, list[int]] = {}
    for at, (start, end) in enumerate(sentences(text)):
        sentence = text[start:end]
        said = words(sentence)
        forms = _with_parts(word.form for word in said)
        affirmed = _with_parts(word.form for word in said if not word.negated)
        for form in forms:
            places.setdefault(form, []).append(at)
        negated = frozenset(forms - affirmed)
        in_order = [word.form for word in said]
        found.append(Sentence(start, end, in_order, negated, negations(sentence)))
    return SourceText(text, found, places)


def _with_parts(forms: Iterable[str]) -> set[str]:
    whole = set(forms)
    return whole.union(*map(parts, whole))
