"""Documents on their way in: progress that can be followed, versions, outages, odd names."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from uuid import UUID, uuid4

import httpx
import pytest
from conftest import Service, ServiceFactory, upload
from sse import Event, events_of, live, names, read
from standins.openai import OpenAIStandIn
from test_documents import search, status
from test_server import environment

import api.ingestion
import graph.knowledge.embeddings
from api.progress import GONE, Progress, Report
from api.queue import Queue
from api.versions import INGEST, Versions
from graph.postgres import open_pool

OAK = b"# Pier\n\nThe pier is made of oak."
STEEL = b"# Pier\n\nThe pier is made of steel."


@pytest.fixture(scope="module")
def embedding_model() -> Iterator[OpenAIStandIn]:
    """An embedding model that can be held up and refuse."""
    with OpenAIStandIn() as model:
        yield model


@pytest.fixture(scope="module")
def held_service(
    start_service: ServiceFactory, embedding_model: OpenAIStandIn
) -> Iterator[Service]:
    """A service whose documents wait for that model."""
    address = embedding_model.base_url
    with start_service(
        openai_base_url=address, openai_model="stand-in", embedding_base_url=address,
        embedding_model="embedding",
    ) as service:  # fmt: skip
        yield service


@pytest.fixture
def gate(
    held_service: Service, embedding_model: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenAIStandIn]:
    """The embedding model, through which nothing passes until it is let."""
    monkeypatch.setattr(graph.knowledge.embeddings, "_WAITS_S", ())
    embedding_model.embeddings_may_pass.clear()
    yield embedding_model
    embedding_model.reset()


@pytest.fixture
def held(held_service: Service, gate: OpenAIStandIn) -> Iterator[httpx.Client]:
    """A client of the service whose documents wait at the gate."""
    with held_service.client() as client:
        yield client


@pytest.fixture
def held_project(held: httpx.Client) -> str:
    return str(held.post("/projects", json={"name": "Held"}).json()["project"]["id"])


def send(http: httpx.Client, project: str, name: str, data: bytes) -> str:
    """Upload a file; gives the id of its document."""
    answer = http.post(f"/documents/projects/{project}", files={"file": (name, data)})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["documents"][0]["id"])


def listed(http: httpx.Client, project: str) -> list[tuple[str, str]]:
    documents = http.get(f"/documents/projects/{project}").json()["documents"]
    return [(document["id"], document["status"]) for document in documents]


def ends(http: httpx.Client, document: str) -> Event:
    """The last event of a document's stream, once it has ended."""
    return read(http, "GET", f"/documents/{document}/events")[-1]


# --- progress


def test_the_events_of_a_document_tell_each_stage_and_end_with_the_document(
    http: httpx.Client, project: str
) -> None:
    document = upload(http, project, "pier.md", OAK)
    events = read(http, "GET", f"/documents/{document['id']}/events")
    assert [event.id for event in events] == [
        f"{document['id']}:{number}" for number in range(1, len(events) + 1)
    ]
    assert [tuple(event.data.values()) for event in events[:-1]] == [
        ("reading", 0, 1), ("reading", 1, 1),
        ("storing", 0, 1), ("storing", 1, 1), ("embedding", 0, 1), ("embedding", 1, 1),
    ]  # fmt: skip
    assert (events[-1].name, events[-1].data) == ("done", {"document": document})


def test_the_events_go_on_after_the_last_one_that_the_reader_has(
    http: httpx.Client, project: str
) -> None:
    path = f"/documents/{upload(http, project, 'pier.md', OAK)['id']}/events"
    whole = read(http, "GET", path)
    assert read(http, "GET", path, headers={"Last-Event-ID": whole[2].id}) == whole[3:]
    assert read(http, "GET", path, params={"after": 5}) == whole[5:]
    assert read(http, "GET", path, params={"after": len(whole)}) == []
    asks = {"Accept": "text/event-stream", "Last-Event-ID": whole[-1].id}
    over = http.get(path, headers=asks)
    assert (over.status_code, over.content) == (204, b"")
    refused = http.get(path, headers={"Last-Event-ID": f"{uuid4()}:1"})
    assert (refused.status_code, refused.json()["error"]) == (400, "bad_last_event_id")


def test_the_events_of_a_large_document_are_few(http: httpx.Client, project: str) -> None:
    text = "\n\n".join(f"# Part {n}\n\n{f'Pile {n} is of oak. ' * 40}" for n in range(301))
    document = upload(http, project, "large.md", text.encode())
    events = read(http, "GET", f"/documents/{document['id']}/events")
    assert document["chunkCount"] > 300
    assert len(events) <= 40
    embedded = [event.data["done"] for event in events if event.data.get("stage") == "embedding"]
    assert embedded == sorted(embedded)
    assert embedded[-1] == document["chunkCount"]


