"""The chunks' text, in Postgres; the tables are made by the service's migrations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import DictRow

from graph.errors import RetrievalFailed
from graph.knowledge.chunking import Chunk, without_overlap
from graph.postgres import UNREACHABLE, Pool
from graph.state import Source

_FETCH = """
    select c.id, c.document_id, d.name, c.page_number, c.text
      from chunks c join documents d on d.id = c.document_id
     where c.project_id = %s and c.id = any(%s) and d.status = 'indexed'
"""
_SURROUNDINGS = """
    select n.id, n.project_id, n.document_id, d.name, n.page_number, n.text, n.id = c.id as asked
      from chunks c
      join documents d on d.id = c.document_id
      join chunks n on n.document_id = c.document_id
                   and n.position between c.position - 1 and c.position + 1
     where c.id = %s order by n.position
"""


@dataclass(frozen=True)
class Surroundings:
    """A chunk (`snippet`) within the text of its neighbours (`context`)."""

    project_id: str
    document_id: str
    document_name: str
    page_number: int | None
    chunk_id: str
    snippet: str
    context: str


class Passages:
    """Reads and writes chunks through `pool`, whose connections are autocommit with dict rows.

    Methods raise RetrievalFailed (transient) when the database does not answer, and
    ValueError for an id that is not a UUID.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def store(
        self, project_id: str, document_id: str, chunks: Sequence[tuple[str, Chunk]]
    ) -> None:
        """Put (id, chunk) in place of all the document's chunks, at once or not at all.

        Raises RetrievalFailed when the document is gone.
        """
        owner = (UUID(document_id), UUID(project_id))
        with _translated():
            async with self._pool.connection() as conn, conn.transaction(), conn.cursor() as cursor:
                await cursor.execute("delete from chunks where document_id = %s", owner[:1])
                async with cursor.copy(
                    "copy chunks (id, document_id, project_id, position, page_number, text)"
                    " from stdin"
                ) as copy:
                    for chunk_id, chunk in chunks:
                        place = (chunk.position, chunk.page_number, chunk.text)
                        await copy.write_row((UUID(chunk_id), *owner, *place))

    async def has_document(self, document_id: str) -> bool:
        """Tell whether the document is still there."""
        return bool(await self._rows("select 1 from documents where id = %s", UUID(document_id)))

    async def fetch(self, project_id: str, ids: Sequence[str]) -> dict[str, Source]:
        """Give those of the chunks, by id, that are in the project and in indexed documents."""
        if not ids:
            return {}
        try:
            rows = await self._rows(_FETCH, UUID(project_id), [UUID(one) for one in ids])
        except psycopg.errors.UndefinedTable:
            # LangGraph Studio may be given a database that the service has never used.
            return {}
        return {str(row["id"]): _source(row) for row in rows}

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
            chunk_id=str(asked["id"]),
            snippet=asked["text"].strip(),
            context=_joined(rows),
        )

    async def _rows(self, statement: str, *values: object) -> list[DictRow]:
        with _translated():
            async with self._pool.connection() as conn:
                return await (await conn.execute(statement, values)).fetchall()


def _source(row: dict[str, Any]) -> Source:
    text = row["text"].strip()
    return Source(
        id=str(row["id"]),
        document_id=str(row["document_id"]),
        document_name=row["name"],
        page_number=row["page_number"],
        text=text,
        url=None,
        heading="",
        context=text,
    )


def _joined(rows: Sequence[DictRow]) -> str:
    """Join chunks that follow each other; what they share stands once."""
    context = ""
    before: DictRow | None = None
    for row in rows:
        if before and before["page_number"] == row["page_number"]:
            context += without_overlap(row["text"], before["text"])
        else:
            context += "\n\n" * bool(before) + row["text"]
        before = row
    return context.strip()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.ForeignKeyViolation as error:
        raise RetrievalFailed("The document was deleted while it was being indexed.") from error
    except (*UNREACHABLE, psycopg.InterfaceError) as error:
        raise RetrievalFailed(
            "The documents' text could not be read from the database. Try again.", transient=True
        ) from error
