"""Takes documents in: each is a job, done by any process, begun anew wherever it broke off."""

import asyncio
import hashlib
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from psycopg.rows import DictRow

from api.progress import Progress, Report
from api.queue import AWAY, SILENT_S, Later, Queue
from api.versions import FORGET, INGEST, REFINE, Version, Versions
from graph.errors import PipelineError, UnreadableDocument
from graph.knowledge.library import Library
from graph.knowledge.parsing import MARKDOWN
from graph.knowledge.reading import Reading
from graph.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

MOST_WAIT_S = 600.0
"""A document waits so long for a vector store or an embedding model that is away."""

_MOST_CRASHES = 25
_ROUND_S = 10.0
_DATABASE_AWAY_S = 5.0

_UNFORESEEN = "The document could not be processed. The cause is in the service's log."
_NOTHING_TO_FIND = "The document has no text that could be searched."
_CRASHED = (
    "The service ended again and again while it processed this document. Upload it once more, "
    "or in smaller parts."
)


class Ingestion:
    """The documents on their way in. `progress` tells how far they are."""

    def __init__(self, pool: Pool, library: Library) -> None:
        self._library = library
        jobs = {INGEST: self._take_in, REFINE: self._refine, FORGET: self._forget}
        self._queue = Queue(jobs)
        self._versions = Versions(pool, self._queue)
        self.progress = Progress(pool, self._versions)

    @asynccontextmanager
    async def open(self, pool: Pool, *, alone: bool) -> AsyncIterator[None]:
        """Work until the block ends; `pool` is the queue's own.

        `alone` says that no other process can work with the same vectors: then what one has left
        behind is taken over at once.
        """
        async with self._queue.open(pool):
            await self._take_over(0 if alone else SILENT_S)
            tasks = [asyncio.create_task(self._queue.work()), asyncio.create_task(self._look())]
            try:
                yield
            finally:
                self.progress.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def accept(
        self, project_id: uuid.UUID, name: str, data: bytes, mime_type: str
    ) -> DictRow:
        """Store a file as `processing`, or give the row that has its name and bytes already."""
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
        return await self._versions.accept(project_id, name, data, digest, mime_type)

    async def withdraw(self, document_id: uuid.UUID) -> None:
        """Take away a document that failed, of which its sender is told at once."""
        await self._versions.withdraw(document_id)

    async def require_text(self, name: str, data: bytes, mime_type: str) -> None:
        """Read a file without storing anything.

        Raises:
            UnreadableDocument: there is no text in it, or it cannot be read.
        """
        reading = await self._library.read(data, _file_name(name, mime_type))
        if not reading.chunks:
            raise UnreadableDocument(_NOTHING_TO_FIND)

    async def _look(self) -> None:
        """Look for ever for what other processes have left behind."""
        while True:
            await asyncio.sleep(_ROUND_S)
            try:
                await self._take_over(SILENT_S)
            except AWAY:
                log.warning("nothing was taken over: the database is away")
            except Exception:
                log.exception("nothing was taken over")

    async def _take_over(self, silent_s: float) -> None:
        arguments = await self._queue.take_over(silent_s)
        await self._versions.count_crashes([uuid.UUID(one["document_id"]) for one in arguments])
        await self._versions.put_forgotten()

    async def _take_in(self, project_id: str, document_id: str) -> None:
        """The job: from the stored file to a version that is found, or says why it is not."""
        one = uuid.UUID(document_id)
        try:
            version = await self._versions.take_up(one)
            if version is not None:
                await self._attempt(version)
            if await self._versions.find(one) is None:
                await self._forget(project_id, document_id)
        except UNREACHABLE:
            log.warning("document %s waits: the database is away", document_id)
            raise Later(_DATABASE_AWAY_S) from None
        finally:
            self.progress.wake(one)

    async def _attempt(self, version: Version) -> None:
        if version.crashes > _MOST_CRASHES:
            return await self._versions.fail(version, _CRASHED)
        try:
            await self._process(version)
        except PipelineError as error:
            await self._wait_or_fail(version, error)
        except UNREACHABLE:
            raise
        except Exception:
            log.exception("document %s could not be processed", version.id)
            await self._versions.fail(version, _UNFORESEEN)

    async def _process(self, version: Version) -> None:
        project_id, document_id = str(version.project_id), str(version.id)
        async with self.progress.reporting(version) as report:
            reading = await self._read(version, report)
            if reading is None:
                return
            await self._library.index(project_id, document_id, reading.chunks, progress=report)
        if not reading.chunks:
            return await self._versions.fail(version, _NOTHING_TO_FIND)
        for gone in await self._versions.publish(version, reading):
            # Its job would do it too; nobody need see the old vectors counted until then.
            with suppress(PipelineError):
                await self._library.forget_document(project_id, str(gone))

    async def _read(self, version: Version, report: Report) -> Reading | None:
        report("reading", 0, 1)
        content = await self._versions.content(version)
        if content is None:
            return None
        reading = await self._library.read(content, _file_name(version.name, version.mime_type))
        report("reading", 1, 1)
        return reading

    async def _wait_or_fail(self, version: Version, error: PipelineError) -> None:
        """Try again later what may pass, for some minutes; then say what it was."""
        waited = await self._versions.wait(version) if error.transient else MOST_WAIT_S
        if waited is None:
            return
        if waited >= MOST_WAIT_S:
            return await self._versions.fail(version, str(error))
        log.warning("document %s waits: %s", version.id, error)
        await self.progress.note(version, ("waiting", int(waited), int(MOST_WAIT_S)))
        raise Later(min(30.0, max(2.0, waited)))

    async def _refine(self, project_id: str, document_id: str) -> None:
        """The job: replace the quick vectors of a version that is found already.

        What will not pass by itself is left to `archwright reindex`, since others wait meanwhile.
        """
        try:
            await self._library.refine(project_id, document_id)
        except PipelineError as error:
            log.warning("document %s keeps its quick vectors for now: %s", document_id, error)
            if error.transient:
                raise Later(30) from None

    async def _forget(self, project_id: str, document_id: str) -> None:
        """The job: delete the vectors of a version that is gone. Nobody finds them without it."""
        try:
            await self._library.forget_document(project_id, document_id)
        except PipelineError as error:
            log.warning("vectors of document %s are left for now: %s", document_id, error)
            raise Later(30) from None


def _file_name(name: str, mime_type: str) -> str:
    """The name by which the parser knows the format: an ingested text may have no ending."""
    ends_well = name.lower().endswith((".md", ".markdown"))
    return name if mime_type != MARKDOWN or ends_well else f"{name}.md"
