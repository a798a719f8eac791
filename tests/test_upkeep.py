"""What a process does beside its runs: it gives away what it does not know, and nothing else."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime

import psycopg
import pytest
from conftest import make_database

import api.runs.upkeep
from api.access.principals import LOCAL_USER, know_principals
from api.app import DIALECTS
from api.database.migrations import migrate
from api.fair_use import FairUse
from api.runs.accounts import no_price
from api.runs.ending import Endings
from api.runs.leases import Lease
from api.runs.recovery import Recovery, Waiting
from api.runs.rows import RunRows
from api.runs.upkeep import Upkeep
from graph.postgres import Pool, open_pool


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
    endings = Endings(pool, FairUse(pool))
    recovery = Recovery(pool, endings, lease.process_id, DIALECTS, reruns=True, price_of=no_price)
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
        assert list(await rows.standing(lease.process_id)) == taken
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


_SELECT_LEASES = "select lease_until from processes"
