"""Callers for tests: users as rows, and keys of their own, made as the service makes them."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TypeVar

import httpx
import jwt
from conftest import Service

from api.access import keys
from api.access.principals import Principal, user_id
from graph.postgres import Pool, open_pool

T = TypeVar("T")


def with_pool(service: Service, ask: Callable[[Pool], Awaitable[T]]) -> T:
    """What `ask` gives for a pool of the service's database."""
    assert service.settings.database_url is not None
    url = service.settings.database_url.get_secret_value()

    async def asked() -> T:
        async with open_pool(url) as pool:
            return await ask(pool)

    return asyncio.run(asked())


def new_user(service: Service, name: str, *, is_admin: bool = False) -> Principal:
    """A user that nobody else is."""
    subject = f"jwt::{name}-{uuid.uuid4().hex}"
    user = Principal(user_id(subject), subject, name, is_admin)
    with service.changing() as database:
        database.execute(
            "insert into users (id, subject, name, is_admin) values (%s, %s, %s, %s)",
            (user.id, user.subject, user.name, user.is_admin),
        )
    return user


def new_key(service: Service, owner: Principal, expires_at: datetime | None = None) -> str:
    """What `owner` sends as X-API-Key."""
    return with_pool(service, lambda pool: keys.make(pool, owner, "Of a test", expires_at))[1]


def signing_in(secret: str, user: Principal) -> dict[str, list[Callable[[httpx.Request], None]]]:
    """Hooks of a client with a key of `user`: they sign in where a key is not enough."""

    def sign_in(request: httpx.Request) -> None:
        if (request.method, request.url.path) == ("POST", "/keys"):
            shown = token(secret, user.subject.removeprefix("jwt::"), name=user.name)
            request.headers["Authorization"] = f"Bearer {shown}"

    return {"request": [sign_in]}


def token(secret: str, subject: str, *, ends_in_s: int = 3600, **claims: object) -> str:
    """What somebody who signed in sends as Bearer."""
    payload = {"sub": subject, "name": subject.title(), "exp": int(time.time()) + ends_in_s}
    return jwt.encode({**payload, **claims}, secret)