def test_a_report_hands_on_each_stage_and_each_tenth_and_after_a_wait_only_what_is_new() -> None:
    reports = Report(is_again=False), Report(is_again=True)
    for report in reports:
        report("reading", 0, 1)
        for done in range(1001):
            report("embedding", done, 1000)
    tenths = [("embedding", done, 1000) for done in range(0, 1001, 100)]
    assert reports[0].take() == [("reading", 0, 1), *tenths]
    assert reports[1].take() == [("embedding", 1, 1000), *tenths[1:]]
    assert reports[1].take() == []


def test_the_events_of_a_failed_document_end_with_the_reason(
    http: httpx.Client, project: str
) -> None:
    document = upload(http, project, "empty.txt", b" ")
    last = ends(http, document["id"])
    assert (last.name, last.data) == ("error", {"message": document["error"]})


def test_the_events_of_what_nobody_has_uploaded_are_404(http: httpx.Client) -> None:
    assert http.get(f"/documents/{uuid4()}/events").status_code == 404


def test_a_reader_sees_a_document_while_it_is_taken_in(
    held: httpx.Client, held_project: str, gate: OpenAIStandIn
) -> None:
    document = send(held, held_project, "pier.md", OAK)
    with held.stream("GET", f"/documents/{document}/events") as response:
        lines = response.iter_lines()
        assert next(lines) == ": open"
        events = live(lines)
        seen = [next(events)]
        while seen[-1].data["stage"] != "embedding":
            seen.append(next(events))
        gate.embeddings_may_pass.set()
        seen += events
    assert names(seen[-2:]) == ["progress", "done"]
    assert read(held, "GET", f"/documents/{document}/events") == seen


def test_another_process_follows_a_document_too_and_ends_its_readers_when_it_goes_down(
    held_service: Service, held: httpx.Client, held_project: str, gate: OpenAIStandIn
) -> None:
    assert held_service.settings.database_url is not None
    url = held_service.settings.database_url.get_secret_value()

    async def follow(document: str) -> tuple[bytes, bytes]:
        async with open_pool(url) as pool:
            going, staying = (Progress(pool, Versions(pool, Queue({}))) for _ in range(2))
            reading = asyncio.create_task(_whole(going, document))
            waiting = asyncio.create_task(_whole(staying, document))
            await asyncio.sleep(0.5)
            going.close()
            cut = await reading
            gate.embeddings_may_pass.set()
            return cut, await waiting

    document = send(held, held_project, "pier.md", OAK)
    gate.wait_for_request()
    cut, whole = asyncio.run(follow(document))
    assert names(events_of(cut))[-1] == "progress"
    assert events_of(whole) == read(held, "GET", f"/documents/{document}/events")
    assert names(events_of(whole))[-1] == "done"


async def _whole(progress: Progress, document: str) -> bytes:
    return b"".join([part async for part in progress.follow(UUID(document))])


def test_a_document_at_which_the_service_crashed_too_often_is_given_up_with_a_sentence(
    http: httpx.Client, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.ingestion, "_MOST_CRASHES", -1)
    document = upload(http, project, "bomb.md", OAK)
    assert document["status"] == "failed"
    assert document["error"].startswith("The service ended again and again")


def test_a_document_that_is_deleted_meanwhile_ends_its_readers_and_leaves_nothing(
    held: httpx.Client, held_project: str, gate: OpenAIStandIn
) -> None:
    document = send(held, held_project, "pier.md", OAK)
    gate.wait_for_request()
    with held.stream("GET", f"/documents/{document}/events") as response:
        lines = response.iter_lines()
        assert next(lines) == ": open"
        assert held.delete(f"/documents/{document}").status_code == 204
        last = list(live(lines))[-1]
    assert (last.name, last.data) == ("error", {"message": GONE})
    gate.embeddings_may_pass.set()
    # The next one of that name is not held up, and the first one leaves no vectors.
    assert ends(held, send(held, held_project, "pier.md", STEEL)).name == "done"
    assert status(held, held_project)["vectors"] == 1


def test_ingest_that_is_interrupted_leaves_the_documents_to_the_service(
    held_service: Service, held: httpx.Client, gate: OpenAIStandIn, tmp_path: Path
) -> None:
    (tmp_path / "pier.md").write_bytes(OAK)
    line = [sys.executable, "-m", "api.cli", "ingest", "pier.md", "--project", "Left"]
    with subprocess.Popen(
        [*line, "--url", held_service.url], cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
    ) as ingesting:
        gate.wait_for_request(timeout_s=20)
        ingesting.send_signal(signal.SIGINT)
        assert ingesting.stderr is not None
        said = ingesting.stderr.read().decode()
        assert ingesting.wait(30) == 130
    assert said == "Interrupted. The service goes on with the documents that were uploaded.\n"
    gate.embeddings_may_pass.set()
    [project] = [one for one in held.get("/projects").json()["projects"] if one["name"] == "Left"]
    [(document, _)] = listed(held, project["id"])
    assert ends(held, document).name == "done"


