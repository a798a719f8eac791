"""API keys of one's own over HTTP: made and shown once, listed, revoked."""

import uuid
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response
from pydantic import AwareDatetime, Field, JsonValue, StringConstraints

from api.access import keys
from api.access.principals import Principal
from api.access.rules import Caller, GuardedRoute, rule
from api.dependencies import Service
from api.errors import Refusal, not_found
from api.lists import Before, Limit
from api.schema import CLEAN, NOT_BLANK, ONE_LINE, ONE_WAY, SAFE, CamelModel, example
from graph.postgres import Pool

router = APIRouter(prefix="/keys", tags=["keys"], route_class=GuardedRoute)

Name = Annotated[str, StringConstraints(max_length=100), CLEAN, ONE_WAY, SAFE, ONE_LINE, NOT_BLANK]
# What is later cannot be read back in every time zone.
ExpiresAt = Annotated[AwareDatetime, Field(lt=datetime(9000, 1, 1, tzinfo=UTC))]

_EXPIRY = "2027-06-30T00:00:00Z"
_KEY: JsonValue = {
    "id": "860a02b4-0c19-4d7d-bbc7-1fd97d49d604",
    "name": "nightly report",
    "prefix": "aw_dtG07OVd",
    "createdAt": "2026-08-14T09:30:00Z",
    "expiresAt": _EXPIRY,
    "lastUsedAt": "2026-08-15T02:00:00Z",
}


class NewKey(CamelModel):
    """The body of `POST /keys`; without `expiresAt` the key is valid until it is revoked."""

    model_config = example(name="nightly report", expiresAt=_EXPIRY)
    name: Name
    expires_at: ExpiresAt | None = None


class KeyEntry(CamelModel):
    """A key without what must be sent; `prefix` is how that begins, `lastUsedAt` to a minute."""

    id: uuid.UUID
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None


class NewKeyAnswer(CamelModel):
    """A new key, and what to send as X-API-Key: shown here and never again."""

    model_config = example(key=_KEY, secret="aw_dtG07OVd_…")
    key: KeyEntry
    secret: str


class KeyList(CamelModel):
    """Keys that are not revoked, the newest first."""

    model_config = example(keys=[_KEY])
    keys: list[KeyEntry]


@rule("a caller who is known by more than a key of their own")
async def key_maker(caller: Caller) -> Principal:
    """The caller. A key that was made with a key would outlive it when it expires."""
    if caller.by_own_key:
        raise Refusal(403, "forbidden", _NOT_BY_KEY)
    return caller


@router.post("", status_code=201)
async def create_key(
    body: NewKey,
    service: Service,
    caller: Annotated[Principal, Depends(key_maker)],
    response: Response,
) -> NewKeyAnswer:
    """Make a key with which its bearer is the caller, until it expires or is revoked."""
    if not service.settings.needs_credentials:
        # A key of the local user, who is an admin, would outlive the open door.
        raise Refusal(409, "no_credentials_set", _NO_CREDENTIALS)
    key, secret = await keys.make(service.pool, caller, body.name, body.expires_at)
    response.headers["Cache-Control"] = "no-store"
    return NewKeyAnswer(key=_entry(key), secret=secret)


@router.get("")
async def list_keys(
    service: Service,
    caller: Caller,
    limit: Limit = 50,
    before: Before = None,
    user_id: Annotated[
        uuid.UUID | None, Query(alias="userId", description="Whose; another's for admins only.")
    ] = None,
) -> KeyList:
    """The caller's own keys, or for admins those of another user."""
    owner_id = user_id or caller.id
    await _require_sight(service.pool, caller, owner_id)
    found = await keys.keys_of(service.pool, owner_id, limit, before)
    return KeyList(keys=[_entry(key) for key in found])


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: uuid.UUID, service: Service, caller: Caller) -> Response:
    """Revoke a key at once: one's own, or as an admin anybody's. Again is no error."""
    await keys.revoke(service.pool, caller, key_id)
    return Response(status_code=204)


async def _require_sight(pool: Pool, caller: Principal, user_id: uuid.UUID) -> None:
    """Refuse others than admins a look at another user's keys, as if there were no such user."""
    if user_id == caller.id:
        return
    async with pool.connection() as connection:
        cursor = await connection.execute("select from users where id = %s", (user_id,))
    if not (caller.is_admin and cursor.rowcount):
        raise not_found("user")


def _entry(key: keys.Key) -> KeyEntry:
    return KeyEntry.model_validate(key, from_attributes=True)


_NOT_BY_KEY = (
    "A key of one's own cannot make further keys. Send a token, or the API_KEY of the service."
)
_NO_CREDENTIALS = (
    "Nobody needs a key here, for no credentials are set. Set API_KEY, JWT_SECRET or "
    "JWT_JWKS_URL first."
)
