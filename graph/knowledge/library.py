"""A project's documents: put in, found again by a question, and forgotten."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

from graph.errors import DocumentTooLarge, RetrievalFailed
from graph.knowledge.chunking import Chunk
from graph.knowledge.embeddings import Embedder, local_embeddings, remote_embeddings
from graph.knowledge.encodings import decode
from graph.knowledge.passages import Outline, Passages, Surroundings
from graph.knowledge.questions import Question
from graph.knowledge.ranking import Passage
from graph.knowledge.reading import LIMITS_ALONE, Reading, read
from graph.knowledge.rebuilding import Progress, Rebuilding, add_chunks
from graph.knowledge.reranking import Reranker
from graph.knowledge.searching import Searching
from graph.knowledge.static_model import StaticModel
from graph.knowledge.vectors import Vectors
from graph.postgres import Pool
from graph.sanitizing import clean
from graph.settings import PipelineSettings

MOST_OF_A_TEXT = 4_000_000
"""Bytes; no model's context window holds more."""

# Embedding takes threads from the same few that searching needs.
_INDEXING_AT_ONCE = 2
# Reading takes memory, up to `LIMITS.memory` each.
_READING_AT_ONCE = 2
# A thread ends only with its batch, for which the service's end has to wait.
_REFINED_AT_ONCE = 16
_LINE_ENDS = re.compile("\r\n?")


class Library:
    """What is known about the documents: vectors and terms to search, text to cite.

    Methods raise RetrievalFailed when a part of it does not answer, and ValueError for an id
    that is not a UUID.
    """

    def __init__(
        self,
        vectors: Vectors,
        passages: Passages,
        embedder: Embedder,
        static: StaticModel,
        reranker: Reranker | None = None,
    ) -> None:
        self._vectors = vectors
        self._passages = passages
        self._embedder = embedder
        self._searching = Searching(vectors, passages, embedder, static, reranker)
        self._room = asyncio.Semaphore(_INDEXING_AT_ONCE)
        self._reading = asyncio.Semaphore(_READING_AT_ONCE)
        self._alone = asyncio.Lock()

    async def search(
        self,
        project_id: str,
        question: Question,
        *,
        limit: int,
        floor: bool = True,
        outline: Outline | None = None,
    ) -> list[Passage]:
        """Give the passages that bear on the question, best first, `limit` at most.

        Only indexed documents count. With `floor` nothing is given where no passage speaks of what
        is asked. A blank question gives nothing. `outline` is the project's at this moment, where
        the caller has read it already.
        """
        if not question.text.strip() or limit < 1:
            return []
        return await self._searching.search(
            project_id, question, limit, floor=floor, outline=outline
        )

    async def surroundings(self, chunk_id: str) -> Surroundings | None:
        """Give a chunk with the text around it; an unknown id gives None."""
        return await self._passages.surroundings(chunk_id)

    async def documents(self, project_id: str, names: Sequence[str]) -> dict[str, str]:
        """Give the whole texts of the project's indexed documents with these names.

        By name, the newest first. Only Markdown, JSON and plain text count. Of a text that is
        longer than `MOST_OF_A_TEXT`, the lines up to there are given.
        """
        if not names:
            return {}
        files = await self._passages.files(project_id, names, MOST_OF_A_TEXT)
        return await asyncio.to_thread(_texts, files)

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
    ) -> None:
        """Make a document searchable; repeating is harmless.

        It is found once its row says `indexed`. `progress` is called with the stage
        (`storing`, `embedding`), what is done and the total.
        """
        report = progress or _silent
        async with self._room:
            report("storing", 0, len(chunks))
            await self._passages.store(project_id, document_id, chunks)
            report("storing", len(chunks), len(chunks))
            await self._embed(project_id, document_id, chunks, report)
        self._searching.forget(project_id)

    async def refine(self, project_id: str, document_id: str) -> None:
        """Replace a document's quick vectors by better ones; repeating is harmless.

        It can be searched all the time. With one embedding model there is nothing to do.
        """
        if self._embedder.quick is None:
            return
        chunks = await self._passages.chunks(document_id)
        for start in range(0, len(chunks), _REFINED_AT_ONCE):
            batch = chunks[start : start + _REFINED_AT_ONCE]
            await add_chunks(self._vectors, self._embedder, project_id, document_id, batch)
            if await self._forgotten(project_id, document_id):
                break
        else:
            await self._passages.mark_refined(document_id)
        self._searching.forget(project_id)

    async def reindex(self, project_id: str, *, progress: Progress | None = None) -> None:
        """Make all vectors of a project anew from its chunks; may be interrupted and repeated."""
        rebuilding = Rebuilding(self._vectors, self._passages, self._embedder)
        await rebuilding.rebuild(project_id, progress or _silent)
        self._searching.forget(project_id)

    async def forget_document(self, project_id: str, document_id: str) -> None:
        """Delete a document's vectors; its text goes with its row."""
        self._searching.forget(project_id)
        await self._vectors.delete_document(project_id, document_id)

    async def forget_project(self, project_id: str) -> None:
        """Delete a project's vectors; its text goes with its rows."""
        self._searching.forget(project_id)
        await self._vectors.delete_project(project_id)

    async def store_id(self) -> UUID:
        """Give the id of the vector store, which no other has."""
        return await self._vectors.store_id()

    async def ping(self) -> None:
        """Ask the vector store whether it is there; raises RetrievalFailed."""
        await self._vectors.heartbeat()

    async def count(self, project_id: str) -> int:
        """Count the project's vectors."""
        return await self._vectors.count(project_id)

    async def _embed(
        self,
        project_id: str,
        document_id: str,
        chunks: Sequence[Chunk],
        report: Progress,
    ) -> None:
        # An earlier attempt may have left more chunks than there are now.
        await self._vectors.delete_document(project_id, document_id)
        report("embedding", 0, len(chunks))
        step = self._embedder.batch_size
        for start in range(0, len(chunks), step):
            batch = chunks[start : start + step]
            await add_chunks(
                self._vectors, self._embedder, project_id, document_id, batch, quick=True
            )
            if await self._forgotten(project_id, document_id):
                return
            report("embedding", start + len(batch), len(chunks))
        await self._verify(project_id, document_id, len(chunks))

    async def _forgotten(self, project_id: str, document_id: str) -> bool:
        """Whether the document was deleted meanwhile; then undo what was added since."""
        if await self._passages.has_document(document_id):
            return False
        await self._vectors.delete_document(project_id, document_id)
        return True

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
    static = await asyncio.to_thread(StaticModel)
    embedder = await asyncio.to_thread(open_embedder, settings, static)
    reranker = _open_reranker(settings)
    vectors = await asyncio.to_thread(open_vectors, settings, embedder.name)
    try:
        yield Library(vectors, Passages(pool), embedder, static, reranker)
    finally:
        await asyncio.to_thread(vectors.close)
        await embedder.close()
        if reranker is not None:
            await reranker.close()


