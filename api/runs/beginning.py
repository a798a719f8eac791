"""How a run begins: its question, its place in a conversation and its row, all at once."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.types.json import Json

from api.errors import Refusal, not_found
from api.fair_use import FairUse
from api.first_use import make_project
from api.runs.dialects import Api
from api.runs.keys import CLAIMED, RECLAIMED, Key, KeyTaken
from api.runs.rows import RunRow
from api.runs.stored_log import lines_of
from api.wire import Frame
from graph.postgres import Connection, Pool, row_of
from graph.standing import STANDING, Standing, standing_of
from graph.state import UNSORTED, Message, Turn

_MOST_RACES = 20
_FOREIGN_CONVERSATION = "This conversation is somebody else's or of another project."


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is to do, as it is kept until its end, so that it can be asked again.

    `model` is the one that was asked for, `told_model` the one that its events name.
    """

    turn: Turn
    model: str | None
    told_model: str


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which conversation a turn stands. All ids are made before anything is written.

    `history` becomes the first messages of a conversation that does not exist yet; whether one
    may be made says `may_create`. `makes_project`: the project is made with the turn.
    """

    conversation_id: uuid.UUID
    project_id: uuid.UUID
    question_id: uuid.UUID
    question: str
    title: str
    may_create: bool
    makes_project: bool = False
    history: tuple[Message, ...] = ()
    doc_type: str = UNSORTED
    metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run that is to begin; without a `place` nothing of it is remembered (legacy).

    `replaces` is the run that has failed and is asked again in this one.
    """

    id: uuid.UUID
    owner_id: uuid.UUID
    api: Api
    request: Request
    place: Place | None
    key: Key | None = None
    replaces: uuid.UUID | None = None

    @property
    def conversation_id(self) -> uuid.UUID | None:
        """The conversation in which it stands."""
        return self.place.conversation_id if self.place else None

    @property
    def project_id(self) -> uuid.UUID | None:
        """The project whose documents it is about."""
        return self.place.project_id if self.place else None

    @property
    def question_id(self) -> uuid.UUID | None:
        """The message that it answers."""
        return self.place.question_id if self.place else None

    def row(self) -> RunRow:
        """The run as it stands once it has begun."""
        return RunRow(
            self.id,
            self.conversation_id,
            self.project_id,
            self.owner_id,
            self.api,
            "running",
            seq=0,
            started_at=datetime.now(UTC),
            question_id=self.question_id,
            doc_type=self.request.turn.get("doc_type", UNSORTED),
        )


class Begun(NamedTuple):
    """What is known once a run has begun.

    `has_past`: whether something was said before its question. `standing`: how its project stood.
    """

    has_past: bool
    standing: Standing


class Beginnings:
    """Stores the beginnings of runs for one process."""

    def __init__(self, pool: Pool, process_id: uuid.UUID, fair_use: FairUse) -> None:
        self._pool = pool
        self._process_id = process_id
        self._fair_use = fair_use

    async def begin(self, new: NewRun, opening: Sequence[Frame] = ()) -> Begun:
        """Store key, question, empty answer, run and its first events, all at once.

        Raises:
            KeyTaken: the key has begun another run meanwhile.
            ProjectTaken: the project that was to be made with it is there, or was.
            Refusal: 409, a run of this conversation is going on; 403 or 404, it is somebody
                else's or of another project, or gone; 429, too many runs are going on. Nothing is
                stored then.
        """
        values = await self._values(new, opening)
        for _ in range(_MOST_RACES):
            try:
                return await self._begin(new, values)
            except UniqueViolation as error:
                if error.diag.constraint_name != "one_run_at_a_time":
                    raise
            if run_id := await self._running(new.conversation_id):
                raise _second(run_id)
        raise _second(None)

    async def _begin(self, new: NewRun, values: dict[str, object]) -> Begun:
        async with self._pool.connection() as connection, self._undoing(connection, new):
            if new.place and new.place.makes_project:
                await make_project(connection, new.place.project_id, new.owner_id)
            begun = await _store(connection, new, values)
            if new.replaces:
                await _insert_answer_again(connection, new.replaces, new.id)
            await self._fair_use.refuse_one_run_more(connection, new.owner_id, new.project_id)
        has_past = not begun["is_new"] or bool(new.place and new.place.history)
        return Begun(has_past, standing_of(begun))

    def _undoing(self, connection: Connection, new: NewRun) -> AbstractAsyncContextManager[object]:
        """A transaction where something may be refused that is stored already."""
        makes_project = new.place is not None and new.place.makes_project
        may_be_refused = new.key is not None or makes_project or self._fair_use.limits_runs
        return connection.transaction() if may_be_refused else nullcontext()

    async def _values(self, new: NewRun, opening: Sequence[Frame]) -> dict[str, object]:
        place, key = new.place, new.key
        return {
            "run": new.id,
            "owner": new.owner_id,
            "process": self._process_id,
            "api": new.api,
            "request": await _as_json(new.request),
            "conversation": new.conversation_id,
            "project": new.project_id,
            "question": new.question_id,
            "title": place and place.title,
            "doc_type": place and place.doc_type,
            "messages": Json(_messages(new, place) if place else []),
            "route": key and key.api,
            "key": key and key.key,
            "hash": key and key.body_hash,
            "replaces": new.replaces,
            "count": len(opening),
            "events": lines_of(opening),
        }

    async def _running(self, conversation_id: uuid.UUID | None) -> uuid.UUID | None:
        """The run that goes on in a conversation, null where it has ended by now."""
        row = await row_of(self._pool, _SELECT_RUNNING, (conversation_id,))
        return row["id"] if row else None