def test_a_job_for_a_document_that_is_gone_takes_its_vectors_away(
    service: Service, http: httpx.Client, project: str
) -> None:
    """As after a crash, when the document was deleted before the next start."""
    upload(http, project, "pier.md", OAK)
    service.query("delete from documents where project_id = %s returning 1", project)
    library, gone = service.app.state.parts.library, str(uuid4())
    vectors, vector = library._vectors, asyncio.run(library._embedder.embed_query("oak"))
    asyncio.run(vectors.add(project, gone, [str(uuid4())], [vector]))
    assert service.settings.database_url is not None
    url = service.settings.database_url.get_secret_value()

    async def put() -> None:
        queue = Queue({})
        async with open_pool(url) as pool, queue.open(pool), pool.connection() as connection:
            about = {"project_id": project, "document_id": gone}
            await queue.put(connection, INGEST, lock=gone, key=gone, **about)

    asyncio.run(put())
    for _ in range(100):
        if not asyncio.run(vectors.count_document(project, gone)):
            return
        time.sleep(0.05)
    raise AssertionError("its vectors are still there")


# --- versions


@pytest.mark.slow
def test_of_versions_that_come_at_once_exactly_the_last_accepted_stays(
    service: Service, project: str
) -> None:
    def put(number: int) -> str:
        text = "\n\n".join(f"# Part {n}\n\nIn version v{number} it is {n}." for n in range(40))
        with service.client() as http:
            return send(http, project, "plan.md", text.encode())

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(put, range(8)))
    order = {
        str(row["id"]): row["accepted"]
        for row in service.query(
            "select id, accepted from documents where project_id = %s", project
        )
    }
    last = max(ids, key=lambda one: order.get(one, 0))
    with service.client() as http:
        assert ends(http, last).name == "done"
        assert listed(http, project) == [(last, "indexed")]
        found = search(http, project, "In which version is it 7?", 50)
        said = {word for one in found for word in one["content"].split() if word[0] == "v"}
        assert {one for one in said if one[1:].isdigit()} == {f"v{ids.index(last)}"}
        [document] = http.get(f"/documents/projects/{project}").json()["documents"]
        assert status(http, project)["vectors"] == document["chunkCount"]


def test_the_same_bytes_at_once_are_one_document_that_is_taken_in_once(
    service: Service, project: str
) -> None:
    def put(_: int) -> str:
        with service.client() as http:
            return send(http, project, "plan.md", OAK)

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(put, range(8)))
    with service.client() as http:
        [document] = ids
        assert ends(http, document).name == "done"
        assert send(http, project, "plan.md", OAK) == document
    [row] = service.query("select attempt from documents where id = %s", document)
    assert row["attempt"] == 1


def test_a_new_version_that_fails_leaves_the_old_one_searchable(
    http: httpx.Client, project: str
) -> None:
    old = upload(http, project, "plan.md", OAK)
    failed = upload(http, project, "plan.md", b"%PDF-1.7\nnothing more")
    assert failed["status"] == "failed"
    assert [one["content"][-4:] for one in search(http, project, "pier")] == ["oak."]
    assert upload(http, project, "plan.md", OAK) == old


def test_while_a_document_is_replaced_a_search_finds_one_version_whole(
    held: httpx.Client, held_project: str, gate: OpenAIStandIn
) -> None:
    gate.embeddings_may_pass.set()
    old = send(held, held_project, "plan.md", _parts("oak"))
    assert ends(held, old).name == "done"
    seen: list[set[str]] = []
    is_over = threading.Event()

    def keep_asking() -> None:
        while not is_over.is_set():
            found = search(held, held_project, "The pile is of oak", 50)
            seen.append({one["content"].split()[-1] for one in found})

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        for material in ("elm.", "ash.", "fir."):
            new = send(held, held_project, "plan.md", _parts(material[:-1]))
            assert ends(held, new).name == "done"
    finally:
        is_over.set()
        asking.join()
    assert len(seen) > 3
    assert [one for one in seen if len(one) != 1] == []
    assert len(set.union(*seen)) > 1


def _parts(material: str) -> bytes:
    return "\n\n".join(f"# Part {n}\n\nPile {n} is of {material}." for n in range(30)).encode()


