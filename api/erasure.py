"""Erases for good: the rows at once, then vectors and memories, then what files held of them."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Set
from functools import partial
from typing import Any

from psycopg.rows import DictRow

from api.access.audit import note
from api.access.principals import Principal
from api.runs.engine import Runs
from api.traces import erase_traces
from api.waiting import within
from graph.checkpoints import Checkpoints
from graph.errors import PipelineError
from graph.knowledge.library import Library
from graph.postgres import UNREACHABLE, Connection, Pool, failures_logged, rows_of

log = logging.getLogger(__name__)

Scrub = Callable[[bool], Awaitable[bool]]
"""Takes what was deleted out of the database's files; told whether documents were among it.

False if it must be tried again.
"""

_MOST_RACES = 3
SETTLE_S = 10.0
RETRY_S = 20.0


class Erasure:
    """Erases documents, projects and conversations.

    When one of its methods returns, nothing of it is found any more. What may be left in files
    is noted in the table `erasures` and worked off by `work`, in whichever process, until it is
    gone. Without `scrub` the database's files are the business of its operator.
    """

    def __init__(
        self, pool: Pool, library: Library, saver: Checkpoints, runs: Runs, scrub: Scrub | None
    ) -> None:
        self._pool = pool
        self._library = library
        self._saver = saver
        self._runs = runs
        self._scrub = scrub
        self._news = asyncio.Event()

    async def document(
        self, project_id: uuid.UUID, document_id: uuid.UUID, name: str, *, by: Principal
    ) -> None:
        """Erase a document, what answers quote of it, and the streams that showed it."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_TAKE_TURNS, (project_id,))
            cursor = await connection.execute("delete from documents where id = %s", (document_id,))
            if cursor.rowcount:
                target = ("document", document_id)
                await note(connection, by, "document.deleted", target=target, project_id=project_id)
            await erase_traces(connection, project_id, document_id, name)
            left = await _remember(connection, project_id=project_id, document_id=document_id)
        await self._go_on(left)

    async def project(self, project_id: uuid.UUID, *, by: Principal) -> None:
        """Erase a project with its documents and conversations."""
        await self._at_rest(partial(self._erase_project, project_id, by))

    async def conversation(self, conversation_id: uuid.UUID, *, by: Principal) -> None:
        """Erase a conversation with its messages and its memory."""
        await self._at_rest(partial(self._erase_conversation, conversation_id, by))

    async def _at_rest(self, erase: Callable[[bool], Awaitable[DictRow | None]]) -> None:
        """Erase what gives null where a question came meanwhile; at last that run with it.

        So its run is stopped too.
        """
        for even_running in (*[False] * _MOST_RACES, True):
            if left := await erase(even_running):
                return await self._go_on(left)

    async def _erase_project(
        self, project_id: uuid.UUID, by: Principal, even_running: bool
    ) -> DictRow | None:
        rows = await rows_of(self._pool, _SELECT_CONVERSATIONS, (project_id,))
        ended = await self._end_runs([row["id"] for row in rows])
        async with self._pool.connection() as connection, connection.transaction():
            for statement in _LOCK_PROJECT:
                await connection.execute(statement, (project_id,))
            running = await connection.execute(_SELECT_RUNNING_IN_PROJECT, (project_id,))
            if {row["id"] for row in await running.fetchall()} - ended and not even_running:
                return None
            await connection.execute(_REMEMBER_CONVERSATIONS, (project_id,))
            cursor = await connection.execute("delete from projects where id = %s", (project_id,))
            if cursor.rowcount:
                target = ("project", project_id)
                await note(connection, by, "project.deleted", target=target, project_id=project_id)
            return await _remember(connection, project_id=project_id)

    async def _erase_conversation(
        self, conversation_id: uuid.UUID, by: Principal, even_running: bool
    ) -> DictRow | None:
        ended = await self._end_runs([conversation_id])
        async with self._pool.connection() as connection, connection.transaction():
            # Who asks a question holds the conversation, so that after this no run begins.
            await connection.execute(_LOCK_CONVERSATION, (conversation_id,))
            running = await connection.execute(_SELECT_RUNNING, (conversation_id,))
            if {row["id"] for row in await running.fetchall()} - ended and not even_running:
                return None
            cursor = await connection.execute(_DELETE_CONVERSATION, (conversation_id,))
            for row in await cursor.fetchall():
                target = ("conversation", conversation_id)
                await note(connection, by, "conversation.deleted", target=target, **row)
            return await _remember(connection, conversation_id=conversation_id)

    async def work(self) -> None:
        """Carry out what is left of erasures, for ever; begins with what others left behind."""
        while True:
            self._news.clear()
            with failures_logged(log, "erasures could not be carried out to the end"):
                await self._finish()
            if await within(self._news, RETRY_S):
                # Others that come now are erased with it, and a run or an upload that was under
                # way has written what it had.
                await asyncio.sleep(SETTLE_S)

    async def _end_runs(self, conversations: list[uuid.UUID]) -> Set[uuid.UUID]:
        """The runs that it has tried to end."""
        ended = await self._runs.stop_in(conversations)
        # Before the rows: should this fail, the same request can be sent again.
        await self._saver.forget([str(one) for one in conversations])
        return ended

    async def _go_on(self, left: DictRow) -> None:
        self._news.set()
        await self._forget(left)

    async def _finish(self) -> None:
        rows = await rows_of(self._pool, _SELECT_LEFT, (SETTLE_S,))
        gone = [row["id"] for row in rows if await self._forget(row)]
        fresh = [row for row in rows if not (row["is_scrubbed"] or row["is_settled"])]
        if fresh:
            self._news.set()
        unscrubbed = [row for row in rows if row["is_settled"] and not row["is_scrubbed"]]
        if unscrubbed and await self._scrubbed(unscrubbed):
            async with self._pool.connection() as connection:
                await connection.execute(_SCRUBBED, ([row["id"] for row in unscrubbed],))
        async with self._pool.connection() as connection:
            await connection.execute(_CROSS_OUT, (gone,))

    async def _scrubbed(self, rows: list[DictRow]) -> bool:
        return self._scrub is None or await self._scrub(any(row["project_id"] for row in rows))

    async def _forget(self, row: dict[str, Any]) -> bool:
        """Delete what lies outside the service's own tables; false if it must be tried again."""
        try:
            if row["document_id"]:
                await self._library.forget_document(str(row["project_id"]), str(row["document_id"]))
            elif row["project_id"]:
                await self._library.forget_project(str(row["project_id"]))
            else:
                await self._forget_conversation(row["conversation_id"])
        except (PipelineError, *UNREACHABLE) as error:
            log.warning("an erasure waits: %s", error)
            return False
        return True

    async def _forget_conversation(self, conversation_id: uuid.UUID) -> None:
        # A caller of the drafting API chooses ids, and may have begun it anew. A project's id is
        # never given again.
        async with self._pool.connection() as connection:
            cursor = await connection.execute(_SELECT_CONVERSATION, (conversation_id,))
        if not cursor.rowcount:
            await self._saver.forget([str(conversation_id)])


