"""`archwright reindex`: all vectors from Postgres, also for another model, repeated and refused."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from conftest import Service, migrated_database
from typer.testing import CliRunner

from api.access.principals import LOCAL_USER, know_principals
from api.cli import app
from api.ingestion import Ingestion
from graph.errors import RetrievalFailed
from graph.knowledge.chunking import Chunk
from graph.knowledge.embeddings import Embedder, local_embeddings
from graph.knowledge.library import Library
from graph.knowledge.passages import Passages
from graph.knowledge.places import record_of
from graph.knowledge.questions import Question
from graph.knowledge.static_model import StaticModel
from graph.knowledge.vectors import Vectors
from graph.postgres import Pool, open_pool

PUMP = [Chunk(0, 1, "", "The pump delivers twelve litres a minute.")]
CAT = [Chunk(0, 1, "", "Cats sleep for most of the day.")]


@dataclass
class Shelf:
    """A library with its parts and one project."""

    pool: Pool
    vectors: Vectors
    library: Library
    project: str

    async def add(self, chunks: list[Chunk], status: str = "indexed") -> str:
        document = str(uuid4())
        await self.run(
            "insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status,"
            " chunk_count) values (%s, %s, %s, 'text/plain', 1, '', %s, %s)",
            document, self.project, document, status, len(chunks),
        )  # fmt: skip
        await self.library.index(self.project, document, chunks)
        return document

    async def found(self, question: str) -> list[str]:
        found = await self.library.search(self.project, Question(question), limit=9)
        return [passage.chunk.place[0] for passage in found]

    async def run(self, statement: str, *values: object) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(statement.encode(), values)


@pytest.fixture
def url(postgres_url: str) -> str:
    made = migrated_database(postgres_url)
    return made


@pytest.fixture(scope="module")
def static() -> StaticModel:
    return StaticModel()


@pytest.fixture(scope="module")
def embedder(static: StaticModel) -> Embedder:
    return local_embeddings(static)


@asynccontextmanager
async def shelf_of(
    url: str, folder: Path, model: Embedder, static: StaticModel, project: str
) -> AsyncIterator[Shelf]:
    async with open_pool(url) as pool:
        await know_principals(pool)
        with Vectors.open_embedded(folder / "chroma", model.name) as vectors:
            shelf = Shelf(pool, vectors, Library(vectors, Passages(pool), model, static), project)
            await shelf.run(
                "insert into projects (id, owner_id, name) values (%s, %s, 'P')"
                " on conflict do nothing", project, LOCAL_USER.id,
            )  # fmt: skip
            yield shelf


Play = Callable[[Callable[[Shelf], Any], Embedder], Any]


@pytest.fixture
def play(url: str, tmp_path: Path, static: StaticModel) -> Play:
    """Run a scenario on the same shelf with this model, as after a restart."""
    project = str(uuid4())

    def run(scenario: Callable[[Shelf], Any], model: Embedder) -> Any:
        async def whole() -> Any:
            async with shelf_of(url, tmp_path, model, static, project) as shelf:
                return await scenario(shelf)

        return asyncio.run(whole())

    return run


def test_after_a_change_of_the_embedding_model_reindex_makes_the_documents_searchable_again(
    play: Play, embedder: Embedder
) -> None:
    async def fill(shelf: Shelf) -> list[str]:
        return [await shelf.add(PUMP), await shelf.add(CAT)]

    async def rebuild(shelf: Shelf) -> tuple[list[str], int]:
        with pytest.raises(RetrievalFailed, match="run `archwright reindex`"):
            await shelf.found("Which pump?")
        told: list[tuple[str, int, int]] = []
        for _ in range(2):
            told.clear()
            await shelf.library.reindex(shelf.project, progress=lambda *one: told.append(one))
        assert told == [("embedding", 1, 2), ("embedding", 2, 2)]
        return await shelf.found("Which pump?"), await shelf.library.count(shelf.project)

    pump, cat = play(fill, embedder)
    assert play(rebuild, replace(embedder, name="another")) == ([pump, cat], 2)


def test_vectors_of_another_model_are_left_to_the_command_and_hold_up_no_other_job(
    play: Play, embedder: Embedder
) -> None:
    async def fill(shelf: Shelf) -> str:
        return await shelf.add(PUMP)

    async def refine(shelf: Shelf) -> None:
        await Ingestion(shelf.pool, shelf.library)._refine(shelf.project, pump)

    pump = play(fill, embedder)
    # Without being asked to come again later.
    play(refine, replace(embedder, name="another"))


def test_reindex_takes_away_what_is_in_no_indexed_document_and_survives_an_interruption(
    play: Play, embedder: Embedder
) -> None:
    async def scenario(shelf: Shelf) -> None:
        pump, lost, late = await shelf.add(PUMP), await shelf.add(CAT), await shelf.add(CAT)
        await shelf.add(CAT, "failed")
        await shelf.run("delete from documents where id = %s", lost)

        def interrupt(_: str, done: int, total: int) -> None:
            if done == total:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            await shelf.library.reindex(shelf.project, progress=interrupt)
        assert await shelf.found("Which pump?") == [pump, late], "the old ones stay until then"
        await shelf.run("delete from documents where id = %s", late)
        await shelf.library.reindex(shelf.project)
        assert await shelf.found("Which pump?") == [pump]
        assert await shelf.library.count(shelf.project) == 1

    play(scenario, embedder)


def before_the_change(
    monkeypatch: pytest.MonkeyPatch, shelf: Shelf, happens: Callable[[], Awaitable[None]]
) -> None:
    """Let something happen when the new collection is full and the old one still searched."""
    change = shelf.vectors.replace

    async def later(project: str) -> None:
        await happens()
        await change(project)

    monkeypatch.setattr(shelf.vectors, "replace", later)


def test_a_document_that_comes_while_the_others_are_made_anew_has_its_vectors_too(
    play: Play, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shelf: Shelf) -> list[int]:
        late: list[str] = []

        async def come() -> None:
            late.append(await shelf.add(PUMP))

        documents = [await shelf.add(CAT)]
        before_the_change(monkeypatch, shelf, come)
        await shelf.library.reindex(shelf.project)
        documents += late
        return [await shelf.vectors.count_document(shelf.project, one) for one in documents]

    assert play(scenario, embedder) == [1, 1]


def test_another_process_that_has_read_the_old_vectors_reads_the_new_ones(
    play: Play, embedder: Embedder, static: StaticModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(shelf: Shelf) -> None:
        library = Library(shelf.vectors, Passages(shelf.pool), embedder, static)
        elsewhere = replace(shelf, library=library)
        found: list[list[str]] = []

        async def look() -> None:
            found.append(await elsewhere.found("Do kittens nap?"))

        pump, cat = await shelf.add(PUMP), await shelf.add(CAT)
        for document, chunk in ((pump, CAT[0]), (cat, PUMP[0])):
            swapped = await embedder.embed_documents([chunk.searchable])
            await shelf.vectors.delete_document(shelf.project, document)
            await shelf.vectors.add(shelf.project, document, [record_of((document, 0))], swapped)
        before_the_change(monkeypatch, shelf, look)
        await shelf.library.reindex(shelf.project)
        await look()
        assert found == [[pump, cat], [cat, pump]]

    play(scenario, embedder)


def test_the_full_text_index_is_made_anew_too_and_no_vectors_are_quick_ones_any_more(
    play: Play, embedder: Embedder
) -> None:
    async def scenario(shelf: Shelf) -> None:
        async def stored() -> tuple[list[Any], list[Any]]:
            async with shelf.pool.connection() as connection:
                of = (shelf.project,)
                terms = await connection.execute(_SELECT_TERMS, of)
                documents = await connection.execute(_SELECT_DOCUMENTS, of)
                return await terms.fetchall(), await documents.fetchall()

        pump = await shelf.add(PUMP)
        terms, documents = await stored()
        assert (len(terms) > 1, documents) == (True, [{"id": UUID(pump), "is_refined": False}])
        await shelf.run("delete from postings where document_id = %s", pump)
        await shelf.library.reindex(shelf.project)
        assert await stored() == (terms, [{"id": UUID(pump), "is_refined": True}])

    play(scenario, embedder)


_SELECT_TERMS = "select * from postings where project_id = %s order by term"
_SELECT_DOCUMENTS = "select id, is_refined from documents where project_id = %s"


def test_a_search_between_the_deletion_of_the_old_and_the_naming_of_the_new_finds_the_new(
    play: Play, embedder: Embedder
) -> None:
    async def scenario(shelf: Shelf) -> None:
        pump = await shelf.add(PUMP)
        fresh = shelf.vectors.anew()
        vectors = await embedder.embed_documents([PUMP[0].searchable])
        await fresh.add(shelf.project, pump, [record_of((pump, 0))], vectors)
        shelf.vectors._client.delete_collection(f"project-{shelf.project}")
        assert await shelf.found("Which pump?") == [pump]

    play(scenario, embedder)


def test_a_document_of_which_vectors_are_missing_is_not_indexed(
    play: Play, embedder: Embedder
) -> None:
    async def scenario(shelf: Shelf) -> None:
        document = await shelf.add(PUMP)

        def lose(stage: str, done: int, total: int) -> None:
            if stage == "embedding" and done == total:
                shelf.vectors._client.delete_collection(f"project-{shelf.project}")

        with pytest.raises(RetrievalFailed, match="kept 0 of the document's 1 passages") as caught:
            await shelf.library.index(shelf.project, document, PUMP, progress=lose)
        assert caught.value.transient

    play(scenario, embedder)


def test_the_command_rebuilds_a_data_folder_from_which_the_vectors_are_gone(
    play: Play, embedder: Embedder, url: str, tmp_path: Path
) -> None:
    async def fill(shelf: Shelf) -> str:
        return await shelf.add(PUMP)

    pump = play(fill, embedder)
    shutil.rmtree(tmp_path / "chroma")
    done = command(tmp_path, url)
    assert (done.exit_code, done.stdout) == (0, "Made anew: the vectors of 1 project.\n")
    assert play(lambda shelf: shelf.found("Which pump?"), embedder) == [pump]


def test_the_command_says_that_a_running_service_must_be_stopped_first(service: Service) -> None:
    assert service.settings.database_url is not None
    url = service.settings.database_url.get_secret_value()
    done = command(service.settings.data_dir, url)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == (
        "The service runs and has the vectors open. Stop it, run `archwright reindex` again, then "
        "start it.\n"
    )


def test_the_command_says_that_the_database_is_away(tmp_path: Path) -> None:
    done = command(tmp_path, "postgresql://nobody@127.0.0.1:1/x")
    assert done.exit_code == 1
    assert done.stderr.startswith("DATABASE_URL: ")
    assert done.stderr.count("\n") == 1


def command(folder: Path, url: str) -> Any:
    settings = {"DATABASE_URL": url, "DATA_DIR": str(folder)}
    return CliRunner().invoke(app, ["reindex"], env=settings)
