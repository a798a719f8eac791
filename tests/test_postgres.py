"""Several processes on one Postgres, pgbouncer in between, a checkpoint that was forged."""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast

import ormsgpack
import psycopg
import pytest
from conftest import make_database, migrated_database
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg import AsyncConnection

from api.runs.bell import listen
from api.runs.transcripts import Transcripts
from graph import silence
from graph.checkpoints import open_checkpoints
from graph.postgres import Pool, embedded_postgres, open_pool

IMPATIENT = """
import asyncio, sys
from contextlib import suppress
import graph.silence
from graph.postgres import open_pool

# Each connection is asked whether it lives.
graph.silence._FRESH_S = 0

async def relay(reader, writer, silent):
    with suppress(OSError):
        while data := await reader.read(65536):
            await silent.wait()
            writer.write(data)

async def take(pool):
    async with pool.connection():
        pass

async def main(url, socket):
    answers = asyncio.Event()
    answers.set()

    async def serve(reader, writer):
        inner, outer = await asyncio.open_unix_connection(socket)
        await asyncio.gather(relay(reader, outer, answers), relay(inner, writer, answers))

    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    async with open_pool(url + f"&host=127.0.0.1&port={port}", max_size=8) as pool:
        for _ in range(10):
            takers = [asyncio.create_task(take(pool)) for _ in range(8)]
            await asyncio.wait(takers, timeout=5)
            answers.clear()
            takers = [asyncio.create_task(take(pool)) for _ in range(8)]
            for _ in range(20):
                await asyncio.sleep(0.005)
                for taker in takers:
                    taker.cancel()
            await asyncio.wait(takers, timeout=5)
            answers.set()
            await asyncio.sleep(0.05)

asyncio.run(main(*sys.argv[1:]))
"""


def test_who_stops_waiting_for_a_silent_database_does_not_take_the_process_down(
    scratch: Path,
) -> None:
    with embedded_postgres(scratch / "own") as url:
        address, folder = url.split("?host=")
        script = [sys.executable, "-X", "faulthandler", "-c", IMPATIENT]
        done = subprocess.run(
            [*script, f"{address}?connect_timeout=5", f"{folder}/.s.PGSQL.5432"],
            capture_output=True,
            timeout=90,
            check=False,
        )
    # What the pool says when it closes a connection under a query.
    active = [line for line in done.stderr.decode().splitlines() if "[ACTIVE]" in line]
    assert (done.returncode, active) == (0, [])


def test_a_process_that_got_no_time_does_not_take_that_for_a_silent_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "_FRESH_S", 0)

    async def scenario() -> int:
        async with open_pool(postgres_url) as pool:

            async def use() -> None:
                async with pool.connection() as connection:
                    await connection.execute("select 1")

            await use()
            using = asyncio.create_task(use())
            # Until it has asked whether its connection lives.
            for _ in range(4):
                await asyncio.sleep(0)
            time.sleep(1.2)  # noqa: ASYNC251 - the loop is to stand still
            await using
            return pool.get_stats().get("connections_lost", 0)

    assert asyncio.run(scenario()) == 0


def test_a_connection_that_was_ended_just_now_is_not_given(postgres_url: str) -> None:
    async def scenario() -> list[dict[str, Any]]:
        async with open_pool(postgres_url) as pool:
            async with pool.connection() as connection, pool.connection() as other:
                pid = connection.info.backend_pid
                await other.execute("select pg_terminate_backend(%s, 5000)", (pid,))
            found = []
            for _ in range(2):
                async with pool.connection() as connection:
                    cursor = await connection.execute("select 1 as answer")
                    found += await cursor.fetchall()
            return found

    assert asyncio.run(scenario()) == [{"answer": 1}] * 2


def test_a_statement_is_given_up_when_the_database_falls_silent_under_it(postgres_url: str) -> None:
    async def scenario() -> int:
        async with relayed(postgres_url) as (url, is_heard), open_pool(url) as pool:
            async with pool.connection() as connection:
                # It may take its time as long as the database answers others.
                patient = await connection.execute("select pg_sleep(3)")
                is_heard.clear()
                with pytest.raises(psycopg.OperationalError):
                    await asyncio.wait_for(connection.execute("select 1"), 30)
            return patient.rowcount

    assert asyncio.run(scenario()) == 1


