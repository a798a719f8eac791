"""A project's documents: put in, found again by a question, and forgotten."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid5

from graph.errors import RetrievalFailed
from graph.knowledge.chunking import Chunk, cut
from graph.knowledge.embeddings import Embedder, local_embeddings, remote_embeddings
from graph.knowledge.parsing import Parsed, parse
from graph.knowledge.passages import Passages, Surroundings
from graph.knowledge.rebuilding import Rebuilding
from graph.knowledge.vectors import Vectors
from graph.postgres import Pool
from graph.settings import PipelineSettings
from graph.state import Source

Progress = Callable[[str, int, int], None]

# Parsing and embedding take threads from the same few that searching needs.
_INDEXING_AT_ONCE = 2
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

    async def parse(self, data: bytes, name: str) -> Parsed:
        """Read a file in a thread; raises UnsupportedDocument and UnreadableDocument."""
        async with self._room:
            return await asyncio.to_thread(parse, data, name)

    async def index(
        self,
        project_id: str,
        document_id: str,
        parsed: Parsed,
        *,
        progress: Progress | None = None,
    ) -> int:
        """Make a document searchable and give the number of its chunks; repeating is harmless.

        It is found once its row says `indexed`. `progress` is called with the stage
        (`chunking`, `storing`, `embedding`), what is done and the total.
        """
        report = progress or _silent
        async with self._room:
            report("chunking", 0, len(parsed.pages))
            chunks = await asyncio.to_thread(_numbered, document_id, parsed)
            report("chunking", len(parsed.pages), len(parsed.pages))
            report("storing", 0, len(chunks))
            await self._passages.store(project_id, document_id, chunks)
            report("storing", len(chunks), len(chunks))
            texts = [(chunk_id, chunk.text) for chunk_id, chunk in chunks]
            await self._embed(project_id, document_id, texts, report)
        return len(chunks)

    async def reindex(self, project_id: str, *, progress: Progress | None = None) -> None:
        """Make all vectors of a project anew from its chunks; may be interrupted and repeated."""
        rebuilding = Rebuilding(self._vectors, self._passages, self._embedder)
        await rebuilding.rebuild(project_id, progress or _silent)

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
        if await self._passages.has_document(document_id):
            await self._verify(project_id, document_id, len(texts))
        else:
            # Undo what was added after the document had been deleted.
            await self._vectors.delete_document(project_id, document_id)

    async def _verify(self, project_id: str, document_id: str, chunks: int) -> None:
        """Raise RetrievalFailed unless the vector store has all that it was given."""
        found = await self._vectors.count_document(project_id, document_id)
        if found != chunks:
            raise RetrievalFailed(
                f"The vector store kept {found} of the document's {chunks} passages. Upload the "
                "document again.",
                transient=True,
            )


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
        await embedder.close()


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


def _numbered(document_id: str, parsed: Parsed) -> list[tuple[str, Chunk]]:
    namespace = UUID(document_id)
    return [(str(uuid5(namespace, str(chunk.position))), chunk) for chunk in cut(parsed)]


def _silent(stage: str, done: int, total: int) -> None:
    pass
