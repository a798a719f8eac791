"""Idempotency keys: the same request sent again gets the run that it began.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel

from api.errors import Refusal
from api.runs.dialects import Api
from api.runs.rows import COLUMNS, JOINED, RunRow
from graph.postgres import Connection, Pool, row_of

RequestKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="Sent again with the same body, the request gets the run that it began.",
    ),
]


class KeyTaken(Exception):
    """Another request with the same key was faster."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a caller's own, on the route of one API, with the hash of what was sent."""

    api: Api
    key: str
    body_hash: bytes


async def key_for(api: Api, key: str | None, body: BaseModel, *about: uuid.UUID) -> Key | None:
    """The key of a request with this body; `about` are the ids in its path."""
    if key is None:
        return None
    # In a thread, since a body may have megabytes.
    return Key(api, key, await asyncio.to_thread(_hash, body, about))


def _hash(body: BaseModel, about: Sequence[uuid.UUID]) -> bytes:
    said = [*map(str, about), json.dumps(body.model_dump(mode="json"), sort_keys=True)]
    return hashlib.sha256("\n".join(said).encode()).digest()


async def run_of(pool: Pool, owner_id: uuid.UUID, key: Key) -> RunRow | None:
    """The run that `key` leads to, the last one where it was asked again; null for a new key.

    Raises:
        Refusal: 422, the key was used with another body.
    """
    row = await row_of(pool, _SELECT, (owner_id, key.api, key.key))
    if row is None:
        return None
    if bytes(row.pop("body_hash")) != key.body_hash:
        raise Refusal(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used with another request. Use a new key for a new request.",
        )
    return RunRow(**row)


async def forget_old(connection: Connection) -> None:
    """Delete keys that count no more."""
    await connection.execute(_DELETE_OLD)


CLAIMED = """
insert into run_keys as k (owner_id, route, key, body_hash, run_id)
select %(owner)s, %(route)s, %(key)s, %(hash)s, %(run)s from entered
on conflict (owner_id, route, key) do update
set body_hash = excluded.body_hash, run_id = excluded.run_id, created_at = now()
where k.created_at < now() - interval '24 hours'
returning run_id
"""
"""Lets a key name a run, in the statement that begins it; nothing where it names another one.

Who is slower waits for the end of the faster one. A key stands for a day; one that is older names
a new run.
"""

RECLAIMED = """
update run_keys set run_id = %(run)s, created_at = now()
from entered
where owner_id = %(owner)s and route = %(route)s and key = %(key)s and run_id = %(replaces)s
returning run_id
"""
"""Lets a key that has led to the run `replaces` until now name the new one."""

_SELECT = f"""
select {COLUMNS}, k.body_hash from run_keys k join runs r on r.id = k.run_id {JOINED}
where k.owner_id = %s and k.route = %s and k.key = %s
    and k.created_at > now() - interval '24 hours'
"""
_DELETE_OLD = "delete from run_keys where created_at < now() - interval '24 hours'"
