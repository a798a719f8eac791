"""Runs that are worked on elsewhere are followed to an end, whatever is heard of them, or not."""

import asyncio
import gc
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from conftest import Service

from api.opening import DIALECTS
from api.runs.mirrors import Mirrors
from api.runs.rows import RunRow
from api.wire import Frame
from graph.postgres import open_pool

Batches = list[tuple[int, Sequence[Frame]]]

ERROR = (
    "error",
    '{"code":"ERR","message":"The stream of this run is no longer kept: its conversation or a '
    'document was deleted."}',
)


Meanwhile = Callable[[Mirrors], Coroutine[Any, Any, None]]


def run_of(service: Service) -> RunRow:
    """A run of the legacy API that goes on in a process which nobody knows; it has said a word."""
    row = RunRow(uuid.uuid4(), None, None, uuid.uuid4(), "legacy", "running", 1, datetime.now(UTC))
    with service.changing() as connection:
        connection.execute(_BEGIN, {"run": row.id, "other": uuid.uuid4()})
    return row


_BEGIN = """
with lives as (
    insert into processes (id, lease_until) values (%(other)s, now() + interval '5 minutes')
),
run as (
    insert into runs (id, owner_id, status, process_id, api, request)
    select %(run)s, id, 'running', %(other)s, 'legacy', '{}' from users limit 1 returning id
)
insert into run_events (run_id, seq, count, events)
select id, 1, 1, 'token {"token":"Half","index":0}' from run
"""


def followed(
    service: Service, row: RunRow, after: int = 0, meanwhile: Meanwhile | None = None
) -> Batches:
    """All that a reader gets of a run; `meanwhile` goes on beside it."""
    assert service.settings.database_url is not None
    url = service.settings.database_url.get_secret_value()

    async def play() -> Batches:
        async with open_pool(url, max_size=2) as pool:
            mirrors = Mirrors(pool, DIALECTS)
            tasks = [asyncio.create_task(mirrors.work())]
            if meanwhile:
                tasks.append(asyncio.create_task(meanwhile(mirrors)))
            try:
                async with asyncio.timeout(10):
                    return [batch async for batch in mirrors.follow(row, after, silence_s=60)]
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(play())


@pytest.mark.parametrize("after", [0, 12_000])
def test_a_reader_is_told_of_the_deletion_however_far_it_had_come(
    service: Service, http: httpx.Client, after: int
) -> None:
    http.get("/projects").raise_for_status()
    run = run_of(service)
    with service.changing() as connection:
        connection.execute("delete from runs where id = %s", (run.id,))
    assert followed(service, run, after) == [(after + 10_000, [ERROR])]


def test_an_end_that_nobody_told_of_is_found_while_much_is_told_of_others(
    service: Service, http: httpx.Client
) -> None:
    http.get("/projects").raise_for_status()
    run, busy = run_of(service), run_of(service)

    async def tell(mirrors: Mirrors) -> None:
        async for _ in mirrors.follow(busy, 0, silence_s=0.1):
            mirrors.heard([busy.id])

    async def end(mirrors: Mirrors) -> None:
        telling = asyncio.create_task(tell(mirrors))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(_end, service, run)
        await telling

    frame = ("token", '{"token":"Half","index":0}')
    assert followed(service, run, meanwhile=end) == [(1, [frame])]


def test_others_have_their_turn_while_a_long_log_is_read_and_told(
    service: Service, http: httpx.Client
) -> None:
    http.get("/projects").raise_for_status()
    run = run_of(service)
    with service.changing() as connection:
        connection.execute(_LENGTHEN, {"run": run.id})
    steps: list[float] = []

    async def watch(_: Mirrors) -> None:
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            steps.append(time.thread_time() - began)

    gc.disable()
    try:
        batches = followed(service, run, meanwhile=watch)
    finally:
        gc.enable()
    told = [(first, len(frames)) for first, frames in batches]
    assert told == [(first, 1000) for first in range(1, 100_001, 1000)]
    # Without the many in which nothing was to be done.
    work = [step for step in steps if step > 1e-4]
    assert max(work) < sum(work) / 3


_LENGTHEN = """
with ended as (update runs set status = 'done' where id = %(run)s)
insert into run_events (run_id, seq, count, events)
select %(run)s, 10 * n + 1, 10, rtrim(repeat(E'token {"token":"wave","index":0}\\n', 10), E'\\n')
from generate_series(0, 9999) as n
on conflict (run_id, seq) do update set count = excluded.count, events = excluded.events
"""


def _end(service: Service, run: RunRow) -> None:
    with service.changing() as connection:
        connection.execute("update runs set status = 'done' where id = %s", (run.id,))
