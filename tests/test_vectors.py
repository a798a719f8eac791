"""The vector store, embedded and as a server: both are Chroma's own."""

import asyncio
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from freezing import family, frozen
from timed import timed

import graph.knowledge.vectors as vectors_module
from graph.errors import RetrievalFailed
from graph.knowledge.ownership import VectorsInUse
from graph.knowledge.vector_server import VectorServer
from graph.knowledge.vectors import Near, Vectors

ROOT = Path(__file__).resolve().parent.parent
OWNER = """
import sys, time
from pathlib import Path
from graph.knowledge.ownership import VectorsInUse
from graph.knowledge.vectors import Vectors
try:
    vectors = Vectors.open_embedded(Path(sys.argv[1]), "model")
except VectorsInUse as error:
    sys.exit(str(error))
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Chroma server of the Rust front end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chroma = shutil.which("chroma", path=str(Path(sys.executable).parent))
    assert chroma
    arguments = ["--path", str(tmp_path_factory.mktemp("server")), "--port", str(port)]
    with subprocess.Popen(
        [chroma, "run", "--host", "127.0.0.1", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        url = f"http://127.0.0.1:{port}"
        wait_for(url)
        yield url
        process.terminate()


def wait_for(url: str) -> None:
    for _ in range(200):
        try:
            httpx.get(f"{url}/api/v2/heartbeat").raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.1)
    pytest.fail("the Chroma server did not start")


@pytest.fixture(params=["embedded", "server"])
def vectors(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Vectors]:
    if request.param == "server":
        opened = Vectors.open_server(request.getfixturevalue("server_url"), "model")
    else:
        opened = Vectors.open_embedded(tmp_path, "model")
    with opened:
        yield opened


@pytest.fixture
def project() -> str:
    return str(uuid4())


def spread(count: int) -> list[list[float]]:
    chance = random.Random(1)
    return [[chance.gauss(0, 1) for _ in range(8)] for _ in range(count)]


def near(*hits: tuple[str, float]) -> list[tuple[str, object]]:
    return [(chunk_id, pytest.approx(score, abs=0.006)) for chunk_id, score in hits]


def test_the_best_come_first_with_their_cosine_similarity(vectors: Vectors, project: str) -> None:
    async def scenario() -> list[Near]:
        await vectors.add(project, "d", ["b", "c", "a"], [[0, 3], [0.6, 0.8], [2, 0]])
        return await vectors.search(project, [1, 0], 9)

    assert asyncio.run(scenario()) == near(("a", 1.0), ("c", 0.6), ("b", 0.0))


def test_a_limit_cuts_and_zero_gives_nothing(vectors: Vectors, project: str) -> None:
    async def scenario() -> list[list[Near]]:
        await vectors.add(project, "d", ["a", "b"], [[1, 0], [0, 1]])
        return [await vectors.search(project, [1, 0], limit) for limit in (1, 0)]

    assert asyncio.run(scenario()) == [near(("a", 1.0)), []]


def test_an_unknown_project_is_empty(vectors: Vectors, project: str) -> None:
    async def scenario() -> tuple[list[Near], int]:
        await vectors.delete_document(project, "d")
        await vectors.delete_project(project)
        return await vectors.search(project, [1, 0], 3), await vectors.count(project)

    assert asyncio.run(scenario()) == ([], 0)


def test_a_project_never_sees_another_ones_vectors(vectors: Vectors, project: str) -> None:
    async def scenario() -> list[Near]:
        await vectors.add(project, "d", ["mine"], [[0, 1]])
        await vectors.add(str(uuid4()), "d", ["theirs"], [[1, 0]])
        return await vectors.search(project, [1, 0], 9)

    assert asyncio.run(scenario()) == near(("mine", 0.0))


def test_the_same_id_again_replaces_its_vector(vectors: Vectors, project: str) -> None:
    async def scenario() -> tuple[list[Near], int]:
        await vectors.add(project, "d", ["a"], [[0, 1]])
        await vectors.add(project, "d", ["a"], [[1, 0]])
        return await vectors.search(project, [1, 0], 9), await vectors.count(project)

    assert asyncio.run(scenario()) == (near(("a", 1.0)), 1)


@pytest.mark.slow
def test_a_deleted_document_is_never_found_again(vectors: Vectors, project: str) -> None:
    many = spread(9000)

    async def scenario() -> tuple[set[str], int]:
        await vectors.add(project, "gone", [f"gone-{at}" for at in range(9000)], many)
        await vectors.add(project, "kept", ["kept-1", "kept-2"], many[:2])
        await vectors.delete_document(project, "gone")
        found = [await vectors.search(project, vector, 50) for vector in many[:20]]
        return {chunk_id for hits in found for chunk_id, _ in hits}, await vectors.count(project)

    assert asyncio.run(scenario()) == ({"kept-1", "kept-2"}, 2)


def test_a_deleted_project_is_empty_and_can_begin_anew(vectors: Vectors, project: str) -> None:
    async def scenario() -> list[list[Near]]:
        await vectors.add(project, "d", ["a"], [[1, 0]])
        await vectors.delete_project(project)
        found = await vectors.search(project, [1, 0], 9)
        await vectors.add(project, "d", ["b"], [[1, 0, 0]])
        return [found, await vectors.search(project, [1, 0, 0], 9)]

    assert asyncio.run(scenario()) == [[], near(("b", 1.0))]


def test_documents_may_be_added_to_a_new_project_at_once(vectors: Vectors, project: str) -> None:
    async def scenario() -> int:
        adds = (vectors.add(project, f"d{at}", [f"c{at}"], [[1.0, at]]) for at in range(8))
        await asyncio.gather(*adds)
        return await vectors.count(project)

    assert asyncio.run(scenario()) == 8


def test_a_store_has_an_id_of_its_own_from_wherever_it_is_reached(tmp_path: Path) -> None:
    with Vectors.open_embedded(tmp_path / "a", "m") as one:
        before = asyncio.run(one.store_id())
    with VectorServer(tmp_path / "a") as server, Vectors.open_server(server.url, "m") as same:
        after = asyncio.run(same.store_id())
    with Vectors.open_embedded(tmp_path / "b", "m") as other:
        assert [after == before, asyncio.run(other.store_id()) == before] == [True, False]


def test_a_server_that_died_is_started_again_at_the_same_address_with_what_it_had(
    tmp_path: Path, project: str
) -> None:
    with VectorServer(tmp_path) as server:
        with Vectors.open_server(server.url, "m") as vectors:
            asyncio.run(vectors.add(project, "d", ["a"], [[1, 0]]))
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
        while server.alive():
            time.sleep(0.01)
        server.restart_if_dead()
        with Vectors.open_server(server.url, "m") as vectors:
            assert asyncio.run(vectors.search(project, [1, 0], 9)) == near(("a", 1.0))


@pytest.mark.slow
def test_who_waits_for_a_silent_server_keeps_no_thread_from_others(
    tmp_path: Path, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "_SERVER_TIMEOUT_S", 2)

    async def scenario(vectors: Vectors) -> tuple[list[bool], list[str]]:
        searches = [asyncio.create_task(vectors.search(project, [1, 0], 9)) for _ in range(40)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(int)
        ended = [search.done() for search in searches]
        failed = await asyncio.gather(*searches, return_exceptions=True)
        return ended, [type(one).__name__ for one in failed]

    with (
        VectorServer(tmp_path) as server,
        Vectors.open_server(server.url, "m") as vectors,
        frozen(family(psutil.Process(server.pid))),
    ):
        ended, failed = asyncio.run(scenario(vectors))
    assert (ended, failed) == ([False] * 40, ["RetrievalFailed"] * 40)


def test_a_store_that_is_there_answers(vectors: Vectors) -> None:
    asyncio.run(vectors.heartbeat())


@pytest.mark.parametrize("project_id", ["", "../other", "project"])
def test_only_uuids_name_projects(vectors: Vectors, project_id: str) -> None:
    with pytest.raises(ValueError, match="badly formed"):
        asyncio.run(vectors.search(project_id, [1, 0], 3))


def test_equal_vectors_differ_a_little_and_always_by_the_same(
    vectors: Vectors, project: str
) -> None:
    async def scenario() -> list[list[Near]]:
        found = []
        for _ in range(2):
            await vectors.add(project, "d", ["a", "b"], [[3, 4], [3, 4]])
            found.append(sorted(await vectors.search(project, [4, 3], 2)))
        return found

    first, second = asyncio.run(scenario())
    assert first == second == near(("a", 0.96), ("b", 0.96))
    assert first[0][1] != first[1][1]


def test_thousands_of_copies_of_one_text_do_not_hide_the_others(
    tmp_path: Path, project: str
) -> None:
    others = spread(50)
    copies = [f"copy-{at}" for at in range(3000)]

    async def scenario(vectors: Vectors) -> list[str]:
        await vectors.add(project, "d", copies, [[1.0] * 8] * len(copies))
        await vectors.add(project, "e", [str(at) for at in range(50)], others)
        return [(await vectors.search(project, vector, 1))[0][0] for vector in others]

    with Vectors.open_embedded(tmp_path, "model") as vectors:
        assert asyncio.run(scenario(vectors)) == [str(at) for at in range(50)]


def test_what_the_index_has_lost_is_found_all_the_same(
    vectors: Vectors, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = spread(700)
    indexed = vectors_module._nearest

    async def scenario() -> list[Near]:
        await vectors.add(project, "d", [str(at) for at in range(700)], many)
        whole = await vectors.search(project, many[650], 5)
        monkeypatch.setattr(vectors_module, "_nearest", lambda *asked: indexed(*asked)[7:])
        assert await vectors.search(project, many[650], 5) == near(*whole)
        return whole

    assert asyncio.run(scenario())[:1] == near(("650", 1.0))


def test_vectors_outlive_the_process_that_made_them(tmp_path: Path, project: str) -> None:
    with Vectors.open_embedded(tmp_path, "model") as vectors:
        asyncio.run(vectors.add(project, "d", ["a"], [[1, 0]]))
    with Vectors.open_embedded(tmp_path, "model") as vectors:
        assert asyncio.run(vectors.search(project, [1, 0], 9)) == near(("a", 1.0))


def test_another_embedding_model_is_refused_with_what_to_do(tmp_path: Path, project: str) -> None:
    with Vectors.open_embedded(tmp_path, "old") as vectors:
        asyncio.run(vectors.add(project, "d", ["a"], [[1, 0]]))
    with Vectors.open_embedded(tmp_path, "new") as vectors:
        for call in (vectors.search(project, [1], 1), vectors.add(project, "d", ["b"], [[1]])):
            with pytest.raises(RetrievalFailed) as caught:
                asyncio.run(call)
            assert (str(caught.value), caught.value.transient) == (
                "This project was indexed with the embedding model 'old', the service now uses "
                "'new'. Go back to that model, or let the operator run `archwright reindex`.",
                False,
            )
        asyncio.run(vectors.delete_project(project))
        asyncio.run(vectors.add(project, "d", ["b"], [[1]]))
        assert asyncio.run(vectors.count(project)) == 1


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_owner_ends(tmp_path: Path) -> None:
    message = (
        f"The folder {str(tmp_path)!r} is in use by process {{}}. "
        "Stop it, choose another DATA_DIR, or set CHROMA_URL to share a Chroma server."
    )
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == "open\n"
        second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (second.returncode, second.stderr) == (1, message.format(owner.pid) + "\n")
        with pytest.raises(VectorsInUse, match=re.escape(message.format(owner.pid))):
            Vectors.open_embedded(tmp_path, "model")
        owner.kill()
    Vectors.open_embedded(tmp_path, "model").close()


def test_closing_gives_the_folder_free_and_may_be_repeated(tmp_path: Path) -> None:
    first = Vectors.open_embedded(tmp_path, "model")
    first.close()
    with Vectors.open_embedded(tmp_path, "model"):
        first.close()
        with pytest.raises(VectorsInUse):
            Vectors.open_embedded(tmp_path, "model")


def test_a_damaged_store_is_reported_and_not_owned(tmp_path: Path) -> None:
    (tmp_path / "chroma.sqlite3").write_bytes(b"not a database" * 1000)
    kept = []
    for _ in range(2):
        with pytest.raises(RetrievalFailed, match="did not answer") as caught:
            Vectors.open_embedded(tmp_path, "model")
        kept.append(caught)


def test_a_server_that_is_not_there_is_a_transient_failure() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(RetrievalFailed) as caught:
            Vectors.open_server(url, "model")
    assert caught.value.transient
    assert str(caught.value) == (
        f"CHROMA_URL: no Chroma server answers at {url.removeprefix('http://')}. Check the "
        "address, and whether it runs."
    )


@timed
def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors_module, "_SERVER_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(RetrievalFailed) as caught:
            Vectors.open_server(url, "model")
    assert caught.value.transient
    assert time.monotonic() - begun < 5
