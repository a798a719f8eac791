"""The rows of people and groups: made when a token first names them, then as the newest says."""

import logging
import time
import uuid
from urllib.parse import quote

from api.access.principals import Principal, group_id, user_id
from api.access.tokens import Claims
from graph.postgres import Pool

log = logging.getLogger(__name__)

UNDATED_S = 60.0
"""Seconds after which a token without `iat` is stored again."""

_MOST_KNOWN = 10_000


class Users:
    """Remembers whom it has stored, so that a token that was seen before costs no statement."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._stored: dict[uuid.UUID, tuple[Claims, float]] = {}

    async def principal(self, claims: Claims) -> Principal:
        """Who a checked token stands for. What it says of role and groups counts for its bearer.

        What is stored counts where there is no token: for keys of one's own, and to share with.
        """
        # Not the bare `sub`: somebody may be called "local" or "service" elsewhere. Quoted, the
        # issuer has no colon, so that no two pairs of issuer and `sub` are one subject.
        subject = f"jwt:{quote(claims.issuer)}:{claims.subject}"
        groups = tuple(group_id(name) for name in claims.groups)
        principal = Principal(user_id(subject), subject, claims.name, claims.is_admin, groups)
        if not self._has_stored(principal.id, claims):
            await self._store(principal, claims)
            if len(self._stored) >= _MOST_KNOWN:
                self._stored.clear()
            self._stored[principal.id] = (claims, time.monotonic())
        return principal

    def _has_stored(self, user: uuid.UUID, claims: Claims) -> bool:
        stored, at = self._stored.get(user, (None, 0.0))
        # Of two tokens without `iat` nobody knows the newer one: the last that came counts, and
        # another process may have stored the other since.
        is_fresh = claims.issued_at is not None or time.monotonic() - at < UNDATED_S
        return stored == claims and is_fresh

    async def _store(self, principal: Principal, claims: Claims) -> None:
        groups = sorted(zip(principal.groups, claims.groups, strict=True))
        ids = [one for one, _ in groups]
        async with self._pool.connection() as connection, connection.transaction():
            # In one order, so that two tokens at once do not wait for each other.
            await connection.cursor().executemany(_INSERT_GROUP, groups)
            cursor = await connection.execute(
                _UPSERT_USER,
                {
                    "id": principal.id,
                    "subject": principal.subject,
                    "name": principal.name,
                    "email": claims.email,
                    "is_admin": principal.is_admin,
                    "at": claims.issued_at,
                },
            )
            if await cursor.fetchone() is None:
                log.info("a token of user %s is older than one that was seen before", principal.id)
                return
            await connection.execute(_LEAVE, (principal.id, ids))
            await connection.execute(_JOIN, (principal.id, ids))


_INSERT_GROUP = "insert into groups (id, name) values (%s, %s) on conflict do nothing"
_UPSERT_USER = """
insert into users (id, subject, name, email, is_admin, claims_at)
values (%(id)s, %(subject)s, %(name)s, %(email)s, %(is_admin)s, coalesce(%(at)s, now()))
on conflict (id) do update set name = excluded.name, email = excluded.email,
    is_admin = excluded.is_admin, claims_at = excluded.claims_at
where users.claims_at is null or users.claims_at <= excluded.claims_at
returning id
"""
_LEAVE = "delete from memberships where user_id = %s and not group_id = any(%s::uuid[])"
_JOIN = """
insert into memberships (user_id, group_id)
select %s, unnest(%s::uuid[]) on conflict do nothing
"""
