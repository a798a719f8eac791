"""What the readers of a document are told while it is taken in, from whichever process.

The events are rows in Postgres, few for each document. The last one is no row: it follows from
the document itself, so that it can neither be missing nor come twice.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from psycopg.rows import DictRow

from api.versions import Version, Versions, told
from api.waiting import within
from api.wire import KEEP_ALIVE, KEEP_ALIVE_S, OPENED, Frame, encode, frame
from graph.postgres import UNREACHABLE, Pool, rows_of

GONE = "The document was deleted, or replaced by a newer version."

_POLL_S = 0.3
_WRITE_S = 0.2
# A document that is tried again and again must not grow without bounds.
_MOST_EVENTS = 200

Note = tuple[str, int, int]
"""Stage, done, total."""

State = tuple[object, ...]
"""What a reader waits for a change of: events, status, whether the job waits; empty once gone."""


class Report:
    """Takes what a job has done and hands on little of it: each stage, and each tenth of one.

    After a wait only what is new is told: that embedding goes on.
    """

    def __init__(self, *, is_again: bool) -> None:
        self._notes: list[Note] = []
        self._is_again = is_again
        self._last: tuple[str, int] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Note that `done` of `total` of a stage are done; call it from the event loop."""
        step = stage, 10 * done // total if total else 0
        if step == self._last or (self._is_again and not (stage == "embedding" and done)):
            return
        self._last = step
        self._notes.append((stage, done, total))

    def take(self) -> list[Note]:
        """What was not taken yet."""
        notes, self._notes = self._notes, []
        return notes


class Progress:
    """The events of documents: written by the job, followed in any process until their end.

    One query every 0.3 s serves all readers of a process; a change in this process wakes them
    at once.
    """

    def __init__(self, pool: Pool, versions: Versions) -> None:
        self._pool = pool
        self._versions = versions
        self._watched: dict[uuid.UUID, set[asyncio.Event]] = {}
        self._states: dict[uuid.UUID, State] = {}
        self._watcher: asyncio.Task[None] | None = None
        self._closed = False

    @asynccontextmanager
    async def reporting(self, version: Version) -> AsyncIterator[Report]:
        """A report whose notes are written while the block runs, all of them before it ends."""
        report, end = Report(is_again=version.is_again), asyncio.Event()
        writing = asyncio.create_task(self._write(version, report, end))
        try:
            yield report
        finally:
            end.set()
            await writing

    async def note(self, version: Version, *notes: Note) -> None:
        """Write events, unless the version is taken in by another attempt, or not any more.

        Any but `waiting` ends the wait.
        """
        stages, done, total = (list(column) for column in zip(*notes, strict=True))
        about = {"id": version.id, "attempt": version.attempt, "most": _MOST_EVENTS}
        with suppress(*UNREACHABLE):
            async with self._pool.connection() as connection:
                await connection.execute(
                    _NOTE, {**about, "stages": stages, "done": done, "total": total}
                )
        self.wake(version.id)

    def wake(self, document_id: uuid.UUID) -> None:
        """Let the readers of a document look what is new."""
        for news in self._watched.get(document_id, ()):
            news.set()

    async def follow(self, document_id: uuid.UUID, after: int = 0) -> AsyncIterator[bytes]:
        """The bytes of a document's stream after event `after`, live until its end."""
        yield OPENED
        with self._watching(document_id) as news:
            while not self._closed:
                news.clear()
                frames, is_ended = await self._frames(document_id, after)
                if frames:
                    yield encode(str(document_id), after + 1, frames)
                    after += len(frames)
                if is_ended:
                    return
                if not await within(news, KEEP_ALIVE_S):
                    yield KEEP_ALIVE

    async def is_over(self, document_id: uuid.UUID, after: int) -> bool:
        """Whether event `after` of a document is its last one, so that no other will come."""
        frames, is_ended = await self._frames(document_id, after)
        return is_ended and not frames

    async def settled(self, document_id: uuid.UUID, within_s: float) -> DictRow | None:
        """The document's row once it is processed, has to wait, or `within_s` seconds are over.

        Null once it is gone.
        """
        with self._watching(document_id) as news, suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self._closed:
                    news.clear()
                    row = await self._versions.find(document_id)
                    if row is None or row["status"] != "processing" or row["waits_since"]:
                        return row
                    await news.wait()
        return await self._versions.find(document_id)

    def close(self) -> None:
        """End all readers; they may resume elsewhere, or after the next start."""
        self._closed = True
        for document_id in self._watched:
            self.wake(document_id)

    async def _write(self, version: Version, report: Report, end: asyncio.Event) -> None:
        is_last = False
        while not is_last:
            is_last = await within(end, _WRITE_S)
            if notes := report.take():
                await self.note(version, *notes)

    async def _frames(self, document_id: uuid.UUID, after: int) -> tuple[list[Frame], bool]:
        """What follows `after`, and whether that is the end."""
        try:
            row = await self._versions.find(document_id)
            notes = await rows_of(self._pool, _SELECT_NOTES, (document_id, after))
        except UNREACHABLE:
            return [], False
        if row is None:
            return [frame("error", {"message": GONE})], True
        # Rows that came after the document was read belong to the next look.
        frames = [frame("progress", note) for note in notes[: max(row["events"] - after, 0)]]
        if row["status"] == "processing":
            return frames, False
        last = [_end(row)] if after <= row["events"] else []
        return frames + last, True

    @contextmanager
    def _watching(self, document_id: uuid.UUID) -> Iterator[asyncio.Event]:
        news = asyncio.Event()
        self._watched.setdefault(document_id, set()).add(news)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch())
        try:
            yield news
        finally:
            readers = self._watched[document_id]
            readers.discard(news)
            if not readers:
                del self._watched[document_id]
                self._states.pop(document_id, None)

    async def _watch(self) -> None:
        """Look what has changed in other processes, as long as there are readers."""
        while self._watched and not self._closed:
            await asyncio.sleep(_POLL_S)
            with suppress(*UNREACHABLE):
                await self._look()

    async def _look(self) -> None:
        watched = list(self._watched)
        rows = await rows_of(self._pool, _SELECT_STATES, (watched,))
        found = {row["id"]: tuple(row.values()) for row in rows}
        for document_id in watched:
            state = found.get(document_id, ())
            if document_id in self._watched and self._states.get(document_id) != state:
                self._states[document_id] = state
                self.wake(document_id)


def _end(row: DictRow) -> Frame:
    if row["status"] == "failed":
        return frame("error", {"message": row["error"]})
    return frame("done", {"document": told(row).model_dump(mode="json", by_alias=True)})


# What is told after a wait got through. Where there is no more room for events nothing does, so
# that a document which always breaks off at the same place comes to an end.
_NOTE = """
with noted as (
    update documents set events = events + cardinality(%(stages)s::text[]),
        waits_since = case when 'waiting' = any(%(stages)s) then waits_since end
    where id = %(id)s and attempt = %(attempt)s and status = 'processing' and events < %(most)s
    returning id, events - cardinality(%(stages)s::text[]) as before
)
insert into document_events (document_id, seq, stage, done, total)
select id, before + place, stage, done, total
from noted, unnest(%(stages)s::text[], %(done)s::int[], %(total)s::int[])
    with ordinality as notes(stage, done, total, place)
"""
_SELECT_NOTES = """
select stage, done, total from document_events where document_id = %s and seq > %s order by seq
"""
_SELECT_STATES = """
select id, events, status, waits_since is null from documents where id = any(%s)
"""
