"""Documents go in, their passages are found, and what is forgotten is gone."""

import asyncio
import json
import math
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4, uuid5

import psycopg
import pytest
from conftest import make_database
from langchain_core.embeddings import Embeddings
from pydantic import SecretStr

import graph.knowledge.corpora as corpora_module
import graph.knowledge.embeddings as embeddings_module
import graph.knowledge.library as library_module
from graph.errors import RetrievalFailed
from graph.knowledge.batching import Questions
from graph.knowledge.chunking import Chunk
from graph.knowledge.embeddings import Embedder, local_embeddings, remote_embeddings
from graph.knowledge.library import Library
from graph.knowledge.passages import Passages, Surroundings
from graph.knowledge.questions import Question
from graph.knowledge.ranking import Passage, StoredChunk
from graph.knowledge.static_model import StaticModel
from graph.knowledge.vectors import Vectors
from graph.postgres import Pool, open_pool

T = TypeVar("T")

TABLES = """
    create table documents (
        id uuid primary key, project_id uuid not null, name text not null, status text not null,
        chunk_count int not null default 0,
        is_refined boolean not null default false,
        mime_type text not null default 'text/markdown',
        accepted int generated always as identity
    );
    create table document_files (
        document_id uuid primary key references documents (id) on delete cascade,
        content bytea not null
    );
    create table chunks (
        id uuid primary key,
        document_id uuid not null references documents (id) on delete cascade,
        project_id uuid not null, position int not null, page_number int, heading text not null,
        text text not null
    );
    create table postings (
        project_id uuid not null, term text not null,
        document_id uuid not null references documents (id) on delete cascade,
        chunks int not null, positions bytea not null, weights bytea not null
    );
"""
PUMP = "The pump delivers twelve litres of water a minute."
VALVE = "The valve opens when the pressure rises above three bar."
CAT = "Cats sleep for most of the day and hunt at night."
HANDBOOK = [Chunk(0, 1, "", PUMP), Chunk(1, 3, "", VALVE), Chunk(2, 4, "", CAT)]


@pytest.fixture(scope="module")
def static() -> StaticModel:
    return StaticModel()


@pytest.fixture(scope="module")
def embedder(static: StaticModel) -> Embedder:
    return local_embeddings(static)


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> str:
    url = make_database(postgres_url)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(TABLES)
    return url


@dataclass
class Shelf:
    """A library with its parts, and one project in it."""

    pool: Pool
    vectors: Vectors
    library: Library
    rest: tuple[Passages, Embedder, StaticModel]
    project_id: str = field(default_factory=lambda: str(uuid4()))

    async def add_row(self, name: str, status: str = "processing") -> str:
        document_id = str(uuid4())
        await self.run(
            "insert into documents values (%s, %s, %s, %s, 3, false)",
            document_id,
            self.project_id,
            name,
            status,
        )
        return document_id

    async def add(self, chunks: list[Chunk], name: str = "handbook.pdf") -> str:
        document_id = await self.add_row(name, "indexed")
        await self.library.index(self.project_id, document_id, chunks)
        return document_id

    async def texts_found(self, question: str) -> list[str]:
        return [passage.text for passage in await self.found(question)]

    async def found(self, question: str, limit: int = 9) -> list[Passage]:
        return await self.library.search(self.project_id, Question(question), limit=limit)

    async def run(self, statement: str, *values: object) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(statement.encode(), values)


Scenario = Callable[[Shelf], Awaitable[T]]


@pytest.fixture
def on_shelf(
    tmp_path: Path, database_url: str, embedder: Embedder, static: StaticModel
) -> Callable[[Scenario[T]], T]:
    """Run a scenario with a new library in `tmp_path`."""

    async def play(scenario: Scenario[T], model: Embedder) -> T:
        async with open_shelf(tmp_path, database_url, model, static) as shelf:
            return await scenario(shelf)

    def run(scenario: Scenario[T], model: Embedder = embedder) -> T:
        return asyncio.run(play(scenario, model))

    return run


@asynccontextmanager
async def open_shelf(
    folder: Path, database_url: str, model: Embedder, static: StaticModel
) -> AsyncIterator[Shelf]:
    async with open_pool(database_url) as pool:
        with Vectors.open_embedded(folder, model.name) as vectors:
            rest = (Passages(pool), model, static)
            yield Shelf(pool, vectors, Library(vectors, *rest), rest)


