"""What was said in a conversation, read for the model from where it stands: the messages."""

import uuid
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import DictRow

from graph.postgres import Pool
from graph.state import Message

_PAGE = 100


class Transcripts:
    """Reads conversations as the pipeline remembers them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def recall(self, thread_id: str, run_id: str | None, most: int) -> list[Message]:
        """The messages before the run's question, oldest first; without a run, all of them.

        The newest that have `most` characters together, each of them whole, so that a long
        conversation costs no more than a short one. Nothing of a run that is not there.
        """
        newest_first: list[DictRow] = []
        async with self._pool.connection() as connection:
            place = await _end(connection, run_id)
            while place and most > 0:
                page = await _page(connection, thread_id, place, most)
                newest_first += page
                most -= sum(len(row["content"]) for row in page)
                place = page[-1] if len(page) == _PAGE else None
        return [
            {"role": row["role"], "content": row["content"], "id": str(row["id"])}
            for row in reversed(newest_first)
        ]

    async def holds(self, connection: AsyncConnection[DictRow], run_id: str | None) -> bool:
        """Whether the run is going on. It cannot end before the connection's transaction does."""
        return (await connection.execute(_HOLD, (run_id,))).rowcount == 1


async def _end(connection: AsyncConnection[DictRow], run_id: str | None) -> DictRow | None:
    """What the messages to recall stand before; null where there is no such run."""
    if run_id is None:
        return _LAST
    return await (await connection.execute(_QUESTION, (run_id,))).fetchone()


async def _page(
    connection: AsyncConnection[DictRow], thread_id: str, before: dict[str, Any], most: int
) -> list[DictRow]:
    """The messages next before a place, newest first, as far as they have `most` characters."""
    values = {"thread": thread_id, **before, "page": _PAGE, "most": most}
    return await (await connection.execute(_SELECT_PAGE, values)).fetchall()


_LAST = {"position": 2**63 - 1, "created_at": "infinity", "id": uuid.UUID(int=2**128 - 1)}
_QUESTION = """
select q.position, q.created_at, q.id from runs r join messages q on q.id = r.question_id
where r.id = %s
"""
_HOLD = "select from runs where id = %s and status = 'running' for share"
# Cut here, so that what no prompt can hold does not come over the wire.
_SELECT_PAGE = """
with page as (
    select id, role, content, position, created_at from messages
    where conversation_id = %(thread)s
        and (position, created_at, id) < (%(position)s, %(created_at)s, %(id)s)
        and status <> 'streaming' and not is_superseded and content <> ''
    order by position desc, created_at desc, id desc limit %(page)s
), measured as (
    select *, sum(length(content)) over (
        order by position desc, created_at desc, id desc
        rows between unbounded preceding and 1 preceding
    ) as newer
    from page
)
select id, role, content, position, created_at from measured
where coalesce(newer, 0) < %(most)s order by position desc, created_at desc, id desc
"""
