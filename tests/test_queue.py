"""The job queue: order, one at a time, and nothing lost by whatever ends meanwhile."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from conftest import migrated_database
from psycopg import Rollback
from psycopg.conninfo import conninfo_to_dict
from timed import timed

import api.queue
from api.database.migrations import migrate
from api.queue import SILENT_S, Later, Queue
from graph.postgres import open_pool

Job = Callable[..., Awaitable[None]]
WORKER = """
import asyncio, sys
from api.queue import Queue
from graph.postgres import open_pool

async def job(number):
    print("begun", number, flush=True)
    await asyncio.sleep(60)

async def main(url):
    queue = Queue({"job": job})
    async with open_pool(url) as pool, queue.open(pool):
        await queue.work()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
def url(postgres_url: str) -> str:
    """A database with the service's tables."""
    made = migrated_database(postgres_url)
    return made


@asynccontextmanager
async def at_work(url: str, job: Job) -> Any:
    """A queue whose jobs are done by this process while the block runs."""
    queue = Queue({"job": job})
    async with open_pool(url) as pool, queue.open(pool):
        working = asyncio.create_task(queue.work())
        try:
            yield queue
        finally:
            working.cancel()
            await asyncio.wait({working})


async def put(url: str, number: int, lock: str = "a") -> None:
    queue, name = Queue({}), str(number)
    async with open_pool(url) as pool, queue.open(pool), pool.connection() as connection:
        await queue.put(connection, "job", lock=lock, key=name, number=name)


async def until(condition: Callable[[], bool], within_s: float = 30) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - some conditions are another process's
            await asyncio.sleep(0.01)


def test_jobs_of_one_lock_are_done_in_order_one_at_a_time_and_others_beside_them(url: str) -> None:
    told: list[str] = []

    async def job(number: str) -> None:
        told.append(f"+{number}")
        await asyncio.sleep(0.2)
        told.append(f"-{number}")

    async def scenario() -> None:
        for number, lock in enumerate(["a", "a", "a", "b"]):
            await put(url, number, lock)
        async with at_work(url, job):
            await until(lambda: len(told) == 8)

    asyncio.run(scenario())
    assert [one for one in told if one[1] != "3"] == ["+0", "-0", "+1", "-1", "+2", "-2"]
    assert told.index("+3") < told.index("-0"), "another lock need not wait"


def test_a_job_is_put_once_for_a_key_and_with_its_transaction_only(url: str) -> None:
    async def scenario() -> list[set[str]]:
        queue, seen = Queue({}), []
        async with open_pool(url) as pool, queue.open(pool), pool.connection() as connection:
            for _ in range(2):
                await queue.put(connection, "job", lock="a", key="twice", number="1")
            async with connection.transaction():
                await queue.put(connection, "job", lock="a", key="undone", number="2")
                raise Rollback
            seen.append(await queue.without_job(["twice", "undone"]))
            cursor = await connection.execute("select count(*) as n from procrastinate_jobs")
            assert (await cursor.fetchone() or {})["n"] == 1
        return seen

    assert asyncio.run(scenario()) == [{"undone"}]