@pytest.mark.parametrize(
    ("where", "answers"),
    [("host=255.255.255.255", False), ("host=127.0.0.1 port=9", True)],
    ids=["no way there", "refused"],
)
def test_where_no_way_leads_the_database_is_silent(where: str, answers: bool) -> None:
    async def scenario() -> bool:
        return await silence.CheckedPool(f"{where} user=x dbname=x")._answers()

    assert asyncio.run(scenario()) is answers


def test_an_embedded_server_ends_with_its_last_user_even_if_another_was_killed(
    scratch: Path,
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with embedded_postgres(scratch / "own"):
        (scratch / "own" / ".handle_pids.json").write_text(json.dumps([gone.pid, os.getpid()]))
    assert not (scratch / "own" / "postmaster.pid").exists()


def test_who_listens_sleeps_until_something_is_told(postgres_url: str) -> None:
    told = uuid.uuid4()

    async def listens(connection: AsyncConnection[Any]) -> bool:
        query = "select from pg_stat_activity where query = 'listen \"of_a_test\"'"
        return (await connection.execute(query)).rowcount == 1

    async def main() -> tuple[list[uuid.UUID], int]:
        heard: asyncio.Queue[list[uuid.UUID]] = asyncio.Queue()
        bell = asyncio.create_task(listen(postgres_url, {"of_a_test": heard.put_nowait}))
        async with open_pool(postgres_url, max_size=2) as pool, pool.connection() as connection:
            for _ in range(1000):
                if await listens(connection):
                    break
                await asyncio.sleep(0.01)
            before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
            await asyncio.sleep(1.2)
            woken = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
            await connection.execute("select pg_notify('of_a_test', %s)", (str(told),))
            found = await asyncio.wait_for(heard.get(), 5)
        bell.cancel()
        return found, woken

    found, woken = asyncio.run(main())
    assert found == [told]
    # Twice by the pool's watcher. psycopg would be woken twelve times more.
    assert woken < 8


@pytest.mark.parametrize(("pooled", "prepared"), [(False, 1), (True, 0)])
def test_statements_are_prepared_unless_a_pooler_stands_between(
    postgres_url: str, pooled: bool, prepared: int
) -> None:
    async def scenario() -> int:
        async with (
            relayed(make_database(postgres_url), pooled=pooled) as (url, _),
            open_pool(url) as pool,
            pool.connection() as connection,
        ):
            for _ in range(10):
                await connection.execute("select %s", (1,))
            cursor = await connection.execute("select from pg_prepared_statements")
            return cursor.rowcount

    assert asyncio.run(scenario()) == prepared


def test_the_connection_that_was_used_last_is_used_next_and_closed_last(postgres_url: str) -> None:
    """In turn, each would be used more rarely, and be asked more often whether it lives."""

    async def used(pool: Pool) -> int:
        async with pool.connection() as connection:
            return connection.info.backend_pid

    async def scenario() -> tuple[list[int], list[int], list[int]]:
        async with open_pool(make_database(postgres_url), max_size=4) as pool:
            async with AsyncExitStack() as stack:
                taken = [await stack.enter_async_context(pool.connection()) for _ in range(4)]
                # The first one that is taken is the last one that is given back.
                pids = [connection.info.backend_pid for connection in taken]
            found = [await used(pool) for _ in range(3)]
            for _ in range(3):
                await pool._shrink_pool()
            left = [connection.info.backend_pid for connection in pool._pool]
            return pids, found, left

    pids, found, left = asyncio.run(scenario())
    assert found == [pids[0]] * 3
    assert left == [pids[1], pids[0]]


@asynccontextmanager
async def relayed(url: str, *, pooled: bool = False) -> AsyncIterator[tuple[str, asyncio.Event]]:
    """The database by way of a relay, which is silent while the event is not set.

    One that is `pooled` tells another process' id than Postgres, as pgbouncer does.
    """
    is_heard = asyncio.Event()
    is_heard.set()
    address, folder = url.split("?host=")

    its = _BACKEND_KEY if pooled else b""
    serving: set[asyncio.Task[None] | None] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, its: bytes) -> None:
        while data := await reader.read(65536):
            await is_heard.wait()
            at = data.find(its) if its else -1
            writer.write(data if at < 0 else _with_another_id(data, at + len(its)))
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        inner, outer = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        try:
            with suppress(OSError, asyncio.CancelledError):
                await asyncio.gather(pump(reader, outer, b""), pump(inner, writer, its))
        finally:
            for each in (writer, outer):
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1")
    port = server.sockets[0].getsockname()[1]
    try:
        yield f"{address}?host=127.0.0.1&port={port}", is_heard
    finally:
        server.close()
        for task in filter(None, serving):
            task.cancel()
        await asyncio.wait({task for task in serving if task}, timeout=30)


