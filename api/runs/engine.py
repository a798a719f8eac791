"""Starts runs, lets readers follow them, stops them; a run's work is in a task of its own."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence, Set
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import cast

from api.errors import Refusal, not_found
from api.fair_use import FairUse
from api.runs.accounts import PriceOf
from api.runs.beginning import Beginnings, Begun, NewRun
from api.runs.bell import listen
from api.runs.cleaning import clean_for_ever
from api.runs.course import Watch
from api.runs.dialects import Dialect, Dialects
from api.runs.ending import Endings
from api.runs.finishing import Finishing
from api.runs.following import Following, stream_gone
from api.runs.leases import LEASE_S, Lease
from api.runs.mirrors import Mirrors
from api.runs.recovery import Recovery, Waiting
from api.runs.rows import STOPS, RunRow, RunRows
from api.runs.run import Run
from api.runs.starts import Start, Starts
from api.runs.stops import Stops
from api.runs.stored_log import NEWS, Batch, keep
from api.runs.upkeep import Upkeep
from api.runs.writer import LogWriter
from graph.context import Context
from graph.errors import InternalFailure
from graph.events import Answer, Failed, Terminal
from graph.pipeline import Pipeline
from graph.postgres import UNREACHABLE, Pool
from graph.run import Thread, run_turn
from graph.state import Source, Turn

log = logging.getLogger(__name__)

MostRecalled = Callable[[str | None, str | None], int]
"""How many characters of a conversation the prompt of a wanted or preferred model can hold."""

BeginAgain = Callable[[Waiting], Awaitable[None]]
"""Begins a run that this process has taken up, by calling `Runs.go_on`."""

_STOP_WITHIN_S = 5.0
_LOOK_S = 0.05


class Runs:
    """The runs of the service, as one of its processes sees them.

    Those that it works on are in memory; of all others it knows what Postgres has. A stream is
    kept for `retention` after its end. With `reruns` a turn that ended with its process is asked
    again. While it `is_closing` it takes no new runs.
    """

    def __init__(
        self,
        pool: Pool,
        fair_use: FairUse,
        dialects: Dialects,
        *,
        retention: timedelta,
        cancel_on_disconnect: bool,
        reruns: bool,
        price_of: PriceOf,
        watch: Watch,
        most_recalled: MostRecalled,
    ) -> None:
        self._pool = pool
        self._fair_use = fair_use
        self._most_recalled = most_recalled
        self._dialects = dialects
        self._retention = retention
        self._lease = Lease(pool)
        self._rows = RunRows(pool)
        process_id = self._lease.process_id
        self._beginnings = Beginnings(pool, process_id, fair_use)
        endings = Endings(pool, fair_use)
        self._recovery = Recovery(
            pool, endings, process_id, dialects, reruns=reruns, price_of=price_of, watch=watch
        )
        self._writer = LogWriter(pool, self._rows)
        self._mirrors = Mirrors(pool, dialects)
        self._finishing = Finishing(
            endings, self._writer, self._recovery, process_id, price_of, watch
        )
        self._runs: dict[uuid.UUID, Run] = {}
        self._following = Following(
            self._runs, self._mirrors, cancel_on_disconnect=cancel_on_disconnect
        )
        self._starts = Starts()
        self._beginning: set[uuid.UUID] = set()
        self._stops = Stops(self._rows, process_id, self._runs)
        self.is_closing = False
        self._upkeep = Upkeep(self._lease, self._rows, self._recovery, self._known)

    @property
    def process_id(self) -> uuid.UUID:
        """The id of this process among those of the service."""
        return self._lease.process_id

    def load(self) -> tuple[int, int]:
        """How many runs this process works on, and how many readers of streams it has."""
        return len(self._runs), self._following.readers

    @asynccontextmanager
    async def open(
        self, begin_again: BeginAgain, *, alone: bool, grace_s: float
    ) -> AsyncIterator[None]:
        """Work until the block ends, then close with `grace_s`.

        `alone`: no other process can use this database, so what others have left behind belongs
        to this one at once.
        """
        await self._lease.enter(alone=alone)
        url = cast(str, self._pool.conninfo)
        work: list[Coroutine[object, object, None]] = [
            self._writer.work(),
            self._mirrors.work(),
            self._stops.work(),
            self._upkeep.work(partial(self._take_up, begin_again=begin_again), alone=alone),
            clean_for_ever(self._pool, self._fair_use, self._retention),
            listen(url, {NEWS: self._mirrors.heard, STOPS: self._stops.heard}),
        ]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            yield
        finally:
            await self.close(grace_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def start(
        self, new: NewRun, pipeline: Pipeline, context: Context, dialect: Dialect
    ) -> None:
        """Store the question, then let the run work on its own.

        Raises:
            KeyTaken, ProjectTaken: another request was faster; see `Beginnings`.
            Refusal: 409, a run of this conversation is going on; 429, too many runs are, or all
                tokens are used; 503, the service goes down; 403 or 404, see `Beginnings`.
        """
        await self._fair_use.refuse_without_tokens(new.owner_id, new.project_id)
        self._beginning.add(new.id)
        try:
            start = await self._starts.enter()
            has_past, standing = await self._begin(new, dialect, start)
        finally:
            self._beginning.discard(new.id)
        turn, context = new.request.turn, context.as_of(standing)
        self.go_on(new.row(), turn, pipeline, context, dialect, has_past=has_past, start=start)

    async def _begin(self, new: NewRun, dialect: Dialect, start: Start) -> Begun:
        try:
            self.refuse_when_closing()
            return await self._beginnings.begin(new, dialect.opening())
        except BaseException:
            start.leave()
            raise

    async def keep_opening(self, row: RunRow, dialect: Dialect) -> None:
        """Store how a run that was taken up opens, before it goes on."""
        if opening := dialect.opening():
            await keep(self._pool, [Batch(row.id, 1, opening)])

    def go_on(
        self,
        row: RunRow,
        turn: Turn,
        pipeline: Pipeline,
        context: Context,
        dialect: Dialect,
        *,
        has_past: bool = True,
        start: Start | None = None,
    ) -> None:
        """Work on a run that is stored as this process' own, its opening too.

        `has_past`: whether something may have been said before its question. `start` is left once
        its model is asked.
        """
        run = Run(row, dialect, start)
        run.log.append(dialect.opening())
        run.log.note_saved(run.log.seq)
        self._runs[run.id] = run
        self._writer.add(run)
        run.task = asyncio.create_task(self._work(run, pipeline, turn, context, has_past))

    def refuse_when_closing(self) -> None:
        """Refuse new runs once the service goes down.

        Raises:
            Refusal: 503.
        """
        if self.is_closing:
            raise Refusal(
                503,
                "shutting_down",
                "The service is going down. Try again in a few seconds.",
                headers={"Retry-After": "10"},
            )

    async def get(self, run_id: uuid.UUID, owner_id: uuid.UUID) -> RunRow:
        """The run as it stands.

        Raises:
            Refusal: 404, there is none, or it is somebody else's.
        """
        row = await self._rows.get(run_id)
        if row is None or row.owner_id != owner_id:
            raise not_found("run")
        run = self._runs.get(run_id)
        return replace(row, seq=run.log.seq) if run and row.status == "running" else row

    async def stop(self, run_id: uuid.UUID, owner_id: uuid.UUID) -> RunRow:
        """End a run before its time and wait until it has; a run that has ended stays as it is.

        Raises:
            Refusal: 404, there is none, or it is somebody else's.
        """
        await self._stop(await self.get(run_id, owner_id))
        return await self.get(run_id, owner_id)

    async def stop_in(self, conversation_ids: Sequence[uuid.UUID]) -> Set[uuid.UUID]:
        """End the runs of conversations that are about to be erased, and give their ids.

        One that cannot be ended within 5 seconds goes on: its process does not answer.
        """
        rows = await self._rows.running_in(conversation_ids)
        await asyncio.gather(*map(self._stop, rows))
        return {row.id for row in rows}

    async def stream(
        self, run_id: uuid.UUID, owner_id: uuid.UUID, after: int
    ) -> AsyncIterator[bytes]:
        """The bytes of a run's stream after event `after`, live if it is still going on.

        Raises:
            Refusal: 404, there is none, or it is somebody else's; 410, its stream is gone.
        """
        row = await self.get(run_id, owner_id)
        if not row.has_stream(self._retention):
            raise stream_gone()
        return self._following.follow(row, after)

    async def begun(self, run_id: uuid.UUID, owner_id: uuid.UUID) -> AsyncIterator[bytes]:
        """The bytes of the stream of a run that a request has begun, or found by its key.

        Raises:
            Refusal: 410, a document that it showed was deleted.
        """
        run = self._runs.get(run_id)
        if run and not run.was_followed:
            return self._following.follow(run.row, 0)
        row = await self.get(run_id, owner_id)
        if not row.is_followable:
            raise stream_gone()
        return self._following.follow(row, 0)

    def source(self, chunk_id: str, owner_id: uuid.UUID) -> tuple[RunRow, Source] | None:
        """A passage that a run of this process has shown its owner, in a project."""
        return self._following.source(chunk_id, owner_id)

    async def close(self, grace_s: float) -> None:
        """Take no new runs, let the others end for `grace_s` seconds, then close what is left."""
        self.is_closing = True
        self._upkeep.takes_up = False
        await self._wait_for_all(grace_s)
        for run in self._runs.values():
            run.stop.ask("shutdown")
        await self._wait_for_all(3)
        try:
            await self._upkeep.leave()
        except UNREACHABLE:
            log.warning("the database is away; others wait %s s for what is left here", LEASE_S)

    async def _wait_for_all(self, seconds: float) -> None:
        """Wait until all runs have ended, those too that only begin, but no longer than this."""
        for _ in range(int(seconds / _LOOK_S)):
            if not self._beginning and all(run.task.done() for run in self._runs.values()):
                return
            await asyncio.sleep(_LOOK_S)

    async def _stop(self, row: RunRow) -> None:
        if row.status != "running":
            return
        # In its row too, so that it is not asked again if this process ends before it.
        await self._rows.ask_to_stop(row.id)
        if run := self._runs.get(row.id):
            run.stop.ask("asked")
            await asyncio.wait({run.task}, timeout=_STOP_WITHIN_S)
            return
        await self._recovery.close(row.id)
        for _ in range(int(_STOP_WITHIN_S / _LOOK_S)):
            now = await self._rows.get(row.id)
            if now is None or now.status != "running":
                return
            await asyncio.sleep(_LOOK_S)

    async def _work(
        self, run: Run, pipeline: Pipeline, turn: Turn, context: Context, has_past: bool
    ) -> None:
        terminal: Terminal
        try:
            thread = self._thread(run, context, has_past)
            terminal = await run_turn(
                pipeline, turn, context, thread=thread, emit=run.emit, stop=run.stop
            )
        except Exception:
            log.exception("run %s broke off", run.id)
            terminal = Failed(InternalFailure(), Answer())
        if isinstance(terminal, Failed):
            log.warning("run %s failed: %s", run.id, terminal.error)
        try:
            await self._finishing.finish(run, terminal)
        finally:
            run.has_started()
            self._runs.pop(run.id, None)

    def _thread(self, run: Run, context: Context, has_past: bool) -> Thread | None:
        if run.row.conversation_id is None:
            return None
        most = self._most_recalled(context.model, context.preferred_model) if has_past else 0
        return Thread(str(run.row.conversation_id), str(run.id), most, run.put)

    async def _take_up(self, waiting: Waiting, begin_again: BeginAgain) -> None:
        row = waiting.row
        self._beginning.add(row.id)
        try:
            await begin_again(waiting)
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("run %s could not be begun", row.id)
            told = row.told(waiting.request.get("told_model", ""))
            run = Run(row, self._dialects[row.api](told))
            run.log.append(run.dialect.opening())
            await self._finishing.finish(run, Failed(InternalFailure(), Answer()))
        finally:
            self._beginning.discard(row.id)

    def _known(self) -> list[uuid.UUID]:
        return [*self._runs, *self._beginning]
