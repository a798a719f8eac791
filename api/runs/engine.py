"""Starts runs, lets readers follow them, stops them; a run's work is in a task of its own."""

import asyncio
import json
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

from api.access.principals import Principal
from api.errors import Refusal, not_found
from api.fair_use import Standing
from api.runs.accounts import PriceOf, Spent, no_price, spent_on
from api.runs.log import RunLog
from api.runs.rows import LEASE_S, NewTurn, RunRow, RunRows, ended
from api.wire import KEEP_ALIVE, KEEP_ALIVE_S, OPENED, Frame, encode
from graph.context import Context
from graph.errors import InternalFailure, MemoryFailed
from graph.events import Answer, Event, Failed, SourcesFound, Terminal
from graph.pipeline import Pipeline
from graph.postgres import UNREACHABLE, patiently
from graph.run import Stop, Thread, run_turn
from graph.state import Source, Turn

log = logging.getLogger(__name__)

MostRecalled = Callable[[str | None, str | None], int]
"""How many characters of a conversation the prompt of a wanted or preferred model can hold."""

Dialect = Callable[[Event], Sequence[Frame]]
"""How an API names an event; no frames for what it does not tell."""


@dataclass(slots=True)
class Run:
    """One execution of the pipeline. `turn` is null where nothing is stored (legacy).

    `documents` are those whose passages it showed, names by id.
    """

    row: RunRow
    turn: NewTurn | None
    dialect: Dialect
    log: RunLog = field(default_factory=RunLog)
    stop: Stop = field(default_factory=Stop)
    web_sources: list[Source] = field(default_factory=list)
    documents: dict[str, str] = field(default_factory=dict)
    forgotten: bool = False
    readers: int = 0
    task: asyncio.Task[None] = field(init=False)

    @property
    def id(self) -> str:
        """The run's id as it stands in events."""
        return str(self.row.id)

    def emit(self, event: Event) -> None:
        """Append an event to the log, in the dialect that the run was started with."""
        if isinstance(event, SourcesFound):
            self.web_sources = [source for source in event.sources if source["url"]]
            self.documents = {
                s["document_id"]: s["document_name"] for s in event.sources if s["document_id"]
            }
        if frames := self.dialect(event):
            self.log.append(frames)

    def end(self, terminal: Terminal) -> None:
        """Close the log with the terminal event."""
        self.row = ended(self.row, terminal, self.error(terminal))
        self.log.append(self.dialect(terminal), last=True)

    def error(self, terminal: Terminal) -> dict[str, Any] | None:
        """The error as the run's readers are told it."""
        if not isinstance(terminal, Failed):
            return None
        return cast("dict[str, Any]", json.loads(self.dialect(terminal)[-1][1]))


