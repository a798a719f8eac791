"""The only file that knows the checkpointer: its set-up under a lock, its memory of threads."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
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

from graph.postgres import Pool, advisory_lock
from graph.state import Message

_SETUP_LOCK = 0x61726368_0001
_SAID = "messages"


class Transcript(Protocol):
    """What was said, which is kept elsewhere."""

    async def recall(self, thread_id: str, run_id: str | None, most: int) -> list[Message]:
        """What was said before the run's question, oldest first; without a run, all of it.

        Of more than `most` characters, the newest messages that have so many together.
        """


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint as it is to be stored in the place of its thread's others."""

    thread_id: str
    namespace: str
    id: str
    checkpoint: Checkpoint
    metadata: CheckpointMetadata


class Checkpoints(AsyncPostgresSaver):
    """A saver that keeps one checkpoint a thread, without a text: `said` has what was said.

    A config names the run and how many characters of what was said its prompt can hold, beside
    the thread. What is `put` is handed to whoever the config names under `put`, who stores it
    with the end of the run; else nothing is kept.
    """

    def __init__(self, pool: Pool, said: Transcript) -> None:
        # Deserialisation is strict: only plain JSON types come back, nothing is imported.
        super().__init__(pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        # One lock around every operation guards a single connection; a pool has no need of it and
        # would be serialised by it. May go when langgraph#7259 is resolved.
        self.lock = cast("Any", nullcontext())
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
        """Hand over the checkpoint, which LangGraph gives at the end of a run, whichever that is.

        What it has beside the messages belongs to a turn that is over.
        """
        its = config["configurable"]
        place = {key: its[key] for key in ("thread_id", "checkpoint_ns")}
        if put := its.get("put"):
            kept: Checkpoint = {**checkpoint, "channel_values": {}}
            told = get_serializable_checkpoint_metadata(config, metadata)
            put(Saved(its["thread_id"], its["checkpoint_ns"], checkpoint["id"], kept, told))
        return {"configurable": {**place, "checkpoint_id": checkpoint["id"]}}

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """Keep nothing: a run that broke off is asked anew, from its first step."""

    async def forget(self, thread_ids: list[str]) -> None:
        """Delete all that the threads held."""
        await self.aprune(thread_ids, strategy="delete")


def columns_of(saved: Saved | None) -> dict[str, object]:
    """What `PUT` puts."""
    return {
        "thread": saved and saved.thread_id,
        "namespace": saved and saved.namespace,
        "checkpoint_id": saved and saved.id,
        "checkpoint": saved and Jsonb(saved.checkpoint),
        "metadata": saved and Jsonb(saved.metadata),
    }


async def open_checkpoints(pool: Pool, said: Transcript) -> Checkpoints:
    """The saver of conversations, its tables made."""
    saver = Checkpoints(pool, said)
    async with advisory_lock(pool, _SETUP_LOCK):
        await saver.setup()
    return saver


# Nothing but this one row is ever written of a thread.
PUT = """
others as (
    delete from checkpoints using ended
    where thread_id = %(thread)s and checkpoint_ns = %(namespace)s
        and checkpoint_id <> %(checkpoint_id)s
),
put as (
    insert into checkpoints (thread_id, checkpoint_ns, checkpoint_id, checkpoint, metadata)
    select %(thread)s, %(namespace)s, %(checkpoint_id)s, %(checkpoint)s, %(metadata)s
    from ended where %(thread)s::text is not null
    on conflict (thread_id, checkpoint_ns, checkpoint_id)
    do update set checkpoint = excluded.checkpoint, metadata = excluded.metadata
)
"""
"""Parts of the statement that has `ended` a run: they put its checkpoint, if it has one."""
