"""How a run ends: answer, citations, log, accounts and, where need be, its successor, all at once.

The run's row is the fence. It is locked first, and only a run that is still `running` can be
ended, so that of two processes that would end it one does and the other learns of it.
"""

import uuid
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Json, Jsonb

from api.fair_use import FairUse
from api.runs import accounts
from api.runs.accounts import Spent
from api.runs.beginning import insert_next
from api.runs.rows import RunRow
from api.runs.stored_log import NEWS, Batch, lines_of
from api.traces import without_quotes
from graph import checkpoints
from graph.checkpoints import Saved
from graph.events import Answer, Citation, Warned
from graph.postgres import Connection, Pool
from graph.state import Source


@dataclass(frozen=True, slots=True)
class End:
    """All that is stored when a run ends. `row` is the run as it stands then.

    `batches` end with the terminal event. They are the whole log, and take the place of what is
    kept of it, unless they are to be `added` to that. `web_sources`: what the web search found.
    `documents`: those, names by id, that it showed and that is not noted in its row yet.
    `checkpoint`: what LangGraph keeps of its thread. `in_doubt`: more of its log may still be on
    its way to the database.
    """

    row: RunRow
    answer: Answer
    batches: Sequence[Batch]
    spent: Spent
    web_sources: Sequence[Source] = ()
    documents: Mapping[str, str] = field(default_factory=dict)
    checkpoint: Saved | None = None
    added: bool = False
    in_doubt: bool = False


class Endings:
    """Stores the ends of runs."""

    def __init__(self, pool: Pool, fair_use: FairUse) -> None:
        self._pool = pool
        self._fair_use = fair_use

    async def end(self, end: End, process_id: uuid.UUID) -> bool:
        """Store the end of a run of this process; false if the run is no longer its own.

        May be repeated without harm, also where it is not known whether it was stored.
        """
        if self._fits_in_one(end) and await self._end_at_once(end, process_id):
            return True
        async with self._pool.connection() as connection, connection.transaction():
            run = await _lock(connection, end)
            if run["status"] is None:
                return False
            if run["status"] != "running":
                return (run["status"], run["seq"]) == (end.row.status, end.row.seq)
            if run["process_id"] != process_id:
                return False
            await self.store(connection, end, frozenset(run["names"] or ()))
            return True

    def _fits_in_one(self, end: End) -> bool:
        return not (end.row.next_run_id or end.in_doubt or self._fair_use.limits_tokens)

    async def _end_at_once(self, end: End, process_id: uuid.UUID) -> bool:
        """Store the end in one statement; false, with nothing stored, if it is not as expected.

        What is expected: the run goes on in this process, and all documents are still there.
        """
        values = {
            **_values(end, _names(end)),
            "conversation": end.row.conversation_id,
            "process": process_id,
            "needed": list(_names(end)),
        }
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_END, values)
            return cursor.rowcount == 1

    async def store(self, connection: Connection, end: End, names: Set[str] = frozenset()) -> None:
        """Store the end of a run whose row the connection's transaction has locked, and judged.

        `names`: those of the documents that it cites or shows that are still there.
        """
        row = end.row
        await connection.execute(_STORE, _values(end, names))
        if row.next_run_id:
            await insert_next(connection, row, row.next_run_id)
        # Last, since other runs wait for these rows.
        await self._fair_use.count_tokens(
            connection, row.owner_id, row.project_id, end.spent.usage.total_tokens
        )


async def _lock(connection: Connection, end: End) -> dict[str, Any]:
    """The run as it stands; null in all columns where it is gone.

    `names` are those of the documents that are still there. None is taken for it once one was
    erased that the run has shown: another may have its name by now.
    """
    values = {
        "conversation": end.row.conversation_id,
        "project": end.row.project_id,
        "needed": list(_names(end)),
        "run": end.row.id,
    }
    [row] = await (await connection.execute(_LOCK, values)).fetchall()
    return row


def _names(end: End) -> Set[str]:
    """The names of the documents that it cites or shows."""
    cited = (citation.source for citation in end.answer.citations)
    return {*(s["document_name"] for s in cited if s["document_id"]), *end.documents.values()}


def _values(end: End, names: Set[str]) -> dict[str, Any]:
    *earlier, last = end.batches[-2:]
    return {
        **_run_columns(end, names),
        **_message_columns(end, names),
        "added": end.added,
        **_batch_columns("earlier", earlier[0] if earlier else None),
        **_batch_columns("last", last),
        "channel": NEWS,
        **accounts.columns_of(end.spent),
        **checkpoints.columns_of(end.checkpoint),
    }


def _run_columns(end: End, names: Set[str]) -> dict[str, Any]:
    row, shown = end.row, end.documents
    return {
        "run": row.id,
        "status": row.status,
        "seq": row.seq,
        "finish_reason": row.finish_reason,
        "error": row.error and Jsonb(row.error),
        "is_retryable": row.is_retryable,
        "next": row.next_run_id,
        "documents": list(shown),
        "names": list(shown.values()),
        "shows_erased": not names >= set(shown.values()),
        "project": row.project_id,
        "owner": row.owner_id,
    }