class Runs:
    """The runs of this process, each kept for `retention_s` seconds after its end."""

    def __init__(
        self,
        rows: RunRows,
        *,
        retention_s: float,
        cancel_on_disconnect: bool = False,
        price_of: PriceOf = no_price,
        most_recalled: MostRecalled = lambda *_: 0,
    ) -> None:
        self._rows = rows
        self._retention_s = retention_s
        self._cancel_on_disconnect = cancel_on_disconnect
        self._price_of = price_of
        self._most_recalled = most_recalled
        self._runs: dict[str, Run] = {}
        self._unstored: Counter[uuid.UUID] = Counter()
        self._closing = False

    async def start(
        self,
        pipeline: Pipeline,
        turn: Turn,
        context: Context,
        *,
        new: NewTurn | None,
        owner_id: uuid.UUID,
        dialect: Dialect,
        opening: Sequence[Frame] = (),
    ) -> Run:
        """Store the question, then let the run work on its own. `opening` is sent first.

        Without `new` nothing is stored and the pipeline remembers nothing.

        Raises:
            Refusal: 409, a run of this conversation is going on; 429, too many runs are, or all
                tokens are used; 503, the service goes down.
        """
        self.refuse_when_closing()
        fair_use = self._rows.fair_use
        await fair_use.refuse_without_tokens(owner_id, new.project_id if new else None)
        if new is None:
            stored = await fair_use.stored_runs(owner_id)
            # Nothing is awaited any more, so that no other start comes between.
            fair_use.refuse_more_runs(stored + self._unstored[owner_id] + 1)
            self._unstored[owner_id] += 1
        else:
            await self._rows.begin(new, self._unstored[owner_id])
        row = RunRow(
            new.run_id if new else uuid.uuid4(),
            new.conversation_id if new else None,
            new.project_id if new else None,
            owner_id,
            "running",
            seq=0,
            started_at=datetime.now(UTC),
        )
        run = Run(row, new, dialect)
        run.log.append(opening)
        self._runs[run.id] = run
        run.task = asyncio.create_task(self._work(run, pipeline, turn, context))
        return run

    def refuse_when_closing(self) -> None:
        """Refuse new runs once the service goes down.

        Raises:
            Refusal: 503.
        """
        if self._closing:
            raise Refusal(
                503,
                "shutting_down",
                "The service is going down. Try again in a few seconds.",
                headers={"Retry-After": "10"},
            )

    async def standings(self, caller: Principal) -> list[Standing]:
        """The caller's own limits as they stand."""
        return await self._rows.fair_use.standings(caller, self._unstored[caller.id])

    async def get(self, run_id: uuid.UUID, owner_id: uuid.UUID) -> RunRow:
        """The run as it stands.

        Raises:
            Refusal: 404, there is none, or it is somebody else's.
        """
        run = self._runs.get(str(run_id))
        row = replace(run.row, seq=run.log.seq) if run else await self._rows.get(run_id)
        if row is None or row.owner_id != owner_id:
            raise not_found("run")
        return row

    async def stop(self, run_id: uuid.UUID, owner_id: uuid.UUID) -> RunRow:
        """End a run before its time and wait until it has; a run that has ended stays as it is.

        Raises:
            Refusal: 404, there is none, or it is somebody else's.
        """
        await self.get(run_id, owner_id)
        if run := self._runs.get(str(run_id)):
            await self._stop(run)
        return await self.get(run_id, owner_id)

    async def forget_conversation(self, conversation_id: uuid.UUID) -> None:
        """End and drop the runs of a conversation that is about to be erased."""
        for run in list(self._runs.values()):
            if run.row.conversation_id == conversation_id:
                await self._stop(run)
                self._runs.pop(run.id, None)

    def forget_document(
        self, document_id: str, project_id: uuid.UUID | None = None, name: str | None = None
    ) -> None:
        """Drop the streams that showed passages of a document that was erased.

        With its project and name, those too that showed its older versions.
        """
        for run in list(self._runs.values()):
            in_project = run.turn is not None and run.turn.project_id == project_id
            named = in_project and name in run.documents.values()
            if named or document_id in run.documents:
                run.forgotten = True
                if run.row.status != "running":
                    self._runs.pop(run.id, None)

    async def stream(
        self, run_id: uuid.UUID, owner_id: uuid.UUID, after: int
    ) -> AsyncIterator[bytes]:
        """The bytes of a run's stream after event `after`, live if it is still going on.

        Raises:
            Refusal: 404, there is none, or it is somebody else's; 410, its stream is gone.
        """
        await self.get(run_id, owner_id)
        run = self._runs.get(str(run_id))
        if run is None:
            raise Refusal(
                410,
                "stream_gone",
                "The stream of this run is no longer kept. Read its conversation instead.",
            )
        return self.follow(run, after)

    async def follow(self, run: Run, after: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a run's stream after event `after`; a comment goes out at once."""
        run.readers += 1
        try:
            yield OPENED
            async for first, frames in run.log.follow(after, silence_s=KEEP_ALIVE_S):
                yield encode(run.id, first, frames) if frames else KEEP_ALIVE
        finally:
            run.readers -= 1
            if self._cancel_on_disconnect and not run.readers:
                run.stop.ask("asked")

    async def close(self, grace_s: float) -> None:
        """Take no new runs, let the others end for `grace_s` seconds, then close what is left."""
        self._closing = True
        tasks = {run.task for run in self._runs.values() if not run.task.done()}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace_s)
        for run in self._runs.values():
            run.stop.ask("shutdown")
        if late:
            await asyncio.wait(late, timeout=3)

    async def keep_leases(self) -> None:
        """Renew this process's leases, and close the runs of processes that died, for ever."""
        while True:
            try:
                await self._rows.renew([r.id for r in self._runs.values() if not r.task.done()])
            except UNREACHABLE:
                log.warning("leases could not be renewed: the database is away")
            except Exception:
                log.exception("leases could not be renewed")
            await asyncio.sleep(LEASE_S / 3)

    async def _stop(self, run: Run) -> None:
        run.stop.ask("asked")
        await asyncio.wait({run.task})

    async def _work(self, run: Run, pipeline: Pipeline, turn: Turn, context: Context) -> None:
        try:
            thread = self._thread(run, context)
            terminal = await run_turn(
                pipeline, turn, context, thread=thread, emit=run.emit, stop=run.stop
            )
        except Exception:
            log.exception("run %s broke off", run.id)
            terminal = Failed(InternalFailure(), Answer())
        if isinstance(terminal, Failed):
            log.warning("run %s failed: %s", run.id, terminal.error)
        run.end(await self._store(run, terminal))
        self._keep(run)
        if run.turn is None:
            await self._count_unstored(run, terminal)

    def _thread(self, run: Run, context: Context) -> Thread | None:
        if run.turn is None:
            return None
        most = self._most_recalled(context.model, context.preferred_model)
        return Thread(str(run.turn.conversation_id), run.id, most)

    def _keep(self, run: Run) -> None:
        """Let a run that has ended be followed until the retention is over."""
        seconds = 0 if run.forgotten else self._retention_s
        asyncio.get_running_loop().call_later(seconds, self._runs.pop, run.id, None)

    async def _store(self, run: Run, terminal: Terminal) -> Terminal:
        """Store the answer and what it used before anybody is told that it is there."""
        if run.turn is None:
            return terminal
        spent = spent_on(terminal, self._price_of)
        try:
            await self._write(run, run.turn, terminal, spent)
        except UNREACHABLE:
            log.warning("the answer of run %s could not be stored: the database is away", run.id)
            return Failed(MemoryFailed(_NOT_STORED), terminal.answer)
        except Exception:
            log.exception("the answer of run %s could not be stored", run.id)
            run.web_sources = []
            terminal = Failed(InternalFailure(), Answer())
            with suppress(Exception):
                await self._write(run, run.turn, terminal, spent)
        return terminal

    async def _count_unstored(self, run: Run, terminal: Terminal) -> None:
        self._unstored[run.row.owner_id] -= 1
        try:
            spent = spent_on(terminal, self._price_of)
            await self._rows.count_unstored(run.row.owner_id, spent)
        except UNREACHABLE:
            log.warning("what run %s used was not counted: the database is away", run.id)
        except Exception:
            log.exception("what run %s used was not counted", run.id)

    async def _write(self, run: Run, turn: NewTurn, terminal: Terminal, spent: Spent) -> None:
        row = ended(run.row, terminal, run.error(terminal), run.log.seq + 1)
        async for attempt in patiently():
            with attempt:
                await self._rows.end(turn, row, terminal.answer, run.web_sources, spent)


_NOT_STORED = "The answer is complete but could not be stored: the database is away."
