"""The chunks' text and full-text index, in Postgres; the service's migrations make the tables."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID, uuid5

import psycopg
from psycopg.rows import DictRow

from graph.errors import RetrievalFailed
from graph.knowledge import postings
from graph.knowledge.chunking import Chunk
from graph.knowledge.parsing import MARKDOWN, PLAIN
from graph.knowledge.places import Place
from graph.knowledge.postings import Matches, Posting
from graph.knowledge.ranking import REACH, StoredChunk
from graph.postgres import UNREACHABLE, Pool, rows_of

# One statement, so that it sees a document before it is replaced or after, never both.
_FETCH = f"""
    select c.id, c.document_id, c.position, d.name, c.page_number, c.heading, c.text
      from (select distinct a.document_id, a.position + n as position
              from unnest(%s::uuid[], %s::int[]) a(document_id, position),
                   generate_series({-REACH}, {REACH}) n) wanted
      join documents d on d.id = wanted.document_id and d.status = 'indexed' and d.project_id = %s
      join chunks c on c.document_id = wanted.document_id and c.position = wanted.position
"""
_EVERYTHING = """
    select c.id, c.document_id, c.position, d.name, c.page_number, c.heading, c.text
      from documents d join chunks c on c.document_id = d.id
     where d.project_id = %(project)s and d.status = 'indexed'
     order by c.document_id, c.position limit %(limit)s
"""
_COPY = """
    copy chunks (id, document_id, project_id, position, page_number, heading, text) from stdin
"""
_MARK_REFINED = "update documents set is_refined = true where id = %s returning id"
# A row has another xmin after each change.
OUTLINE = """
    select coalesce(sum(chunk_count), 0)::int as chunks,
           coalesce(sum(hashtextextended(id::text || xmin::text, 0)), 0)::text as stamp,
           array_agg(id::text) filter (where not is_refined) as quick
      from documents where project_id = %(project)s and status = 'indexed'
"""
_TOUCH = "update documents set is_refined = is_refined where project_id = %s returning id"
_HOLD_DOCUMENT = "select from documents where id = %s for key share"
_DELETED = "The document was deleted while it was being indexed."
_INDEXED = """
    select d.id, count(c.id) as chunks
      from documents d left join chunks c on c.document_id = d.id
     where d.project_id = %s and d.status = 'indexed' group by d.id
"""
_FILES = f"""
    select d.name, substring(f.content for %s) as content
      from documents d join document_files f on f.document_id = d.id
     where d.project_id = %s and d.name = any(%s) and d.status = 'indexed'
       and d.mime_type in ('{MARKDOWN}', '{PLAIN}')
       and not exists (
           select from documents newer
            where newer.project_id = d.project_id and newer.name = d.name
              and newer.accepted > d.accepted and newer.status = 'indexed')
     order by d.accepted desc
"""
_SURROUNDINGS = """
    select n.project_id, n.document_id, d.name, n.page_number, n.text, n.id = c.id as asked
      from chunks c
      join documents d on d.id = c.document_id
      join chunks n on n.document_id = c.document_id
                   and n.position between c.position - 1 and c.position + 1
     where c.id = %s order by n.position
"""


_ALL = """
    select position, page_number, heading, text from chunks
     where document_id = %s order by position