def test_a_question_finds_the_passages_with_their_pages_best_first(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> tuple[str, list[Passage]]:
        document_id = await shelf.add(HANDBOOK)
        return document_id, await shelf.found("At which pressure does the valve open?", limit=2)

    document_id, found = on_shelf(scenario)
    context = "\n\n".join([PUMP, VALVE, CAT])
    assert found == [
        Passage(
            StoredChunk(
                chunk_id(document_id, at), (document_id, at), "handbook.pdf", page, "", text
            ),
            text,
            context,
            frozenset([(document_id, at)]),
            passage.score,
        )
        for passage, (at, page, text) in zip(found, [(1, 3, VALVE), (0, 1, PUMP)], strict=True)
    ]
    assert 1 > found[0].score > found[1].score > 0


def chunk_id(document_id: str, position: int) -> str:
    return str(uuid5(UUID(document_id), str(position)))


def test_what_the_documents_do_not_speak_of_finds_nothing(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> list[list[str]]:
        await shelf.add(HANDBOOK)
        question = "How do I monitor the pump with Kubernetes and Prometheus?"
        asked = Question(question)
        drafted = await shelf.library.search(shelf.project_id, asked, limit=1, floor=False)
        return [await shelf.texts_found(question), [passage.text for passage in drafted]]

    assert on_shelf(scenario) == [[], [PUMP]]


def test_better_vectors_take_the_place_of_the_quick_ones(on_shelf: Callable[..., Any]) -> None:
    """The quick model counts like words, the better one knows what a refund is."""
    refund = "Customers receive a refund within thirty days."
    menu = "How to get back to the main menu: press the key."

    async def scenario(shelf: Shelf) -> tuple[list[list[str]], int]:
        document_id = await shelf.add([Chunk(0, 1, "", refund), Chunk(1, 2, "", menu)])
        before = await shelf.texts_found("How do I get my money back?")
        await shelf.library.refine(shelf.project_id, document_id)
        after = await shelf.texts_found("How do I get my money back?")
        return [before, after], await shelf.library.count(shelf.project_id)

    assert on_shelf(scenario) == ([[menu, refund], [refund, menu]], 2)


def test_a_document_is_found_once_it_is_indexed_and_in_its_project_only(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> list[list[str]]:
        document_id = await shelf.add_row("handbook.pdf")
        await shelf.library.index(shelf.project_id, document_id, HANDBOOK)
        before = await shelf.texts_found("valve pressure")
        await shelf.run("update documents set status = 'indexed' where id = %s", document_id)
        after = await shelf.texts_found("valve pressure")
        shelf.project_id = str(uuid4())
        return [before, after, await shelf.texts_found("valve pressure")]

    before, after, elsewhere = on_shelf(scenario)
    assert (before, sorted(after), elsewhere) == ([], [CAT, PUMP, VALVE], [])


def test_chunks_are_read_in_their_own_project_only_with_their_neighbours(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> tuple[list[str], dict[Any, Any]]:
        document_id = await shelf.add(HANDBOOK)
        places = [(document_id, 1)]
        mine = await Passages(shelf.pool).fetch(shelf.project_id, places)
        theirs = await Passages(shelf.pool).fetch(str(uuid4()), places)
        return sorted(chunk.text for chunk in mine.values()), theirs

    assert on_shelf(scenario) == ([CAT, PUMP, VALVE], {})


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_a_blank_question_finds_nothing(on_shelf: Callable[..., Any], question: str) -> None:
    async def scenario(shelf: Shelf) -> list[str]:
        await shelf.add(HANDBOOK)
        return await shelf.texts_found(question)

    assert on_shelf(scenario) == []


def test_a_text_of_nothing_but_odd_characters_does_no_harm(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> list[str]:
        await shelf.add([Chunk(0, None, "", "\u200b\ufe0f")])
        return await shelf.texts_found("\u2603\U0001f4a7")

    assert on_shelf(scenario) == ["\u200b\ufe0f"]


def test_documents_that_are_not_indexed_yet_do_not_crowd_out_those_that_are(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> list[str]:
        crowd = [Chunk(at, at, "", VALVE) for at in range(250)]
        unfinished = await shelf.add_row("draft.pdf")
        await shelf.library.index(shelf.project_id, unfinished, crowd)
        await shelf.add(HANDBOOK)
        return await shelf.texts_found("valve pressure")

    assert on_shelf(scenario)[0] == VALVE


def test_indexing_again_is_harmless_and_replaces_what_was_there(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> tuple[list[int], bool, list[str]]:
        document_id = await shelf.add(HANDBOOK)
        first = await shelf.found("pump")
        await shelf.library.index(shelf.project_id, document_id, HANDBOOK)
        counts = [await shelf.library.count(shelf.project_id)]
        second = await shelf.found("pump")
        await shelf.library.index(shelf.project_id, document_id, [Chunk(0, None, "", CAT)])
        counts.append(await shelf.library.count(shelf.project_id))
        same = [p.chunk for p in first] == [p.chunk for p in second]
        return counts, same, await shelf.texts_found("pump")

    assert on_shelf(scenario) == ([3, 1], True, [CAT])


def test_progress_is_told_for_each_stage(on_shelf: Callable[..., Any]) -> None:
    told: list[tuple[str, int, int]] = []

    async def scenario(shelf: Shelf) -> None:
        document_id = await shelf.add_row("long.pdf")
        chunks = [Chunk(at, at, "", f"Page {at}") for at in range(100)]
        await shelf.library.index(
            shelf.project_id, document_id, chunks, progress=lambda *step: told.append(step)
        )

    on_shelf(scenario)
    assert told == [
        ("storing", 0, 100),
        ("storing", 100, 100),
        ("embedding", 0, 100),
        ("embedding", 64, 100),
        ("embedding", 100, 100),
    ]


def test_a_forgotten_document_is_found_by_no_search(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> tuple[list[str], int]:
        document_id = await shelf.add(HANDBOOK)
        await shelf.add([Chunk(0, None, "", "Dogs bark.")], "dogs.txt")
        await shelf.library.forget_document(shelf.project_id, document_id)
        return await shelf.texts_found("bark"), await shelf.library.count(shelf.project_id)

    assert on_shelf(scenario) == (["Dogs bark."], 1)


def test_a_forgotten_project_has_no_vectors(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> int:
        await shelf.add(HANDBOOK)
        await shelf.library.forget_project(shelf.project_id)
        return await shelf.library.count(shelf.project_id)

    assert on_shelf(scenario) == 0


def test_no_text_ever_gets_into_the_files_of_the_vector_store(
    on_shelf: Callable[..., Any], tmp_path: Path
) -> None:
    async def scenario(shelf: Shelf) -> list[str]:
        await shelf.add([Chunk(0, None, "", "The canary is quokka-7731.")])
        return await shelf.texts_found("Where is quokka-7731?")

    assert on_shelf(scenario) == ["The canary is quokka-7731."]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if b"quokka" in path.read_bytes()] == []
    assert [path for path in files if path.name == "chroma.sqlite3"] != []


class Slow(Embeddings):
    """Embeds while `meanwhile` happens, and remembers how many texts."""

    meanwhile: Callable[[], Awaitable[None]]

    def __init__(self, model: Embeddings) -> None:
        self._model = model
        self.embedded = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._model.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return self._model.embed_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.embedded += len(texts)
        await self.meanwhile()
        return await super().aembed_documents(texts)


@pytest.mark.parametrize("is_indexed", [False, True])
def test_a_document_deleted_while_it_is_embedded_leaves_nothing_and_is_embedded_no_further(
    on_shelf: Callable[..., Any], embedder: Embedder, is_indexed: bool
) -> None:
    slow = Slow(embedder.model)
    chunks = [Chunk(position, 1, "", PUMP) for position in range(40)]

    async def scenario(shelf: Shelf) -> tuple[int, int]:
        document_id = await shelf.add_row("handbook.pdf")
        if is_indexed:
            await shelf.library.index(shelf.project_id, document_id, chunks)

        async def delete() -> None:
            await shelf.run("delete from documents where id = %s", document_id)
            await shelf.library.forget_document(shelf.project_id, document_id)

        slow.meanwhile = delete
        if is_indexed:
            await shelf.library.refine(shelf.project_id, document_id)
        else:
            await shelf.library.index(shelf.project_id, document_id, chunks)
        return slow.embedded, await shelf.library.count(shelf.project_id)

    quick = embedder.quick if is_indexed else None
    assert on_shelf(scenario, Embedder("slow", slow, batch_size=16, quick=quick)) == (16, 0)


def test_a_document_without_a_row_is_not_indexed(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> None:
        await shelf.library.index(shelf.project_id, str(uuid4()), HANDBOOK)

    with pytest.raises(RetrievalFailed, match="deleted while it was being indexed"):
        on_shelf(scenario)


def test_the_surroundings_of_a_chunk_are_those_before_and_after(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> tuple[str, str, Surroundings | None]:
        document_id = await shelf.add(HANDBOOK)
        found = await shelf.library.surroundings(chunk_id(document_id, 0))
        return shelf.project_id, document_id, found

    project_id, document_id, found = on_shelf(scenario)
    assert found == Surroundings(
        project_id=project_id,
        document_id=document_id,
        document_name="handbook.pdf",
        page_number=1,
        snippet=PUMP,
        context=f"{PUMP}\n\n{VALVE}",
    )


def test_an_unknown_chunk_has_no_surroundings(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> Surroundings | None:
        return await shelf.library.surroundings(str(uuid4()))

    assert on_shelf(scenario) is None


def test_a_database_that_is_away_is_a_transient_failure(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> None:
        await shelf.add(HANDBOOK)
        await shelf.pool.close()
        await shelf.found("valve")

    with pytest.raises(RetrievalFailed) as caught:
        on_shelf(scenario)
    assert (str(caught.value), caught.value.transient) == (
        "The documents' text could not be read from the database. Try again.",
        True,
    )


def test_files_are_read_and_found_again(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> list[str]:
        reading = await shelf.library.read(b"# Valve\r\n\r\nOpens at 3 bar.", "valve.md")
        await shelf.add(reading.chunks)
        return await shelf.texts_found("valve")

    assert on_shelf(scenario) == ["Valve\n\nOpens at 3 bar."]


def test_local_embeddings_need_no_network_and_have_length_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", None)
    embedder = local_embeddings(StaticModel())
    assert embedder.quick is not None
    for model in (embedder.model, embedder.quick):
        vectors = model.embed_documents([PUMP, VALVE * 50, "\u200b"])
        assert [math.hypot(*vector) for vector in vectors] == [pytest.approx(1, abs=1e-5)] * 3
    assert embedder.quick.embed_documents([""]) == [[0.0] * 640]


@dataclass
class Endpoint:
    """An embedding endpoint that gives the scripted (status, body) first, then vectors."""

    url: str = ""
    script: list[tuple[int, str]] = field(default_factory=list)
    batches: list[list[str]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def answer(self, request: dict[str, Any]) -> tuple[int, str]:
        self.batches.append(request["input"])
        if self.script:
            return self.script.pop(0)
        data = [
            {"object": "embedding", "index": at, "embedding": [float(len(text)), 1.0]}
            for at, text in enumerate(request["input"])
        ]
        return 200, json.dumps({"object": "list", "data": data, "model": request["model"]})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    served = Endpoint()
    with serving(served) as server:
        served.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield served


@contextmanager
def serving(endpoint: Endpoint) -> Iterator[ThreadingHTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            endpoint.keys.append(self.headers["Authorization"])
            status, text = endpoint.answer(json.loads(body))
            if status:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Retry-After", "100")
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_endpoint_is_asked_in_small_batches_with_its_key(endpoint: Endpoint) -> None:
    embedder = remote_embeddings(endpoint.url, SecretStr("sk-1"), "embed-1")
    texts = ["x" * length for length in range(70)]
    assert asyncio.run(embedder.embed_documents(texts)) == [[float(at), 1.0] for at in range(70)]
    assert endpoint.batches == [texts[:32], texts[32:64], texts[64:]]
    assert (embedder.name, endpoint.keys) == ("embed-1", ["Bearer sk-1"] * 3)


@pytest.mark.parametrize(
    ("status", "body", "message", "transient"),
    [
        (429, "{}", "The embedding model answered with status 429. Try again later.", True),
        (503, "<html>", "The embedding model answered with status 503. Try again later.", True),
        (
            0,
            "",
            "The embedding model could not be reached. Try again, or check EMBEDDING_BASE_URL.",
            True,
        ),
        (
            401,
            '{"error": {"message": "bad key sk-1"}}',
            "The embedding model answered with status 401. "
            "Check EMBEDDING_BASE_URL, EMBEDDING_API_KEY and EMBEDDING_MODEL.",
            False,
        ),
        *(
            (
                200,
                body,
                "The embedding model did not answer with embeddings. "
                "Check EMBEDDING_BASE_URL and EMBEDDING_MODEL.",
                False,
            )
            for body in ("<html>", "{}", '{"error": {"message": "no"}}', '{"data": []}', "[]")
        ),
    ],
)
def test_an_endpoint_that_fails_says_so_without_its_words_and_at_once(
    endpoint: Endpoint, status: int, body: str, message: str, transient: bool
) -> None:
    endpoint.script = [(status, body)] * 9
    embedder = remote_embeddings(endpoint.url, SecretStr("sk-1"), "embed-1")
    with pytest.raises(RetrievalFailed) as caught:
        asyncio.run(embedder.embed_query("x"))
    assert (str(caught.value), caught.value.transient) == (message, transient)
    assert len(endpoint.batches) == 1


@pytest.mark.parametrize("most_in_memory", [1000, 0])
def test_a_model_that_gives_vectors_of_another_length_is_named_as_the_cause(
    on_shelf: Callable[..., Any],
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    most_in_memory: int,
) -> None:
    monkeypatch.setattr(corpora_module, "MOST_CHUNKS", most_in_memory)

    async def scenario(shelf: Shelf) -> RetrievalFailed:
        await shelf.add(HANDBOOK)
        longer = {"object": "embedding", "index": 0, "embedding": [1.0, 2.0, 3.0]}
        answer = {"object": "list", "data": [longer], "model": "embed-1"}
        endpoint.script = [(200, json.dumps(answer))]
        with pytest.raises(RetrievalFailed) as caught:
            await shelf.found("Where is the valve?")
        return caught.value

    failure = on_shelf(scenario, remote_embeddings(endpoint.url, None, "embed-1"))
    assert (str(failure), failure.transient) == (
        "The embedding model gives vectors of another length than when this project was indexed, "
        "under the same name. Go back to that model, or let the operator run `archwright reindex`.",
        False,
    )


def test_in_a_project_without_documents_nobody_is_asked(
    on_shelf: Callable[..., Any], endpoint: Endpoint
) -> None:
    endpoint.script = [(503, "<html>")]
    model = remote_embeddings(endpoint.url, None, "embed-1")
    found = on_shelf(lambda shelf: shelf.texts_found("Where is the valve?"), model)
    assert (found, endpoint.batches) == ([], [])


def test_the_whole_texts_of_documents_are_given_by_name_the_newest_first(
    on_shelf: Callable[[Scenario[dict[str, str]]], dict[str, str]],
) -> None:
    most = library_module.MOST_OF_A_TEXT
    files = [
        ("docs/A.md", "indexed", "text/markdown", b"an older version"),
        (
            "docs/A.md",
            "indexed",
            "text/markdown",
            b"\xef\xbb\xbf# A\r\n\r\nWe sell \xe2\x82\xac.\x07",
        ),
        ("docs/A.md", "processing", "text/markdown", b"not yet"),
        ("docs/A.md", "failed", "text/markdown", b"never"),
        ("b.json", "indexed", "text/plain", '{"b": "\u00fc"}'.encode("cp1252")),
        ("long.txt", "indexed", "text/plain", b"one\n" + "\u20ac".encode() * (most // 3)),
        ("c.html", "indexed", "text/html", b"<p>C</p>"),
        ("d.md", "processing", "text/markdown", b"D"),
        ("other.md", "indexed", "text/markdown", b"not asked for"),
    ]

    async def play(shelf: Shelf) -> dict[str, str]:
        for name, status, mime_type, content in files:
            document = await shelf.add_row(name, status)
            about = "update documents set mime_type = %s where id = %s"
            await shelf.run(about, mime_type, document)
            await shelf.run("insert into document_files values (%s, %s)", document, content)
        elsewhere = Shelf(shelf.pool, shelf.vectors, shelf.library, shelf.rest)
        await elsewhere.add_row("d.md", "indexed")
        names = ["docs/A.md", "b.json", "c.html", "d.md", "long.txt", "none.md"]
        found = await shelf.library.documents(shelf.project_id, names)
        assert list(found) == ["long.txt", "b.json", "docs/A.md"]
        assert await shelf.library.documents(shelf.project_id, []) == {}
        return found

    assert on_shelf(play) == {
        "docs/A.md": "# A\n\nWe sell \u20ac.",
        "b.json": '{"b": "\u00fc"}',
        "long.txt": "one\n",
    }


def test_an_endpoint_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        embedder = remote_embeddings(url, None, "embed-1", timeout_s=0.2)
        with pytest.raises(RetrievalFailed, match="did not answer in time") as caught:
            asyncio.run(embedder.embed_query("x"))
    assert caught.value.transient


def test_documents_wait_for_an_endpoint_that_is_busy(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings_module, "_WAITS_S", (0.0, 0.0, 0.0))
    endpoint.script = [(429, "{}"), (503, "{}")]
    embedder = remote_embeddings(endpoint.url, None, "embed-1")
    assert asyncio.run(embedder.embed_documents(["abc"])) == [[3.0, 1.0]]
    endpoint.script = [(401, "{}"), (401, "{}")]
    with pytest.raises(RetrievalFailed, match="status 401"):
        asyncio.run(embedder.embed_documents(["abc"]))
    assert endpoint.batches == [["abc"]] * 4


def test_too_few_vectors_are_not_taken_for_all(endpoint: Endpoint) -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [1.0]}
    endpoint.script = [(200, json.dumps({"object": "list", "data": [vector], "model": "m"}))]
    embedder = remote_embeddings(endpoint.url, None, "embed-1")
    with pytest.raises(RetrievalFailed, match="did not answer with embeddings"):
        asyncio.run(embedder.embed_documents(["a", "b"]))


def test_what_is_in_memory_of_a_small_project_is_what_the_stores_would_find(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> list[list[tuple[object, float]]]:
        refined = await shelf.add(HANDBOOK)
        await shelf.library.refine(shelf.project_id, refined)
        await shelf.add([Chunk(0, None, "", "The pump and the valve need care.")], "care.md")
        remembered = await shelf.found("At which pressure does the valve open?")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(corpora_module, "MOST_CHUNKS", -1)
            other = Library(shelf.vectors, *shelf.rest)
            question = Question("At which pressure does the valve open?")
            stored = await other.search(shelf.project_id, question, limit=9)
        return [
            [((p.chunk, p.text, p.context, p.places), p.score) for p in found]
            for found in (remembered, stored)
        ]

    remembered, stored = on_shelf(scenario)
    assert remembered == [(what, pytest.approx(score, abs=1e-5)) for what, score in stored]
    assert len(stored) == 4


def test_what_another_process_changes_is_not_found_as_it_was(on_shelf: Callable[..., Any]) -> None:
    async def scenario(shelf: Shelf) -> list[list[str]]:
        first = await shelf.add(HANDBOOK)
        other = Library(shelf.vectors, *shelf.rest)

        async def seen() -> list[str]:
            found = await other.search(shelf.project_id, Question("valve pressure"), limit=9)
            return sorted(passage.text for passage in found)

        before = await seen()
        second = await shelf.add_row("new.md")
        await shelf.library.index(shelf.project_id, second, [Chunk(0, None, "", "Valve rust.")])
        unpublished = await seen()
        await shelf.run("update documents set status = 'indexed' where id = %s", second)
        published = await seen()
        await shelf.run("delete from documents where id = %s", first)
        return [before, unpublished, published, await seen()]

    three = [CAT, PUMP, VALVE]
    assert on_shelf(scenario) == [three, three, [*three, "Valve rust."], ["Valve rust."]]


def test_with_the_outline_of_the_moment_the_database_is_not_asked_again(
    on_shelf: Callable[..., Any],
) -> None:
    async def scenario(shelf: Shelf) -> list[list[str]]:
        await shelf.add(HANDBOOK)
        before = await shelf.texts_found("valve pressure")
        outline = await shelf.rest[0].outline(shelf.project_id)
        await shelf.pool.close()
        asked = Question("valve pressure")
        found = await shelf.library.search(shelf.project_id, asked, limit=9, outline=outline)
        return [before, [passage.text for passage in found]]

    assert on_shelf(scenario) == [[VALVE, PUMP, CAT]] * 2


def test_questions_at_the_same_time_each_get_their_own_vector() -> None:
    batches: list[list[str]] = []

    def embed(texts: list[str]) -> list[list[float]]:
        batches.append(texts)
        if "bad" in texts:
            raise ValueError("bad")
        return [[float(len(text))] for text in texts]

    questions = Questions(embed)

    async def ask() -> list[object]:
        asked = ("a", "bad", "cc", "dd", "dd")
        return await asyncio.gather(*map(questions.vector, asked), return_exceptions=True)

    for _ in range(2):  # in two event loops
        a, bad, *rest = asyncio.run(ask())
        assert (a, str(bad), rest) == ([1.0], "bad", [[2.0]] * 3)
    # What is known already is not embedded again.
    assert sum(batch == ["a"] for batch in batches) <= 2
    assert batches[-1] == ["bad"]
