"""What readers of a run are sent: what this process knows of it, then what Postgres has."""

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from api.errors import Refusal
from api.runs.mirrors import Mirrors
from api.runs.rows import RunRow
from api.runs.run import Run
from api.wire import KEEP_ALIVE, KEEP_ALIVE_S, OPENED, encode
from graph.state import Source


class Following:
    """Follows runs, be they worked on here (`runs`) or elsewhere (`mirrors`)."""

    def __init__(
        self, runs: Mapping[uuid.UUID, Run], mirrors: Mirrors, *, cancel_on_disconnect: bool
    ) -> None:
        self._runs = runs
        self._mirrors = mirrors
        self._cancel_on_disconnect = cancel_on_disconnect

    @property
    def readers(self) -> int:
        """How many readers there are."""
        return sum(run.readers for run in self._runs.values()) + self._mirrors.readers

    async def follow(self, row: RunRow, after: int) -> AsyncIterator[bytes]:
        """The bytes of a run's stream after event `after`, live; a comment goes out at once."""
        yield OPENED
        run_id = str(row.id)
        if run := self._runs.get(row.id):
            async with self._reading(run):
                async for first, frames in run.log.follow(after, silence_s=KEEP_ALIVE_S):
                    after = first + len(frames) - 1
                    yield encode(run_id, first, frames) if frames else KEEP_ALIVE
            if run.log.has_ended:
                return
        async for first, frames in self._mirrors.follow(row, after, silence_s=KEEP_ALIVE_S):
            yield encode(run_id, first, frames) if frames else KEEP_ALIVE

    def source(self, chunk_id: str, owner_id: uuid.UUID) -> tuple[RunRow, Source] | None:
        """What `Runs.source` gives."""
        for run in self._runs.values():
            if run.row.project_id and run.row.owner_id == owner_id:
                for source in run.sources:
                    if source["id"] == chunk_id:
                        return run.row, source
        return None

    @asynccontextmanager
    async def _reading(self, run: Run) -> AsyncIterator[None]:
        run.readers, run.was_followed = run.readers + 1, True
        try:
            yield
        finally:
            run.readers -= 1
            if self._cancel_on_disconnect and not run.readers:
                run.stop.ask("asked")


def stream_gone() -> Refusal:
    """410: of a run that there is, nothing can be followed any more."""
    return Refusal(
        410,
        "stream_gone",
        "The stream of this run is no longer kept. Read its conversation instead.",
    )
