"""Finds the passages that bear on a question: in memory where the project is small."""

import asyncio
from collections.abc import Sequence
from heapq import nlargest
from operator import attrgetter
from typing import NamedTuple

from graph.errors import RetrievalFailed
from graph.knowledge.corpora import Corpora
from graph.knowledge.corpus import Corpus
from graph.knowledge.embeddings import OTHER_LENGTH, QUICK_COSINE, Embedder
from graph.knowledge.evidence import speaks_of
from graph.knowledge.passages import Outline, Passages
from graph.knowledge.places import Place, place_of
from graph.knowledge.questions import Question
from graph.knowledge.ranking import Hit, Passage, StoredChunk, fuse, passages
from graph.knowledge.reranking import CANDIDATES, Reranker
from graph.knowledge.static_model import StaticModel
from graph.knowledge.vectors import Vectors

_CANDIDATES, _SEEN = 200, 250
# What the best passages don't speak of, those after them hardly do.
_TELLING = 8


class _Ranked(NamedTuple):
    """Places, best first, the cosine of the nearest, and where the chunks are if in memory."""

    best: Sequence[tuple[Place, float]]
    nearest: float
    corpus: Corpus | None = None


class Searching:
    """Searches the stores, or what is in memory of them. Methods raise RetrievalFailed."""

    def __init__(
        self,
        vectors: Vectors,
        chunks: Passages,
        embedder: Embedder,
        static: StaticModel,
        reranker: Reranker | None,
    ) -> None:
        self._vectors = vectors
        self._passages = chunks
        self._embedder = embedder
        self._static = static
        self._reranker = reranker
        self._corpora = Corpora(chunks, vectors)

    def forget(self, project_id: str) -> None:
        """Let go of what is in memory of a project, which has changed."""
        self._corpora.forget(project_id)

    async def search(
        self,
        project_id: str,
        question: Question,
        limit: int,
        *,
        floor: bool,
        outline: Outline | None = None,
    ) -> list[Passage]:
        """Give the passages, best first; as `Library.search`."""
        outline = self._with_quick(outline or await self._passages.outline(project_id))
        if not outline.chunks:
            return []
        vector = await self._embedder.embed_query(question.whole)
        corpus = await self._corpora.of(project_id, outline)
        if corpus is None:
            ranked = await self._asked(project_id, question, outline, vector)
        else:
            ranked = _remembered(corpus, question, vector)
        found = await self._best(project_id, question, ranked, limit)
        if not floor or ranked.nearest >= self._embedder.near:
            return found
        return found if self._speak_of(question, found[:_TELLING]) else []

    async def nearest(
        self, project_id: str, vector: Sequence[float], quick: frozenset[str]
    ) -> list[Hit]:
        """Give the chunks whose vectors are near, best first; `quick` documents have quick ones."""
        found = await self._vectors.search(project_id, vector, _SEEN)
        hits = [_hit(record, cosine, quick) for record, cosine in found]
        return nlargest(_CANDIDATES, hits, key=attrgetter("cosine"))

    def _with_quick(self, outline: Outline) -> Outline:
        """The same, without quick vectors where the embedding model has none."""
        return outline if self._embedder.quick else outline._replace(quick=frozenset())

    async def _asked(
        self, project_id: str, question: Question, outline: Outline, vector: Sequence[float]
    ) -> _Ranked:
        matches, hits = await asyncio.gather(
            self._passages.match(project_id, question.terms, _CANDIDATES),
            self.nearest(project_id, vector, outline.quick),
        )
        return _Ranked(fuse(matches, hits), hits[0].cosine if hits else -1.0)

    async def _best(
        self, project_id: str, question: Question, ranked: _Ranked, limit: int
    ) -> list[Passage]:
        if self._reranker is None:
            return await self._shown(project_id, ranked, limit)
        found = await self._shown(project_id, ranked, max(limit, CANDIDATES))
        order = await self._reranker.order(question.whole, [passage.text for passage in found])
        return [found[at] for at in order[:limit]]

    async def _shown(self, project_id: str, ranked: _Ranked, limit: int) -> list[Passage]:
        """The best passages; more candidates are read where many are gone or stand in others."""
        reach = 2 * limit + 16
        while True:
            best = ranked.best[:reach]
            stored = await self._stored(project_id, ranked.corpus, [place for place, _ in best])
            found = passages(best, stored, limit)
            if len(found) == limit or reach >= len(ranked.best):
                return found
            reach *= 4

    async def _stored(
        self, project_id: str, corpus: Corpus | None, places: Sequence[Place]
    ) -> dict[Place, StoredChunk]:
        if corpus is not None:
            return corpus.around(places)
        return await self._passages.fetch(project_id, places)

    def _speak_of(self, question: Question, found: Sequence[Passage]) -> bool:
        texts = [f"{p.chunk.document_name} {p.chunk.heading}\n{p.text}" for p in found]
        return speaks_of(question.text, texts, self._static)


def _remembered(corpus: Corpus, question: Question, vector: Sequence[float]) -> _Ranked:
    if not corpus.can_compare(vector):
        raise RetrievalFailed(OTHER_LENGTH)
    best, nearest = corpus.ranked(question.terms, vector, _CANDIDATES, _SEEN)
    return _Ranked(best, nearest, corpus)


def _hit(record: str, cosine: float, quick: frozenset[str]) -> Hit:
    """A quick vector has nothing in its better half, and so a cosine that is smaller by that."""
    place = place_of(record)
    is_quick = place[0] in quick
    return Hit(place, cosine * QUICK_COSINE if is_quick else cosine, is_quick)
