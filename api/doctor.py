"""Asks every part of the service, without a service, and says what is wrong and what to do."""

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from rich.console import Console
from rich.text import Text

from api.access.jwks import KeySet
from api.client import Client
from api.database.migrations import is_newest
from api.server import sentence_of
from api.settings import Settings
from graph.errors import ModelError, ModelUnusable
from graph.knowledge.library import open_embedder, open_vectors
from graph.knowledge.ownership import VectorsInUse
from graph.knowledge.reranking import Reranker
from graph.knowledge.static_model import StaticModel
from graph.models import EMBEDDED, Models, Resolved, open_models
from graph.offers import ProviderOffers
from graph.postgres import embedded_postgres, open_pool
from graph.providers import open_providers
from graph.secrets import open_secrets
from graph.texts.paths import PROMPT_NAMES
from graph.texts.texts import Texts

_LEAST_FREE_GB = 0.5
_LEAST_POSTGRES = 14
_FEW_TOKENS = 16
_RIGHTS = """
select current_setting('transaction_read_only'),
    has_schema_privilege(current_schema(), 'create')
"""
_PARTS = {"database": "Postgres", "vectors": "Vectors", "llm": "Language model"}


@dataclass
class Findings:
    """What the doctor finds, printed line by line; `wrong` counts what is not in order."""

    wrong: int = 0
    out: Console = field(default_factory=lambda: Console(highlight=False, soft_wrap=True))

    def good(self, part: str, words: str) -> None:
        """A part that is in order."""
        self._say("OK", "green", part, words)

    def bad(self, part: str, words: str) -> None:
        """A part that is not, and what to do about it."""
        self.wrong += 1
        self._say("WRONG", "red", part, words)

    async def check(self, part: str, question: Awaitable[str]) -> None:
        """Ask a part: the answer says what is in order, an error what is not."""

        try:
            with self.out.status(f"{part}…"):
                words = await question
        except VectorsInUse:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.bad(part, sentence_of(error) or f"{type(error).__name__}: {error}")
        else:
            self.good(part, words)

    def _say(self, verdict: str, style: str, part: str, words: str) -> None:
        line = Text.assemble((f"{verdict:<7}", style), f"{part:<16}", " ".join(words.split()))
        self.out.print(line)


async def examine(settings: Settings, findings: Findings) -> str | None:
    """Check each part; if a service has them open, only say so: the parts are its own."""
    async with AsyncExitStack() as stack:
        await findings.check("Settings", _check_settings(settings))
        await findings.check("Data folder", asyncio.to_thread(_check_data_dir, settings.data_dir))
        if settings.jwt_jwks_url:
            await findings.check("Token keys", _check_jwks(settings.jwt_jwks_url))
        try:
            await findings.check("Vectors", _check_vectors(settings, stack))
        except VectorsInUse as error:
            return str(error)
        reached: list[str] = []
        await findings.check("Postgres", _check_postgres(settings, stack, reached))
        await findings.check("Embeddings", _check_embeddings(settings))
        if settings.rerank_base_url:
            await findings.check("Re-ranking", _check_reranker(settings, settings.rerank_base_url))
        await findings.check("Language model", _check_model(settings, stack, reached))
        await findings.check("Web search", _check_tavily(settings))
        await findings.check("Texts", _check_texts(settings))
    return None


def examine_running(client: Client, findings: Findings) -> None:
    """Ask a running service how its parts are."""
    health = client.health()
    for part, state in health["services"].items():
        say = findings.good if state == "OK" else findings.bad
        say(_PARTS.get(part, part), f"{state}, says the service at {client.url}")
    if health["status"] != "OK":
        findings.out.print(f"{health['message']} Its log says why.", markup=False)


async def _check_settings(settings: Settings) -> str:
    settings.refuse_open_door()
    return "read from the environment and .env"


def _check_data_dir(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"can be written")
    free = shutil.disk_usage(folder).free / 1e9
    if free < _LEAST_FREE_GB:
        raise OSError(f"only {free:.1f} GB are free in {folder}. Free some, or move it (DATA_DIR)")
    return f"{folder.resolve()} can be written, {free:.0f} GB free"


async def _check_jwks(url: str) -> str:
    keys = KeySet(url)
    try:
        found = await keys.probe()
    except ConnectionError as error:
        raise ValueError(
            f"JWT_JWKS_URL: the keys of tokens could not be fetched: {error}. Check the address, "
            "and whether the identity provider runs."
        ) from error
    finally:
        await keys.aclose()
    if not found:
        raise ValueError(
            "JWT_JWKS_URL: there is no key that can sign tokens: RSA from 2048 bits on, or P-256."
        )
    return f"{found} key{'s' * (found != 1)}{_at(url)}"


async def _check_vectors(settings: Settings, stack: AsyncExitStack) -> str:
    vectors = await asyncio.to_thread(open_vectors, settings, "doctor")
    stack.enter_context(vectors)
    await vectors.heartbeat()
    return f"Chroma answers{_at(settings.chroma_url)}"


