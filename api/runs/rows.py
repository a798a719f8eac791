"""Runs as they are told and looked for: the rows of the table `runs`."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from api.runs.dialects import Api, Told
from api.traces import names_left
from graph.events import Failed, Terminal
from graph.postgres import Pool
from graph.state import UNSORTED

Status = Literal["running", "done", "stopped", "failed"]

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
        rows = await self._all(_SELECT + "where r.id = %s", run_id)
        return rows[0] if rows else None

    async def running_in(self, conversation_ids: Sequence[uuid.UUID]) -> list[RunRow]:
        """The runs that go on in these conversations."""
        return await self._all(
            _SELECT + "where r.conversation_id = any(%s) and r.status = 'running'",
            list(conversation_ids),
        )

    async def ask_to_stop(self, run_id: uuid.UUID) -> None:
        """Let the process that works on a run end it, whichever it is."""
        async with self._pool.connection() as connection:
            await connection.execute(_ASK_TO_STOP, {"run": run_id, "channel": STOPS})

    async def standing(self, process_id: uuid.UUID) -> dict[uuid.UUID, bool]:
        """The runs that go on in a process, each with whether it is to end."""
        rows = await self._values(_SELECT_STANDING, (process_id,))
        return {row["id"]: row["stop_asked"] for row in rows}

    async def note_documents(
        self, run_id: uuid.UUID, project_id: uuid.UUID, documents: Mapping[str, str]
    ) -> None:
        """Note of which documents (names by id) a run shows passages, so that its log goes too.

        Where one of them was erased meanwhile, nothing of the run's stream is kept.
        """
        async with self._pool.connection() as connection, connection.transaction():
            names = set(documents.values())
            has_all = await names_left(connection, project_id, names) == names
            values = {
                "documents": list(documents) if has_all else [],
                "names": list(names) if has_all else [],
                "has_all": has_all,
                "run": run_id,
            }
            await connection.execute(_NOTE_DOCUMENTS, values)

    async def release(self, process_id: uuid.UUID, run_ids: Sequence[uuid.UUID]) -> None:
        """Let others take up what a process has not begun, though it is its own."""
        async with self._pool.connection() as connection:
            await connection.execute(_RELEASE, (process_id, list(run_ids)))

    async def _all(self, sql: str, value: object) -> list[RunRow]:
        return [RunRow(**row) for row in await self._values(sql, (value,))]

    async def _values(self, sql: str, values: Sequence[object]) -> list[dict[str, Any]]:
        async with self._pool.connection() as connection:
            return await (await connection.execute(sql, values)).fetchall()


COLUMNS = """
r.id, r.conversation_id, c.project_id, r.owner_id, r.api, r.status, r.seq, r.started_at,
r.ended_at, r.finish_reason, r.error, r.next_run_id, r.attempt, r.question_id,
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
_SELECT_STANDING = "select id, stop_asked from runs where process_id = %s and status = 'running'"
_NOTE_DOCUMENTS = """
update runs set documents = %(documents)s::uuid[], document_names = %(names)s,
    is_followable = %(has_all)s
where id = %(run)s and is_followable
"""
_RELEASE = """
update runs set process_id = null
where process_id = %s and status = 'running' and id = any(%s)
"""
