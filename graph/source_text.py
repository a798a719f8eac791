"""A source's text as claims are held against it: its sentences, and which of them have a word."""

from collections.abc import Mapping, Sequence
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


# Some 10 MB. The same passages are shown again and again.
@lru_cache(maxsize=500)
def read_source(text: str) -> SourceText:
    """Read the text: some 0.4 ms for 1 500 characters, and at once if it was read lately."""
    found: list[Sentence] = []
    places: dict[str, list[int]] = {}
    for at, (start, end) in enumerate(sentences(text)):
        sentence = text[start:end]
        said = words(sentence)
        affirmed = set[str]()
        negated = set[str]()
        for word in said:
            forms = (word.form, *parts(word.form))
            (negated if word.negated else affirmed).update(forms)
        for form in affirmed | negated:
            places.setdefault(form, []).append(at)
        forms_said = tuple(word.form for word in said)
        only_negated = frozenset(negated - affirmed)
        found.append(Sentence(start, end, forms_said, only_negated, negations(sentence)))
    return SourceText(text, found, places)
