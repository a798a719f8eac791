"""A project's documents: put in, found again by a question, and forgotten."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID, uuid5

from graph.errors import DocumentTooLarge
from graph.knowledge.chunking import Chunk
from graph.knowledge.embeddings import Embedder, local_embeddings, remote_embeddings
from graph.knowledge.passages import Passages, Surroundings
from graph.knowledge.reading import LIMITS_ALONE, Reading, read
from graph.knowledge.vectors import Vectors
from graph.postgres import Pool
from graph.settings import PipelineSettings
from graph.state import Source

Progress = Callable[[str, int, int], None]

# Embedding takes threads from the same few that searching needs.
_INDEXING_AT_ONCE = 2
# Reading takes memory, up to `LIMITS.memory` each.
_READING_AT_ONCE = 2
# Chroma Cloud gives no more at once.
_MOST_CANDIDATES = 300


class Library:
    """What is known about the documents: vectors to search, text to cite.

    Methods raise RetrievalFailed when a part of it does not answer, and ValueError for an id
    that is not a UUID.
    """

    def __init__(self, vectors: Vectors, passages: Passages, embedder: Embedder) -> None:
        self._vectors = vectors
        self._passages = passages
        self._embedder = embedder
        self._room = asyncio.Semaphore(_INDEXING_AT_ONCE)
        self._reading = asyncio.Semaphore(_READING_AT_ONCE)
        self._alone = asyncio.Lock()

    async def search(self, project_id: str, question: str, *, limit: int) -> list[Source]:
        """Give the passages nearest to the question, best first, `limit` at most."""
        scored = await self.search_scored(project_id, question, limit=limit)
        return [source for source, _ in scored]

    async def search_scored(
        self, project_id: str, question: str, *, limit: int
    ) -> list[tuple[Source, float]]:
        """Search, and give each passage with its cosine similarity (-1 to 1).

        Only indexed documents count. A blank question gives nothing.
        """
        if not question.strip() or limit < 1:
            return []
        vector = await self._embedder.embed_query(question)
        candidates = min(2 * limit, _MOST_CANDIDATES)
        while True:
            hits = await self._vectors.search(project_id, vector, candidates)
            scored = await self._readable(project_id, hits)
            if len(scored) >= limit or len(hits) < candidates or candidates >= _MOST_CANDIDATES:
                return scored[:limit]
            # The nearest belong to documents that are not indexed yet, or gone already.
            candidates = min(5 * candidates, _MOST_CANDIDATES)

    async def surroundings(self, chunk_id: str) -> Surroundings | None:
        """Give a chunk with the text around it; an unknown id gives None."""
        return await self._passages.surroundings(chunk_id)

    async def read(self, data: bytes, name: str) -> Reading:
        """Read a file in a process; raises UnsupportedDocument and UnreadableDocument.

        One that needs much memory is read once more while no other is, in the time that is left.
        """
        async with self._reading:
            began = time.monotonic()
            try:
                return await read(data, name)
            except DocumentTooLarge:
                left_s = LIMITS_ALONE.seconds - (time.monotonic() - began)
        async with self._alone, self._reading, self._reading:
            return await read(data, name, replace(LIMITS_ALONE, seconds=max(left_s, 1)))

    async def index(
        self,
        project_id: str,
        document_id: str,
        chunks: Sequence[Chunk],
        *,
        progress: Progress | None = None,
    ) -> int:
        """Make a document searchable and give the number of its chunks; repeating is harmless.

        It is found once its row says `indexed`. `progress` is called with the stage
        (`storing`, `embedding`), what is done and the total.
        """
        report = progress or _silent
        async with self._room:
            numbered = _numbered(document_id, chunks)
            report("storing", 0, len(chunks))
            await self._passages.store(project_id, document_id, numbered)
            report("storing", len(chunks), len(chunks))
            texts = [(chunk_id, chunk.text) for chunk_id, chunk in numbered]
            await self._embed(project_id, document_id, texts, report)
        return len(chunks)

    async def forget_document(self, project_id: str, document_id: str) -> None:
        """Delete a document's vectors; its text goes with its row."""
        await self._vectors.delete_document(project_id, document_id)

    async def forget_project(self, project_id: str) -> None:
        """Delete a project's vectors; its text goes with its rows."""
        await self._vectors.delete_project(project_id)

    async def ping(self) -> None:
        """Ask the vector store whether it is there; raises RetrievalFailed."""
        await self._vectors.heartbeat()

    async def count(self, project_id: str) -> int:
        """Count the project's vectors."""
        return await self._vectors.count(project_id)

    async def _readable(
        self, project_id: str, hits: Sequence[tuple[str, float]]
    ) -> list[tuple[Source, float]]:
        sources = await self._passages.fetch(project_id, [chunk_id for chunk_id, _ in hits])
        return [(sources[chunk_id], score) for chunk_id, score in hits if chunk_id in sources]

    async def _embed(
        self,
        project_id: str,
        document_id: str,
        texts: Sequence[tuple[str, str]],
        report: Progress,
    ) -> None:
        # An earlier attempt may have left more chunks than there are now.
        await self._vectors.delete_document(project_id, document_id)
        report("embedding", 0, len(texts))
        step = self._embedder.batch_size
        for start in range(0, len(texts), step):
            batch = texts[start : start + step]
            vectors = await self._embedder.embed_documents([text for _, text in batch])
            ids = [chunk_id for chunk_id, _ in batch]
            await self._vectors.add(project_id, document_id, ids, vectors)
            report("embedding", start + len(batch), len(texts))
        await self._forget_if_deleted(project_id, document_id)

    async def _forget_if_deleted(self, project_id: str, document_id: str) -> None:
        """Undo what was added after the document had been deleted."""
        if not await self._passages.has_document(document_id):
            await self._vectors.delete_document(project_id, document_id)


@asynccontextmanager
async def open_library(settings: PipelineSettings, pool: Pool) -> AsyncIterator[Library]:
    """The library of these settings: embedded, or on a Chroma server and an endpoint.

    Raises:
        VectorsInUse: another process owns the data folder's vectors.
        RetrievalFailed: the Chroma server cannot be reached.
    """
    embedder = await asyncio.to_thread(_open_embedder, settings)
    vectors = await asyncio.to_thread(_open_vectors, settings, embedder.name)
    try:
        yield Library(vectors, Passages(pool), embedder)
    finally:
        await asyncio.to_thread(vectors.close)


def _open_embedder(settings: PipelineSettings) -> Embedder:
    if not (settings.embedding_base_url and settings.embedding_model):
        return local_embeddings()
    return remote_embeddings(
        settings.embedding_base_url, settings.embedding_api_key, settings.embedding_model
    )


def _open_vectors(settings: PipelineSettings, embedding_model: str) -> Vectors:
    if settings.chroma_url:
        return Vectors.open_server(settings.chroma_url, embedding_model)
    return Vectors.open_embedded(settings.data_dir / "chroma", embedding_model)


def _numbered(document_id: str, chunks: Sequence[Chunk]) -> list[tuple[str, Chunk]]:
    namespace = UUID(document_id)
    return [(str(uuid5(namespace, str(chunk.position))), chunk) for chunk in chunks]


def _silent(stage: str, done: int, total: int) -> None:
    pass
