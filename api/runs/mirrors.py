"""Follows runs that are not worked on here: their logs as Postgres has them."""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from api.runs.dialects import Dialects
from api.runs.log import JUMP, RunLog
from api.runs.rows import RunRow
from api.runs.stored_log import Kept, read
from api.waiting import within
from api.wire import Frame
from graph.errors import PipelineError
from graph.events import Answer, Failed
from graph.postgres import Pool, failures_logged

log = logging.getLogger(__name__)

_LOOK_S = 1.0
_GONE = "The stream of this run is no longer kept: its conversation or a document was deleted."


@dataclass(slots=True)
class _Mirror:
    """`seen`: the highest number that one of its readers has come with."""

    row: RunRow
    log: RunLog = field(default_factory=RunLog)
    readers: int = 0
    seen: int = 0


class Mirrors:
    """The logs of runs that are followed here and written elsewhere, one for all readers of a run.

    One query brings what is new of all of them: when another process has told of news, and once
    a second.
    """

    def __init__(self, pool: Pool, dialects: Dialects) -> None:
        self._pool = pool
        self._dialects = dialects
        self._mirrors: dict[uuid.UUID, _Mirror] = {}
        self._news: set[uuid.UUID] = set()
        self._wake = asyncio.Event()

    @property
    def readers(self) -> int:
        """How many readers follow such a run."""
        return sum(mirror.readers for mirror in self._mirrors.values())

    def heard(self, run_ids: Iterable[uuid.UUID]) -> None:
        """There is news of these runs."""
        if followed := self._mirrors.keys() & set(run_ids):
            self._news |= followed
            self._wake.set()

    async def follow(
        self, row: RunRow, after: int, *, silence_s: float
    ) -> AsyncIterator[tuple[int, Sequence[Frame]]]:
        """What `RunLog.follow` gives, of a run that is not worked on here."""
        mirror = self._mirrors.setdefault(row.id, _Mirror(row))
        mirror.readers += 1
        mirror.seen = max(mirror.seen, after)
        try:
            self.heard([row.id])
            async for batch in mirror.log.follow(after, silence_s=silence_s):
                yield batch
        finally:
            mirror.readers -= 1
            if not mirror.readers:
                self._mirrors.pop(row.id, None)

    async def work(self) -> None:
        """Look for news of what is followed, for ever."""
        looked_at = time.monotonic()
        while True:
            await within(self._wake, _LOOK_S)
            self._wake.clear()
            # However much is heard: of others it may have been missed.
            if time.monotonic() - looked_at >= _LOOK_S:
                self._news |= self._mirrors.keys()
                looked_at = time.monotonic()
            # What was heard is not lost if this fails: in a second all are looked at.
            with failures_logged(
                log, "runs of other processes could not be followed", level=logging.DEBUG
            ):
                await self._look()

    async def _look(self) -> None:
        wanted = [run_id for run_id in self._news if run_id in self._mirrors]
        self._news.clear()
        mirrors = {run_id: self._mirrors[run_id] for run_id in wanted}
        live = {run_id: one for run_id, one in mirrors.items() if not one.log.has_ended}
        if not live:
            return
        found = await read(self._pool, {run_id: one.log.seq for run_id, one in live.items()})
        for run_id, mirror in live.items():
            self._take(mirror, found.get(run_id))

    def _take(self, mirror: _Mirror, kept: Kept | None) -> None:
        for batch in kept.batches if kept else ():
            mirror.log.append(batch.frames, first=batch.first)
        has_all = kept is not None and kept.is_followable
        if has_all and kept and kept.is_over:
            mirror.log.append((), last=True)
        elif not has_all:
            dialect = self._dialects[mirror.row.api](mirror.row.told())
            gone = dialect(Failed(PipelineError(_GONE), Answer()))
            first = max(mirror.log.seq, mirror.seen) + JUMP
            mirror.log.append(gone, last=True, first=first)
