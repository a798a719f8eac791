"""Whether any passage speaks of what a question asks: the floor under which nothing is shown.

Scores alone do not tell: what is asked of a subject that the documents have, but of a side of it
that they don't, scores as high as what they answer. What tells is which of the question's weighty
words no passage covers, not even by a word of like meaning.
"""

import re
from collections.abc import Sequence

import numpy as np

from graph.knowledge.static_model import Matrix, StaticModel
from graph.knowledge.terms import terms, words

# Weights are lengths of word vectors: `told` has 5, `grid` 19, `prometheus` 39.
_LIGHT, _HEAVIEST = 9.0, 35.0
_LEAST_OF_A_NAME = 25.0
_MISSING = 26.0
_COVERED = 0.7
# Cosines of word vectors: below, two words have nothing in common; above, they mean the same.
_UNLIKE, _ALIKE = 0.3, 0.7
_LONG_QUESTION = 40

_TOKEN = re.compile(r"-*\w(?:[\w.\-/]*\w)?")
_SENTENCE_START = re.compile(r"(?:^|[.!?]\s+)\W*\Z")


def speaks_of(question: str, passages: Sequence[str], model: StaticModel) -> bool:
    """Whether the passages cover the question's weighty words, or nearly so.

    A long question, which tells much beside what it asks, is always covered. Blocks for some ms.
    """
    asked = _weighty(question, model)
    if len(asked) > _LONG_QUESTION:
        return True
    text = "\n".join(passages)
    whole = f" {' '.join(words(text))} "
    known = list(dict.fromkeys(words(text)))
    stems = set(terms(text))
    vectors = np.array([model.word(word)[0] for word in known])
    covered = [_covered(word, is_name, whole, stems, vectors, model) for word, is_name, _ in asked]
    weights = np.array([weight for *_, weight in asked])
    missing = float((weights * (1 - np.array(covered))).sum()) if asked else 0.0
    return missing < _MISSING or missing < (1 - _COVERED) * float(weights.sum())


def _weighty(question: str, model: StaticModel) -> list[tuple[str, bool, float]]:
    """The question's words: each with whether it is a name, and its weight."""
    found: dict[str, tuple[str, bool, float]] = {}
    for match in _TOKEN.finditer(question):
        token = match.group()
        at_start = bool(_SENTENCE_START.search(question[: match.start()]))
        for word in words(token)[:1]:
            is_name = _is_name(token, at_start)
            told = model.word(word)[1]
            weight = max(told, _LEAST_OF_A_NAME) if is_name else max(told - _LIGHT, 0.0)
            found.setdefault(word, (word, is_name, min(weight, _HEAVIEST)))
    return list(found.values())


def _is_name(token: str, at_start: bool) -> bool:
    """Names, identifiers, versions and compounds are covered by themselves only."""
    inner = token.strip("-")
    capital = inner[:1].isupper() and not at_start
    return capital or inner[1:] != inner[1:].lower() or not inner.isalpha()


def _covered(
    word: str, is_name: bool, whole: str, stems: set[str], vectors: Matrix, model: StaticModel
) -> float:
    if f" {word} " in whole or set(terms(word)[:1]) <= stems:
        return 1.0
    if is_name or not len(vectors):
        return 0.0
    nearest = float((vectors @ model.word(word)[0]).max())
    return min(1.0, max(0.0, (nearest - _UNLIKE) / (_ALIKE - _UNLIKE)))
