"""What a process does beside its runs: it gives away what it does not know, and nothing else."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime

import psycopg
import pytest
from conftest import make_database

import api.runs.upkeep
from api.access.principals import LOCAL_USER, know_principals
from api.database.migrations import migrate
from api.fair_use import FairUse, Limits
from api.opening import DIALECTS
from api.runs.course import Watchers
from api.runs.ending import Endings
from api.runs.leases import Lease
from api.runs.recovery import Recovery, Waiting
from api.runs.rows import RunRows, Shown
from api.runs.run import Run
from api.runs.upkeep import Upkeep
from api.runs.writer import LogWriter
from graph.events import SourcesFound
from graph.postgres import Pool, open_pool
from graph.state import Source


def on_database(url: str, work: Callable[[Pool], Awaitable[None]]) -> None:
    migrate(url)

    async def play() -> None:
        async with open_pool(url, max_size=2) as pool:
            await know_principals(pool)
            async with asyncio.timeout(10):
                await work(pool)

    asyncio.run(play())


def begin(url: str, process_id: uuid.UUID | None) -> uuid.UUID:
    """Store a run of the legacy API that goes on in a process, or waits for one."""
    run_id = uuid.uuid4()
    with psycopg.connect(url) as connection:
        connection.execute(
            "insert into runs (id, owner_id, status, process_id, api, request) "
            "values (%s, %s, 'running', %s, 'legacy', '{\"turn\": {}}')",
            (run_id, LOCAL_USER.id, process_id),
        )
    return run_id


def parts(pool: Pool) -> tuple[Lease, RunRows, Recovery]:
    lease = Lease(pool)
    endings = Endings(pool, FairUse(pool, Limits()))
    recovery = Recovery(
        pool,
        endings,
        lease.process_id,
        DIALECTS,
        reruns=True,
        price_of=lambda *_: None,
        watch=Watchers(),
    )
    return lease, RunRows(pool), recovery


def test_what_begins_while_it_looks_for_what_it_does_not_know_stays_its_own(
    postgres_url: str,
) -> None:
    url = make_database(postgres_url)

    async def work(pool: Pool) -> None:
        lease, rows, recovery = parts(pool)
        await lease.enter(alone=True)
        lost, begun = begin(url, lease.process_id), list[uuid.UUID]()
        taken, has_taken = list[uuid.UUID](), asyncio.Event()

        def known() -> list[uuid.UUID]:
            seen = list(begun)
            if not begun:
                begun.append(begin(url, lease.process_id))
            return seen

        async def take_up(waiting: Waiting) -> None:
            taken.append(waiting.row.id)
            has_taken.set()

        upkeep = Upkeep(lease, rows, recovery, known)
        working = asyncio.create_task(upkeep.work(take_up, alone=True))
        await has_taken.wait()
        working.cancel()
        assert taken == [lost]

    on_database(url, work)


def test_what_a_process_has_no_time_to_begin_waits_for_another(postgres_url: str) -> None:
    url = make_database(postgres_url)

    async def work(pool: Pool) -> None:
        lease, rows, recovery = parts(pool)
        await lease.enter(alone=True)
        both = {begin(url, None), begin(url, None)}
        taken, has_taken = list[uuid.UUID](), asyncio.Event()

        async def take_up(waiting: Waiting) -> None:
            upkeep.takes_up = False
            taken.append(waiting.row.id)
            has_taken.set()

        upkeep = Upkeep(lease, rows, recovery, lambda: taken)
        working = asyncio.create_task(upkeep.work(take_up, alone=True))
        await has_taken.wait()
        await upkeep.leave()
        working.cancel()
        assert list(await rows.running_by(lease.process_id)) == taken
        [left] = await parts(pool)[2].take_up()
        assert {*taken, left.row.id} == both

    on_database(url, work)


def test_a_run_that_is_stopped_while_it_waits_is_taken_up_by_nobody(postgres_url: str) -> None:
    url = make_database(postgres_url)

    async def work(pool: Pool) -> None:
        _, rows, recovery = parts(pool)
        stopped, waiting = begin(url, None), begin(url, None)
        await rows.ask_to_stop(stopped)
        assert [one.row.id for one in await recovery.take_up()] == [waiting]

    on_database(url, work)


def test_the_lease_is_prolonged_while_much_is_taken_up(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.runs.upkeep, "RENEW_S", 0.1)
    url = make_database(postgres_url)

    async def until(pool: Pool) -> datetime:
        async with pool.connection() as connection:
            [row] = await (await connection.execute(_SELECT_LEASES)).fetchall()
        found: datetime = row["lease_until"]
        return found

    async def work(pool: Pool) -> None:
        lease, rows, recovery = parts(pool)
        await lease.enter(alone=True)
        begin(url, None)
        is_taking = asyncio.Event()

        async def take_up(waiting: Waiting) -> None:
            is_taking.set()
            await asyncio.Event().wait()

        upkeep = Upkeep(lease, rows, recovery, list)
        working = asyncio.create_task(upkeep.work(take_up, alone=True))
        await is_taking.wait()
        before = await until(pool)
        await asyncio.sleep(1)
        working.cancel()
        assert await until(pool) > before

    on_database(url, work)


def shelved(url: str, names: Sequence[str]) -> tuple[uuid.UUID, dict[str, uuid.UUID]]:
    """A project with documents of these names, and their ids."""
    project, documents = uuid.uuid4(), {name: uuid.uuid4() for name in names}
    with psycopg.connect(url) as connection:
        connection.execute(
            "insert into projects (id, owner_id, name) values (%s, %s, 'P')",
            (project, LOCAL_USER.id),
        )
        for name, document in documents.items():
            connection.execute(_UPLOAD, (document, project, name))
    return project, documents


async def noted(pool: Pool) -> dict[uuid.UUID, tuple[list[str], bool]]:
    """The documents of each run, and whether it can be followed."""
    async with pool.connection() as connection:
        rows = await (await connection.execute(_SELECT_NOTED)).fetchall()
    return {row["id"]: (row["document_names"], row["is_followable"]) for row in rows}


async def until_there_is(pool: Pool, sql: str) -> None:
    for _ in range(1000):
        async with pool.connection() as connection:
            if await (await connection.execute(sql.encode())).fetchone() is not None:
                return
        await asyncio.sleep(0.01)
    raise TimeoutError


def test_a_document_of_the_same_name_elsewhere_does_not_stand_for_one_that_was_erased(
    postgres_url: str,
) -> None:
    url = make_database(postgres_url)

    async def work(pool: Pool) -> None:
        (here, documents), (elsewhere, _) = shelved(url, ["ebb.md"]), shelved(url, [])
        runs = [begin(url, None), begin(url, None)]
        ids = [str(documents["ebb.md"])]
        await RunRows(pool).note_documents(
            [
                Shown(run, of, ids, ["ebb.md"])
                for run, of in zip(runs, (here, elsewhere), strict=True)
            ]
        )
        assert await noted(pool) == {runs[0]: (["ebb.md"], True), runs[1]: ([], False)}

    on_database(url, work)


def test_a_document_that_a_run_shows_while_another_is_noted_is_noted_next(
    postgres_url: str,
) -> None:
    url = make_database(postgres_url)

    async def work(pool: Pool) -> None:
        project, documents = shelved(url, ["ebb.md", "flood.md"])
        rows = RunRows(pool)
        row = await rows.get(begin(url, None))
        assert row is not None
        run = Run(replace(row, api="chat", project_id=project), DIALECTS["chat"](row.told()))
        writer = LogWriter(pool, rows)
        writer.add(run)

        async def show(name: str) -> None:
            source: Source = {
                "id": str(uuid.uuid4()), "document_id": str(documents[name]), "url": None,
                "document_name": name, "page_number": None, "text": "High.", "context": "High.",
            }  # fmt: skip
            await run.emit(SourcesFound((source,)))

        with psycopg.connect(url) as holding:
            holding.execute("select from documents where name = 'ebb.md' for update")
            await show("ebb.md")
            working = asyncio.create_task(writer.work())
            await until_there_is(pool, _SELECT_WAITING)
            await show("flood.md")
        await until_there_is(pool, "select from runs where document_names = '{flood.md}'")
        working.cancel()

    on_database(url, work)


_SELECT_NOTED = "select id, document_names, is_followable from runs"
_SELECT_WAITING = """
select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'
"""
_UPLOAD = """
insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status)
values (%s, %s, %s, 'text/markdown', 1, '', 'indexed')
"""
_SELECT_LEASES = "select lease_until from processes"
