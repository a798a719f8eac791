"""Which small projects are in memory, each as it is in the stores at this moment."""

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from graph.knowledge.corpus import Corpus
from graph.knowledge.embeddings import QUICK_COSINE
from graph.knowledge.passages import Outline, Passages
from graph.knowledge.places import place_of
from graph.knowledge.vectors import Vectors

MOST_CHUNKS = 1000
"""Of a project that is kept in memory, where a chunk takes some 5 kB."""

_MOST_CHUNKS_IN_ALL = 20_000


class _Kept(NamedTuple):
    outline: Outline
    corpus: Corpus | None


class Corpora:
    """Small projects that were searched lately.

    A project's outline, which each search reads anew, tells whether what is kept is still true:
    other processes change projects too.
    """

    def __init__(self, passages: Passages, vectors: Vectors) -> None:
        self._passages = passages
        self._vectors = vectors
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._reading: dict[str, object] = {}

    async def of(self, project_id: str, outline: Outline) -> Corpus | None:
        """Give the project as the outline has it, or None: then the stores have to be asked.

        So it is for a project that is large or not whole, and while another search reads it.
        Raises RetrievalFailed when the stores do not answer.
        """
        kept = self._kept.get(project_id)
        if kept is not None and kept.outline == outline:
            self._kept.move_to_end(project_id)
            return kept.corpus
        if outline.chunks > MOST_CHUNKS or project_id in self._reading:
            return None
        this = self._reading[project_id] = object()
        try:
            corpus = await self._read(project_id, outline)
            if self._reading.get(project_id) is this:
                self._keep(project_id, _Kept(outline, corpus))
        finally:
            if self._reading.get(project_id) is this:
                del self._reading[project_id]
        return corpus

    def forget(self, project_id: str) -> None:
        """Read the project anew when it is next searched."""
        self._kept.pop(project_id, None)
        self._reading.pop(project_id, None)

    async def _read(self, project_id: str, outline: Outline) -> Corpus | None:
        chunks, postings = await self._passages.everything(project_id, MOST_CHUNKS)
        if len(chunks) > MOST_CHUNKS:
            return None
        vectors = await self._vectors.everything(project_id, 2 * MOST_CHUNKS) if chunks else {}
        scales = dict.fromkeys(outline.quick, QUICK_COSINE)
        try:
            return await asyncio.to_thread(
                Corpus,
                chunks,
                postings,
                {place_of(record): vector for record, vector in vectors.items()},
                outline.chunks,
                scales,
            )
        except KeyError:
            # Something is missing, or was changed while it was read.
            return None

    def _keep(self, project_id: str, kept: _Kept) -> None:
        self._kept[project_id] = kept
        self._kept.move_to_end(project_id)
        held = sum(_size(one) for one in self._kept.values())
        while held > _MOST_CHUNKS_IN_ALL:
            held -= _size(self._kept.popitem(last=False)[1])


def _size(kept: _Kept) -> int:
    """In chunks; what is known of a project that is not kept counts a little too."""
    return 10 + len(kept.corpus or ())
