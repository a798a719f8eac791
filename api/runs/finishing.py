"""Brings a run of this process to its end: stored first, shown then, whatever is away."""

import asyncio
import logging
import uuid
from dataclasses import replace

from api.runs.accounts import PriceOf, spent_on
from api.runs.dialects import error_of
from api.runs.ending import End, Endings
from api.runs.log import JUMP
from api.runs.recovery import Recovery, went_down
from api.runs.rows import ended
from api.runs.run import Run
from api.runs.writer import LogWriter
from graph.errors import InternalFailure, MemoryFailed, ServiceStopping
from graph.events import Answer, Failed, Terminal
from graph.postgres import UNREACHABLE, patiently

log = logging.getLogger(__name__)

_NOT_STORED = "The answer could not be stored: the database is away. Try again later."
_AGAIN_S = 2.0


class Finishing:
    """Stores how runs end, and tells their readers."""

    def __init__(
        self,
        endings: Endings,
        writer: LogWriter,
        recovery: Recovery,
        process_id: uuid.UUID,
        price_of: PriceOf,
    ) -> None:
        self._endings = endings
        self._writer = writer
        self._recovery = recovery
        self._process_id = process_id
        self._price_of = price_of

    async def finish(self, run: Run, terminal: Terminal) -> None:
        """Store the end of `run`, then show it. Readers of a run that somebody else has closed go
        on with what that one says.

        While the database is away this goes on; its readers are told after a while.
        """
        if isinstance(terminal, Failed) and isinstance(terminal.error, ServiceStopping):
            next_run_id = self._recovery.successor_of(run.row)
            terminal = Failed(went_down(next_run_id), terminal.answer, next_run_id)
        first = run.log.seq + 1
        try:
            is_mine = await self._store(run, terminal, first)
        except UNREACHABLE:
            log.warning("the end of run %s could not be stored: the database is away", run.id)
            await self._finish_later(run, Failed(MemoryFailed(_NOT_STORED), terminal.answer))
            return
        except Exception:
            log.exception("the end of run %s could not be stored", run.id)
            terminal = Failed(InternalFailure(), Answer())
            run.web_sources = []
            is_mine = await self._store(run, terminal, first)
        self._show(run, terminal, first, is_mine=is_mine)

    async def _finish_later(self, run: Run, terminal: Terminal) -> None:
        """Tell the readers, and store the end when the database is there again."""
        # It may have stored the other end after all, whose number must not mean this one.
        first = run.log.seq + JUMP
        self._show(run, terminal, first, is_mine=True)
        while True:
            await asyncio.sleep(_AGAIN_S)
            try:
                await self._store(run, terminal, first)
            except UNREACHABLE:
                continue
            except Exception:
                log.exception("the end of run %s could not be stored", run.id)
            return

    def _show(self, run: Run, terminal: Terminal, first: int, *, is_mine: bool) -> None:
        if is_mine:
            run.log.append(run.dialect(terminal), last=True, first=first)
        else:
            log.warning("run %s was closed by another process", run.id)
            run.log.abandon()

    async def _store(self, run: Run, terminal: Terminal, first: int) -> bool:
        end = self._end(run, terminal, first)
        async for attempt in patiently():
            with attempt:
                await self._writer.leave(run)
                is_mine = await self._endings.end(end, self._process_id)
        return is_mine

    def _end(self, run: Run, terminal: Terminal, first: int) -> End:
        frames = run.dialect(terminal)
        row = ended(run.row, terminal, error_of(terminal, frames))
        return End(
            row=replace(row, seq=first + len(frames) - 1),
            answer=terminal.answer,
            batches=run.whole_log(frames, first),
            spent=spent_on(terminal, self._price_of),
            web_sources=run.web_sources,
        )
