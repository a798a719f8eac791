"""The rows of a run and its turn in Postgres: begun together, ended together."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg.errors import UniqueViolation
from psycopg.types.json import Jsonb

from api.errors import Refusal
from api.fair_use import FairUse
from api.runs.accounts import Spent, add_run, add_unstored_run
from api.traces import names_left, without_quotes
from graph.events import Answer, Citation, Failed, Terminal, Warned
from graph.postgres import Pool
from graph.state import Message, Source

Status = Literal["running", "done", "stopped", "failed"]
LEASE_S = 30
FOREIGN_CONVERSATION = "This conversation is somebody else's or of another project."


@dataclass(frozen=True, slots=True)
class NewTurn:
    """A question and the place of its answer. All ids are made before anything is written.

    `history` becomes the first messages of a conversation that does not exist yet.
    """

    run_id: uuid.UUID
    conversation_id: uuid.UUID
    question_id: uuid.UUID
    project_id: uuid.UUID
    owner_id: uuid.UUID
    title: str
    question: str
    history: tuple[Message, ...] = ()
    doc_type: str | None = None
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as it is told: `GET /runs/{id}`. Without a turn it has no conversation and project."""

    id: uuid.UUID
    conversation_id: uuid.UUID | None
    project_id: uuid.UUID | None
    owner_id: uuid.UUID
    status: Status
    seq: int
    started_at: datetime
    ended_at: datetime | None = None
    finish_reason: str | None = None
    error: dict[str, Any] | None = None


class RunRows:
    """Reads and writes `conversations`, `messages` and `runs` for the engine, and its accounts."""

    def __init__(self, pool: Pool, fair_use: FairUse | None = None) -> None:
        self._pool = pool
        self.fair_use = fair_use or FairUse(pool)

    async def begin(self, turn: NewTurn, unstored: int = 0) -> None:
        """Store the question, the empty answer and the run.

        `unstored`: how many runs of the owner are going on that have no row.

        Raises:
            Refusal: 409, a run of this conversation is going on; 403, it is somebody else's or of
                another project; 429, too many runs are going on. Nothing is stored then.
        """
        try:
            async with self._pool.connection() as connection, connection.transaction():
                is_new = await self._insert_conversation(connection, turn)
                await self._insert_messages(connection, turn, is_new)
                await connection.execute(_GIVE_UP_EXPIRED_OF, (turn.conversation_id,))
                await connection.execute(
                    _INSERT_RUN,
                    (turn.run_id, turn.conversation_id, turn.question_id, turn.owner_id, LEASE_S),
                )
                await self.fair_use.refuse_one_run_more(
                    connection, turn.owner_id, turn.project_id, unstored
                )
        except UniqueViolation as error:
            if error.diag.constraint_name != "one_run_at_a_time":
                raise
            raise await self._running(turn.conversation_id) from error

    async def end(
        self,
        turn: NewTurn,
        row: RunRow,
        answer: Answer,
        web_sources: Sequence[Source],
        spent: Spent,
    ) -> None:
        """Store the answer, or the part of it, and close the run. May be repeated without harm.

        What it used is counted once.

        What is cited is kept as it was cited, and all that the web search found, so that the
        chunk ids resolve whatever becomes of the documents.
        """
        citations = [citation_row(citation) for citation in answer.citations]
        status = "complete" if row.status == "done" else row.status
        cited = [citation.source for citation in answer.citations]
        documents = {source["document_name"] for source in cited}
        kept = {source["id"]: source for source in (*cited, *web_sources)}
        async with self._pool.connection() as connection, connection.transaction():
            # What was erased while the run was going on is not quoted again.
            names = await names_left(connection, turn.project_id, documents)
            stored = Jsonb(without_quotes(citations, names))
            versions = (answer.prompt_version, answer.template_version)
            await connection.execute(_END_MESSAGE, (answer.text, status, stored, *versions, row.id))
            await connection.execute(
                _END_RUN,
                (row.status, row.seq, row.finish_reason, row.error and Jsonb(row.error), row.id),
            )
            await connection.execute(_TOUCH_CONVERSATION, (turn.conversation_id,))
            await connection.cursor().executemany(
                _INSERT_PASSAGE,
                [
                    _passage_row(row.id, turn.project_id, source)
                    for source in kept.values()
                    if source["document_id"] is None or source["document_name"] in names
                ],
            )
            # Last, since other runs wait for these rows.
            if await add_run(connection, row.id, turn.owner_id, turn.project_id, spent):
                await self.fair_use.count_tokens(
                    connection, turn.owner_id, turn.project_id, spent.usage.total_tokens
                )

    async def count_unstored(self, owner_id: uuid.UUID, spent: Spent) -> None:
        """Count what a run without a row used; must not be repeated."""
        async with self._pool.connection() as connection, connection.transaction():
            await add_unstored_run(connection, owner_id, spent)
            tokens = spent.usage.total_tokens
            await self.fair_use.count_tokens(connection, owner_id, None, tokens)

    async def get(self, run_id: uuid.UUID) -> RunRow | None:
        """The run, null where there is none."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_SELECT_RUN, (run_id,))).fetchone()
        return RunRow(**row) if row else None

    async def renew(self, run_ids: list[str]) -> None:
        """Prolong the leases of this process's runs, and close those that others left behind."""
        async with self._pool.connection() as connection:
            await connection.execute(_RENEW, (LEASE_S, run_ids))
            await connection.execute(_GIVE_UP_EXPIRED, (run_ids,))
            await self.fair_use.forget_expired(connection)

    async def _insert_conversation(self, connection: Any, turn: NewTurn) -> bool:  # noqa: ANN401
        cursor = await connection.execute(
            _INSERT_CONVERSATION,
            (turn.conversation_id, turn.project_id, turn.owner_id, turn.title),
        )
        row = await cursor.fetchone()
        if row is None:
            raise Refusal(403, "forbidden", FOREIGN_CONVERSATION)
        return bool(row["is_new"])

    async def _insert_messages(self, connection: Any, turn: NewTurn, is_new: bool) -> None:  # noqa: ANN401
        meta = Jsonb(turn.metadata) if turn.metadata is not None else None
        about = (turn.conversation_id, turn.doc_type)
        history = turn.history if is_new else ()
        rows = [
            *((m["id"], *about, m["role"], m["content"], "complete", None) for m in history),
            (turn.question_id, *about, "user", turn.question, "complete", meta),
            (turn.run_id, *about, "assistant", "", "streaming", None),
        ]
        async with connection.cursor() as cursor:
            await cursor.executemany(_INSERT_MESSAGE, rows)

    async def _running(self, conversation_id: uuid.UUID) -> Refusal:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_SELECT_RUNNING, (conversation_id,))).fetchone()
        return Refusal(
            409,
            "run_in_progress",
            "This conversation is still answering. Wait for its run to end, or stop it.",
            extra={"run_id": str(row["id"])} if row else None,
        )


