"""A small project's whole index in memory, which is searched without asking a store for it."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from graph.knowledge.places import Place
from graph.knowledge.postings import Posting, highest, looked_up, rarest, rarities
from graph.knowledge.ranking import REACH, StoredChunk, fused, nearness
from graph.knowledge.static_model import Matrix, unit

_STEPS = range(-REACH, REACH + 1)


class Ranked(NamedTuple):
    """Places with their scores, best first, and the cosine of the nearest one."""

    best: list[tuple[Place, float]]
    nearest: float


class Corpus:
    """The chunks of a project, its terms (`postings`, by term) and its vectors.

    `total` is how many chunks count for how rare a term is, `scales` what the cosines of a
    document are multiplied with where its vectors are quick ones. Raises KeyError where a chunk has
    no vector, or a term stands in none of the chunks.
    """

    def __init__(
        self,
        chunks: Sequence[StoredChunk],
        postings: Sequence[Posting],
        vectors: Mapping[Place, Sequence[float]],
        total: int,
        scales: Mapping[str, float],
    ) -> None:
        self._stored = {chunk.place: chunk for chunk in chunks}
        self._places = list(self._stored)
        self._total = total
        self._scales = np.array([scales.get(place[0], 1.0) for place in self._places])
        self._is_quick = self._scales != 1.0
        rows = np.array([vectors[place] for place in self._places], dtype=np.float32)
        self._vectors: Matrix = unit(rows) if self._places else rows
        self._spans: dict[str, slice] = {}
        self._at, self._weights = self._read(postings)

    def __len__(self) -> int:
        return len(self._places)

    def can_compare(self, vector: Sequence[float]) -> bool:
        """Whether `vector` is as long as those of the chunks."""
        return not self._places or self._vectors.shape[1] == len(vector)

    def ranked(
        self, asked: dict[str, float], vector: Sequence[float], candidates: int, seen: int
    ) -> Ranked:
        """Rank the chunks as `fuse` does, by the terms asked for and by nearness.

        Of the `seen` nearest the `candidates` best count, and as many of those with the terms.
        """
        if not self._places:
            return Ranked([], -1.0)
        scores = self._scores(asked)
        matched = highest(scores, candidates)
        near, cosines = self._nearest(vector, candidates, seen)
        scores[near] += nearness(cosines, self._is_quick[near])
        both = np.array([*dict.fromkeys([*matched.tolist(), *near.tolist()])])
        order = both[np.argsort(-scores[both], kind="stable")]
        places = [self._places[at] for at in order.tolist()]
        return Ranked([*zip(places, fused(scores[order]).tolist(), strict=True)], float(cosines[0]))

    def around(self, places: Sequence[Place]) -> dict[Place, StoredChunk]:
        """The chunks at `places` and those that stand near them, as `Passages.fetch` gives them."""
        near = {(document, at + step) for document, at in places for step in _STEPS}
        return {place: self._stored[place] for place in near if place in self._stored}

    def _scores(self, asked: dict[str, float]) -> npt.NDArray[np.float64]:
        """The score of each chunk by the terms in it."""
        asked = looked_up(asked)
        spans = {term: self._spans[term] for term in asked if term in self._spans}
        if not spans:
            return np.zeros(len(self._places))
        counts = {term: span.stop - span.start for term, span in spans.items()}
        rarity = rarities(asked, counts, self._total)
        terms = rarest(counts)
        at = np.concatenate([self._at[spans[term]] for term in terms])
        weights = np.concatenate([self._weights[spans[term]] * rarity[term] for term in terms])
        return np.bincount(at, weights, len(self._places)).astype(np.float64)

    def _nearest(
        self, vector: Sequence[float], candidates: int, seen: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The chunks with the nearest vectors and their cosines, best first."""
        asked = unit(np.array([vector], dtype=np.float32))[0]
        cosines = (self._vectors @ asked).astype(np.float64)
        near = np.argsort(-cosines, kind="stable")[:seen]
        scaled = cosines[near] * self._scales[near]
        best = np.argsort(-scaled, kind="stable")[:candidates]
        return near[best], scaled[best]

    def _read(
        self, postings: Sequence[Posting]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """For each entry of each term, which chunk it stands in and its weight."""
        number = {place: at for at, place in enumerate(self._places)}
        at: list[int] = []
        for term, rows in groupby(postings, key=attrgetter("term")):
            start = len(at)
            for row in rows:
                positions = np.frombuffer(row.positions, dtype="<i4").tolist()
                at += [number[row.document_id, position] for position in positions]
            self._spans[term] = slice(start, len(at))
        weights = np.frombuffer(b"".join(row.weights for row in postings), dtype="u1")
        return np.array(at, dtype=np.int64), weights.astype(np.float64)