# The message BackendKeyData: its length in bytes, then the id and a secret.
_BACKEND_KEY = b"K\x00\x00\x00\x0c"


def _with_another_id(data: bytes, at: int) -> bytes:
    return data[:at] + (7).to_bytes(4) + data[at + 4 :]


def test_a_thread_that_is_being_forgotten_holds_up_no_other(postgres_url: str) -> None:
    """AsyncPostgresSaver has one lock around every operation, even with a pool."""

    async def scenario() -> list[str | None]:
        async with open_pool(migrated_database(postgres_url)) as pool:
            saver = await open_checkpoints(pool, Transcripts(pool))
            async with pool.connection() as connection, connection.transaction():
                await connection.execute(_ROWS, (str(ERASED), str(OTHER)))
            async with pool.connection() as connection, connection.transaction():
                await connection.execute(_HELD, (str(ERASED),))
                forgetting = asyncio.create_task(saver.forget([str(ERASED)]))
                for _ in range(200):
                    if (await connection.execute(_WAITS)).rowcount:
                        break
                    await asyncio.sleep(0.05)
                other = {"configurable": {"thread_id": str(OTHER)}}
                found = [await asyncio.wait_for(saver.aget_tuple(cast(Any, other)), 10)]
            await forgetting
            for thread in (ERASED, OTHER):
                config = {"configurable": {"thread_id": str(thread)}}
                found.append(await saver.aget_tuple(cast(Any, config)))
            return [one and one.config["configurable"]["thread_id"] for one in found]

    assert asyncio.run(scenario()) == [str(OTHER), None, str(OTHER)]


ERASED, OTHER = uuid.UUID(int=1), uuid.UUID(int=2)
_ROWS = """
insert into checkpoints (thread_id, checkpoint_id, checkpoint)
select thread, '1', '{"v": 4, "id": "1", "ts": "", "channel_values": {}, "channel_versions": {},
    "versions_seen": {}}'
from unnest(array[%s, %s]) thread
"""
_HELD = "select from checkpoints where thread_id = %s for update"
_WAITS = "select from pg_locks where not granted"


def test_a_checkpoint_that_was_tampered_with_imports_and_calls_nothing(postgres_url: str) -> None:
    """The serializer would import `subprocess` and call it for who can write to the table."""
    call = ormsgpack.packb(("subprocess", "check_output", (["echo", "owned"],)))
    evil = ormsgpack.packb(ormsgpack.Ext(1, call))

    async def read() -> tuple[object, object]:
        async with open_pool(make_database(postgres_url)) as pool:
            saver = await open_checkpoints(pool, Transcripts(pool))
            lax = JsonPlusSerializer(allowed_msgpack_modules=True)
            return saver.serde.loads_typed(("msgpack", evil)), lax.loads_typed(("msgpack", evil))

    strict, lax = asyncio.run(read())
    assert lax == b"owned\n", "the test no longer reaches what it is to rule out"
    assert strict != b"owned\n"
