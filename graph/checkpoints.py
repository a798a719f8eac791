"""The only file that knows the checkpointer: its set-up under a lock, its memory of threads."""

import logging
from contextlib import nullcontext
from typing import Any, cast

from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg import Error

from graph.postgres import Pool, advisory_lock

log = logging.getLogger(__name__)

_SETUP_LOCK = 0x61726368_0001


async def open_checkpoints(pool: Pool) -> AsyncPostgresSaver:
    """The saver of conversations, its tables made.

    Deserialisation is strict: only plain JSON types come back, nothing is imported.
    """
    saver = AsyncPostgresSaver(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    # One lock around every operation guards a single connection; a pool has no need of it and
    # would be serialised by it. May go when langgraph#7259 is resolved.
    saver.lock = cast("Any", nullcontext())
    async with advisory_lock(pool, _SETUP_LOCK):
        await saver.setup()
    return saver


class Threads:
    """The memory of conversations, thread by thread."""

    def __init__(self, saver: AsyncPostgresSaver) -> None:
        self._saver = saver

    async def keep_last(self, thread_id: str) -> None:
        """Delete all checkpoints of a thread but its last: storage grows with what was said."""
        try:
            await self._saver.aprune([thread_id], strategy="keep_latest")
        except Error:
            log.warning("thread %s keeps its old checkpoints until its next turn", thread_id)

    async def forget(self, thread_ids: list[str]) -> None:
        """Delete all that the threads held."""
        await self._saver.aprune(thread_ids, strategy="delete")
