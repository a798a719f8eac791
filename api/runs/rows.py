"""Runs as they are told and looked for: the rows of the table `runs`."""

import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Literal

from psycopg.types.json import Json

from api.runs.dialects import Api, Told
from graph.events import Failed, Terminal
from graph.postgres import Pool, row_of, rows_of
from graph.state import UNSORTED

Status = Literal["running", "done", "stopped", "failed"]

_as_json = partial(json.dumps, default=str)

STOPS = "run_stops"
"""The channel on which a process is told that a run of its own is to end."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it is told: `GET /runs/{id}`. A run of the legacy API has no conversation.

    `is_retryable`: it failed, and the same request may succeed. `is_followable`: its stream is
    kept. `is_waiting`: no process has taken it up yet.
    """

    id: uuid.UUID
    conversation_id: uuid.UUID | None
    project_id: uuid.UUID | None
    owner_id: uuid.UUID
    api: Api
    status: Status
    seq: int
    started_at: datetime
    ended_at: datetime | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | None = None
    next_run_id: uuid.UUID | None = None
    attempt: int = 0
    question_id: uuid.UUID | None = None
    doc_type: str = UNSORTED
    is_retryable: bool = False
    is_followable: bool = True
    is_waiting: bool = False

    def has_stream(self, retention: timedelta) -> bool:
        """Whether its events can still be read."""
        is_recent = self.ended_at is None or datetime.now(UTC) - self.ended_at < retention
        return self.is_followable and is_recent

    def told(self, model: str = "") -> Told:
        """What its events say of it."""
        return Told(self.id, self.conversation_id, self.doc_type, model)


@dataclass(frozen=True, slots=True)
class Shown:
    """The documents, `ids` and `names`, of a project whose passages a run shows."""

    run_id: uuid.UUID
    project_id: uuid.UUID
    ids: Sequence[str]
    names: Sequence[str]


def ended(row: RunRow, terminal: Terminal, error: dict[str, Any] | None) -> RunRow:
    """`row` as it stands after the terminal event, but for its number."""
    reason = None if isinstance(terminal, Failed) else terminal.finish_reason
    status: Status = "failed" if reason is None else "stopped" if reason == "stopped" else "done"
    return replace(
        row,
        status=status,
        ended_at=datetime.now(UTC),
        finish_reason=reason,
        error=error,
        next_run_id=terminal.next_run_id if isinstance(terminal, Failed) else None,
        is_retryable=isinstance(terminal, Failed) and terminal.error.transient,
    )


class RunRows:
    """Reads runs, and what small things are written about one."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, run_id: uuid.UUID) -> RunRow | None:
        """The run, null where there is none."""
        row = await row_of(self._pool, _SELECT + "where r.id = %s", (run_id,))
        return RunRow(**row) if row else None

    async def running_in(self, conversation_ids: Sequence[uuid.UUID]) -> list[RunRow]:
        """The runs that go on in these conversations."""
        going_on = _SELECT + "where r.conversation_id = any(%s) and r.status = 'running'"
        rows = await rows_of(self._pool, going_on, (list(conversation_ids),))
        return [RunRow(**row) for row in rows]

    async def ask_to_stop(self, run_id: uuid.UUID) -> None:
        """Let the process that works on a run end it, whichever it is."""
        async with self._pool.connection() as connection:
            await connection.execute(_ASK_TO_STOP, {"run": run_id, "channel": STOPS})

    async def running_by(self, process_id: uuid.UUID) -> dict[uuid.UUID, bool]:
        """The runs that go on in a process, each with whether it is to end."""
        rows = await rows_of(self._pool, _SELECT_RUNNING, (process_id,))
        return {row["id"]: row["stop_asked"] for row in rows}

    async def note_documents(self, shown: Sequence[Shown]) -> None:
        """Note of which documents runs show passages, so that their logs go with these.

        Where one of them was erased meanwhile, nothing of the run's stream is kept.
        """
        values = Json([asdict(one) for one in shown], dumps=_as_json)
        async with self._pool.connection() as connection:
            await connection.execute(_NOTE_DOCUMENTS, (values,))

    async def release(self, process_id: uuid.UUID, run_ids: Sequence[uuid.UUID]) -> None:
        """Let others take up what a process has not begun, though it is its own."""
        async with self._pool.connection() as connection:
            await connection.execute(_RELEASE, (process_id, list(run_ids)))


# The number of the last event is in the row only once the run has ended.
COLUMNS = """
r.id, r.conversation_id, c.project_id, r.owner_id, r.api, r.status,
greatest(r.seq, (select e.seq + e.count - 1 from run_events e where e.run_id = r.id
                 order by e.seq desc limit 1)) as seq,
r.started_at, r.ended_at, r.finish_reason, r.error, r.next_run_id, r.attempt, r.question_id,
coalesce(m.doc_type, 'UNSORTED') as doc_type, r.is_retryable, r.is_followable,
r.status = 'running' and r.process_id is null as is_waiting
"""
"""The columns of a `RunRow`, of what `JOINED` joins."""

JOINED = """
left join conversations c on c.id = r.conversation_id left join messages m on m.id = r.id
"""

_SELECT = f"select {COLUMNS} from runs r {JOINED} "
_ASK_TO_STOP = """
with asked as (
    update runs set stop_asked = true where id = %(run)s and status = 'running' returning id
)
select pg_notify(%(channel)s, id::text) from asked
"""
_SELECT_RUNNING = "select id, stop_asked from runs where process_id = %s and status = 'running'"
# Who erases a document locks its row first, and the runs that show it, by their ids, after that.
_NOTE_DOCUMENTS = """
with shown as (
    select * from json_to_recordset(%s)
        as s (run_id uuid, project_id uuid, ids uuid[], names text[])
),
named as (
    select d.project_id, d.name from documents d
    where exists (select from shown s where s.project_id = d.project_id and d.name = any(s.names))
    order by d.id for key share
),
locked as (
    select id from runs
    where id in (select run_id from shown) and is_followable and (select count(*) from named) >= 0
    order by id for no key update
),
judged as (
    select s.*, s.names <@ array(
        select n.name from named n where n.project_id = s.project_id
    ) as has_all
    from shown s join locked on locked.id = s.run_id
)
update runs r set
    documents = case when has_all then ids else '{}' end,
    document_names = case when has_all then names else '{}' end,
    is_followable = has_all
from judged where r.id = judged.run_id
"""
_RELEASE = """
update runs set process_id = null
where process_id = %s and status = 'running' and id = any(%s)
"""
