"""Brings a run of this process to its end: stored first, shown then, whatever is away."""

import asyncio
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from api.runs.accounts import PriceOf, Spent, spent_on
from api.runs.course import Ended, Watch
from api.runs.dialects import error_of
from api.runs.ending import End, Endings
from api.runs.log import JUMP
from api.runs.recovery import Recovery, went_down
from api.runs.rows import RunRow, ended
from api.runs.run import Run
from api.runs.stored_log import Batch
from api.runs.writer import LogWriter
from api.wire import Frame
from graph.errors import InternalFailure, MemoryFailed, ServiceStopping
from graph.events import Answer, Failed, Terminal
from graph.postgres import UNREACHABLE, failures_logged, patiently

log = logging.getLogger(__name__)

_NOT_STORED = "The answer could not be stored: the database is away. Try again later."
_AGAIN_S = 2.0
_AGAIN_AT_MOST_S = 60.0


@dataclass(frozen=True, slots=True)
class _Last:
    """What a run says at its end: `frames`, the first with the number `first`.

    `batches` are all that it said, with these.
    """

    answer: Answer
    first: int
    frames: Sequence[Frame]
    batches: Sequence[Batch]
    row: RunRow
    spent: Spent


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
        try:
            last = self._last(run, terminal, run.log.seq + 1)
            is_mine = await self._store(run, last)
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
        if is_mine:
            self._show(run, last)
        else:
            log.warning("run %s was closed by another process, or is deleted", run.id)
            run.log.abandon()

    async def _finish_later(self, run: Run, terminal: Terminal, *, is_whole: bool) -> None:
        """Tell the readers, and store the end as soon as it can be stored."""
        # The first end may be stored after all, or another process may close the run: neither
        # number must mean this one.
        last = self._last(run, terminal, run.log.seq + 2 * JUMP)
        self._show(run, last)
        pause_s = _AGAIN_S
        while True:
            with failures_logged(log, f"the end of run {run.id} could not be stored"):
                await self._store(run, last, is_whole=is_whole)
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _AGAIN_AT_MOST_S)

    def _last(self, run: Run, terminal: Terminal, first: int) -> _Last:
        frames = run.dialect(terminal)
        row = ended(run.row, terminal, error_of(terminal, frames))
        row = replace(row, seq=first + len(frames) - 1)
        spent = spent_on(terminal, self._price_of)
        return _Last(terminal.answer, first, frames, run.whole_log(frames, first), row, spent)

    def _show(self, run: Run, last: _Last) -> None:
        run.log.append(last.frames, last=True, first=last.first)
        self._watch(Ended(last.row, last.answer, last.spent, run.course))

    async def _store(self, run: Run, last: _Last, *, is_whole: bool = True) -> bool:
        """Store it, with all that it said, or without what may be what cannot be stored."""
        await self._writer.leave(run)
        end = _end(run, last)
        if not is_whole:
            batches = end.batches[-1:]
            end = replace(end, batches=batches, added=True, web_sources=(), checkpoint=None)
        async for attempt in patiently():
            with attempt:
                is_mine = await self._endings.end(end, self._process_id)
        return is_mine


def _end(run: Run, last: _Last) -> End:
    return End(
        row=last.row,
        answer=last.answer,
        batches=last.batches,
        spent=last.spent,
        web_sources=run.web_sources,
        documents=run.documents,
        checkpoint=run.checkpoint,
        in_doubt=run.in_doubt,
    )