def ended(
    row: RunRow, terminal: Terminal, error: dict[str, Any] | None, seq: int | None = None
) -> RunRow:
    """`row` as it stands after the terminal event."""
    reason = None if isinstance(terminal, Failed) else terminal.finish_reason
    status: Status = "failed" if reason is None else "stopped" if reason == "stopped" else "done"
    return replace(
        row,
        status=status,
        seq=row.seq if seq is None else seq,
        ended_at=datetime.now(UTC),
        finish_reason=reason,
        error=error,
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


_INSERT_CONVERSATION = """
insert into conversations as c (id, project_id, owner_id, title) values (%s, %s, %s, %s)
on conflict (id) do update set updated_at = now()
where (c.project_id, c.owner_id) = (excluded.project_id, excluded.owner_id)
returning xmax = 0 as is_new
"""
_INSERT_MESSAGE = """
insert into messages (id, conversation_id, doc_type, role, content, status, metadata)
values (%s, %s, %s, %s, %s, %s, %s)
"""
_INSERT_RUN = """
insert into runs (id, conversation_id, question_id, owner_id, status, lease_until)
values (%s, %s, %s, %s, 'running', now() + make_interval(secs => %s))
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
_END_RUN = """
update runs set status = %s, seq = %s, finish_reason = %s, error = %s, ended_at = now()
where id = %s
"""
_TOUCH_CONVERSATION = "update conversations set updated_at = now() where id = %s"
_SELECT_RUN = """
select r.id, r.conversation_id, c.project_id, r.owner_id, r.status, r.seq, r.started_at,
    r.ended_at, r.finish_reason, r.error
from runs r join conversations c on c.id = r.conversation_id
where r.id = %s
"""
_SELECT_RUNNING = "select id from runs where conversation_id = %s and status = 'running'"
_RENEW = """
update runs set lease_until = now() + make_interval(secs => %s)
where id = any(%s::uuid[]) and status = 'running'
"""
_GIVE_UP = """
with given_up as (
    update runs set status = 'failed', ended_at = now(),
        error = '{"message": "The service went down before the answer was complete."}'
    where status = 'running' and lease_until < now() and %s
    returning id
)
update messages set status = 'failed' where id in (select id from given_up)
"""
_GIVE_UP_EXPIRED = _GIVE_UP.replace("%s", "not id = any(%s::uuid[])")
_GIVE_UP_EXPIRED_OF = _GIVE_UP.replace("%s", "conversation_id = %s")