async def _remember(connection: Connection, **ids: uuid.UUID) -> DictRow:
    cursor = await connection.execute(
        _REMEMBER, {"project_id": None, "document_id": None, "conversation_id": None, **ids}
    )
    [row] = await cursor.fetchall()
    return row


# Two that erase quotes from the same messages would wait for each other.
_TAKE_TURNS = "select from projects where id = %s for no key update"
# Whoever writes of a conversation or a document holds that first, and then the project.
_LOCK_PROJECT = (
    _TAKE_TURNS,
    "select from conversations where project_id = %s order by id for update",
    "select from documents where project_id = %s order by id for update",
    # After this no conversation begins in it.
    "select from projects where id = %s for update",
)
_REMEMBER = """
insert into erasures (project_id, document_id, conversation_id)
values (%(project_id)s, %(document_id)s, %(conversation_id)s)
returning id, project_id, document_id, conversation_id, is_scrubbed
"""
_REMEMBER_CONVERSATIONS = """
insert into erasures (conversation_id) select id from conversations where project_id = %s
"""
_LOCK_CONVERSATION = "select from conversations where id = %s for update"
_SELECT_RUNNING = "select id from runs where conversation_id = %s and status = 'running'"
_SELECT_RUNNING_IN_PROJECT = """
select r.id from runs r join conversations c on c.id = r.conversation_id
where c.project_id = %s and r.status = 'running'
"""
_DELETE_CONVERSATION = "delete from conversations where id = %s returning project_id"
_SELECT_CONVERSATION = "select from conversations where id = %s"
_SELECT_CONVERSATIONS = "select id from conversations where project_id = %s"
_SELECT_LEFT = """
select id, project_id, document_id, conversation_id, is_scrubbed,
    requested_at <= now() - make_interval(secs => %s) as is_settled
from erasures order by id
"""
_CROSS_OUT = "delete from erasures where id = any(%s) and is_scrubbed"
_SCRUBBED = "update erasures set is_scrubbed = true where id = any(%s)"