def _message_columns(end: End, names: Set[str]) -> dict[str, Any]:
    """What is cited is kept as it was cited, and all that the web search found.

    So the chunk ids resolve whatever becomes of the documents. What was erased while the run was
    going on is not quoted again.
    """
    answer, row = end.answer, end.row
    citations = [citation_row(citation) for citation in answer.citations]
    cited = [citation.source for citation in answer.citations]
    kept = {source["id"]: source for source in (*cited, *end.web_sources) if row.project_id}
    return {
        "answer": answer.text,
        "answer_status": "complete" if row.status == "done" else row.status,
        "citations": Jsonb(without_quotes(citations, names)),
        "model": answer.model,
        "prompt_version": answer.prompt_version,
        "template_version": answer.template_version,
        "passages": Json([_passage(one) for one in kept.values() if _is_there(one, names)]),
    }


def _batch_columns(name: str, batch: Batch | None) -> dict[str, Any]:
    return {
        f"{name}_seq": batch and batch.first,
        f"{name}_count": batch and len(batch.frames),
        f"{name}_events": batch and lines_of(batch.frames),
    }


def _is_there(source: Source, names: Set[str]) -> bool:
    return source["document_id"] is None or source["document_name"] in names


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


def _passage(source: Source) -> dict[str, Any]:
    return {
        "chunk_id": source["id"],
        "document_id": source["document_id"],
        "document_name": source["document_name"],
        "page_number": source["page_number"],
        "url": source["url"],
        "snippet": source["text"],
        "context": source["context"],
    }


# First what whoever erases a conversation or a document locks before the run's row. Each counts
# the rows of the one before, so that the locks are taken in this order everywhere.
_LOCKING = """
entered as (select id from conversations where id = %(conversation)s for no key update),
named as (
    select d.name from documents d
    where d.project_id = %(project)s and d.name = any(%(needed)s)
        and (select count(*) from entered) >= 0
    order by d.id for key share
),
locked as (
    select id, status, seq, process_id, is_followable from runs
    where id = %(run)s and (select count(*) from named) >= 0 for no key update
)
"""
_LOCK = f"""
with {_LOCKING}
select locked.*, (select array_agg(name) from named where is_followable) as names
from (values (1)) as always left join locked on true
"""
# The batches of a whole log begin with the first event.
_STORING = f"""
ended as (
    update runs set status = %(status)s, seq = %(seq)s, finish_reason = %(finish_reason)s,
        error = %(error)s, is_retryable = %(is_retryable)s, next_run_id = %(next)s,
        ended_at = now(),
        request = case when %(next)s::uuid is not null then request end,
        documents = case when %(shows_erased)s then '{{}}'
            else documents || %(documents)s::uuid[] end,
        document_names = case when %(shows_erased)s then '{{}}'
            else document_names || %(names)s::text[] end,
        is_followable = is_followable and not %(shows_erased)s
    from ready where runs.id = ready.id returning runs.id, is_followable
),
accounted as ({accounts.ADDED}),
{checkpoints.PUT},
answered as (
    update messages set content = %(answer)s, status = %(answer_status)s,
        citations = %(citations)s, model = %(model)s, prompt_version = %(prompt_version)s,
        template_version = %(template_version)s
    from ended where messages.id = ended.id
),
cited as (
    insert into cited_passages (message_id, chunk_id, project_id, document_id, document_name,
        page_number, url, snippet, context)
    select ended.id, p.chunk_id, %(project)s, p.document_id, p.document_name, p.page_number, p.url,
        p.snippet, p.context
    from ended, json_to_recordset(%(passages)s) as p (chunk_id uuid, document_id uuid,
        document_name text, page_number int, url text, snippet text, context text)
    on conflict do nothing
),
erased as (
    delete from run_events using ended
    where run_id = ended.id and (%(shows_erased)s or not %(added)s
        and seq <> all (array[coalesce(%(earlier_seq)s, 0), %(last_seq)s]))
),
kept as (
    insert into run_events (run_id, seq, count, events)
    select ended.id, b.seq, b.count, b.events
    from ended, (values
        (%(earlier_seq)s::int, %(earlier_count)s::int, %(earlier_events)s::text),
        (%(last_seq)s, %(last_count)s, %(last_events)s)
    ) as b (seq, count, events)
    where ended.is_followable and b.seq is not null
    on conflict (run_id, seq) do update set count = excluded.count, events = excluded.events
)
select pg_notify(%(channel)s, id::text) from ended
"""
_STORE = f"with ready as (select %(run)s::uuid as id), {_STORING}"
# It sees the other tables as they were before it waited for its locks. Nobody else writes what of
# them it changes, but who may have sent more of the log.
_END = f"""
with {_LOCKING},
ready as (
    select id from locked
    where status = 'running' and process_id = %(process)s
        and (is_followable or %(needed)s::text[] = '{{}}')
        and array(select name from named) @> %(needed)s::text[]
),
{_STORING}
"""
