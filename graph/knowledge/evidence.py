"""Whether any passage speaks of what a question asks: the floor under which nothing is shown.

Scores alone do not tell: what is asked of a subject that the documents have, but of a side of it
that they don't, scores as high as what they answer. What tells is which of the question's weighty
words no passage covers, not even by a word of like meaning.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from graph.knowledge.static_model import Matrix, StaticModel
from graph.knowledge.terms import without_contractions, words
from graph.words import stem

# Weights are lengths of word vectors: `told` has 5, `grid` 19, `prometheus` 39.
_LIGHT, _HEAVIEST = 9.0, 35.0
_LEAST_OF_A_NAME = 27.0
_MISSING = 26.0
_COVERED = 0.7
# Cosines of word vectors: below, two words have nothing in common; above, they mean the same.
_UNLIKE, _ALIKE = 0.3, 0.7
_LONG_QUESTION = 40
_LONGEST_ACRONYM = 4

# A clause asks that begins with such a word; some words may have two before them ("for how long").
_QUESTION_WORDS = frozenset(
    ["what", "which", "who", "whom", "whose", "when", "where", "why", "how"]
)
_BEFORE = 2
_AUXILIARIES = frozenset(re.findall(r"\w+", """
    am are can could did do does had has have is may might must shall should was were will would
"""))  # fmt: skip
_REQUESTS = frozenset(re.findall(r"\w+", """
    compare define describe explain find give list name show summarise summarize tell
"""))  # fmt: skip
_TOKEN = re.compile(r"(?<!-)-*+\w(?:[\w.\-/]*\w)?")
_SENTENCE_END = re.compile(r"[.!?]\s")
_CLAUSE_END = re.compile(r"[.!?:;,–—\n]|\s-")


def speaks_of(question: str, passages: Sequence[str], model: StaticModel) -> bool:
    """Whether the passages cover the question's weighty words, or nearly so.

    A long question, which tells much beside what it asks, is always covered. Blocks for some ms.
    """
    asked = _weighty(question, model)
    if not asked or len(asked) > _LONG_QUESTION:
        return True
    low = "\n".join(passages).lower()
    if sum(word.weight for word in asked if not _stands_in(word, low)) < _MISSING:
        return True
    read = _Read(passages, model)
    missing = sum(word.weight * (1 - read.covers(word)) for word in asked)
    return missing < _MISSING or missing < (1 - _COVERED) * sum(word.weight for word in asked)


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of a question. A name is covered by itself only, not by what is like it.

    `asks`: whether it stands in a question (2), a request (1) or neither.
    """

    text: str
    is_name: bool
    weight: float
    asks: int


def _stands_in(word: _Word, text: str) -> bool:
    """Whether some word of `text` begins like it: a quick look that is right nearly always."""
    begins = word.text if word.is_name else stem(word.text)
    at = text.find(begins)
    while at > 0 and (text[at - 1].isalnum() or text[at - 1] == "_"):
        at = text.find(begins, at + 1)
    return at >= 0


class _Read:
    """What the passages say, word by word."""

    def __init__(self, passages: Sequence[str], model: StaticModel) -> None:
        self._model = model
        known = [_words_and_stems(text) for text in passages]
        self._words = frozenset[str]().union(*(words for words, _ in known))
        self._stems = frozenset[str]().union(*(stems for _, stems in known))

    @cached_property
    def _vectors(self) -> Matrix:
        return np.array([self._model.word(word)[0] for word in self._words])

    def covers(self, word: _Word) -> float:
        """From 0 to 1."""
        if word.text in self._words or stem(word.text) in self._stems:
            return 1.0
        if word.is_name or not self._words:
            return float(any(word.text.removesuffix(end) in self._words for end in ("s", "es")))
        nearest = float((self._vectors @ self._model.word(word.text)[0]).max())
        return min(1.0, max(0.0, (nearest - _UNLIKE) / (_ALIKE - _UNLIKE)))


@lru_cache(maxsize=500)
def _words_and_stems(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """What a passage says; the same ones are shown again and again."""
    found = frozenset(words(text))
    return found, frozenset(map(stem, found))


def _weighty(question: str, model: StaticModel) -> list[_Word]:
    """The words of what asks in a question, each once; of a long one not all.

    "Hi Ada" and "as JSON, please" ask nothing. Where no clause asks, all words count.
    """
    question = without_contractions(question)
    found: dict[str, _Word] = {}
    end = at = asks = 0
    for match in _TOKEN.finditer(question):
        at_start = not end or _SENTENCE_END.search(question, end, match.start()) is not None
        is_first = not end or _CLAUSE_END.search(question, end, match.start()) is not None
        at = 0 if is_first else at + 1
        asks = max(0 if at_start else asks, _asks(match.group().lower(), at))
        end = match.end()
        word = _word_of(match.group(), at_start, asks, model)
        if word and (word.text not in found or found[word.text].asks < asks):
            found[word.text] = word
        if len(found) > _LONG_QUESTION:
            return list(found.values())
    most = max((word.asks for word in found.values()), default=0)
    return [word for word in found.values() if word.asks == most]


def _asks(word: str, at: int) -> int:
    """Of a clause with `word` at place `at`: 2 for a question, 1 for a request, 0 for neither."""
    if word in _QUESTION_WORDS and at <= _BEFORE:
        return 2
    if at:
        return 0
    return 2 if word in _AUXILIARIES else int(word in _REQUESTS)


def _word_of(token: str, at_start: bool, asks: int, model: StaticModel) -> _Word | None:
    """The word of `token`; null for one that every text has."""
    text = next(iter(words(token)), None)
    if text is None:
        return None
    is_name, told = _is_name(token, at_start), model.word(text)[1]
    weight = max(told, _LEAST_OF_A_NAME) if is_name else max(told - _LIGHT, 0.0)
    return _Word(text, is_name, min(weight, _HEAVIEST), asks)


def _is_name(token: str, at_start: bool) -> bool:
    """Names, identifiers, versions and compounds."""
    inner = token.strip("-")
    if inner.isupper() and inner.isalpha() and len(inner) > _LONGEST_ACRONYM:
        # Shouted, rather.
        return False
    capital = inner[:1].isupper() and not at_start
    return capital or inner[1:] != inner[1:].lower() or not inner.isalpha()
