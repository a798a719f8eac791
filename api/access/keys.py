"""API keys of one's own: made, found, listed and revoked.

A key is kept as its SHA-256 hash, by which it is found. It is 256 random bits, not a password:
no list of guesses holds it, so a slow hash would protect nothing and cost every request.
"""

import hashlib
import re
import secrets
import string
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.access.audit import note
from api.access.principals import LOCAL_USER, Principal
from api.errors import Refusal, invalid, not_found
from graph.postgres import Connection, Pool, rows_of

# How many keys that are neither revoked nor expired a user may have.
_MOST_KEYS = 50
_LETTERS = string.ascii_letters + string.digits
_PREFIX_LETTERS = 8
# 62^43 is just over 2^256.
_SECRET_LETTERS = 43
_FORM = re.compile(rf"aw_[{_LETTERS}]{{{_PREFIX_LETTERS}}}_[{_LETTERS}]{{{_SECRET_LETTERS}}}")


@dataclass(frozen=True, slots=True)
class Key:
    """A key as its owner sees it: `prefix` is how it begins, the rest is known to nobody."""

    id: uuid.UUID
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


async def make(
    pool: Pool, owner: Principal, name: str, expires_at: datetime | None
) -> tuple[Key, str]:
    """A new key of `owner`, and what they must send, which cannot be read again.

    Raises:
        Refusal: 409, they have as many as they may.
        RequestValidationError: `expires_at` has passed.
    """
    prefix = f"aw_{_random(_PREFIX_LETTERS)}"
    secret = f"{prefix}_{_random(_SECRET_LETTERS)}"
    async with pool.connection() as connection, connection.transaction():
        await _require_room(connection, owner, expires_at)
        values = (uuid.uuid4(), owner.id, name, prefix, _hash(secret), expires_at)
        [row] = await _rows(connection, _INSERT, values)
        await note(connection, owner, "key.created", target=("key", row["id"]))
    return Key(**row), secret


async def owner_of(pool: Pool, secret: str) -> Principal | None:
    """Whose key this is; null where it is unknown, revoked, expired, or the local user's.

    Asked of the database each time, so that a revoked key is refused at once by every process.
    """
    if not _FORM.fullmatch(secret):
        return None
    async with pool.connection() as connection:
        rows = await _rows(connection, _SELECT_OWNER, (_hash(secret), LOCAL_USER.subject))
        if not rows:
            return None
        [row] = rows
        key_id, is_due = row.pop("key_id"), row.pop("is_due")
        if is_due:
            await connection.execute(_USED, (key_id,))
    return Principal(**{**row, "groups": tuple(row["groups"])}, by_own_key=True)


async def keys_of(pool: Pool, user_id: uuid.UUID, limit: int, before: datetime | None) -> list[Key]:
    """A user's keys that are not revoked, the newest first."""
    values = {"user": user_id, "limit": limit, "before": before}
    return [Key(**row) for row in await rows_of(pool, _SELECT_KEYS, values)]


async def revoke(pool: Pool, caller: Principal, key_id: uuid.UUID) -> None:
    """Let a key never be valid again: one's own, or as an admin anybody's.

    Raises:
        Refusal: 404, there is none, or it is somebody else's.
    """
    async with pool.connection() as connection, connection.transaction():
        rows = await _rows(connection, _SELECT_TO_REVOKE, (key_id,))
        if not rows or not (caller.is_admin or rows[0]["user_id"] == caller.id):
            raise not_found("key")
        if rows[0]["is_revoked"]:
            return
        await connection.execute(_REVOKE, (key_id,))
        owner_id = rows[0]["user_id"]
        await note(connection, caller, "key.revoked", target=("key", key_id), user_id=owner_id)


async def _require_room(
    connection: Connection, owner: Principal, expires_at: datetime | None
) -> None:
    # Those who make keys for one user take turns, so that the count holds.
    await connection.execute(_TAKE_TURNS, (owner.id,))
    [row] = await _rows(connection, _SELECT_ROOM, {"user": owner.id, "expires_at": expires_at})
    if row["is_past"]:
        raise invalid("expiresAt", "must lie in the future")
    if row["living"] >= _MOST_KEYS:
        sentence = (
            f"You have {_MOST_KEYS} keys, which is the most. Revoke one that you do not need."
        )
        raise Refusal(409, "too_many_keys", sentence)


async def _rows(
    connection: Connection, sql: str, values: Sequence[Any] | Mapping[str, Any]
) -> list[dict[str, Any]]:
    return await (await connection.execute(sql, values)).fetchall()


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _random(letters: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(letters))


_COLUMNS = "id, name, prefix, created_at, expires_at, last_used_at"
# The time of the database, which all processes share.
_LIVING = "revoked_at is null and (expires_at is null or expires_at > clock_timestamp())"
_DUE = "(last_used_at is null or last_used_at < now() - interval '1 minute')"
_TAKE_TURNS = "select from users where id = %s for no key update"
_SELECT_ROOM = f"""
select count(*) as living, coalesce(%(expires_at)s::timestamptz <= now(), false) as is_past
from api_keys where user_id = %(user)s and {_LIVING}
"""
_INSERT = f"""
insert into api_keys (id, user_id, name, prefix, hash, expires_at)
values (%s, %s, %s, %s, %s, %s) returning {_COLUMNS}
"""
_SELECT_OWNER = f"""
select u.id, u.subject, u.name, u.is_admin, k.id as key_id, {_DUE} as is_due,
    array(select group_id from memberships m where m.user_id = u.id order by group_id) as groups
from api_keys k join users u on u.id = k.user_id
where k.hash = %s and {_LIVING} and u.subject <> %s
"""
# Again with the condition, for requests that came at the same time.
_USED = f"update api_keys set last_used_at = now() where id = %s and {_DUE}"
_SELECT_KEYS = f"""
select {_COLUMNS} from api_keys
where user_id = %(user)s and revoked_at is null
    and (%(before)s::timestamptz is null or created_at < %(before)s)
order by created_at desc, id limit %(limit)s
"""
_SELECT_TO_REVOKE = """
select user_id, revoked_at is not null as is_revoked from api_keys where id = %s for update
"""
_REVOKE = "update api_keys set revoked_at = clock_timestamp() where id = %s"
