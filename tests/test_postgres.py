"""Several processes on one Postgres, pgbouncer in between, a checkpoint that was forged."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import ormsgpack
from conftest import make_database
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from api.runs.transcripts import Transcripts
from graph.checkpoints import open_checkpoints
from graph.postgres import embedded_postgres, open_pool

IMPATIENT = """
import asyncio, sys
from contextlib import suppress
from graph.postgres import open_pool

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
    postgres_url: str,
) -> None:
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


def test_an_embedded_server_ends_with_its_last_user_even_if_another_was_killed(
    scratch: Path,
) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    with embedded_postgres(scratch / "own"):
        (scratch / "own" / ".handle_pids.json").write_text(json.dumps([gone.pid, os.getpid()]))
    assert not (scratch / "own" / "postmaster.pid").exists()


def test_statements_are_not_prepared_so_that_pgbouncer_may_stand_between(postgres_url: str) -> None:
    async def prepared() -> list[dict[str, Any]]:
        async with open_pool(make_database(postgres_url)) as pool, pool.connection() as connection:
            for _ in range(10):
                await connection.execute("select %s", (1,))
            cursor = await connection.execute("select name from pg_prepared_statements")
            return await cursor.fetchall()

    assert asyncio.run(prepared()) == []


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
