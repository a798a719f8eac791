"""Makes what is searched anew from the chunks in Postgres, also for another embedding model."""

from collections.abc import Callable, Sequence

from graph.knowledge.chunking import Chunk
from graph.knowledge.embeddings import Embedder
from graph.knowledge.passages import Passages
from graph.knowledge.places import record_of
from graph.knowledge.vectors import Vectors

Progress = Callable[[str, int, int], None]
"""Told of a stage, what of it is done, and the total."""


class Rebuilding:
    """Fills new collections beside those that are searched, then puts them in their place.

    A document is found all the while, in the old collection or in the new one; one that becomes
    indexed in the moment of the change is found some seconds later. Methods raise RetrievalFailed.
    """

    def __init__(self, vectors: Vectors, passages: Passages, embedder: Embedder) -> None:
        self._vectors = vectors
        self._passages = passages
        self._embedder = embedder

    async def rebuild(self, project_id: str, progress: Progress) -> None:
        """Rebuild a project; `progress` is called with `embedding`, chunks done and the total."""
        fresh = self._vectors.anew()
        await fresh.delete_project(project_id)
        done: set[str] = set()
        while await self._fill(fresh, project_id, done, progress):
            pass
        await self._vectors.replace(project_id)
        while await self._fill(self._vectors, project_id, done, progress):
            pass
        for gone in done - (await self._passages.indexed_documents(project_id)).keys():
            await self._vectors.delete_document(project_id, gone)
        await self._passages.touch(project_id)

    async def _fill(
        self, vectors: Vectors, project_id: str, done: set[str], progress: Progress
    ) -> int:
        """Add the documents that are not in `done` yet, which they then are; gives how many."""
        documents = await self._passages.indexed_documents(project_id)
        missing = {one: chunks for one, chunks in documents.items() if one not in done}
        total, before = sum(missing.values()), 0
        for document_id, chunks in missing.items():
            await self._add(vectors, project_id, document_id)
            done.add(document_id)
            before += chunks
            progress("embedding", before, total)
        return len(missing)

    async def _add(self, vectors: Vectors, project_id: str, document_id: str) -> None:
        chunks = await self._passages.chunks(document_id)
        await self._passages.store_terms(project_id, document_id, chunks)
        step = self._embedder.batch_size
        for start in range(0, len(chunks), step):
            batch = chunks[start : start + step]
            await add_chunks(vectors, self._embedder, project_id, document_id, batch)
        await self._passages.mark_refined(document_id)


async def add_chunks(
    vectors: Vectors,
    embedder: Embedder,
    project_id: str,
    document_id: str,
    chunks: Sequence[Chunk],
    *,
    quick: bool = False,
) -> None:
    """Embed chunks of a document and add them to `vectors`; raises RetrievalFailed."""
    embedded = await embedder.embed_documents([chunk.searchable for chunk in chunks], quick=quick)
    records = [record_of((document_id, chunk.position)) for chunk in chunks]
    await vectors.add(project_id, document_id, records, embedded)
