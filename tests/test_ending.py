"""How a run ends while somebody else changes what its end is about."""

import asyncio
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from conftest import migrated_database
from langgraph.checkpoint.base import empty_checkpoint
from psycopg.rows import dict_row

from api.access.principals import LOCAL_USER, know_principals
from api.fair_use import FairUse, Limits
from api.runs.accounts import Spent
from api.runs.beginning import Beginnings, NewRun, Place, Request
from api.runs.ending import End, Endings
from api.runs.rows import RunRow
from api.runs.stored_log import Batch
from api.runs.transcripts import Transcripts
from graph.checkpoints import Saved, open_checkpoints
from graph.events import Answer, Citation, Usage
from graph.postgres import Pool, open_pool
from graph.state import Source

PROCESS = uuid.uuid4()
LOG = [("text", "{}"), ("done", "{}")]


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    url = migrated_database(postgres_url)

    async def prepare() -> None:
        async with open_pool(url) as pool:
            await know_principals(pool)
            await open_checkpoints(pool, Transcripts(pool))

    asyncio.run(prepare())
    return url


@pytest.fixture
def rows(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


def upload(rows: psycopg.Connection[Any], project: uuid.UUID, name: str) -> Source:
    """A document of this name, of which a passage is cited."""
    source: Source = {
        "id": str(uuid.uuid4()), "document_id": str(uuid.uuid4()), "document_name": name,
        "page_number": None, "url": None, "text": "High water.", "context": "High water at noon.",
    }  # fmt: skip
    rows.execute(_UPLOAD, (source["document_id"], project, name))
    return source


def about(rows: psycopg.Connection[Any]) -> End:
    """The end of a run that is to begin, which cites two documents."""
    project = uuid.uuid4()
    rows.execute(_NEW_PROJECT, (project, LOCAL_USER.id))
    cited = [upload(rows, project, name) for name in ("ebb.md", "flood.md")]
    answer = Answer(
        "So.",
        tuple(Citation(n, one, "High water.", True, "service") for n, one in enumerate(cited, 1)),
    )
    run = RunRow(
        uuid.uuid4(), uuid.uuid4(), project, LOCAL_USER.id, "chat", "done", len(LOG),
        datetime.now(UTC), question_id=uuid.uuid4(),
    )  # fmt: skip
    saved = Saved(str(run.conversation_id), "", str(run.id), empty_checkpoint(), {"step": 3})
    documents = {str(one["document_id"]): one["document_name"] for one in cited}
    return End(
        run, answer, [Batch(run.id, 1, LOG)], Spent("house", "big", Usage(1, 2), None),
        documents=documents, checkpoint=saved,
    )  # fmt: skip


def ended(url: str, rows: psycopg.Connection[Any], end: End, meanwhile: str) -> bool:
    """Begin the run, and end it while somebody does something, whose end it waits for."""
    row = end.row
    assert row.conversation_id is not None
    assert row.project_id is not None
    assert row.question_id is not None

    async def play() -> bool:
        async with open_pool(url) as pool:
            fair_use = FairUse(pool, Limits())
            place = Place(
                row.conversation_id, row.project_id, row.question_id, "Why?", "", may_create=True
            )
            new = NewRun(row.id, row.owner_id, "chat", Request({"messages": []}, None, ""), place)
            await Beginnings(pool, PROCESS, fair_use).begin(new)
            with rows.transaction():
                rows.execute(meanwhile, {"run": row.id, "project": row.project_id})
                ending = asyncio.create_task(Endings(pool, fair_use).end(end, PROCESS))
                await until_it_waits(pool)
            return await ending

    return asyncio.run(play())


async def until_it_waits(pool: Pool) -> None:
    for _ in range(1000):
        async with pool.connection() as connection:
            if await (await connection.execute(_WAITING)).fetchone() is not None:
                return
        await asyncio.sleep(0.01)
    raise TimeoutError


def stored(rows: psycopg.Connection[Any], end: End) -> dict[str, Any] | None:
    """What is there of the run, its log as first numbers with counts; null where it is gone."""
    about = {"run": end.row.id, "project": end.row.project_id}
    return rows.execute(_SELECT, about).fetchone()


WHOLE = {
    "status": "done",
    "stop_asked": False,
    "has_request": False,
    "documents": 2,
    "content": "So.",
    "quotes": ["High water.", "High water."],
    "passages": 2,
    "log": [[1, 2]],
    "runs": 1,
    "checkpoints": 1,
}
NOTHING = {
    "status": "failed",
    "stop_asked": False,
    "has_request": True,
    "documents": 0,
    "content": "",
    "quotes": [],
    "passages": 0,
    "log": None,
    "runs": 0,
    "checkpoints": 0,
}
ERASED = {**WHOLE, "documents": 0, "quotes": ["", "High water."], "passages": 1, "log": None}
_CLOSE = "update runs set status = 'failed', seq = 9 where id = %(run)s"
_ASK_TO_STOP = "update runs set stop_asked = true where id = %(run)s"
_ERASE = "delete from documents where project_id = %(project)s and name = 'ebb.md'"
_REPLACE = f"""
with erased as ({_ERASE} returning *)
insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status)
select gen_random_uuid(), project_id, name, mime_type, size_bytes, sha256, status from erased
"""
_KEEP = """
with held as (select id from runs where id = %(run)s and status = 'running' for share)
insert into run_events (run_id, seq, count, events) select id, 2, 1, 'text {}' from held
"""


@pytest.mark.parametrize(
    ("meanwhile", "is_stored", "there"),
    [
        (_ASK_TO_STOP, True, {**WHOLE, "stop_asked": True}),
        (_CLOSE, False, NOTHING),
        (_ERASE, True, ERASED),
        (_REPLACE, True, WHOLE),
        ("delete from projects where id = %(project)s", False, None),
    ],
    ids=["asked to stop", "closed", "document erased", "document replaced", "project deleted"],
)
def test_a_run_that_ends_while_somebody_else_is_at_it_waits_and_judges_what_it_finds_then(
    url: str,
    rows: psycopg.Connection[Any],
    meanwhile: str,
    is_stored: bool,
    there: dict[str, Any] | None,
) -> None:
    end = about(rows)
    assert ended(url, rows, end, meanwhile) is is_stored
    assert stored(rows, end) == there


def test_what_of_a_log_arrives_late_does_not_stand_beside_the_whole(
    url: str, rows: psycopg.Connection[Any]
) -> None:
    end = replace(about(rows), in_doubt=True)
    assert ended(url, rows, end, _KEEP)
    assert stored(rows, end) == WHOLE


def test_who_asked_for_a_stop_while_the_service_went_down_is_heard(
    url: str, rows: psycopg.Connection[Any]
) -> None:
    end = about(rows)
    end = replace(end, row=replace(end.row, status="failed", next_run_id=uuid.uuid4()))
    assert ended(url, rows, end, _ASK_TO_STOP)
    both = rows.execute(_SELECT_BOTH, (end.row.conversation_id,)).fetchall()
    assert both == [
        {"id": end.row.id, "status": "failed", "stop_asked": True, "has_request": False},
        {"id": end.row.next_run_id, "status": "running", "stop_asked": True, "has_request": True},
    ]


_SELECT_BOTH = """
select id, status, stop_asked, request is not null as has_request from runs
where conversation_id = %s order by attempt
"""
_NEW_PROJECT = "insert into projects (id, name, owner_id) values (%s, 'Tides', %s)"
_UPLOAD = """
insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status)
values (%s, %s, %s, 'text/markdown', 1, '', 'indexed')
"""
_WAITING = """
select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""
_SELECT = """
select r.status, r.stop_asked, r.request is not null as has_request,
    cardinality(r.documents) as documents, m.content,
    array(select c ->> 'quote' from jsonb_array_elements(m.citations) as c) as quotes,
    (select count(*) from cited_passages p where p.message_id = r.id) as passages,
    (select array_agg(array[seq, count] order by seq) from run_events where run_id = r.id) as log,
    (select count(*) from usage u where u.project_id = %(project)s) as runs,
    (select count(*) from checkpoints where thread_id = r.conversation_id::text) as checkpoints
from runs r join messages m on m.id = r.id where r.id = %(run)s
"""
