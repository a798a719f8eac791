"""Takes documents in: stores the file, makes it searchable, replaces the version before it."""

import asyncio
import hashlib
import logging
import uuid
from contextlib import suppress
from typing import Any

from graph.errors import PipelineError
from graph.knowledge.library import Library
from graph.knowledge.parsing import MARKDOWN, recognise
from graph.knowledge.reading import Reading
from graph.postgres import UNREACHABLE, Pool

log = logging.getLogger(__name__)

_UNFORESEEN = "The document could not be processed. The cause is in the service's log."
_NOTHING_TO_FIND = "The document has no text that could be searched."


class Ingestion:
    """The documents that this process is working on, each in a task of its own."""

    def __init__(self, pool: Pool, library: Library) -> None:
        self._pool = pool
        self._library = library
        self._tasks: dict[uuid.UUID, asyncio.Task[int]] = {}

    async def accept(
        self, project_id: uuid.UUID, name: str, data: bytes, mime_type: str | None = None
    ) -> dict[str, Any]:
        """Store a file as `processing`, or give the row that has the same name and bytes already.

        Without `mime_type` the format is recognised.

        Raises:
            UnsupportedDocument: it is none of the formats that are read; nothing is stored.
        """
        mime_type = mime_type or await asyncio.to_thread(recognise, data, name)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
        same = await self._same(project_id, name, digest)
        if same is not None:
            return same
        row = {
            "id": uuid.uuid4(),
            "project_id": project_id,
            "name": name,
            "mime_type": mime_type,
            "size_bytes": len(data),
            "sha256": digest,
        }
        async with self._pool.connection() as connection, connection.transaction():
            stored = await (await connection.execute(_INSERT, row)).fetchone()
            await connection.execute(_INSERT_FILE, (row["id"], data))
        assert stored is not None
        return stored

    def work_on(self, document_id: uuid.UUID) -> asyncio.Task[int]:
        """Process a document that was accepted; the task gives the number of its chunks.

        One that is being processed already gives the task that does it.
        """
        task = self._tasks.get(document_id)
        if task is None:
            task = self._tasks[document_id] = asyncio.create_task(self._process(document_id))
            task.add_done_callback(lambda _: self._tasks.pop(document_id, None))
        return task

    async def resume(self) -> None:
        """Go on with the documents that a process that ended had left behind."""
        async with self._pool.connection() as connection:
            rows = await (
                await connection.execute("select id from documents where status = 'processing'")
            ).fetchall()
        for row in rows:
            self.work_on(row["id"])

    async def close(self) -> None:
        """Leave off; what is unfinished is resumed at the next start."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _process(self, document_id: uuid.UUID) -> int:
        document = await self._load(document_id)
        if document is None:
            return 0
        try:
            reading = await self._library.read(document["content"], _file_name(document))
            project_id = str(document["project_id"])
            chunks = await self._library.index(project_id, str(document_id), reading.chunks)
            if chunks:
                await self._publish(document, reading, chunks)
        except PipelineError as error:
            return await self._fail(document_id, str(error))
        except UNREACHABLE:
            log.warning("document %s waits for the next start: the database is away", document_id)
            return 0
        except Exception:
            log.exception("document %s could not be processed", document_id)
            return await self._fail(document_id, _UNFORESEEN)
        return chunks or await self._fail(document_id, _NOTHING_TO_FIND)

    async def _publish(self, document: dict[str, Any], reading: Reading, chunks: int) -> None:
        """Make the document findable and take its older versions away, in one step."""
        async with self._pool.connection() as connection, connection.transaction():
            published = await connection.execute(
                _PUBLISH, (reading.mime_type, reading.page_count, chunks, document["id"])
            )
            if not published.rowcount:
                # It was deleted in the meantime; what it would have replaced stays.
                return
            old = await (await connection.execute(_DELETE_OLDER, document)).fetchall()
        for row in old:
            await self._forget(str(document["project_id"]), str(row["id"]))

    async def _forget(self, project_id: str, document_id: str) -> None:
        """Delete an old version's vectors. Without their rows they are found by nobody."""
        try:
            await self._library.forget_document(project_id, document_id)
        except PipelineError as error:
            log.warning("vectors of document %s are left over: %s", document_id, error)

    async def _fail(self, document_id: uuid.UUID, reason: str) -> int:
        with suppress(*UNREACHABLE):
            async with self._pool.connection() as connection:
                await connection.execute(
                    "update documents set status = 'failed', error = %s where id = %s",
                    (reason, document_id),
                )
        return 0

    async def _load(self, document_id: uuid.UUID) -> dict[str, Any] | None:
        async with self._pool.connection() as connection:
            return await (await connection.execute(_SELECT_WITH_FILE, (document_id,))).fetchone()

    async def _same(self, project_id: uuid.UUID, name: str, digest: bytes) -> dict[str, Any] | None:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_SELECT_SAME, (project_id, name, digest))
            return await cursor.fetchone()


def _file_name(document: dict[str, Any]) -> str:
    """The name by which the parser knows the format: an ingested text may have no ending."""
    name: str = document["name"]
    ends_well = name.lower().endswith((".md", ".markdown"))
    return name if document["mime_type"] != MARKDOWN or ends_well else f"{name}.md"


COLUMNS = """
id, project_id, name, mime_type, size_bytes, page_count, chunk_count, status, error, created_at
"""
_INSERT = f"""
insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status)
values (%(id)s, %(project_id)s, %(name)s, %(mime_type)s, %(size_bytes)s, %(sha256)s, 'processing')
returning {COLUMNS}
"""
_INSERT_FILE = "insert into document_files (document_id, content) values (%s, %s)"
_SELECT_WITH_FILE = """
select d.id, d.project_id, d.name, d.mime_type, d.created_at, f.content
from documents d join document_files f on f.document_id = d.id
where d.id = %s and d.status = 'processing'
"""
_SELECT_SAME = f"""
select {COLUMNS} from documents
where project_id = %s and name = %s and sha256 = %s and status <> 'failed'
    and not exists (
        select from documents newer where newer.project_id = documents.project_id
            and newer.name = documents.name and newer.created_at > documents.created_at
            and newer.status <> 'failed')
order by created_at desc limit 1
"""
_PUBLISH = """
update documents set status = 'indexed', error = null, mime_type = %s, page_count = %s,
    chunk_count = %s
where id = %s
"""
_DELETE_OLDER = """
delete from documents where project_id = %(project_id)s and name = %(name)s
    and id <> %(id)s and created_at <= %(created_at)s
returning id
"""