def open_embedder(settings: PipelineSettings, static: StaticModel) -> Embedder:
    """The embedding model of these settings, to be closed; blocks."""
    if not (settings.embedding_base_url and settings.embedding_model):
        return local_embeddings(static)
    return remote_embeddings(
        settings.embedding_base_url, settings.embedding_api_key, settings.embedding_model
    )


def _open_reranker(settings: PipelineSettings) -> Reranker | None:
    if not (settings.rerank_base_url and settings.rerank_model):
        return None
    return Reranker(settings.rerank_base_url, settings.rerank_api_key, settings.rerank_model)


def open_vectors(settings: PipelineSettings, embedding_model: str) -> Vectors:
    """The vector store of these settings, to be closed; blocks, and raises as `open_library`."""
    if settings.chroma_url:
        return Vectors.open_server(settings.chroma_url, embedding_model)
    return Vectors.open_embedded(settings.data_dir / "chroma", embedding_model)


def _texts(files: dict[str, bytes]) -> dict[str, str]:
    texts = {name: _text(data) for name, data in files.items()}
    return {name: text for name, text in texts.items() if text}


def _text(data: bytes) -> str:
    if len(data) == MOST_OF_A_TEXT:
        # A character that is cut in two would make the encoding a guess.
        data = data[: data.rfind(b"\n") + 1]
    return clean(_LINE_ENDS.sub("\n", decode(data) or ""))


def _silent(stage: str, done: int, total: int) -> None:
    pass
