"""Model providers that admins enter while the service runs: rows, with their keys encrypted."""

import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb
from pydantic import SecretStr

from graph.postgres import Connection, Pool, rows_of
from graph.secrets import Secrets, UnreadableSecret

log = logging.getLogger(__name__)


class ProviderError(ValueError):
    """A change that a rule of providers forbids; the message says which, and what to do."""


class SlugTaken(ProviderError):
    """Another provider has this slug."""


class DefaultDisabled(ProviderError):
    """The default provider would be disabled."""


class KeyRequired(ProviderError):
    """The stored key would be sent to another host than the one that it was entered for."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of a provider: tokens that it takes, prices per million tokens; null is unknown."""

    name: str
    context_window: int | None = None
    input_price: float | None = None
    output_price: float | None = None


@dataclass(frozen=True, slots=True)
class Provider:
    """An OpenAI-compatible endpoint.

    `problem` is a sentence that says why it cannot be used, null if it can. One that is
    `is_read_only` comes from the environment and is no row.
    """

    name: str
    slug: str
    base_url: str
    models: tuple[ModelEntry, ...]
    api_key: SecretStr | None = None
    is_default: bool = False
    is_fallback: bool = False
    is_enabled: bool = True
    problem: str | None = None
    is_read_only: bool = False
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    created_at: datetime | None = None
    updated_at: datetime | None = None

    def has_key(self) -> bool:
        """Whether a key is stored, be it readable or not."""
        return self.api_key is not None or self.problem is not None


Noted = Callable[[Connection, Provider], Awaitable[None]]
"""Told of a change in the transaction that makes it, with the provider that it is about."""


