"""Closes the runs of processes that died, and finds those that wait to be taken up."""

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from api.runs.accounts import PriceOf, spent_on
from api.runs.course import Course, Ended, Watch
from api.runs.dialects import Dialects, error_of, text_of
from api.runs.ending import End, Endings
from api.runs.log import JUMP
from api.runs.rows import COLUMNS, JOINED, RunRow, ended
from api.runs.stored_log import Batch, frames_kept
from graph.errors import ServiceStopping
from graph.events import Answer, Failed, Finished, Terminal, Usage
from graph.postgres import UNREACHABLE, Connection, Pool, rows_of

log = logging.getLogger(__name__)

# So often a turn is asked again after a crash.
_MOST_ATTEMPTS = 2
_MOST_AT_ONCE = 20
_WENT_DOWN = "The service went down before the answer was complete."
_ASKED_AGAIN = f"{_WENT_DOWN} It is asked again."
_TRY_AGAIN = f"{_WENT_DOWN} Try again."


def went_down(next_run_id: uuid.UUID | None) -> ServiceStopping:
    """What the readers of a run are told that ends because its process does."""
    return ServiceStopping(_ASKED_AGAIN if next_run_id else _TRY_AGAIN)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A run that this process has taken up and has to begin; `request` is a `Request` as JSON."""

    row: RunRow
    request: dict[str, Any]


class Recovery:
    """What processes left behind when they ended, brought to its end by whoever is there.

    `reruns`: a turn that a crash has ended is asked again.
    """

    def __init__(
        self,
        pool: Pool,
        endings: Endings,
        process_id: uuid.UUID,
        dialects: Dialects,
        *,
        reruns: bool,
        price_of: PriceOf,
        watch: Watch,
    ) -> None:
        self._pool = pool
        self._endings = endings
        self._process_id = process_id
        self._dialects = dialects
        self._reruns = reruns
        self._price_of = price_of
        self._watch = watch

    async def close_abandoned(self) -> None:
        """Close all runs whose process is dead, and those that were stopped before they began."""
        for row in await rows_of(self._pool, _SELECT_ABANDONED):
            try:
                await self.close(row["id"])
            except Exception as error:
                # The others shall not wait for one that cannot be closed, nor all for a database
                # that is away.
                if isinstance(error, UNREACHABLE) and error.sqlstate is None:
                    raise
                log.exception("run %s could not be closed", row["id"])

    async def close(self, run_id: uuid.UUID) -> None:
        """Close a run whose process is dead, or that is stopped while it waits; else do nothing."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_LOCK_CONVERSATION, (run_id,))
            cursor = await connection.execute(_LOCK_ABANDONED, (run_id,))
            found = await cursor.fetchone()
            if found is None:
                return
            is_stopped, request = found.pop("stop_asked"), found.pop("request")
            end = await self._end(connection, RunRow(**found), request, is_stopped=is_stopped)
            await self._endings.store(connection, end)
        log.warning("run %s was closed: nobody works on it any more", run_id)
        self._watch(Ended(end.row, end.answer, end.spent, Course.unseen(end.row)))

    async def take_up(self) -> list[Waiting]:
        """Take up runs that wait for a process, a few at once."""
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(_TAKE_UP, (self._process_id, _MOST_AT_ONCE))
            taken = [row["id"] for row in await cursor.fetchall()]
            rows = await (await connection.execute(_SELECT_TAKEN, (taken,))).fetchall()
        return [Waiting(request=row.pop("request"), row=RunRow(**row)) for row in rows]

    def successor_of(self, row: RunRow) -> uuid.UUID | None:
        """The id of the run that will ask the turn again; null where it is not to be asked."""
        return uuid.uuid4() if self._reruns and row.attempt < _MOST_ATTEMPTS else None

    async def _end(
        self,
        connection: Connection,
        row: RunRow,
        request: Mapping[str, Any] | None,
        *,
        is_stopped: bool,
    ) -> End:
        kept = await frames_kept(connection, row.id)
        dialect = self._dialects[row.api](row.told((request or {}).get("told_model", "")))
        tokens = text_of(dialect, kept)
        answer = Answer(text="".join(tokens), estimate=Usage(0, len(tokens)))
        next_run_id = self.successor_of(row) if request is not None else None
        terminal: Terminal = (
            Finished("stopped", answer)
            if is_stopped
            else Failed(went_down(next_run_id), answer, next_run_id)
        )
        frames = [*([] if kept else dialect.opening()), *dialect(terminal)]
        # More may have been shown than is kept, unless nobody had begun it.
        first = len(kept) + (1 if row.is_waiting else JUMP)
        over = ended(row, terminal, error_of(terminal, frames))
        over = replace(over, seq=first + len(frames) - 1)
        batch = Batch(row.id, first, frames)
        return End(over, answer, [batch], spent_on(terminal, self._price_of), added=True)


_ABANDONED = """
r.status = 'running' and (
    r.process_id is null and r.stop_asked
    or r.process_id is not null and not exists (
        select from processes p where p.id = r.process_id and p.lease_until > now()))
"""
_SELECT_ABANDONED = f"select r.id from runs r where {_ABANDONED} order by r.started_at"
_LOCK_CONVERSATION = """
select from conversations where id = (select conversation_id from runs where id = %s)
for no key update
"""
_LOCK_ABANDONED = f"""
select {COLUMNS}, r.stop_asked, r.request from runs r {JOINED}
where r.id = %s and {_ABANDONED} for no key update of r
"""
_TAKE_UP = """
update runs set process_id = %s, started_at = now()
where id in (
    select id from runs where status = 'running' and process_id is null and not stop_asked
    order by started_at limit %s for no key update skip locked)
returning id
"""
_SELECT_TAKEN = f"select {COLUMNS}, r.request from runs r {JOINED} where r.id = any(%s)"
