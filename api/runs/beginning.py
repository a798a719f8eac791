"""How a run begins: its question, its place in a conversation and its row, all at once."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import ForeignKeyViolation, UniqueViolation
from psycopg.types.json import Jsonb

from api.errors import Refusal, not_found
from api.fair_use import FairUse
from api.runs.dialects import Api
from api.runs.keys import Key, KeyTaken, claim
from api.runs.rows import RunRow
from api.runs.stored_log import lines_of
from api.wire import Frame
from graph.postgres import Pool
from graph.state import UNSORTED, Message, Turn

_MOST_RACES = 20
FOREIGN_CONVERSATION = "This conversation is somebody else's or of another project."


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
    may be made says `may_create`.
    """

    conversation_id: uuid.UUID
    project_id: uuid.UUID
    question_id: uuid.UUID
    question: str
    title: str
    may_create: bool
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


class Beginnings:
    """Stores the beginnings of runs for one process."""

    def __init__(self, pool: Pool, process_id: uuid.UUID, fair_use: FairUse) -> None:
        self._pool = pool
        self._process_id = process_id
        self._fair_use = fair_use

    async def begin(self, new: NewRun, opening: Sequence[Frame] = ()) -> None:
        """Store key, question, empty answer, run and its first events in one transaction.

        Raises:
            KeyTaken: the key has begun another run meanwhile.
            Refusal: 409, a run of this conversation is going on; 403 or 404, it is somebody
                else's or of another project, or gone; 429, too many runs are going on. Nothing is
                stored then.
        """
        request = await _as_json(new.request)
        for _ in range(_MOST_RACES):
            try:
                return await self._begin(new, request, opening)
            except UniqueViolation as error:
                if error.diag.constraint_name != "one_run_at_a_time":
                    raise
            if run_id := await self._running(new.conversation_id):
                raise _second(run_id)
        raise _second(None)

    async def _begin(self, new: NewRun, request: str, opening: Sequence[Frame]) -> None:
        async with self._pool.connection() as connection, connection.transaction():
            # Before the key: who erases the conversation locks them in this order.
            is_new = new.place and await _enter_conversation(connection, new, new.place)
            if new.key and not await claim(connection, new.owner_id, new.key, new.id, new.replaces):
                raise KeyTaken
            if new.place:
                await _insert_turn(connection, new, new.place, new.place.history if is_new else ())
            await self._insert_run(connection, new, request, opening)
            await self._fair_use.refuse_one_run_more(connection, new.owner_id, new.project_id)

    async def _insert_run(
        self,
        connection: AsyncConnection[Any],
        new: NewRun,
        request: str,
        opening: Sequence[Frame],
    ) -> None:
        values = (
            new.id,
            new.conversation_id,
            new.owner_id,
            self._process_id,
            new.question_id,
            new.api,
            request,
            len(opening),
            lines_of(opening),
        )
        await connection.execute(_INSERT_RUN, values)

    async def _running(self, conversation_id: uuid.UUID | None) -> uuid.UUID | None:
        """The run that goes on in a conversation, null where it has ended by now."""
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_SELECT_RUNNING, (conversation_id,))).fetchone()
        return row["id"] if row else None


async def insert_next(
    connection: AsyncConnection[Any], row: RunRow, next_run_id: uuid.UUID
) -> None:
    """Let the turn of a run that has just ended be asked again by whoever takes it up."""
    await connection.execute(_INSERT_NEXT, {"run": row.id, "next": next_run_id})
    await connection.execute(_PASS_KEYS_ON, {"run": row.id, "next": next_run_id})
    if row.conversation_id:
        await _insert_answer_again(connection, row.id, next_run_id)


async def _insert_turn(
    connection: AsyncConnection[Any], new: NewRun, place: Place, history: Sequence[Message]
) -> None:
    if new.replaces:
        return await _insert_answer_again(connection, new.replaces, new.id)
    meta = Jsonb(place.metadata) if place.metadata is not None else None
    about = (place.conversation_id, place.doc_type)
    rows = [
        *((m["id"], *about, m["role"], m["content"], "complete", None) for m in history),
        (place.question_id, *about, "user", place.question, "complete", meta),
        (new.id, *about, "assistant", "", "streaming", None),
    ]
    async with connection.cursor() as cursor:
        await cursor.executemany(_INSERT_MESSAGE, rows)


async def _enter_conversation(connection: AsyncConnection[Any], new: NewRun, place: Place) -> bool:
    """Lock the conversation's row, and make it where it may be made: then true."""
    values = {
        "id": place.conversation_id,
        "project": place.project_id,
        "owner": new.owner_id,
        "title": place.title,
    }
    sql = _INSERT_CONVERSATION if place.may_create else _ENTER_CONVERSATION
    try:
        row = await (await connection.execute(sql, values)).fetchone()
    except ForeignKeyViolation:
        raise not_found("project") from None
    if row is None and not place.may_create:
        raise not_found("conversation")
    if row is None:
        raise Refusal(403, "forbidden", FOREIGN_CONVERSATION)
    return bool(row["is_new"])


def _second(run_id: uuid.UUID | None) -> Refusal:
    return Refusal(
        409,
        "run_in_progress",
        "This conversation is still answering. Wait for its run to end, or stop it.",
        extra={"run_id": str(run_id)} if run_id else None,
    )


async def _insert_answer_again(
    connection: AsyncConnection[Any], run_id: uuid.UUID, next_run_id: uuid.UUID
) -> None:
    await connection.execute(_INSERT_ANSWER_AGAIN, {"run": run_id, "next": next_run_id})


async def _as_json(request: Request) -> str:
    # As ASCII it would be longer for most of the world.
    dumps = partial(json.dumps, asdict(request), ensure_ascii=False, separators=(",", ":"))
    # The documents that a request brings may have megabytes.
    return await asyncio.to_thread(dumps) if request.turn.get("project_context") else dumps()


_INSERT_CONVERSATION = """
insert into conversations as c (id, project_id, owner_id, title)
values (%(id)s, %(project)s, %(owner)s, %(title)s)
on conflict (id) do update set updated_at = now()
where (c.project_id, c.owner_id) = (excluded.project_id, excluded.owner_id)
returning xmax = 0 as is_new
"""
_ENTER_CONVERSATION = """
update conversations set updated_at = now()
where id = %(id)s and project_id = %(project)s and owner_id = %(owner)s returning false as is_new
"""
_INSERT_MESSAGE = """
insert into messages (id, conversation_id, doc_type, role, content, status, metadata)
values (%s, %s, %s, %s, %s, %s, %s)
"""
_INSERT_RUN = """
with run as (
    insert into runs (id, conversation_id, owner_id, status, process_id, question_id, api, request)
    values (%s, %s, %s, 'running', %s, %s, %s, %s) returning id
)
insert into run_events (run_id, seq, count, events)
select id, 1, count, events from run, (values (%s, %s)) as opening(count, events) where count > 0
"""
_SELECT_RUNNING = "select id from runs where conversation_id = %s and status = 'running'"
_INSERT_NEXT = """
with passed_on as (update runs set request = null where id = %(run)s)
insert into runs (id, conversation_id, owner_id, status, question_id, api, request, attempt)
select %(next)s, conversation_id, owner_id, 'running', question_id, api, request, attempt + 1
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
