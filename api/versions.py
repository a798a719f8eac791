"""A document's versions in Postgres: accepted, taken up, and published in place of older ones."""

import uuid
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg.rows import DictRow

from api.queue import Queue
from api.schema import CamelModel
from graph.knowledge.reading import Reading
from graph.postgres import Connection, Pool, row_of

INGEST = "ingest"
REFINE = "refine"
FORGET = "forget"
"""The names of the jobs: take a version in, make its vectors better once it is found, and delete
those of one that is gone."""

# One at a time in all processes: each keeps a core busy.
_REFINE_LOCK = "refine"


class Document(CamelModel):
    """A document; `error` says in a sentence why it failed."""

    id: uuid.UUID
    name: str
    mime_type: str
    size_bytes: int
    page_count: int | None
    chunk_count: int
    status: Literal["processing", "indexed", "failed"]
    error: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """A version that is being taken in.

    `attempt` numbers the jobs that have worked on it: what an earlier one still wants to write
    is refused. `crashes` counts the processes that died meanwhile.
    """

    id: uuid.UUID
    project_id: uuid.UUID
    name: str
    mime_type: str
    accepted: int
    attempt: int
    crashes: int
    is_again: bool


class Versions:
    """Reads and writes documents. What follows from a change is put into the queue with it.

    Methods raise one of UNREACHABLE when the database is away.
    """

    def __init__(self, pool: Pool, queue: Queue) -> None:
        self._pool = pool
        self._queue = queue

    async def accept(
        self, project_id: uuid.UUID, name: str, data: bytes, digest: bytes, mime_type: str
    ) -> DictRow:
        """Store a file with its job, or give the newest version if that has the same bytes.

        One at a time for a name, so that the order of acceptance is the order of the jobs.
        """
        row = {
            "id": uuid.uuid4(),
            "project_id": project_id,
            "name": name,
            "mime_type": mime_type,
            "size_bytes": len(data),
            "sha256": digest,
        }
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_LOCK_NAME, (_lock(project_id, name),))
            same = await (await connection.execute(_SELECT_SAME, row)).fetchone()
            if same is not None:
                return same
            [stored] = await (await connection.execute(_INSERT, row)).fetchall()
            await _store_file(connection, stored["id"], data)
            await self._put(connection, stored)
        return stored

    async def take_up(self, document_id: uuid.UUID) -> Version | None:
        """Begin an attempt; null where the version is gone or not `processing` any more."""
        row = await row_of(self._pool, _TAKE_UP, (document_id,))
        return Version(**row) if row else None

    async def content(self, version: Version) -> bytes | None:
        """The version's file; null where it is gone."""
        async with self._pool.connection() as connection:
            return await content_of(connection, version.id)

    async def publish(self, version: Version, reading: Reading) -> list[uuid.UUID]:
        """Make a version searchable and take the older ones away, in one step; gives those.

        Where a newer one is searchable already, this one goes instead.
        """
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_LOCK_NAME, (_lock(version.project_id, version.name),))
            mine = await connection.execute(_MINE, (version.id, version.attempt))
            if not mine.rowcount:
                return []
            place = {"project_id": version.project_id, "name": version.name}
            place |= {"id": version.id, "accepted": version.accepted}
            gone = await (await connection.execute(_DELETE_WHERE_NEWER, place)).fetchall()
            if not gone:
                about = (reading.mime_type, reading.page_count, len(reading.chunks), version.id)
                await connection.execute(_PUBLISH, about)
                await self._put_refine(connection, version)
                gone = await (await connection.execute(_DELETE_OLDER, place)).fetchall()
            for row in gone:
                await self._put_forget(connection, version.project_id, row["id"])
        return [row["id"] for row in gone]

    async def fail(self, version: Version, reason: str) -> None:
        """Say why a version cannot be searched; what was made of it goes."""
        async with self._pool.connection() as connection, connection.transaction():
            failed = await connection.execute(_FAIL, (reason, version.id, version.attempt))
            if failed.rowcount:
                await connection.execute("delete from chunks where document_id = %s", (version.id,))
                await self._put_forget(connection, version.project_id, version.id)

    async def withdraw(self, document_id: uuid.UUID) -> None:
        """Take away a version that failed; what was made of it went when it did."""
        async with self._pool.connection() as connection:
            await connection.execute(_WITHDRAW, (document_id,))

    async def wait(self, version: Version) -> float | None:
        """Note that a version waits for something to come back; gives for how many seconds by now.

        They count from when something last got through. Null where the version is gone or another
        attempt is at work.
        """
        row = await row_of(self._pool, _WAIT, (version.id, version.attempt))
        return float(row["waited"]) if row else None

    async def count_crashes(self, ids: list[uuid.UUID]) -> None:
        """Count that a process died while it worked on these."""
        async with self._pool.connection() as connection:
            await connection.execute(_COUNT_CRASHES, (ids,))

    async def put_forgotten(self) -> None:
        """Put a job for each version that is `processing` without one."""
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_SELECT_PROCESSING)).fetchall()
            lost = await self._queue.without_job([str(row["id"]) for row in rows])
            for row in rows:
                if str(row["id"]) in lost:
                    await self._put(connection, row)

    async def find(self, document_id: uuid.UUID) -> DictRow | None:
        """A document's row, null if there is none."""
        return await row_of(self._pool, _SELECT, (document_id,))

    async def _put(self, connection: Connection, row: DictRow) -> None:
        key = str(row["id"])
        lock = _lock(row["project_id"], row["name"])
        about = {"project_id": str(row["project_id"]), "document_id": key}
        await self._queue.put(connection, INGEST, lock=lock, key=key, **about)

    async def _put_refine(self, connection: Connection, version: Version) -> None:
        key = f"{REFINE}:{version.id}"
        about = {"project_id": str(version.project_id), "document_id": str(version.id)}
        await self._queue.put(connection, REFINE, lock=_REFINE_LOCK, key=key, **about)

    async def _put_forget(
        self, connection: Connection, project_id: uuid.UUID, document_id: uuid.UUID
    ) -> None:
        key = f"{FORGET}:{document_id}"
        about = {"project_id": str(project_id), "document_id": str(document_id)}
        await self._queue.put(connection, FORGET, lock=key, key=key, **about)


