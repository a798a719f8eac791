"""WordLlama: one vector for each token, no network to compute; the weights come in its package."""

import importlib
import logging
from functools import cache, lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

DIMENSIONS = 256


class StaticModel:
    """Embeds texts at some thousand passages a second; the first one blocks for some 0.7 s."""

    name = "wordllama-l2-supercat-256"

    def __init__(self) -> None:
        self._model = _loaded()
        self.word = lru_cache(maxsize=50_000)(self._word)

    def embed(self, texts: list[str]) -> Matrix:
        """Unit vectors, one row a text."""
        if not texts:
            return np.zeros((0, DIMENSIONS), dtype=np.float32)
        return unit(np.asarray(self._model.embed(texts), dtype=np.float32))

    def _word(self, word: str) -> tuple[Matrix, float]:
        """A word's unit vector, and how much it tells: from some 5 (`told`) to 40 (`prometheus`).

        The model gives rare and specific tokens long vectors, since it averages them.
        """
        tokens = self._model.tokenizer.encode(word, add_special_tokens=False).ids
        vectors = self._model.embedding[tokens]
        told = float(np.linalg.norm(vectors, axis=1).sum())
        return unit(vectors.sum(axis=0, keepdims=True))[0], told


def unit(vectors: Matrix) -> Matrix:
    """The rows of `vectors` at length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Matrix = vectors / np.maximum(lengths, 1e-12)
    return scaled


@cache
def _loaded() -> Any:  # noqa: ANN401 - WordLlama has no types
    """The weights, which nobody changes: once for all services of a process."""
    wordllama = _import_wordllama()
    # WordLlama looks for its tokenizer in the wrong folder of its package, and then in
    # the cache; so the package is given as the cache.
    package = Path(str(wordllama.__file__)).parent
    return wordllama.WordLlama.load(cache_dir=package, disable_download=True)


def _import_wordllama() -> ModuleType:
    """Import it without what it does on import: `logging.basicConfig` for the whole process."""
    placeholder = logging.NullHandler()
    logging.root.addHandler(placeholder)  # basicConfig leaves a root with a handler alone
    try:
        return importlib.import_module("wordllama")
    finally:
        logging.root.removeHandler(placeholder)
