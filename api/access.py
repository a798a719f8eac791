"""Who is calling, and what they may do in a project: decided anew on each request."""

import hmac
import uuid
from dataclasses import dataclass
from typing import Literal

from api.errors import Refusal, not_found
from api.settings import Settings
from graph.postgres import Pool

Tier = Literal["use", "edit", "full"]
TIERS: tuple[Tier, ...] = ("use", "edit", "full")
AccessSource = Literal["platform", "owner", "public"]

_NAMESPACE = uuid.UUID("5d3bd1b1-52f4-4f0a-9d0a-4f7a3f8f6b11")


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: a row in `users`, and whether the role is admin."""

    id: uuid.UUID
    subject: str
    name: str
    is_admin: bool


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may do in a project, and why."""

    tier: Tier
    source: AccessSource

    def allows(self, needed: Tier) -> bool:
        """Whether this tier includes `needed`."""
        return TIERS.index(self.tier) >= TIERS.index(needed)


def _principal(subject: str, name: str) -> Principal:
    return Principal(uuid.uuid5(_NAMESPACE, subject), subject, name, is_admin=True)


LOCAL_USER = _principal("local", "Local user")
SERVICE = _principal("service", "Service")


def identify(settings: Settings, api_key: str | None) -> Principal:
    """The caller who showed `api_key`, or the local user where no credentials are set.

    Raises:
        Refusal: 401 (403 in the drafting API), the key is missing or wrong.
    """
    if settings.api_key is None:
        return LOCAL_USER
    if api_key is None:
        raise Refusal(401, "unauthorized", "This service needs a key. Send it as X-API-Key.")
    if not hmac.compare_digest(api_key.encode(), settings.api_key.get_secret_value().encode()):
        raise Refusal(401, "unauthorized", "The key in X-API-Key is not valid.")
    return SERVICE


async def know_principals(pool: Pool) -> None:
    """Make the rows of the local user and the service principal."""
    async with pool.connection() as connection:
        for principal in (LOCAL_USER, SERVICE):
            await connection.execute(
                "insert into users (id, subject, name) values (%s, %s, %s) on conflict do nothing",
                (principal.id, principal.subject, principal.name),
            )


def resolve(principal: Principal, *, owner_id: uuid.UUID, is_private: bool) -> Access | None:
    """What `principal` may do in a project; the first match wins, none means no access."""
    if principal.is_admin:
        return Access("full", "platform")
    if principal.id == owner_id:
        return Access("full", "owner")
    return None if is_private else Access("use", "public")


async def access_to(pool: Pool, principal: Principal, project_id: uuid.UUID) -> Access | None:
    """What `principal` may do in the project; null too where there is no such project."""
    async with pool.connection() as connection:
        cursor = await connection.execute(
            "select owner_id, is_private from projects where id = %s", (project_id,)
        )
        row = await cursor.fetchone()
    return resolve(principal, **row) if row else None


async def require(pool: Pool, principal: Principal, project_id: uuid.UUID, needed: Tier) -> Access:
    """The caller's access to a project of which they need at least `needed`.

    Raises:
        Refusal: 404 where the caller may see nothing of it, 403 where the tier is too low.
    """
    access = await access_to(pool, principal, project_id)
    if access is None:
        raise not_found("project")
    if not access.allows(needed):
        raise Refusal(403, "forbidden", f"This needs tier {needed!r}; yours is {access.tier!r}.")
    return access