async def content_of(connection: Connection, document_id: uuid.UUID) -> bytes | None:
    """A document's file; null where it is gone."""
    # As text it would come in twice its size, and be held three times.
    cursor = await connection.execute(_SELECT_FILE, (document_id,), binary=True)
    row = await cursor.fetchone()
    return row["content"] if row else None


async def _store_file(connection: Connection, document_id: uuid.UUID, data: bytes) -> None:
    # Piece by piece: as a parameter it would stay in the connection's memory as long as that lives.
    async with connection.cursor().copy(_COPY_FILE) as copy:
        copy.set_types(["uuid", "bytea"])
        await copy.write_row((document_id, data))


def told(row: dict[str, Any]) -> Document:
    """A row as its readers see it."""
    return Document(**{name: row[name] for name in Document.model_fields})


def _lock(project_id: uuid.UUID, name: str) -> str:
    return f"{project_id}/{name}"


COLUMNS = """
id, project_id, name, mime_type, size_bytes, page_count, chunk_count, status, error, created_at,
events, waits_since
"""
_SELECT = f"select {COLUMNS} from documents where id = %s"
_LOCK_NAME = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"
_INSERT = f"""
insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status, created_at)
values (%(id)s, %(project_id)s, %(name)s, %(mime_type)s, %(size_bytes)s, %(sha256)s, 'processing',
    clock_timestamp())
returning {COLUMNS}
"""
_SELECT_FILE = "select content from document_files where document_id = %s"
_COPY_FILE = "copy document_files (document_id, content) from stdin (format binary)"
_SELECT_SAME = f"""
select {COLUMNS} from (
    select * from documents
    where project_id = %(project_id)s and name = %(name)s and status <> 'failed'
    order by accepted desc limit 1
) newest where sha256 = %(sha256)s
"""
_TAKE_UP = """
update documents set attempt = attempt + 1 where id = %s and status = 'processing'
returning id, project_id, name, mime_type, accepted, attempt, crashes,
    waits_since is not null as is_again
"""
_MINE = """
select from documents where id = %s and attempt = %s and status = 'processing' for update
"""
_DELETE_WHERE_NEWER = """
delete from documents where id = %(id)s and exists (
    select from documents newer where newer.project_id = %(project_id)s and newer.name = %(name)s
        and newer.accepted > %(accepted)s and newer.status = 'indexed')
returning id
"""
_PUBLISH = """
update documents set status = 'indexed', error = null, mime_type = %s, page_count = %s,
    chunk_count = %s
where id = %s
"""
_DELETE_OLDER = """
delete from documents where project_id = %(project_id)s and name = %(name)s
    and accepted < %(accepted)s
returning id
"""
_FAIL = """
update documents set status = 'failed', error = %s
where id = %s and attempt = %s and status = 'processing'
"""
_WITHDRAW = "delete from documents where id = %s and status = 'failed'"
_WAIT = """
update documents set waits_since = coalesce(waits_since, now())
where id = %s and attempt = %s and status = 'processing'
returning extract(epoch from now() - waits_since) as waited
"""
_COUNT_CRASHES = """
update documents set crashes = crashes + 1 where id = any(%s) and status = 'processing'
"""
_SELECT_PROCESSING = """
select id, project_id, name from documents where status = 'processing' order by accepted
"""
