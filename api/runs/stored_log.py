"""The log of runs in Postgres: the table `run_events`, a row for each batch of events."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncCursor
from psycopg.types.json import Json

from api.wire import Frame, as_json
from graph.postgres import Connection, Pool

NEWS = "run_news"
"""The channel on which processes tell each other of which runs there is news."""

_MOST_CHARACTERS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Frames of a run; `first` is the number of the first of them."""

    run_id: uuid.UUID
    first: int
    frames: Sequence[Frame]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a run after some place, in order. `is_over`: nothing will follow."""

    is_over: bool
    is_followable: bool
    batches: list[Batch]


async def keep(pool: Pool, batches: Sequence[Batch]) -> None:
    """Add batches to the logs of their runs and tell other processes; one statement.

    A run that has ended, or whose log was taken away, gets nothing. The same batch may be kept
    again, also a longer one that begins at the same number.
    """
    async with pool.connection() as connection:
        await connection.execute(_KEEP, _columns(batches))


async def read(pool: Pool, after: Mapping[uuid.UUID, int]) -> dict[uuid.UUID, Kept]:
    """What is kept of these runs after the given numbers; runs that are gone are left out."""
    found: dict[uuid.UUID, Kept] = {}
    async with pool.connection() as connection:
        cursor = await connection.execute(_READ, (list(after), list(after.values())))
        async for row in _in_pieces(cursor):
            about = Kept(row["is_over"], row["is_followable"], [])
            kept = found.setdefault(row["id"], about)
            if row["seq"] is not None:
                kept.batches.append(_batch(row, after[row["id"]]))
    return found


async def frames_kept(connection: Connection, run_id: uuid.UUID) -> list[Frame]:
    """All frames that are kept of a run."""
    cursor = await connection.execute(
        "select events from run_events where run_id = %s order by seq", (run_id,)
    )
    return [frame async for row in _in_pieces(cursor) for frame in _frames(row["events"])]


async def _in_pieces(cursor: AsyncCursor[Any]) -> AsyncIterator[Mapping[str, Any]]:
    """The rows of a log, which may be long; others have their turn after each piece of it."""
    left = _MOST_CHARACTERS
    async for row in cursor:
        yield row
        left -= len(row["events"] or "")
        if left <= 0:
            await asyncio.sleep(0)
            left = _MOST_CHARACTERS


def _columns(batches: Sequence[Batch]) -> dict[str, Any]:
    # psycopg writes lists in Python, character by character.
    rows = [
        {
            "run_id": str(batch.run_id),
            "seq": batch.first,
            "count": len(batch.frames),
            "events": lines_of(batch.frames),
        }
        for batch in batches
    ]
    return {"batches": Json(rows, dumps=as_json), "channel": NEWS}


def _batch(row: Mapping[str, Any], after: int) -> Batch:
    """The frames of a row that have a number above `after`."""
    known = max(after + 1 - row["seq"], 0)
    return Batch(row["id"], row["seq"] + known, _frames(row["events"])[known:])


def lines_of(frames: Sequence[Frame]) -> str:
    """Frames as they are kept."""
    # Neither names nor JSON in ASCII have line ends, and no name has a space.
    return "\n".join(f"{name} {data}" for name, data in frames)


def _frames(lines: str) -> list[Frame]:
    split = (line.partition(" ") for line in lines.split("\n"))
    return [(name, data) for name, _, data in split]


# The runs are locked until the batches are there, so that who takes a log away finds all of it.
_KEEP = """
with batches as (
    select * from json_to_recordset(%(batches)s)
        as b(run_id uuid, seq int, count int, events text)
),
held as (
    select id from runs
    where id in (select run_id from batches) and status = 'running' and is_followable
    order by id for share
),
kept as (
    insert into run_events (run_id, seq, count, events)
    select b.* from batches b join held on held.id = b.run_id
    on conflict (run_id, seq) do update set count = excluded.count, events = excluded.events
),
told as (select id, row_number() over () / 200 as part from held)
select pg_notify(%(channel)s, string_agg(id::text, ' ')) from told group by part
"""
# One statement, so that a run that is over comes with all that it said.
_READ = """
select r.id, r.status <> 'running' as is_over, r.is_followable, e.seq, e.events
from unnest(%s::uuid[], %s::int[]) as asked(run_id, after)
join runs r on r.id = asked.run_id
left join run_events e on e.run_id = r.id and e.seq + e.count - 1 > asked.after
order by r.id, e.seq
"""