def test_each_chunk_of_an_indexed_document_is_found_by_its_own_text(
    service: Service, http: httpx.Client, project: str
) -> None:
    text = "\n\n".join(
        f"# Part {n}\n\n" + f"Pile {n} stands {n * n} m out. " * 9 for n in range(60)
    )
    document = upload(http, project, "piles.md", text.encode())
    chunks = service.query("select id, text from chunks where document_id = %s", document["id"])
    assert len(chunks) == document["chunkCount"] > 5
    lost = [
        chunk["text"]
        for chunk in chunks
        if str(chunk["id"]) not in {one["id"] for one in search(http, project, chunk["text"], 9)}
    ]
    assert lost == []


# --- outages


def test_a_document_waits_for_an_embedding_model_that_is_away_and_is_taken_in_when_it_is_back(
    held: httpx.Client, held_project: str, gate: OpenAIStandIn
) -> None:
    gate.embeddings_status = 503
    gate.embeddings_may_pass.set()
    document = send(held, held_project, "pier.md", OAK)
    seen = []
    with held.stream("GET", f"/documents/{document}/events") as response:
        for event in live(response.iter_lines()):
            seen.append((event.name, event.data.get("stage")))
            if event.data.get("stage") == "waiting":
                gate.embeddings_status = 200
    assert ("progress", "waiting") in seen
    assert seen[-2:] == [("progress", "embedding"), ("done", None)]


def test_a_document_that_waited_too_long_fails_with_the_sentence(
    held: httpx.Client, held_project: str, gate: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.ingestion, "MOST_WAIT_S", 1.0)
    gate.embeddings_status = 503
    gate.embeddings_may_pass.set()
    begun = time.monotonic()
    last = ends(held, send(held, held_project, "pier.md", OAK))
    assert last.data == {
        "message": "The embedding model answered with status 503. Try again later."
    }
    assert 1 < time.monotonic() - begun < 60
    assert listed(held, held_project)[0][1] == "failed"


def test_a_text_that_has_to_wait_is_503_and_its_answer_is_there_the_next_time(
    held: httpx.Client, held_project: str, gate: OpenAIStandIn
) -> None:
    gate.embeddings_status = 503
    gate.embeddings_may_pass.set()
    path = f"/api/v1/projects/{held_project}/documents/ingest"
    body = {"doc_name": "notes", "markdown_content": "# Boats\n\nThe ferry is red."}
    first = held.post(path, json=body)
    assert (first.status_code, first.headers["retry-after"]) == (503, "5")
    gate.embeddings_status = 200
    assert ends(held, listed(held, held_project)[0][0]).name == "done"
    assert held.post(path, json=body).json()["chunks_ingested"] == 1


# --- names


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("../../etc/plan.md", "plan.md"),
        ("C:\\papers\\plan.md", "plan.md"),
        ("plan 🚢 élan.md", "plan 🚢 élan.md"),
        ("pl\x07an\x1b[31m.md", "plan[31m.md"),
        ("two\tparts.md", "two parts.md"),
        ("exe\u202edm.md", "exedm.md"),
        ("Pru\u0308fung.md", "Pr\u00fcfung.md"),
        (f"{'a' * 252}.md", f"{'a' * 252}.md"),
        ("50% of; filename=evil.md", "50% of; filename=evil.md"),
    ],
)
def test_a_files_name_is_kept_clean_and_comes_back_with_the_file(
    http: httpx.Client, project: str, sent: str, kept: str
) -> None:
    [document] = send_raw(http, project, sent).json()["documents"]
    assert document["name"] == kept
    answer = http.get(f"/documents/{document['id']}/content")
    assert answer.content == OAK
    plain, _, whole = answer.headers["content-disposition"].partition("; filename*=UTF-8''")
    assert unquote(whole) == kept
    assert plain.startswith('attachment; filename="')
    assert plain.count('"') == 2


def send_raw(http: httpx.Client, project: str, name: str) -> httpx.Response:
    """Upload a file under a name as it is: a well-behaved client would change some of them."""
    part = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return http.post(
        f"/documents/projects/{project}",
        content=part.encode() + OAK + b"\r\n--b--\r\n",
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )


@pytest.mark.parametrize("name", [".", "..", "...", "/", "\u202e", f"{'a' * 297}.md", "😀" * 300])
def test_a_name_that_is_none_is_400_with_a_sentence_and_nothing_is_stored(
    http: httpx.Client, project: str, name: str
) -> None:
    answer = send_raw(http, project, name)
    assert answer.status_code == 400
    said: dict[str, Any] = answer.json()
    [issue] = said["error"]["issues"]
    assert (said["success"], issue["path"], issue["code"]) == (False, ["file"], "value_error")
    assert issue["message"].endswith(".")
    assert len(issue["message"]) < 120
    assert listed(http, project) == []