"""


class Outline(NamedTuple):
    """A project's indexed documents in short, with a stamp that changes with any of them.

    `chunks` is the number of their chunks, `quick` the documents whose vectors are quick ones.
    """

    stamp: str
    chunks: int
    quick: frozenset[str]


@dataclass(frozen=True)
class Surroundings:
    """A chunk (`snippet`) within the text of its neighbours (`context`)."""

    project_id: str
    document_id: str
    document_name: str
    page_number: int | None
    snippet: str
    context: str


class Passages:
    """Reads and writes chunks through `pool`, whose connections are autocommit with dict rows.

    Methods raise RetrievalFailed (transient) when the database does not answer, and
    ValueError for an id that is not a UUID.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(self, project_id: str, document_id: str, chunks: Sequence[Chunk]) -> None:
        """Put `chunks` in place of all the document's, at once or not at all.

        The same position gives the same id again. Raises RetrievalFailed when the document is gone.
        """
        found = await asyncio.to_thread(postings.postings_of, document_id, chunks)
        owner = (UUID(document_id), UUID(project_id))
        with _translated():
            async with self._pool.connection() as conn, conn.transaction(), conn.cursor() as cursor:
                # Rows that are refused only after they were written stay in the database's files.
                await cursor.execute(_HOLD_DOCUMENT, owner[:1])
                if not cursor.rowcount:
                    raise RetrievalFailed(_DELETED)
                await cursor.execute("delete from chunks where document_id = %s", owner[:1])
                async with cursor.copy(_COPY) as copy:
                    for chunk in chunks:
                        chunk_id = uuid5(owner[0], str(chunk.position))
                        place = (chunk.position, chunk.page_number, chunk.heading, chunk.text)
                        await copy.write_row((chunk_id, *owner, *place))
                await postings.store(conn, project_id, document_id, found)

    async def store_terms(self, project_id: str, document_id: str, chunks: Sequence[Chunk]) -> None:
        """Put the full-text index of `chunks` in place of the document's."""
        found = await asyncio.to_thread(postings.postings_of, document_id, chunks)
        with _translated():
            async with self._pool.connection() as conn, conn.transaction():
                await postings.store(conn, project_id, document_id, found)

    async def has_document(self, document_id: str) -> bool:
        """Tell whether the document is still there."""
        return bool(await self._rows("select 1 from documents where id = %s", UUID(document_id)))

    async def indexed_documents(self, project_id: str) -> dict[str, int]:
        """Give the project's indexed documents, each with the number of its chunks."""
        rows = await self._rows(_INDEXED, UUID(project_id))
        return {str(row["id"]): row["chunks"] for row in rows}

    async def mark_refined(self, document_id: str) -> None:
        """Note that a document's vectors are the better ones."""
        await self._rows(_MARK_REFINED, UUID(document_id))

    async def outline(self, project_id: str) -> Outline:
        """Give the project's indexed documents in short."""
        try:
            [row] = await self._rows(OUTLINE, project=UUID(project_id))
        except psycopg.errors.UndefinedTable:
            # LangGraph Studio may be given a database that the service has never used.
            return Outline("", 0, frozenset())
        return outline_of(row)

    async def touch(self, project_id: str) -> None:
        """Give the project another outline: something changed that its rows don't tell."""
        await self._rows(_TOUCH, UUID(project_id))

    async def everything(
        self, project_id: str, limit: int
    ) -> tuple[list[StoredChunk], list[Posting]]:
        """Give the chunks of the project's indexed documents, and their terms in order.

        Of more chunks than `limit` one more is given, and no terms.
        """
        owner = {"project": UUID(project_id), "limit": limit + 1}
        with _translated():
            async with self._pool.connection() as conn:
                found = await (await conn.execute(_EVERYTHING, owner)).fetchall()
                chunks = [_chunk(row) for row in found]
                is_small = len(chunks) <= limit
                return chunks, await postings.everything(conn, project_id) if is_small else []

    async def match(self, project_id: str, asked: dict[str, float], limit: int) -> Matches:
        """Rank the project's chunks by the terms asked for, each with its weight."""
        with _translated():
            async with self._pool.connection() as conn:
                return await postings.search(conn, project_id, asked, limit)

    async def fetch(self, project_id: str, places: Sequence[Place]) -> dict[Place, StoredChunk]:
        """Give the chunks at `places` and two on each side, of the project's indexed documents."""
        if not places:
            return {}
        documents = [UUID(document) for document, _ in places]
        positions = [position for _, position in places]
        rows = await self._rows(_FETCH, documents, positions, UUID(project_id))
        chunks = [_chunk(row) for row in rows]
        return {chunk.place: chunk for chunk in chunks}

    async def chunks(self, document_id: str) -> list[Chunk]:
        """Give all chunks of a document, in order."""
        return [Chunk(**row) for row in await self._rows(_ALL, UUID(document_id))]

    async def files(
        self, project_id: str, names: Sequence[str], most_bytes: int
    ) -> dict[str, bytes]:
        """Give the start of the indexed text files with these names, the newest file first."""
        about = (most_bytes, UUID(project_id), list(names))
        with _translated():
            async with self._pool.connection() as conn:
                try:
                    # As text it would come in twice its size.
                    cursor = await conn.execute(_FILES, about, binary=True)
                except psycopg.errors.UndefinedTable:
                    return {}
                return {row["name"]: row["content"] for row in await cursor.fetchall()}

    async def surroundings(self, chunk_id: str) -> Surroundings | None:
        """Give a chunk with the text around it; an unknown id gives None."""
        rows = await self._rows(_SURROUNDINGS, UUID(chunk_id))
        asked = next((row for row in rows if row["asked"]), None)
        if asked is None:
            return None
        return Surroundings(
            project_id=str(asked["project_id"]),
            document_id=str(asked["document_id"]),
            document_name=asked["name"],
            page_number=asked["page_number"],
            snippet=asked["text"],
            context="\n\n".join(row["text"] for row in rows),
        )

    async def _rows(self, statement: str, *values: object, **named: object) -> list[DictRow]:
        with _translated():
            return await rows_of(self._pool, statement, named or values)


def outline_of(row: Mapping[str, Any]) -> Outline:
    """Read it from a row that has the columns of `OUTLINE`."""
    return Outline(row["stamp"], row["chunks"], frozenset(row["quick"] or ()))


def _chunk(row: dict[str, Any]) -> StoredChunk:
    return StoredChunk(
        id=str(row["id"]),
        place=(str(row["document_id"]), row["position"]),
        document_name=row["name"],
        page_number=row["page_number"],
        heading=row["heading"],
        text=row["text"],
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.ForeignKeyViolation as error:
        raise RetrievalFailed(_DELETED) from error
    except UNREACHABLE as error:
        raise RetrievalFailed(
            "The documents' text could not be read from the database. Try again.", transient=True
        ) from error
