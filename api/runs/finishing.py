"""Brings a run of this process to its end: stored first, shown then, whatever is away."""

import asyncio
import logging
import uuid
from dataclasses import replace

from api.runs.accounts import PriceOf, spent_on
from api.runs.course import Ended, Watch
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
_AGAIN_AT_MOST_S = 60.0


class Finishing:
    """Stores how runs end, and tells their readers."""

    def __init__(
        self,
        endings: Endings,
        writer: LogWriter,
        recovery: Recovery,
        process_id: uuid.UUID,
        price_of: PriceOf,
        watch: Watch,
    ) -> None:
        self._endings = endings
        self._writer = writer
        self._recovery = recovery
        self._process_id = process_id
        self._price_of = price_of
        self._watch = watch

    async def finish(self, run: Run, terminal: Terminal) -> None:
        """Store the end of `run`, then show it.

        Readers of a run that another process has closed go on with what that one says. While the
        end cannot be stored this goes on; its readers are told after a while.
        """
        run.course.end()
        if isinstance(terminal, Failed) and isinstance(terminal.error, ServiceStopping):
            next_run_id = self._recovery.successor_of(run.row)
            terminal = Failed(went_down(next_run_id), terminal.answer, next_run_id)
        first = run.log.seq + 1
        try:
            is_mine = await self._store(run, terminal, first)
        except UNREACHABLE:
            log.warning("the end of run %s could not be stored: the database is away", run.id)
            return await self._finish_later(
                run, Failed(MemoryFailed(_NOT_STORED), terminal.answer), is_whole=True
            )
        except Exception:
            log.exception("the end of run %s could not be stored", run.id)
            return await self._finish_later(
                run, Failed(InternalFailure(), Answer()), is_whole=False
            )
        self._show(run, terminal, first, is_mine=is_mine)

    async def _finish_later(self, run: Run, terminal: Terminal, *, is_whole: bool) -> None:
        """Tell the readers, and store the end as soon as it can be stored."""
        # The first end may be stored after all, or another process may close the run: neither
        # number must mean this one.
        first = run.log.seq + 2 * JUMP
        self._show(run, terminal, first, is_mine=True)
        pause_s = _AGAIN_S
        while True:
            try:
                await self._store(run, terminal, first, is_whole=is_whole)
                return
            except UNREACHABLE:
                log.warning("the end of run %s waits: the database is away", run.id)
            except Exception:
                log.exception("the end of run %s could not be stored", run.id)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _AGAIN_AT_MOST_S)

    def _show(self, run: Run, terminal: Terminal, first: int, *, is_mine: bool) -> None:
        if is_mine:
            frames = run.dialect(terminal)
            run.log.append(frames, last=True, first=first)
            row = ended(run.row, terminal, error_of(terminal, frames))
            spent = spent_on(terminal, self._price_of)
            self._watch(Ended(row, terminal.answer, spent, run.course))
        else:
            log.warning("run %s was closed by another process", run.id)
            run.log.abandon()

    async def _store(
        self, run: Run, terminal: Terminal, first: int, *, is_whole: bool = True
    ) -> bool:
        """Store it, with all that it said, or without what may be what cannot be stored."""
        await self._writer.leave(run)
        end = self._end(run, terminal, first)
        if not is_whole:
            last = end.batches[-1:]
            end = replace(end, batches=last, added=True, web_sources=(), checkpoint=None)
        async for attempt in patiently():
            with attempt:
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
            documents=run.documents,
            checkpoint=run.checkpoint,
            in_doubt=run.in_doubt,
        )