@timed
@pytest.mark.parametrize("is_heard", [True, False])
def test_a_new_job_is_begun_at_once_where_notify_is_heard_and_soon_where_not(
    url: str, is_heard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind pgbouncer in transaction mode LISTEN is accepted, and nothing comes."""
    if is_heard:
        monkeypatch.setattr(api.queue, "_POLL_S", 60.0)
    else:
        with psycopg.connect(url) as connection:
            connection.execute(
                "alter table procrastinate_jobs"
                " disable trigger procrastinate_jobs_notify_queue_job_inserted_v1"
            )
    done: list[float] = []

    async def job(number: str) -> None:
        done.append(time.monotonic())

    async def scenario() -> float:
        async with at_work(url, job):
            await asyncio.sleep(1)
            begun = time.monotonic()
            await put(url, 1)
            await until(lambda: bool(done))
            return done[0] - begun

    # The library itself looks every five seconds.
    assert asyncio.run(scenario()) < 3


def test_a_job_whose_process_was_killed_is_done_again_by_another(url: str) -> None:
    asyncio.run(put(url, 1))
    command = [sys.executable, "-W", "ignore", "-c", WORKER, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "begun 1\n"
        worker.kill()
    done: list[str] = []

    async def job(number: str) -> None:
        done.append(number)

    async def scenario() -> None:
        async with at_work(url, job) as queue:
            assert await queue.take_over(SILENT_S) == [], "it was heard from a moment ago"
            with psycopg.connect(url) as connection:
                connection.execute(
                    "update procrastinate_workers set last_heartbeat = now() - interval '31 s'"
                    " where id = (select min(id) from procrastinate_workers)"
                )
            assert await queue.take_over(SILENT_S) == [{"number": "1"}]
            await until(lambda: done == ["1"])
            assert await queue.take_over(SILENT_S) == []

    asyncio.run(scenario())


def test_a_job_that_is_under_way_when_the_service_ends_is_done_after_the_next_start(
    url: str,
) -> None:
    begun: list[str] = []

    async def never_ends(number: str) -> None:
        begun.append(number)
        await asyncio.sleep(60)

    async def ends(number: str) -> None:
        begun.append(number)

    async def scenario() -> None:
        await put(url, 1)
        async with at_work(url, never_ends):
            await until(lambda: len(begun) == 1)
            at = time.monotonic()
        assert time.monotonic() - at < 20
        async with at_work(url, ends):
            await until(lambda: len(begun) == 2)

    asyncio.run(scenario())


def test_a_job_may_ask_to_be_done_later_and_keeps_its_place(url: str) -> None:
    told: list[tuple[str, float]] = []

    async def job(number: str) -> None:
        told.append((number, time.monotonic()))
        if len(told) == 1:
            raise Later(1)

    async def scenario() -> None:
        await put(url, 1)
        await put(url, 2)
        async with at_work(url, job):
            await until(lambda: len(told) == 3)

    asyncio.run(scenario())
    assert [number for number, _ in told] == ["1", "1", "2"]
    assert told[1][1] - told[0][1] >= 1


def test_a_job_that_asks_for_it_is_done_again_however_often_it_was(url: str) -> None:
    told: list[str] = []

    async def job(number: str) -> None:
        told.append(number)
        if len(told) == 1:
            raise Later(0)

    async def scenario() -> None:
        await put(url, 1)
        with psycopg.connect(url) as connection:
            connection.execute("update procrastinate_jobs set attempts = 1000")
        async with at_work(url, job):
            await until(lambda: len(told) == 2)

    asyncio.run(scenario())


def test_jobs_go_on_after_all_connections_were_cut(url: str) -> None:
    told: list[str] = []

    async def job(number: str) -> None:
        told.append(number)
        await asyncio.sleep(0.3)

    async def scenario() -> None:
        await put(url, 1)
        async with at_work(url, job):
            await until(lambda: told == ["1"])
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
            await put(url, 2)
            await until(lambda: "2" in told)

    asyncio.run(scenario())


def test_a_database_that_is_away_is_told_without_tracebacks(
    url: str, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    name = conninfo_to_dict(url)["dbname"]
    allow = f'alter database "{name}" allow_connections {{}}'

    async def job(number: str) -> None:
        told.append(number)

    async def scenario() -> None:
        async with at_work(url, job):
            await put(url, 1)
            await until(lambda: told == ["1"])
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                connection.execute(allow.format("false"))
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s",
                    (name,),
                )
                await until(lambda: "documents wait: the database is away" in caplog.messages)
                connection.execute(allow.format("true"))
            await put(url, 2)
            await until(lambda: told == ["1", "2"])

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []


def test_the_queue_goes_on_after_it_broke_off(url: str, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []
    rename = "alter function procrastinate_fetch_job_v2 rename to {}"

    async def job(number: str) -> None:
        told.append(number)

    async def scenario() -> None:
        async with at_work(url, job):
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(rename.format("away"))
                await asyncio.sleep(1)
                connection.execute("alter function away rename to procrastinate_fetch_job_v2")
            await put(url, 1)
            await until(lambda: told == ["1"])

    asyncio.run(scenario())
    assert [record.getMessage() for record in caplog.records] == ["the queue broke off"]
    assert "procrastinate_fetch_job_v2" in caplog.text


def test_the_queue_ends_when_it_is_cancelled_though_its_worker_cannot_sign_off(url: str) -> None:
    rename = "alter function {} rename to {}"
    sign_off = "procrastinate_unregister_worker_v1"

    async def job(number: str) -> None:
        begun.set()

    async def scenario() -> bool:
        await put(url, 1)
        queue = Queue({"job": job})
        async with open_pool(url) as pool, queue.open(pool):
            working = asyncio.create_task(queue.work())
            await asyncio.wait_for(begun.wait(), 30)
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(rename.format(sign_off, "away"))
                working.cancel()
                ended, _ = await asyncio.wait({working}, timeout=15)
                connection.execute(rename.format("away", sign_off))
            working.cancel()
            await asyncio.wait({working})
            return bool(ended)

    begun = asyncio.Event()
    assert asyncio.run(scenario())


def test_the_queues_own_migrations_are_applied_once_and_later_ones_added(url: str) -> None:
    last = "03.04.00_50_post_add_retry_failed_job_procedure.sql"
    trigger = "procrastinate_trigger_status_events_update_v1"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("delete from queue_migrations where name = %s", (last,))
        connection.execute(f"drop trigger {trigger} on procrastinate_jobs")
    migrate(url)
    migrate(url)
    with psycopg.connect(url) as connection:
        found = connection.execute("select 1 from pg_trigger where tgname = %s", (trigger,))
        assert len(found.fetchall()) == 1
        noted = connection.execute("select 1 from queue_migrations where name = %s", (last,))
        assert len(noted.fetchall()) == 1
