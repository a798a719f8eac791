"""Callers, and the ids by which the tables know them."""

import uuid
from dataclasses import dataclass

from graph.postgres import Pool

_NAMESPACE = uuid.UUID("5d3bd1b1-52f4-4f0a-9d0a-4f7a3f8f6b11")
_GROUPS = uuid.UUID("0b2a8b0e-8a62-4c0f-9b35-1f6c60b0f4c7")


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: a row in `users`, whether the role is admin, and the ids of their groups.

    `by_own_key`: they showed a key of their own, which is good for less than what made it.
    """

    id: uuid.UUID
    subject: str
    name: str
    is_admin: bool
    groups: tuple[uuid.UUID, ...] = ()
    by_own_key: bool = False


def user_id(subject: str) -> uuid.UUID:
    """The id of the user with this subject, the same in every process and database."""
    return uuid.uuid5(_NAMESPACE, subject)


def group_id(name: str) -> uuid.UUID:
    """The id of the group with this name, the same in every process and database."""
    return uuid.uuid5(_GROUPS, name)


LOCAL_USER = Principal(user_id("local"), "local", "Local user", is_admin=True)
SERVICE = Principal(user_id("service"), "service", "Service", is_admin=True)


async def know_principals(pool: Pool) -> None:
    """Make the rows of the local user and the service principal."""
    async with pool.connection() as connection:
        for principal in (LOCAL_USER, SERVICE):
            await connection.execute(
                "insert into users (id, subject, name, is_admin) values (%s, %s, %s, true) "
                "on conflict (id) do update set is_admin = true",
                (principal.id, principal.subject, principal.name),
            )