async def insert_next(connection: Connection, row: RunRow, next_run_id: uuid.UUID) -> None:
    """Let the turn of a run that has just ended be asked again by whoever takes it up."""
    await connection.execute(_INSERT_NEXT, {"run": row.id, "next": next_run_id})
    await connection.execute(_PASS_KEYS_ON, {"run": row.id, "next": next_run_id})
    if row.conversation_id:
        await _insert_answer_again(connection, row.id, next_run_id)


async def _store(connection: Connection, new: NewRun, values: dict[str, object]) -> dict[str, Any]:
    try:
        row = await (await connection.execute(_statement(new), values)).fetchone()
    except ForeignKeyViolation:
        raise not_found("project") from None
    if row is None and new.place and not new.place.may_create:
        raise not_found("conversation")
    if row is None:
        raise Refusal(403, "forbidden", _FOREIGN_CONVERSATION)
    if not row["has_begun"]:
        raise KeyTaken
    return row


def _statement(new: NewRun) -> str:
    if new.place is None:
        return _BEGIN[_NOWHERE, _claim(new)]
    entered = _CREATED if new.place.may_create else _ENTERED
    return _BEGIN[entered, _claim(new)]


def _claim(new: NewRun) -> str:
    if new.key is None:
        return _UNCLAIMED
    return CLAIMED if new.replaces is None else RECLAIMED


def _messages(new: NewRun, place: Place) -> list[dict[str, object]]:
    """What was said before (only in a new conversation), the question and the empty answer."""
    if new.replaces:
        return []
    question = {"id": str(place.question_id), "role": "user", "content": place.question}
    answer = {"id": str(new.id), "role": "assistant", "content": ""}
    return [
        *({**message, "is_history": True} for message in place.history),
        {**question, "metadata": place.metadata},
        {**answer, "status": "streaming"},
    ]


def _second(run_id: uuid.UUID | None) -> Refusal:
    return Refusal(
        409,
        "run_in_progress",
        "This conversation is still answering. Wait for its run to end, or stop it.",
        extra={"run_id": str(run_id)} if run_id else None,
    )


async def _insert_answer_again(
    connection: Connection, run_id: uuid.UUID, next_run_id: uuid.UUID
) -> None:
    await connection.execute(_INSERT_ANSWER_AGAIN, {"run": run_id, "next": next_run_id})


async def _as_json(request: Request) -> str:
    # The documents that a request brings may have megabytes.
    if request.turn.get("project_context"):
        return await asyncio.to_thread(_dumped, request)
    return _dumped(request)


def _dumped(request: Request) -> str:
    # As ASCII it would be longer for most of the world.
    return json.dumps(asdict(request), ensure_ascii=False, separators=(",", ":"))


_CREATED = """
insert into conversations as c (id, project_id, owner_id, title)
values (%(conversation)s, %(project)s, %(owner)s, %(title)s)
on conflict (id) do update set updated_at = now()
where (c.project_id, c.owner_id) = (excluded.project_id, excluded.owner_id)
returning xmax = 0 as is_new
"""
_ENTERED = """
update conversations set updated_at = now()
where id = %(conversation)s and project_id = %(project)s and owner_id = %(owner)s
returning false as is_new
"""
_NOWHERE = "select true as is_new"
_UNCLAIMED = "select from entered"
# One statement, in this order: who erases the conversation locks it first.
_STATEMENT = """
with entered as ({entered}),
claimed as ({claim}),
begun as (select is_new from entered where exists (select from claimed)),
said as (
    insert into messages (id, conversation_id, doc_type, role, content, status, metadata)
    select m.id, %(conversation)s, %(doc_type)s, m.role, m.content,
        coalesce(m.status, 'complete'), m.metadata
    from begun, rows from (json_to_recordset(%(messages)s) as (
        id uuid, role text, content text, status text, metadata jsonb, is_history boolean
    )) with ordinality as m
    where begun.is_new or m.is_history is not true
    order by m.ordinality
),
run as (
    insert into runs (id, conversation_id, owner_id, status, process_id, question_id, api, request)
    select %(run)s, %(conversation)s, %(owner)s, 'running', %(process)s, %(question)s, %(api)s,
        %(request)s
    from begun returning id
),
opened as (
    insert into run_events (run_id, seq, count, events)
    select id, 1, %(count)s, %(events)s from run where %(count)s > 0
)
select entered.is_new, begun.is_new is not null as has_begun, stamps.*, outline.*
from entered left join begun on true cross join {standing}
"""
_BEGIN = {
    (entered, claim): _STATEMENT.format(entered=entered, claim=claim, standing=STANDING)
    for entered in (_CREATED, _ENTERED, _NOWHERE)
    for claim in (_UNCLAIMED, CLAIMED, RECLAIMED)
}
_SELECT_RUNNING = "select id from runs where conversation_id = %s and status = 'running'"
_INSERT_NEXT = """
with passed_on as (update runs set request = null where id = %(run)s)
insert into runs
    (id, conversation_id, owner_id, status, question_id, api, request, attempt, stop_asked)
select %(next)s, conversation_id, owner_id, 'running', question_id, api, request, attempt + 1,
    stop_asked
from runs where id = %(run)s
"""
# Who sends the same request again gets the run that answers it.
_PASS_KEYS_ON = "update run_keys set run_id = %(next)s where run_id = %(run)s"
# At the place of the answer that it replaces, which stays to be read.
_INSERT_ANSWER_AGAIN = """
with superseded as (
    update messages set is_superseded = true where id = %(run)s
    returning conversation_id, doc_type, position
)
insert into messages (id, conversation_id, doc_type, role, content, status, position)
overriding system value
select %(next)s, conversation_id, doc_type, 'assistant', '', 'streaming', position from superseded
"""
