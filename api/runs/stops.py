"""Ends runs of this process that somebody wants ended, wherever it was said."""

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence

from api.runs.rows import RunRows
from api.runs.run import Run
from api.waiting import within
from graph.postgres import failures_logged

log = logging.getLogger(__name__)

_LOOK_S = 0.5


class Stops:
    """Looks how the `runs` of a process stand: when it is told of a stop, and twice a second."""

    def __init__(self, rows: RunRows, process_id: uuid.UUID, runs: Mapping[uuid.UUID, Run]) -> None:
        self._rows = rows
        self._process_id = process_id
        self._runs = runs
        self._wake = asyncio.Event()

    def heard(self, run_ids: Sequence[uuid.UUID]) -> None:
        """These runs are to end."""
        if self._runs.keys() & set(run_ids):
            self._wake.set()

    async def work(self) -> None:
        """Look for ever."""
        while True:
            await within(self._wake, _LOOK_S)
            self._wake.clear()
            with failures_logged(log, "stops could not be looked for", level=logging.DEBUG):
                await self._look()

    async def _look(self) -> None:
        """End what is to end, and what is no longer this process' own, or is gone."""
        if mine := list(self._runs.values()):
            running = await self._rows.running_by(self._process_id)
            for run in mine:
                if running.get(run.id, True):
                    run.stop.ask("asked")
