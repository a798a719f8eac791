"""Tells equal vectors apart, which an index would link to each other only."""

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float32]

_NUDGE = np.float32(0.005)


def told_apart(ids: Sequence[str], vectors: Sequence[Sequence[float]]) -> Matrix:
    """Move each vector a little, in a direction of its own that follows from its id.

    Equal vectors link to each other only: where a project has a thousand copies of one text, the
    index may lose nearly all other texts. The cosine changes by about `_NUDGE` at most.
    """
    exact = np.asarray(vectors, dtype=np.float32)
    nudges = np.asarray([_direction(one, exact.shape[1]) for one in ids], dtype=np.float32)
    lengths = np.linalg.norm(exact, axis=1, keepdims=True)
    apart: Matrix = exact + _NUDGE * lengths * nudges
    return apart


def _direction(chunk_id: str, dimensions: int) -> npt.NDArray[np.float64]:
    seed = hashlib.blake2b(chunk_id.encode(), digest_size=8).digest()
    direction = np.random.default_rng(int.from_bytes(seed)).standard_normal(dimensions)
    return direction / np.linalg.norm(direction)