async def _check_postgres(settings: Settings, stack: AsyncExitStack, reached: list[str]) -> str:
    external = settings.database_url.get_secret_value() if settings.database_url else None
    url = external or stack.enter_context(embedded_postgres(settings.data_dir / "postgres"))
    async with await psycopg.AsyncConnection.connect(url, connect_timeout=5) as connection:
        major = connection.info.server_version // 10_000
        if major < _LEAST_POSTGRES:
            raise ValueError(
                f"DATABASE_URL: this is Postgres {major}; {_LEAST_POSTGRES} is needed."
            )
        await _refuse_what_cannot_be_written(connection)
        tables = await _tables(connection)
    reached.append(url)
    return f"Postgres {major} answers{_at(external)}; {tables}"


async def _tables(connection: psycopg.AsyncConnection[Any]) -> str:
    """How the tables stand. They are not brought up to date here: a service may be using them."""
    cursor = await connection.execute("select to_regclass('alembic_version') is not null")
    if await cursor.fetchone() != (True,):
        return "the tables will be made at the first start"
    cursor = await connection.execute("select version_num from alembic_version")
    row = await cursor.fetchone()
    is_current = is_newest(row[0] if row else None)
    return "the tables are up to date" if is_current else "the next start changes the tables"


async def _refuse_what_cannot_be_written(connection: psycopg.AsyncConnection[Any]) -> None:
    """Each start must be allowed to make tables, also where all are there."""
    cursor = await connection.execute(_RIGHTS)
    if await cursor.fetchone() != ("off", True):
        raise ValueError(
            "DATABASE_URL: no tables can be made there. Let its user own its schema, and name a "
            "server that can be written to."
        )


async def _check_embeddings(settings: Settings) -> str:
    embedder = await asyncio.to_thread(lambda: open_embedder(settings, StaticModel()))
    try:
        vector = await embedder.embed_query("How high is the water?")
    finally:
        await embedder.close()
    return f"{embedder.name} gives {len(vector)} dimensions{_at(settings.embedding_base_url)}"


async def _check_reranker(settings: Settings, url: str) -> str:
    reranker = Reranker(url, settings.rerank_api_key, settings.rerank_model or "")
    try:
        await reranker.probe()
    except ConnectionError as error:
        raise ValueError(
            f"RERANK_BASE_URL: passages could not be put in order: {error}. Check the address, "
            "RERANK_API_KEY and RERANK_MODEL; until then searches go on without it."
        ) from error
    finally:
        await reranker.close()
    return f"{settings.rerank_model} puts passages in order{_at(url)}"


async def _check_model(settings: Settings, stack: AsyncExitStack, reached: list[str]) -> str:
    rows = await _rows(settings, stack, reached[0]) if reached else None
    models = await asyncio.to_thread(open_models, settings, rows)
    stack.push_async_callback(models.aclose)
    await models.refresh()
    default = models.resolve(None, None)
    said = await _asked(models, default)
    fallback = models.fallback(default)
    if fallback is None:
        return said
    try:
        return f"{said}; the fallback {await _asked(models, fallback)}"
    except ModelError as error:
        raise ModelUnusable(f"The fallback {fallback.id}: {error}") from error


async def _asked(models: Models, model: Resolved) -> str:
    if model.problem:
        raise ModelUnusable(model.problem)
    began = time.monotonic()
    async for _ in models.bound(model, max_tokens=_FEW_TOKENS).astream("Say hello."):
        pass
    where = "" if model.slug == EMBEDDED else _at(model.chat.openai_api_base)
    return f"{model.name} answered in {time.monotonic() - began:.1f} s{where}"


async def _rows(settings: Settings, stack: AsyncExitStack, url: str) -> ProviderOffers | None:
    """The providers that admins have entered in the database at `url`."""
    pool = await stack.enter_async_context(open_pool(url, max_size=2))
    providers = await open_providers(pool, await asyncio.to_thread(open_secrets, settings))
    return ProviderOffers(providers, settings) if providers else None


async def _check_tavily(settings: Settings) -> str:
    if settings.tavily_api_key is None:
        return "off; TAVILY_API_KEY turns the modes web and deep on"
    if not settings.tavily_api_key.get_secret_value().startswith("tvly-"):
        raise ValueError("TAVILY_API_KEY: Tavily's keys begin with tvly-. Copy it again.")
    return "TAVILY_API_KEY has the right shape; it was not tried, for that would cost a search"


async def _check_texts(settings: Settings) -> str:
    texts = Texts(settings.prompts_dir, settings.templates_dir)
    wording = await asyncio.to_thread(texts.files)
    prompts, types = [wording.prompt(name) for name in PROMPT_NAMES], wording.document_types()
    for problem in wording.faulty().values():
        raise ValueError(f"TEMPLATES_DIR: {problem}")
    if not types:
        raise ValueError(f"TEMPLATES_DIR: there is no template in {settings.templates_dir}.")
    return f"{len(prompts)} prompts and {len(types)} document types load"


def _at(url: str | None) -> str:
    return f" at {urlsplit(url).netloc.rpartition('@')[2]}" if url else ""
