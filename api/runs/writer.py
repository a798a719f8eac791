"""Writes the logs of a process' runs to Postgres, in batches: one statement for all of them."""

import asyncio
import logging
import uuid
from collections.abc import Sequence

from api.runs.rows import RunRows
from api.runs.run import Run
from api.runs.stored_log import Batch, keep
from graph.postgres import Pool, failures_logged

log = logging.getLogger(__name__)

# Seconds from one batch to the next: so much of an answer may a crash lose.
_EACH_S = 0.25


class LogWriter:
    """Takes the logs of runs that go on, and writes what is new of them."""

    def __init__(self, pool: Pool, rows: RunRows) -> None:
        self._pool = pool
        self._rows = rows
        self._runs: dict[uuid.UUID, Run] = {}
        self._writing = asyncio.Lock()

    def add(self, run: Run) -> None:
        """Write the log of `run` from now on."""
        self._runs[run.id] = run

    async def leave(self, run: Run) -> None:
        """Write nothing of `run` any more but what is being written, for whose end it waits."""
        self._runs.pop(run.id, None)
        async with self._writing:
            pass

    async def work(self) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(_EACH_S)
            with failures_logged(log, "the logs of runs could not be written"):
                await self._write()

    async def _write(self) -> None:
        async with self._writing:
            new = [(run, *run.log.unsaved()) for run in self._runs.values()]
            new = [(run, first, frames) for run, first, frames in new if frames]
            if not new:
                return
            try:
                await self._note_documents([run for run, _, _ in new])
                await keep(self._pool, [Batch(run.id, first, frames) for run, first, frames in new])
            except BaseException:
                for run, _, _ in new:
                    run.in_doubt = True
                raise
            for run, first, frames in new:
                run.log.note_saved(first + len(frames) - 1)

    async def _note_documents(self, runs: Sequence[Run]) -> None:
        """Before their logs show them: who erases one of them must find the runs."""
        noted = [(run, run.documents) for run in runs]
        if shown := [one for run in runs if (one := run.shown())]:
            await self._rows.note_documents(shown)
        for run, documents in noted:
            if run.documents is documents:
                run.documents = {}
