"""The watch for secrets finds what gets out: without this, its silence would mean nothing."""

import json
import logging
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from conftest import Service, ServiceFactory, make_database, upload
from cryptography.fernet import Fernet
from secrets_watch import WATCH, SecretsWatch, WatchedApp
from sse import read
from standins.openai import OpenAIStandIn
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from graph.secrets import open_secrets

SECRET = "a-secret-of-this-test"


@pytest.fixture
def watch() -> SecretsWatch:
    watch = SecretsWatch()
    watch.know("SECRET", SECRET)
    return watch


def sending(watch: SecretsWatch, *parts: bytes, **headers: str) -> httpx.Client:
    """A client of an app that answers all with these chunks and headers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": pairs})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return TestClient(WatchedApp(app, watch))


@pytest.mark.parametrize(
    ("parts", "headers", "found"),
    [
        ([f"x{SECRET}x".encode()], {}, ["SECRET in the answer to GET /a"]),
        ([SECRET[:5].encode(), SECRET[5:].encode()], {}, ["SECRET in the answer to GET /a"]),
        ([bytes([c]) for c in SECRET.encode()], {}, ["SECRET in the answer to GET /a"]),
        ([], {"x-info": SECRET}, ["SECRET in a header of the answer to GET /a"]),
        ([SECRET[:-1].encode(), b"\n", SECRET[-1:].encode()], {}, []),
    ],
)
def test_what_is_sent_is_searched_across_chunks(
    watch: SecretsWatch, parts: list[bytes], headers: dict[str, str], found: list[str]
) -> None:
    sending(watch, *parts, **headers).get("/a")
    assert watch.found() == found
    assert watch.found() == []


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ({"headers": {"X-API-Key": "key-of-somebody"}}, "a key in X-API-Key"),
        ({"headers": {"Authorization": "Bearer key-of-somebody"}}, "a token"),
        ({"json": {"apiKey": "key-of-somebody"}}, "the key of a provider"),
    ],
)
def test_what_callers_bring_is_a_secret_from_then_on(
    watch: SecretsWatch, request_: dict[str, dict[str, str]], name: str
) -> None:
    http = sending(watch, b"key-of-somebody")
    http.post("/providers/x")
    assert watch.found() == []
    http.post("/providers/x", **request_)  # type: ignore[arg-type]
    assert watch.found() == [f"{name} in the answer to POST /providers/x"]


def test_a_key_of_ones_own_may_be_shown_when_it_is_made_and_never_again(
    watch: SecretsWatch,
) -> None:
    made = json.dumps({"secret": "aw_0123456789"}).encode()
    http = sending(watch, made[:15], made[15:])
    http.post("/keys")
    assert watch.found() == []
    http.get("/keys")
    assert watch.found() == ["a key of one's own in the answer to GET /keys"]


@pytest.mark.parametrize("level", [logging.DEBUG, logging.ERROR])
def test_what_is_logged_is_searched_also_below_the_level_that_counts(
    watch: SecretsWatch, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("a.library")
    with watch.logs():
        logger.log(level, "it has %s", SECRET)
        assert watch.found() == [
            f"SECRET in a log record of a.library, level {logging.getLevelName(level)}"
        ]
        try:
            raise ValueError(SECRET)
        except ValueError:
            logger.log(level, "failed", exc_info=True)
        assert watch.found() == [
            f"SECRET in a log record of a.library, level {logging.getLevelName(level)}"
        ]
    logger.log(level, SECRET)
    assert watch.found() == []
    assert len(caplog.messages) == (3 if level == logging.ERROR else 0)


def test_files_and_rows_are_searched_binary_ones_too(
    watch: SecretsWatch, postgres_url: str, tmp_path: Path
) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.bin").write_bytes(b"\0\xff" + SECRET.encode() + b"\0")
    watch.search_folder(tmp_path)
    assert watch.found() == ["SECRET in the file a.bin"]
    url = make_database(postgres_url)
    with psycopg.connect(url) as database:
        database.execute("create table texts (x jsonb)")
        database.execute("create table blobs (x bytea)")
        database.execute("insert into texts values (%s)", (json.dumps({"a": SECRET}),))
        database.execute("insert into blobs values (%s)", (b"\0" + SECRET.encode(),))
    watch.search_database(url)
    assert watch.found() == [
        f"SECRET in a database dump, near 'public.{table}'" for table in ("blobs", "texts")
    ]


def test_what_a_turn_leaves_behind_is_found_in_each_place(
    service: Service, http: httpx.Client, project: str
) -> None:
    """A word of a user stands for a secret here: where it must be, the watch sees it."""
    word = f"quokka-{uuid.uuid4().hex}"
    watch = SecretsWatch()
    watch.know("the word", word)
    assert service.settings.database_url is not None
    upload(http, project, "a.md", f"# Here\n\nA {word} lives here.".encode())
    read(http, "POST", f"/chat/projects/{project}", json={"message": f"Where is a {word}?"})
    watch.search_database(service.settings.database_url.get_secret_value())
    tables = {one.rpartition("public.")[2].rstrip("'") for one in watch.found()}
    assert {"messages", "chunks"} <= tables
    assert not [table for table in tables if table.startswith("checkpoint")]
    watch.search_folder(service.settings.data_dir)
    assert watch.found() == []


def test_each_secret_of_a_service_is_known_and_was_used(
    service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    known = SecretsWatch()
    known.know_settings(service.settings)
    names = "DATABASE_URL EMBEDDING_API_KEY OPENAI_API_KEY RERANK_API_KEY SECRET_KEY TAVILY_API_KEY"
    assert known.names() == set(names.split()) <= WATCH.names()
    read(http, "POST", f"/chat/projects/{project}", json={"message": "Why?"})
    key = service.settings.openai_api_key
    assert key is not None
    sent = {chat.headers["authorization"] for chat in model.chats}
    assert sent == {f"Bearer {key.get_secret_value()}"}


@pytest.fixture
def provider_key(service: Service, http: httpx.Client, model: OpenAIStandIn) -> Iterator[str]:
    """The key of a provider that is entered."""
    key = f"sk-canary-{uuid.uuid4().hex}"
    body = {"name": "Pier", "slug": "pier", "baseUrl": model.base_url, "apiKey": key}
    made = http.post("/providers", json={**body, "models": ["m"]})
    assert made.status_code == 201, made.text
    yield key
    http.delete(f"/providers/{made.json()['provider']['id']}")


def test_the_key_of_a_provider_is_stored_encrypted_and_nowhere_else(
    service: Service, http: httpx.Client, project: str, provider_key: str, model: OpenAIStandIn
) -> None:
    assert "the key of a provider" in WATCH.names()
    body = {"message": "Why?", "modelId": "pier/m"}
    read(http, "POST", f"/chat/projects/{project}", json=body)
    assert model.chats[-1].headers["authorization"] == f"Bearer {provider_key}"
    [row] = service.query("select api_key from providers where slug = 'pier'")
    stored = bytes(row["api_key"])
    assert open_secrets(service.settings).decrypt(stored).get_secret_value() == provider_key
    assert service.settings.database_url is not None
    watch = SecretsWatch()
    watch.know("the key", provider_key)
    watch.know("what is stored", stored.decode())
    watch.search_database(service.settings.database_url.get_secret_value())
    assert watch.found() == ["what is stored in a database dump, near 'public.providers'"]


def test_a_service_fails_at_its_end_where_a_secret_got_out(
    start_service: ServiceFactory, tmp_path: Path
) -> None:
    secret = Fernet.generate_key().decode()

    def leave_it() -> None:
        with start_service(data_dir=tmp_path) as service, service.changing() as database:
            WATCH.know("something", secret)
            (tmp_path / "left.txt").write_text(secret)
            database.execute("create table left_over as select %s::text", (secret,))

    with pytest.raises(AssertionError) as failure:
        leave_it()
    told = str(failure.value)
    assert "something in a database dump, near 'public.left_over'" in told
    assert "something in the file left.txt" in told
    assert secret not in told
