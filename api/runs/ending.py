"""How a run ends: answer, citations, log, accounts and, where need be, its successor, all at once.

The run's row is the fence. It is locked first, and only a run that is still `running` can be
ended, so that of two processes that would end it one does and the other learns of it.
"""

import uuid
from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from api.fair_use import FairUse
from api.runs.accounts import Spent, add_run
from api.runs.beginning import insert_next
from api.runs.rows import RunRow
from api.runs.stored_log import Batch, keep_last
from api.traces import names_left, without_quotes
from graph.events import Answer, Citation, Warned
from graph.postgres import Pool
from graph.state import Source


@dataclass(frozen=True, slots=True)
class End:
    """All that is stored when a run ends. `row` is the run as it stands then.

    `batches` end with the terminal event. They are the whole log, and take the place of what is
    kept of it, unless they are to be `added` to that. `web_sources`: what the web search found.
    """

    row: RunRow
    answer: Answer
    batches: Sequence[Batch]
    spent: Spent
    web_sources: Sequence[Source] = ()
    added: bool = False


class Endings:
    """Stores the ends of runs."""

    def __init__(self, pool: Pool, fair_use: FairUse) -> None:
        self._pool = pool
        self._fair_use = fair_use

    async def end(self, end: End, process_id: uuid.UUID) -> bool:
        """Store the end of a run of this process; false if the run is no longer its own.

        May be repeated without harm, also where it is not known whether it was stored.
        """
        async with self._pool.connection() as connection, connection.transaction():
            names = await self._enter(connection, end)
            cursor = await connection.execute(_LOCK, (end.row.id,))
            row = await cursor.fetchone()
            if row is None:
                return False
            if row["status"] != "running":
                return (row["status"], row["seq"]) == (end.row.status, end.row.seq)
            if row["process_id"] != process_id:
                return False
            await self.store(connection, end, names)
            return True

    async def store(
        self, connection: AsyncConnection[Any], end: End, names: Set[str] = frozenset()
    ) -> None:
        """Store the end of a run whose row the connection's transaction has locked, and judged.

        `names`: those of the cited documents that are still there, see `names_left`.
        """
        row, error = end.row, end.row.error
        await connection.execute(
            _END_RUN,
            (
                row.status,
                row.seq,
                row.finish_reason,
                error and Jsonb(error),
                row.is_retryable,
                row.next_run_id,
                row.next_run_id is not None,
                row.id,
            ),
        )
        if row.conversation_id and row.project_id:
            await _store_answer(connection, end, row.project_id, names)
        await keep_last(connection, end.batches, added=end.added)
        if row.next_run_id:
            await insert_next(connection, row, row.next_run_id)
        # Last, since other runs wait for these rows.
        await add_run(connection, row.owner_id, row.project_id, end.spent)
        await self._fair_use.count_tokens(
            connection, row.owner_id, row.project_id, end.spent.usage.total_tokens
        )

    async def _enter(self, connection: AsyncConnection[Any], end: End) -> set[str]:
        """Lock what whoever erases a conversation or a document locks before the run's row.

        Gives the names of cited documents that are still there.
        """
        row = end.row
        if not (row.conversation_id and row.project_id):
            return set()
        await connection.execute(_LOCK_CONVERSATION, (row.conversation_id,))
        cited = {citation.source["document_name"] for citation in end.answer.citations}
        return await names_left(connection, row.project_id, cited)


async def _store_answer(
    connection: AsyncConnection[Any], end: End, project_id: uuid.UUID, names: Set[str]
) -> None:
    """Keep the answer, what is cited as it was cited, and all that the web search found.

    So the chunk ids resolve whatever becomes of the documents. What was erased while the run was
    going on is not quoted again.
    """
    answer, row = end.answer, end.row
    citations = [citation_row(citation) for citation in answer.citations]
    cited = [citation.source for citation in answer.citations]
    kept = {source["id"]: source for source in (*cited, *end.web_sources)}
    await connection.execute(
        _END_MESSAGE,
        (
            answer.text,
            "complete" if row.status == "done" else row.status,
            Jsonb(without_quotes(citations, names)),
            answer.prompt_version,
            answer.template_version,
            row.id,
        ),
    )
    await connection.cursor().executemany(
        _INSERT_PASSAGE,
        [
            _passage_row(row.id, project_id, source)
            for source in kept.values()
            if source["document_id"] is None or source["document_name"] in names
        ],
    )


def citation_row(citation: Citation) -> dict[str, Any]:
    """A citation as it is stored and told."""
    return {
        "index": citation.index,
        "chunkId": citation.source["id"],
        "documentId": citation.source["document_id"],
        "documentName": citation.source["document_name"],
        "pageNumber": citation.source["page_number"],
        "quote": citation.quote,
        "supported": citation.supported,
        "by": citation.by,
    }


def warning_row(warning: Warned) -> dict[str, Any]:
    """A warning as it is told: the line stands in the message too, for who shows only that."""
    if warning.line is None:
        return {"code": warning.code, "message": warning.message}
    message = f"Line {warning.line}: {warning.message}"
    return {"code": warning.code, "message": message, "line": warning.line}


def _passage_row(
    message_id: uuid.UUID, project_id: uuid.UUID, source: Source
) -> tuple[str | int | uuid.UUID | None, ...]:
    return (
        message_id,
        source["id"],
        project_id,
        source["document_id"],
        source["document_name"],
        source["page_number"],
        source["url"],
        source["text"],
        source["context"],
    )


_LOCK_CONVERSATION = "select from conversations where id = %s for no key update"
_LOCK = "select status, seq, process_id from runs where id = %s for no key update"
_END_RUN = """
update runs set status = %s, seq = %s, finish_reason = %s, error = %s, is_retryable = %s,
    next_run_id = %s, ended_at = now(), request = case when %s then request end
where id = %s
"""
_INSERT_PASSAGE = """
insert into cited_passages (message_id, chunk_id, project_id, document_id, document_name,
    page_number, url, snippet, context)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing
"""
_END_MESSAGE = """
update messages set content = %s, status = %s, citations = %s,
    prompt_version = %s, template_version = %s
where id = %s
"""