class Providers:
    """The rows of `providers`. At most one is the default, at most one the fallback."""

    def __init__(self, pool: Pool, secrets: Secrets) -> None:
        self._pool = pool
        self._secrets = secrets
        self._told: set[uuid.UUID] = set()

    async def list(self) -> tuple[Provider, ...]:
        """All providers, the oldest first."""
        return tuple([self._provider(row) for row in await rows_of(self._pool, _SELECT_ALL)])

    async def get(self, provider_id: uuid.UUID) -> Provider | None:
        """One provider; null where there is none with this id."""
        async with self._pool.connection() as connection:
            return await self._read(connection, provider_id)

    async def insert(self, provider: Provider, *, noted: Noted) -> Provider:
        """Store a new provider, and give it as it is stored.

        `noted` is told of it in the same transaction, as of `update` and `delete`.

        Raises:
            ProviderError: a rule forbids it.
        """
        async with self._writing() as connection:
            stored = await self._write(connection, provider, provider.api_key)
            await noted(connection, stored)
            return stored

    async def update(
        self,
        provider_id: uuid.UUID,
        *,
        noted: Noted,
        **changes: Any,  # noqa: ANN401
    ) -> Provider | None:
        """Change fields of a provider; null where there is none. Without `api_key` it stays.

        Raises:
            ProviderError: a rule forbids it.
        """
        async with self._writing() as connection:
            before = await self._read(connection, provider_id)
            if before is None:
                return None
            after, key = replace(before, **changes), changes.get("api_key")
            if key is None:
                refuse_other_host(before, after.base_url)
            stored = await self._write(connection, after, key)
            await noted(connection, stored)
            return stored

    async def delete(self, provider_id: uuid.UUID, *, noted: Noted) -> bool:
        """Forget a provider and its key; false where there is none."""
        async with self._writing() as connection:
            provider = await self._read(connection, provider_id)
            if provider is None:
                return False
            await connection.execute("delete from providers where id = %s", (provider_id,))
            await noted(connection, provider)
            return True

    async def rotate(self) -> None:
        """Encrypt all keys with the first key of SECRET_KEY; those that cannot be read stay."""
        async with self._writing() as connection:
            cursor = await connection.execute(
                "select id, api_key from providers where api_key is not null"
            )
            for row in await cursor.fetchall():
                try:
                    rotated = self._secrets.rotated(row["api_key"])
                except UnreadableSecret:
                    continue
                if rotated is not None:
                    await connection.execute(
                        "update providers set api_key = %s where id = %s", (rotated, row["id"])
                    )

    @asynccontextmanager
    async def _writing(self) -> AsyncIterator[Connection]:
        """A transaction that no other change goes on beside; reading does."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute("lock table providers in share row exclusive mode")
            yield connection

    async def _write(
        self, connection: Connection, provider: Provider, key: SecretStr | None
    ) -> Provider:
        if provider.is_default and not provider.is_enabled:
            raise DefaultDisabled(
                "The default provider cannot be disabled. Make another one the default first."
            )
        await _take_over(connection, provider)
        values = {
            **{name: getattr(provider, name) for name in _COLUMNS},
            "models": Jsonb([_entry_row(entry) for entry in provider.models]),
            "api_key": self._secrets.encrypt(key) if key else None,
        }
        try:
            await connection.execute(_WRITE, values)
        except UniqueViolation as error:
            raise SlugTaken(
                f"Another provider has the slug {provider.slug!r}. Choose another one."
            ) from error
        stored = await self._read(connection, provider.id)
        assert stored is not None
        return stored

    async def _read(self, connection: Connection, provider_id: uuid.UUID) -> Provider | None:
        cursor = await connection.execute(_SELECT, (provider_id,))
        row = await cursor.fetchone()
        return self._provider(row) if row else None

    def _provider(self, row: DictRow) -> Provider:
        key, problem = None, None
        if row["api_key"] is not None:
            try:
                key = self._secrets.decrypt(row["api_key"])
            except UnreadableSecret:
                problem = (
                    f"The key of the provider {row['slug']!r} was encrypted with another "
                    "SECRET_KEY. An admin must enter it again."
                )
                self._tell(row["id"], problem)
        entries = tuple(_entry(entry) for entry in row["models"])
        return Provider(**{**row, "api_key": key, "models": entries}, problem=problem)

    def _tell(self, provider_id: uuid.UUID, problem: str) -> None:
        if provider_id not in self._told:
            self._told.add(provider_id)
            log.warning(problem)


async def _take_over(connection: Connection, provider: Provider) -> None:
    """Make no other provider the default where this one is, nor the fallback."""
    for column in ("is_default", "is_fallback"):
        if getattr(provider, column):
            await connection.execute(
                f"update providers set {column} = false, updated_at = now() "
                f"where {column} and id <> %s",
                (provider.id,),
            )


async def open_providers(pool: Pool, secrets: Secrets) -> Providers | None:
    """The providers of a database that may have no table of them: then null."""
    [row] = await rows_of(pool, "select to_regclass('providers') is not null as found")
    return Providers(pool, secrets) if row["found"] else None


def refuse_other_host(provider: Provider, base_url: str) -> None:
    """Refuse an address to which the stored key may not be sent.

    Raises:
        KeyRequired: another host than the provider's, or the same without encryption.
    """
    old, new = urlsplit(provider.base_url), urlsplit(base_url)
    is_same = new.hostname == old.hostname and new.scheme in (old.scheme, "https")
    if provider.is_read_only:
        is_same = base_url == provider.base_url
    if provider.has_key() and not is_same:
        raise KeyRequired(
            "The stored key is kept for the host that it was entered for. Give apiKey together "
            "with the new baseUrl."
        )


def _entry(row: dict[str, Any]) -> ModelEntry:
    return ModelEntry(
        row["name"], row.get("contextWindow"), row.get("inputPrice"), row.get("outputPrice")
    )


def _entry_row(entry: ModelEntry) -> dict[str, Any]:
    row = {
        "name": entry.name,
        "contextWindow": entry.context_window,
        "inputPrice": entry.input_price,
        "outputPrice": entry.output_price,
    }
    return {name: value for name, value in row.items() if value is not None}


_COLUMNS = ("id", "name", "slug", "base_url", "is_default", "is_fallback", "is_enabled")
# By name: a prepared statement fails where a newer version of the service adds a column.
_READ = f"select {', '.join(_COLUMNS)}, api_key, models, created_at, updated_at from providers"
_SELECT_ALL = f"{_READ} order by created_at, id"
_SELECT = f"{_READ} where id = %s"
_WRITE = """
insert into providers
    (id, name, slug, base_url, api_key, models, is_default, is_fallback, is_enabled)
values (%(id)s, %(name)s, %(slug)s, %(base_url)s, %(api_key)s, %(models)s,
    %(is_default)s, %(is_fallback)s, %(is_enabled)s)
on conflict (id) do update set
    name = excluded.name, slug = excluded.slug, base_url = excluded.base_url,
    api_key = coalesce(excluded.api_key, providers.api_key), models = excluded.models,
    is_default = excluded.is_default, is_fallback = excluded.is_fallback,
    is_enabled = excluded.is_enabled, updated_at = now()
"""
