"""The only file that knows the checkpointer: its set-up under a lock, its memory of threads."""

import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Protocol, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    empty_checkpoint,
    get_serializable_checkpoint_metadata,
)
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.types.json import Jsonb

from graph.postgres import UNREACHABLE, Pool, advisory_lock, patiently
from graph.state import Message

log = logging.getLogger(__name__)

_SETUP_LOCK = 0x61726368_0001
_SAID = "messages"


class Transcript(Protocol):
    """What was said, which is kept elsewhere, and whether a run may still write.

    `holding` is a query that gives a row if the run `%(run)s` is going on. It cannot end before
    the statement does of which this is a part.
    """

    holding: str

    async def recall(self, thread_id: str, run_id: str | None, most: int) -> list[Message]:
        """What was said before the run's question, oldest first; without a run, all of it.

        Of more than `most` characters, the newest messages that have so many together.
        """


class Checkpoints(AsyncPostgresSaver):
    """A saver that keeps one checkpoint a thread, without a text: `said` has what was said.

    A config names the run and how many characters of what was said its prompt can hold, beside
    the thread. Only a run that is going on writes.
    """

    def __init__(self, pool: Pool, said: Transcript) -> None:
        # Deserialisation is strict: only plain JSON types come back, nothing is imported.
        super().__init__(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        # One lock around every operation guards a single connection; a pool has no need of it and
        # would be serialised by it. May go when langgraph#7259 is resolved.
        self.lock = cast("Any", nullcontext())
        self._pool = pool
        self._said = said

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The thread's checkpoint, with what was said in its messages; null if there is neither.

        A run needs what was said and nothing else, so that it is given a new checkpoint.
        """
        its = config["configurable"]
        thread_id, run_id, most = its["thread_id"], its.get("run_id"), its.get("most", sys.maxsize)
        stored = None if run_id else await super().aget_tuple(config)
        messages = await self._said.recall(thread_id, run_id, most) if most else []
        if stored is None:
            if not messages:
                return None
            place = {"thread_id": thread_id, "checkpoint_ns": its.get("checkpoint_ns", "")}
            # LangGraph begins a new thread at this step.
            stored = CheckpointTuple({"configurable": place}, empty_checkpoint(), {"step": -2})
        stored.checkpoint["channel_values"][_SAID] = messages
        versions = stored.checkpoint["channel_versions"]
        versions.setdefault(_SAID, self.get_next_version(None, None))
        return stored

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Put the checkpoint in the place of the thread's others, if its run is still going on.

        LangGraph gives it at the end of a run, whichever that is. What it has beside the messages
        belongs to a turn that is over, so that a database that stays away costs nothing.
        """
        place = {key: config["configurable"][key] for key in ("thread_id", "checkpoint_ns")}
        try:
            async for attempt in patiently():
                with attempt:
                    await self._put(config, {**checkpoint, "channel_values": {}}, metadata)
        except UNREACHABLE:
            log.warning("the database is away; thread %s has no new checkpoint", place["thread_id"])
        return {"configurable": {**place, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep nothing: a run that broke off is asked anew, from its first step."""

    async def _put(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata
    ) -> None:
        its = config["configurable"]
        values = {
            "run": its.get("run_id"),
            "thread": its["thread_id"],
            "namespace": its["checkpoint_ns"],
            "id": checkpoint["id"],
            "checkpoint": Jsonb(checkpoint),
            "metadata": Jsonb(get_serializable_checkpoint_metadata(config, metadata)),
        }
        async with self._pool.connection() as connection:
            await connection.execute(_PUT.format(holding=self._said.holding), values)


async def open_checkpoints(pool: Pool, said: Transcript) -> Checkpoints:
    """The saver of conversations, its tables made."""
    saver = Checkpoints(pool, said)
    async with advisory_lock(pool, _SETUP_LOCK):
        await saver.setup()
    return saver


class Threads:
    """The memory of conversations, thread by thread."""

    def __init__(self, saver: Checkpoints) -> None:
        self._saver = saver

    async def forget(self, thread_ids: list[str]) -> None:
        """Delete all that the threads held."""
        await self._saver.aprune(thread_ids, strategy="delete")


# Nothing but this one row is ever written of a thread.
_PUT = """
with held as ({holding}),
others as (
    delete from checkpoints using held
    where thread_id = %(thread)s and checkpoint_ns = %(namespace)s and checkpoint_id <> %(id)s
)
insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)
select %(thread)s, %(namespace)s, %(id)s, %(checkpoint)s, %(metadata)s from held
on conflict (thread_id, checkpoint_ns, checkpoint_id)
do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata
"""
