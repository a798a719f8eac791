"""Idempotency keys: the same request sent again gets the run that it began.

Source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from psycopg import AsyncConnection
from pydantic import BaseModel

from api.errors import Refusal, in_drafting_api
from api.runs.dialects import Api
from api.runs.rows import COLUMNS, JOINED, RunRow
from graph.postgres import Pool

_LONGEST = 255
_MESSAGE = f"Idempotency-Key must have 1 to {_LONGEST} characters."


class KeyTaken(Exception):
    """Another request with the same key was faster."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key of a caller's own, on the route of one API, with the hash of what was sent."""

    api: Api
    key: str
    body_hash: bytes


async def request_key(request: Request) -> str | None:
    """The header `Idempotency-Key`; null where there is none.

    Raises:
        Refusal: 400, it is empty or too long.
        RequestValidationError: the same in the drafting API, 422.
    """
    key = request.headers.get("idempotency-key")
    if key is None or 1 <= len(key) <= _LONGEST:
        return key
    if in_drafting_api(request.url.path):
        where = ("header", "Idempotency-Key")
        raise RequestValidationError([{"type": "value_error", "loc": where, "msg": _MESSAGE}])
    raise Refusal(400, "bad_idempotency_key", _MESSAGE)


RequestKey = Annotated[str | None, Depends(request_key)]


def key_for(api: Api, key: str | None, body: BaseModel, *about: uuid.UUID) -> Key | None:
    """The key of a request with this body; `about` are the ids in its path."""
    if key is None:
        return None
    said = "\n".join([*map(str, about), body.model_dump_json()])
    return Key(api, key, hashlib.sha256(said.encode("utf-8", "surrogatepass")).digest())


async def claim(
    connection: AsyncConnection[Any],
    owner_id: uuid.UUID,
    key: Key,
    run_id: uuid.UUID,
    replaces: uuid.UUID | None,
) -> bool:
    """Let `key` name `run_id`; false where another request was faster, for whose end it waits.

    `replaces`: the run that the key has led to until now.
    """
    values = {
        "owner": owner_id,
        "route": key.api,
        "key": key.key,
        "hash": key.body_hash,
        "run": run_id,
        "replaces": replaces,
    }
    sql = _INSERT if replaces is None else _REPLACE
    return (await connection.execute(sql, values)).rowcount == 1


async def run_of(pool: Pool, owner_id: uuid.UUID, key: Key) -> RunRow | None:
    """The run that `key` leads to, the last one where it was asked again; null for a new key.

    Raises:
        Refusal: 422, the key was used with another body.
    """
    async with pool.connection() as connection:
        cursor = await connection.execute(_SELECT, (owner_id, key.api, key.key))
        row = await cursor.fetchone()
    if row is None:
        return None
    if bytes(row.pop("body_hash")) != key.body_hash:
        raise Refusal(
            422,
            "idempotency_key_reused",
            "This Idempotency-Key was used with another request. Use a new key for a new request.",
        )
    return RunRow(**row)


async def forget_old(connection: AsyncConnection[Any]) -> None:
    """Delete keys that count no more."""
    await connection.execute(_DELETE_OLD)


# A key stands for a day; one that is older names a new run.
_INSERT = """
insert into run_keys as k (owner_id, route, key, body_hash, run_id)
values (%(owner)s, %(route)s, %(key)s, %(hash)s, %(run)s)
on conflict (owner_id, route, key) do update
set body_hash = excluded.body_hash, run_id = excluded.run_id, created_at = now()
where k.created_at < now() - interval '24 hours'
"""
_REPLACE = """
update run_keys set run_id = %(run)s, created_at = now()
where owner_id = %(owner)s and route = %(route)s and key = %(key)s and run_id = %(replaces)s
"""
_SELECT = f"""
select {COLUMNS}, k.body_hash from run_keys k join runs r on r.id = k.run_id {JOINED}
where k.owner_id = %s and k.route = %s and k.key = %s
    and k.created_at > now() - interval '24 hours'
"""
_DELETE_OLD = "delete from run_keys where created_at < now() - interval '24 hours'"
