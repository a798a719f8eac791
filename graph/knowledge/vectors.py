"""The vector store: the only file that knows Chroma.

Chroma holds ids, vectors and each vector's `document_id`, never text: what it deletes stays
in its files.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast
from urllib.parse import urlsplit
from uuid import UUID

import chromadb
import httpx
import numpy as np
from chromadb.api import ClientAPI
from chromadb.api.collection_configuration import CreateHNSWConfiguration
from chromadb.api.models.Collection import Collection
from chromadb.config import Settings
from chromadb.errors import InvalidArgumentError, NotFoundError
from chromadb.types import Where

from graph.errors import RetrievalFailed
from graph.knowledge.embeddings import OTHER_LENGTH
from graph.knowledge.memory import hand_out_zeros
from graph.knowledge.nudges import told_apart
from graph.knowledge.ownership import Ownership

P = ParamSpec("P")
T = TypeVar("T")
Near = tuple[str, float]

_SERVER_TIMEOUT_S = 10.0
# Records in one request; Chroma Cloud takes and gives no more than 300.
_EMBEDDED_BATCH = 1000
_SERVER_BATCH = 300
# Up to so many vectors a search looks at all of them, so that nothing is missed.
_SMALL = 1000
# With fewer the index is less thorough.
_LEAST = 250
# With Chroma's own values some vectors of a few thousand are never found.
_INDEX = CreateHNSWConfiguration(
    space="cosine", max_neighbors=32, ef_construction=200, ef_search=200
)
_NEW = ".new"
_NO_ANSWER = (
    "The vector store did not answer. Try again; if it stays, the operator can run "
    "`archwright doctor`."
)


class Vectors:
    """The chunks' vectors, a collection for each project, made with one embedding model.

    Methods raise RetrievalFailed when the store does not answer, and ValueError for a
    project id that is not a UUID.
    """

    def __init__(
        self,
        client: ClientAPI,
        embedding_model: str,
        batch_size: int,
        release: Callable[[], None],
        suffix: str = "",
        threads: Executor | None = None,
    ) -> None:
        self._client = client
        self._embedding_model = embedding_model
        self._batch_size = batch_size
        self._large: set[str] = set()
        self._release = release
        self._suffix = suffix
        # Of its own: a store that hangs holds them, and turns that do not need it need the others.
        self._threads = threads or ThreadPoolExecutor(thread_name_prefix="vectors")

    @classmethod
    def open_embedded(cls, folder: Path, embedding_model: str) -> Self:
        """Open the store in `folder`, which this process then owns until `close`; blocks.

        Raises VectorsInUse when another process owns it.
        """
        hand_out_zeros()
        ownership = Ownership(folder)
        try:
            with _translated():
                client = chromadb.PersistentClient(folder, settings=_settings())
        except RetrievalFailed:
            ownership.release()
            raise
        return cls(client, embedding_model, _EMBEDDED_BATCH, ownership.release)

    @classmethod
    def open_server(cls, url: str, embedding_model: str) -> Self:
        """Connect to the Chroma server at `url` (http or https, also under a path); blocks.

        Raises RetrievalFailed when it cannot be reached.
        """
        address = urlsplit(url)
        base = f"{address.scheme}://{address.netloc}{address.path.rstrip('/')}"
        with _translated(
            f"CHROMA_URL: no Chroma server answers at {address.netloc.rpartition('@')[2]}. "
            "Check the address, and whether it runs."
        ):
            # Chroma's client has no timeout, not even while it is made.
            httpx.get(f"{base}/api/v2/heartbeat", timeout=_SERVER_TIMEOUT_S).raise_for_status()
            client = chromadb.HttpClient(base, ssl=address.scheme == "https", settings=_settings())
        sessions = _sessions(client)
        for session in sessions:
            session.timeout = httpx.Timeout(_SERVER_TIMEOUT_S)
        return cls(client, embedding_model, _SERVER_BATCH, partial(_close_all, sessions))

    def close(self) -> None:
        """Let go of the store; may be repeated."""
        cast(Any, self._client).close()
        self._threads.shutdown(wait=False)
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def add(
        self,
        project_id: str,
        document_id: str,
        ids: Sequence[str],
        vectors: Sequence[Sequence[float]],
    ) -> None:
        """Add the vectors of a document's chunks; the same ids again replace theirs."""
        await self._call(self._add, self._name(project_id), document_id, ids, vectors)

    async def search(self, project_id: str, vector: Sequence[float], limit: int) -> list[Near]:
        """Give the nearest chunks as (id, cosine similarity), best first, `limit` at most.

        A project without vectors gives none.
        """
        return await self._call(self._search, self._name(project_id), vector, limit)

    async def everything(self, project_id: str, limit: int) -> dict[str, Sequence[float]]:
        """Give all vectors of a project by their ids; none where there are more than `limit`."""
        return await self._call(self._everything, self._name(project_id), limit)

    async def delete_document(self, project_id: str, document_id: str) -> None:
        """Delete a document's vectors, if there are any."""
        await self._call(self._delete_document, self._name(project_id), document_id)

    async def delete_project(self, project_id: str) -> None:
        """Delete a project's vectors, if there are any."""
        await self._call(self._delete_project, self._name(project_id))

    def anew(self) -> "Vectors":
        """Collections beside these, to be filled and then put in their place with `replace`."""
        made_with = (self._client, self._embedding_model, self._batch_size)
        return Vectors(*made_with, lambda: None, _NEW, self._threads)

    async def replace(self, project_id: str) -> None:
        """Put what `anew` holds of a project in the place of what is here."""
        await self._call(self._replace, self._name(project_id))

    async def count_document(self, project_id: str, document_id: str) -> int:
        """Count a document's vectors."""
        return await self._call(self._count_document, self._name(project_id), document_id)

    async def count(self, project_id: str) -> int:
        """Count a project's vectors."""
        return await self._call(self._count, self._name(project_id))

    async def store_id(self) -> UUID:
        """Give the id of the store: the same wherever it is reached from, and another's never."""
        # Chroma has no id of its own, but gives each collection one.
        make = self._client.get_or_create_collection
        return (await self._call(make, "archwright-store", embedding_function=None)).id

    async def heartbeat(self) -> None:
        """Read something from the store, to see that it answers."""
        await self._call(self._client.count_collections)

    async def _call(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        work = partial(call, *args, **kwargs)
        with _translated():
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _add(
        self, name: str, document_id: str, ids: Sequence[str], vectors: Sequence[Sequence[float]]
    ) -> None:
        collection = self._made_collection(name)
        for start in range(0, len(ids), self._batch_size):
            batch = list(ids[start : start + self._batch_size])
            collection.upsert(
                ids=batch,
                embeddings=told_apart(batch, vectors[start : start + self._batch_size]),
                metadatas=[{"document_id": document_id}] * len(batch),
            )

    def _search(self, name: str, vector: Sequence[float], limit: int) -> list[Near]:
        collection = self._collection(name)
        if collection is None or limit < 1:
            return []
        self._check_model(collection)
        wanted = max(limit, _LEAST) if self._is_large(collection) else collection.count()
        hits = _nearest(collection, vector, wanted) if wanted else []
        if len(hits) < wanted:
            # The index has lost the way to some vectors.
            hits = _nearest_of_all(collection, vector, self._batch_size)
        return hits[:limit]

    def _everything(self, name: str, limit: int) -> dict[str, Sequence[float]]:
        collection = self._collection(name)
        if collection is None:
            return {}
        self._check_model(collection)
        count = collection.count()
        held: dict[str, Sequence[float]] = {}
        for start in range(0, count if count <= limit else 0, self._batch_size):
            part = collection.get(include=["embeddings"], limit=self._batch_size, offset=start)
            held.update(zip(part["ids"], cast(Any, part["embeddings"]), strict=True))
        return held

    def _is_large(self, collection: Collection) -> bool:
        """Counting a large collection takes longer than searching it, and large it stays."""
        if collection.name not in self._large and collection.count() > _SMALL:
            self._large.add(collection.name)
        return collection.name in self._large

    def _delete_document(self, name: str, document_id: str) -> None:
        collection = self._collection(name)
        if collection is None:
            return
        # By ids, since `delete(where=...)` fails over some 8000 matches.
        while ids := self._some_ids(collection, document_id):
            collection.delete(ids=ids)

    def _some_ids(self, collection: Collection, document_id: str, offset: int = 0) -> list[str]:
        mine: Where = {"document_id": document_id}
        found = collection.get(where=mine, include=[], limit=self._batch_size, offset=offset)
        return found["ids"]

    def _count_document(self, name: str, document_id: str) -> int:
        collection, counted = self._collection(name), 0
        while collection and (ids := self._some_ids(collection, document_id, counted)):
            counted += len(ids)
        return counted

    def _delete_project(self, name: str) -> None:
        while collection := self._collection(name):
            self._client.delete_collection(collection.name)

    def _replace(self, name: str) -> None:
        # In between `_collection` finds the new one, also if this process ends there.
        if self._existing(name):
            self._client.delete_collection(name)
        if new := self._existing(name + _NEW):
            new.modify(name=name)

    def _count(self, name: str) -> int:
        collection = self._collection(name)
        return collection.count() if collection else 0

    def _name(self, project_id: str) -> str:
        return f"project-{UUID(project_id)}{self._suffix}"

    def _collection(self, name: str) -> Collection | None:
        return self._existing(name) or self._existing(name + _NEW)

    def _existing(self, name: str) -> Collection | None:
        try:
            return self._client.get_collection(name, embedding_function=None)
        except NotFoundError:
            return None

    def _made_collection(self, name: str) -> Collection:
        collection = self._client.get_or_create_collection(
            name,
            metadata={"embedding_model": self._embedding_model},
            configuration={"hnsw": _INDEX},
            embedding_function=None,
        )
        self._check_model(collection)
        return collection

    def _check_model(self, collection: Collection) -> None:
        made_with = (collection.metadata or {}).get("embedding_model")
        if made_with != self._embedding_model:
            raise RetrievalFailed(
                f"This project was indexed with the embedding model {made_with!r}, the service "
                f"now uses {self._embedding_model!r}. Go back to that model, or let the operator "
                "run `archwright reindex`."
            )


def _settings() -> Settings:
    # Chroma would read the service's `.env` as its own.
    return cast(Settings, cast(Any, Settings)(_env_file=None, anonymized_telemetry=False))


def _nearest(collection: Collection, vector: Sequence[float], limit: int) -> list[Near]:
    found = collection.query(
        query_embeddings=np.asarray([vector], dtype=np.float32),
        n_results=limit,
        include=["distances"],
    )
    distances = found["distances"] or [[]]
    pairs = zip(found["ids"][0], distances[0], strict=True)
    return [(chunk_id, 1 - distance) for chunk_id, distance in pairs]


def _nearest_of_all(collection: Collection, vector: Sequence[float], batch_size: int) -> list[Near]:
    """Compare with every vector; costs some 25 ms for a thousand."""
    asked = np.asarray(vector, dtype=np.float32)
    hits: list[Near] = []
    for start in range(0, collection.count(), batch_size):
        part = collection.get(include=["embeddings"], limit=batch_size, offset=start)
        held = np.asarray(part["embeddings"], dtype=np.float32).reshape(-1, len(asked))
        lengths = np.linalg.norm(held, axis=1) * np.linalg.norm(asked)
        scores = held @ asked / np.maximum(lengths, 1e-12)
        hits += zip(part["ids"], scores.tolist(), strict=True)
    return sorted(hits, key=itemgetter(1), reverse=True)


def _sessions(client: ClientAPI) -> list[httpx.Client]:
    """The HTTP clients of Chroma's client, which have no timeout and which it never closes."""
    inside = cast(Any, client)
    return [part._server._session for part in (inside, inside._admin_client)]


def _close_all(sessions: Sequence[httpx.Client]) -> None:
    for session in sessions:
        session.close()


@contextmanager
def _translated(sentence: str = _NO_ANSWER) -> Iterator[None]:
    try:
        yield
    except RetrievalFailed:
        raise
    # Chroma raises bare Exceptions for answers that it does not know.
    except Exception as error:
        if isinstance(error, InvalidArgumentError) and "with dimension of" in str(error):
            raise RetrievalFailed(OTHER_LENGTH) from error
        raise RetrievalFailed(sentence, transient=True) from error
