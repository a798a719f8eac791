"""A run gets the model that was asked for, and its context window is known."""

import asyncio
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from conftest import migrated_database
from pydantic import SecretStr
from standins.openai import Answer, OpenAIStandIn
from timed import timed

from graph import models as models_module
from graph.completions import tokens_of
from graph.errors import ModelRefused, ModelTimedOut, ModelUnreachable
from graph.local_model import BUNDLED_NAME
from graph.models import Models, Offer, Resolved, open_models
from graph.offers import Price, ProviderOffers
from graph.postgres import open_pool
from graph.providers import ModelEntry, Provider, Providers
from graph.secrets import Secrets
from graph.settings import PipelineSettings
from graph.streaming import StreamingChatModel

NOWHERE = "http://127.0.0.1:9/v1"
ENVIRONMENT = Provider("Environment", "default", NOWHERE, ())


@dataclass
class Endpoint:
    """What `/models` says, and how often it was asked."""

    says: Any = field(default_factory=lambda: {"data": []})
    status: int = 200
    delay_s: float = 0.0
    hangs: bool = False
    asked: int = 0
    base_url: str = ""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    played, over = Endpoint(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            played.asked += 1
            over.wait(60 if played.hangs else played.delay_s)
            body = json.dumps(played.says).encode()
            self.send_response(played.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        played.base_url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield played
        over.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def _no_provider_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "OPENAI_CONTEXT_WINDOW"):
        monkeypatch.delenv(name, raising=False)


def settings(**given: Any) -> PipelineSettings:
    return PipelineSettings(_env_file=None, **given)


def models_at(base_url: str, **given: Any) -> Models:
    return open_models(settings(openai_base_url=base_url, openai_model="small", **given))


def chat(name: str) -> StreamingChatModel:
    return StreamingChatModel(model=name, base_url=NOWHERE, api_key=SecretStr("k"))


def offers() -> list[Offer]:
    names = [("acme", "small"), ("acme", "meta/large"), ("acme", "meta/small")]
    names += [("other", "small"), ("meta", "small")]
    return [Offer(slug, name, chat(name)) for slug, name in names]


# Which model


@pytest.mark.parametrize(
    ("wanted", "preferred", "used"),
    [
        (None, None, ("acme", "small", None)),
        ("", "", ("acme", "small", None)),
        ("small", None, ("acme", "small", None)),
        ("other/small", None, ("other", "small", None)),
        ("meta/large", "other/small", ("acme", "meta/large", None)),
        ("acme/meta/large", "gone", ("acme", "meta/large", None)),
        (None, "other/small", ("other", "small", None)),
        ("gone", "other/small", ("other", "small", "gone")),
        ("gone", "gone too", ("acme", "small", "gone")),
        (None, "gone", ("acme", "small", "gone")),
        ("acme/", None, ("acme", "small", "acme/")),
        ("meta/small", None, ("meta", "small", None)),
        ("acme/meta/small", None, ("acme", "meta/small", None)),
    ],
)
def test_the_requests_model_comes_before_the_projects_and_that_before_the_default(
    wanted: str | None, preferred: str | None, used: tuple[str, str, str | None]
) -> None:
    resolved = Models(offers(), ENVIRONMENT).resolve(wanted, preferred)
    assert (resolved.slug, resolved.name, resolved.fell_through) == used
    assert resolved.chat.model_name == resolved.name


# What a call changes


def test_settings_of_a_call_reach_the_endpoint_over_the_same_connections() -> None:
    with OpenAIStandIn() as model:
        model.will(Answer(["a"]))
        models = models_at(model.base_url)
        resolved = models.resolve(None, None)

        async def ask(asked: StreamingChatModel) -> None:
            async for _ in asked.astream("two words"):
                pass

        async def ask_both() -> None:
            bound = models.bound(resolved, temperature=0.2, max_tokens=9)
            await ask(bound)
            await ask(resolved.chat)
            assert bound._sessions is resolved.chat._sessions
            await models.aclose()

        asyncio.run(ask_both())
        limits = [
            {key: chat.body.get(key) for key in ("temperature", "max_tokens")}
            for chat in model.chats
        ]
    assert limits == [
        {"temperature": 0.2, "max_tokens": 9},
        {"temperature": None, "max_tokens": None},
    ]


def test_a_call_without_settings_uses_the_model_as_it_is() -> None:
    models = Models(offers(), ENVIRONMENT)
    resolved = models.resolve(None, None)
    assert models.bound(resolved) is resolved.chat


@pytest.mark.parametrize(
    ("name", "temperature"), [("gpt-5-mini", None), ("gpt-5-chat", 0.2), ("small", 0.2)]
)
def test_a_temperature_that_the_model_refuses_is_left_out(
    name: str, temperature: float | None
) -> None:
    resolved = Resolved("acme", name, chat(name))
    assert Models(offers(), ENVIRONMENT).bound(resolved, temperature=0.2).temperature == temperature


# How much it takes


@pytest.mark.parametrize(
    ("says", "window"),
    [
        ({"data": [{"id": "small", "max_model_len": 8000}]}, 8000),
        ({"data": [{"id": "small", "meta": {"n_ctx": 4096, "n_ctx_train": 8192}}]}, 4096),
        ({"data": [{"id": "small", "context_length": 5000}]}, 5000),
        ({"data": [{"id": "small", "max_context_length": 6000}]}, 6000),
        (
            {"data": [{"id": "small", "max_context_length": 6000, "loaded_context_length": 3000}]},
            3000,
        ),
        ({"data": [{"id": "small", "context_window": 7000}]}, 7000),
        ({"data": [{"id": "x", "context_window": 1}, {"id": "small", "context_window": 2}]}, 2),
        ({"data": [{"id": "renamed", "context_window": 7000}]}, 7000),
        ([{"id": "small", "context_length": 5000}], 5000),
        ({"data": [{"id": "x", "context_window": 1}, {"id": "y", "context_window": 2}]}, 32_768),
        ({"data": [{"id": "small", "context_window": "7000", "meta": None}]}, 32_768),
        ({"data": [{"id": "small", "context_length": 0}]}, 32_768),
        ({"data": [None]}, 32_768),
        ({"data": []}, 32_768),
        ({"models": "none"}, 32_768),
    ],
)
def test_the_context_window_is_what_the_endpoint_says(
    endpoint: Endpoint, says: object, window: int
) -> None:
    endpoint.says = says
    assert windows(models_at(endpoint.base_url), times=1) == [window]


def test_the_setting_comes_before_what_the_endpoint_says(endpoint: Endpoint) -> None:
    endpoint.says = {"data": [{"id": "small", "context_window": 7000}]}
    models = models_at(endpoint.base_url, openai_context_window=900)
    assert (windows(models, times=1), endpoint.asked) == ([900], 0)


@pytest.mark.parametrize("says", [{"data": [{"id": "small", "context_window": 7}]}, {"data": []}])
def test_the_endpoint_is_asked_once_for_all_runs(endpoint: Endpoint, says: dict[str, Any]) -> None:
    endpoint.says, endpoint.delay_s = says, 0.1
    models = models_at(endpoint.base_url)
    assert len(set(windows(models, times=20) + windows(models, times=20))) == 1
    assert endpoint.asked == 1


def test_a_failure_to_ask_counts_for_a_minute(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(models_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    models = models_at(endpoint.base_url)
    endpoint.status = 503
    seen = [*windows(models, times=1)]
    endpoint.status, endpoint.says = 200, {"data": [{"id": "small", "context_window": 7000}]}
    for at in (1059.0, 1061.0):
        clock.now = at
        seen += windows(models, times=1)
    assert (seen, endpoint.asked) == ([32_768, 32_768, 7000], 2)


def test_a_silent_endpoint_holds_a_run_up_for_two_seconds_at_most(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.hangs = True
    began = time.monotonic()
    assert windows(models_at(endpoint.base_url), times=1) == [32_768]
    assert 1.9 < time.monotonic() - began < 20
    message = "The model's endpoint did not answer within 2 seconds."
    said = [record.getMessage() for record in caplog.records if record.name == "graph.models"]
    assert said == [f"the context window of 'small' could not be asked: {message}"]


def windows(models: Models, *, times: int) -> list[int]:
    """What so many runs at a time are told."""

    async def ask() -> list[int]:
        resolved = models.resolve(None, None)
        found = await asyncio.gather(*(models.context_window(resolved) for _ in range(times)))
        await models.aclose()
        return found

    return asyncio.run(ask())


# Whether it answers


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({}, None),
        ({"status": 401}, ModelRefused),
        ({"hangs": True}, ModelTimedOut),
        ({"base_url": NOWHERE}, ModelUnreachable),
    ],
)
def test_a_ping_asks_the_endpoint(
    endpoint: Endpoint, changes: dict[str, Any], error: type[Exception] | None
) -> None:
    for name, value in changes.items():
        setattr(endpoint, name, value)
    models = models_at(endpoint.base_url)

    async def ping() -> type[Exception] | None:
        try:
            await models.ping(models.resolve(None, None))
        except Exception as raised:  # noqa: BLE001 - its class is the result
            return type(raised)
        finally:
            await models.aclose()
        return None

    assert asyncio.run(ping()) is error


# From the settings


def test_settings_make_one_model_of_the_provider_default() -> None:
    models = models_at(
        NOWHERE,
        openai_api_key="sk-1\n",
        llm_connect_timeout_s=1,
        llm_first_token_timeout_s=2,
        llm_idle_timeout_s=3,
    )
    resolved = models.resolve("default/small", None)
    assert (resolved.slug, resolved.name, resolved.fell_through) == ("default", "small", None)
    made = resolved.chat
    assert (made.openai_api_base, made.openai_api_key) == (NOWHERE, SecretStr("sk-1"))
    limits = (made.connect_timeout_s, made.first_token_timeout_s, made.idle_timeout_s)
    assert (limits, made.max_retries) == ((1, 2, 3), 0)


def test_a_key_alone_means_openai_and_an_address_alone_needs_no_key() -> None:
    with_key = open_models(settings(openai_api_key="sk-1", openai_model="gpt-5"))
    made = [models.resolve(None, None).chat for models in (with_key, models_at(NOWHERE))]
    assert [(chat.openai_api_base, chat.openai_api_key) for chat in made] == [
        ("https://api.openai.com/v1", SecretStr("sk-1")),
        (NOWHERE, SecretStr("none")),
    ]


def test_a_wrong_model_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="LOCAL_MODEL_PATH must name a GGUF file"):
        open_models(settings(local_model_path=tmp_path / "missing.gguf"))


def test_without_a_provider_the_embedded_model_answers_and_comes_back_when_it_dies(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    models = open_models(settings(data_dir=tmp_path))
    local, resolved = models._local, models.resolve(None, None)
    assert local is not None
    assert (resolved.slug, resolved.name) == ("embedded", BUNDLED_NAME)
    own = models.environment
    assert (own.slug, own.base_url, own.api_key) == ("embedded", "", None)
    assert own.models == (ModelEntry(BUNDLED_NAME),)
    assert "a small model for demonstration" in caplog.text

    async def use() -> list[int]:
        seen = [await models.context_window(resolved), await answered()]
        os.kill(local.pid or 0, signal.SIGKILL)
        await asyncio.to_thread(psutil.wait_procs, [psutil.Process(local.pid)], 5)
        with pytest.raises(ModelUnreachable):
            await answered()
        seen += [await models.context_window(resolved), await answered()]
        await models.ping(resolved)
        await models.aclose()
        return seen

    async def answered() -> int:
        stream = models.bound(resolved, max_tokens=3).astream("Hello")
        chunks = [chunk async for chunk in stream]
        return sum(len(tokens_of(chunk)) > 0 for chunk in chunks) and 1

    assert asyncio.run(use()) == [4096, 1, 4096, 1]
    assert not local.alive()
    assert (tmp_path / "local-model.log").exists()


# Those that admins enter

KEY = SecretStr("sk-canary-of-a-row")
SMALL, LARGE = ModelEntry("small"), ModelEntry("large")


async def unnoted(*_: object) -> None:
    """Nobody is told of a change."""


@dataclass
class Entered:
    """A database of providers, and the models of a service that reads it."""

    url: str
    providers: Providers
    models: Models

    async def enter(self, slug: str, base_url: str = NOWHERE, **more: Any) -> Provider:
        entry = more.pop("entry", ModelEntry("small"))
        return await self.providers.insert(
            Provider(slug, slug, base_url, (entry,), KEY, **more), noted=unnoted
        )

    async def used(self, wanted: str | None = None) -> str:
        """The id of the model that is used now."""
        await self.models.refresh(anew=True)
        resolved = self.models.resolve(wanted, None)
        return f"{resolved.slug}/{resolved.name}"


@pytest.fixture(scope="module")
def migrated(postgres_url: str) -> str:
    url = migrated_database(postgres_url)
    return url


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stands still is no database that is away."""
    for patience in ("_PATIENCE_S", "_FIRST_PATIENCE_S"):
        monkeypatch.setattr(f"graph.offers.{patience}", 30)


@asynccontextmanager
async def entered(url: str) -> AsyncIterator[Entered]:
    with psycopg.connect(url) as connection:
        connection.execute("delete from providers")
    async with open_pool(url, max_size=3) as pool:
        providers = Providers(pool, Secrets([SecretStr("0123456789abcdef")]))
        given = settings(openai_base_url=NOWHERE, openai_model="own", llm_idle_timeout_s=5)
        models = await asyncio.to_thread(open_models, given, ProviderOffers(providers, given))
        yield Entered(url, providers, models)
        await models.aclose()


def test_of_models_with_one_name_the_defaults_comes_first_and_then_the_oldest(
    migrated: str,
) -> None:
    async def use() -> list[str]:
        async with entered(migrated) as rows:
            used = [await rows.used()]
            old, new = await rows.enter("old"), await rows.enter("new")
            used += [await rows.used(), await rows.used("small"), await rows.used("new/small")]
            await rows.providers.update(new.id, is_default=True, noted=unnoted)
            used += [await rows.used(), await rows.used("small"), await rows.used("own")]
            await rows.providers.update(old.id, is_default=True, noted=unnoted)
            used += [await rows.used(), await rows.used("small")]
            await rows.providers.delete(old.id, noted=unnoted)
            return [*used, await rows.used(), await rows.used("small")]

    assert asyncio.run(use()) == [
        *("default/own", "default/own", "old/small", "new/small"),
        *("new/small", "new/small", "default/own"),
        *("old/small", "old/small"),
        *("default/own", "new/small"),
    ]


def test_the_fallback_is_another_model_that_can_be_used(migrated: str) -> None:
    async def use() -> list[str | None]:
        async with entered(migrated) as rows:
            first, second = await rows.enter("first"), await rows.enter("second")
            seen: list[str | None] = []

            async def look(wanted: str) -> None:
                await rows.models.refresh(anew=True)
                found = rows.models.fallback(rows.models.resolve(wanted, None))
                seen.append(found and f"{found.slug}/{found.name}")

            await look("own")
            await rows.providers.update(first.id, is_fallback=True, noted=unnoted)
            await look("own")
            await rows.providers.update(second.id, is_fallback=True, noted=unnoted)
            await look("first/small")
            await look("second/small")
            await rows.providers.update(second.id, is_enabled=False, noted=unnoted)
            await look("own")
            return seen

    assert asyncio.run(use()) == [None, "first/small", "second/small", None, None]


def test_the_row_says_the_window_and_the_price(migrated: str) -> None:
    async def use() -> list[tuple[int, Price | None]]:
        async with entered(migrated) as rows:
            await rows.enter("full", entry=ModelEntry("small", 700, 0.5, 2))
            await rows.enter("half", entry=ModelEntry("small", input_price=1))
            await rows.enter("bare")
            await rows.models.refresh(anew=True)
            found = [
                rows.models.resolve(f"{slug}/small", None) for slug in ("full", "half", "bare")
            ]
            return [(await rows.models.context_window(one), one.price) for one in found]

    assert asyncio.run(use()) == [
        (700, Price(0.5, 2)), (32_768, None), (32_768, None),
    ]  # fmt: skip


def test_what_an_endpoint_says_is_forgotten_when_the_provider_is_elsewhere(
    migrated: str, endpoint: Endpoint
) -> None:
    endpoint.says = {"data": [{"id": "small", "context_window": 7000}]}

    async def use() -> list[int]:
        async with entered(migrated) as rows:
            row, seen = await rows.enter("row", endpoint.base_url, is_default=True), []
            for base_url in (endpoint.base_url, NOWHERE, endpoint.base_url):
                await rows.providers.update(row.id, base_url=base_url, noted=unnoted)
                await rows.models.refresh(anew=True)
                seen.append(await rows.models.context_window(rows.models.resolve(None, None)))
            return seen

    assert asyncio.run(use()) == [7000, 32_768, 7000]
    assert endpoint.asked == 1


def sessions_of(chat: StreamingChatModel) -> list[aiohttp.ClientSession]:
    """The client sessions that are open for it."""
    [by_loop] = [value for value in vars(chat._sessions).values() if isinstance(value, dict)]
    return list(by_loop.values())


def test_a_removed_providers_connections_end_with_the_last_run_and_others_stay(
    migrated: str,
) -> None:
    async def use() -> tuple[list[bool], str]:
        async with entered(migrated) as rows:
            gone = await rows.enter("gone", model.base_url)
            kept = await rows.enter("kept", model.base_url)
            await rows.models.refresh(anew=True)
            chats = [rows.models.resolve(f"{one.slug}/small", None).chat for one in (gone, kept)]
            for chat in chats:
                await chat.list_models(2)
            sessions = [session for chat in chats for session in sessions_of(chat)]
            text, seen = "", []
            async for chunk in chats[0].astream("Why?"):
                if not text:
                    await rows.providers.delete(gone.id, noted=unnoted)
                    await rows.providers.update(
                        kept.id, name="Renamed", models=(SMALL, LARGE), noted=unnoted
                    )
                    await rows.models.refresh(anew=True)
                    await asyncio.sleep(0)
                    seen += [session.closed for session in sessions]
                text += str(chunk.text)
            seen += [session.closed for session in sessions]
            again = rows.models.resolve("kept/large", None).chat
            seen.append(again._sessions is chats[1]._sessions)
            # Somebody who had it before may still ask, and leaves nothing open.
            await chats[0].list_models(2)
            return [*seen, bool(sessions_of(chats[0]))], text

    with OpenAIStandIn() as model:
        model.will(Answer(["a", "b", "c"], delay_s=0.1))
        seen, text = asyncio.run(use())
    assert text == "abc"
    assert seen == [False, False, True, False, True, False]


def test_an_idle_provider_that_is_removed_is_closed_at_once(migrated: str) -> None:
    async def use() -> bool:
        async with entered(migrated) as rows:
            row = await rows.enter("row", model.base_url)
            await rows.models.refresh(anew=True)
            chat = rows.models.resolve("row/small", None).chat
            await chat.list_models(2)
            [session] = sessions_of(chat)
            await rows.providers.update(row.id, is_enabled=False, noted=unnoted)
            await rows.models.refresh(anew=True)
            await asyncio.sleep(0.05)
            return session.closed

    with OpenAIStandIn() as model:
        assert asyncio.run(use())


def test_a_row_that_nobody_could_have_entered_takes_no_other_away(
    migrated: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def use() -> list[str]:
        async with entered(migrated) as rows:
            await rows.enter("odd", "http://a\tb:99999/v1", is_default=True)
            await rows.enter("even")
            return [await rows.used(), await rows.used("small")]

    assert asyncio.run(use()) == ["default/own", "even/small"]
    assert "the provider 'odd' is left out: InvalidURL" in caplog.text


def test_rows_are_read_again_when_a_while_has_passed(
    migrated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.offers._FRESH_S", 60)

    async def use() -> list[str]:
        async with entered(migrated) as rows:
            seen = []
            row = await rows.enter("row", is_default=True)
            await asyncio.gather(*(rows.models.refresh() for _ in range(5)))
            for name in ("second", "third"):
                seen.append(rows.models.resolve(None, None).name)
                await rows.providers.update(row.id, models=(ModelEntry(name),), noted=unnoted)
                await rows.models.refresh()
            monkeypatch.setattr("graph.offers._FRESH_S", 0)
            await rows.models.refresh()
            return [*seen, rows.models.resolve(None, None).name]

    assert asyncio.run(use()) == ["small", "small", "third"]


@timed
def test_while_the_database_is_away_the_last_known_providers_count(
    migrated: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def use() -> tuple[str, float]:
        async with entered(migrated) as rows:
            await rows.enter("row", is_default=True)
            await rows.models.refresh()
            await rows.providers._pool.close()
            began = time.monotonic()
            return await rows.used(), time.monotonic() - began

    used, seconds = asyncio.run(use())
    assert used == "row/small"
    assert seconds < 1.2
    assert "the providers could not be read: PoolClosed" in caplog.text
