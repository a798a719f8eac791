"""Real parts for the tests: an embedded Postgres, a running service, stand-ins for what is paid."""

import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from secrets_watch import WATCH, WatchedApp
from standins.openai import OpenAIStandIn
from standins.tavily import TavilyStandIn

from api.app import create_app
from api.database.migrations import migrate
from api.heads import BoundedHttp
from api.logs import _OURS
from api.settings import Settings
from graph.postgres import embedded_postgres

pytest_plugins = ["browsers", "javascript"]

# The longest first.
_FIRST = tuple(
    f"test_{name}.py"
    for name in (
        "clients", "page_project", "killed", "matrix", "page_chat_faults", "database_faults",
        "page_drafting", "faults", "page_chat", "server", "ingestion", "studio", "cli", "vectors",
        "workers", "page_admin", "erasure", "page_texts", "reading", "architecture", "models",
        "keys_of_requests", "local_model", "chat", "crashes", "resuming", "streams",
    )
)  # fmt: skip

_CANARIES = {
    "embedding_api_key": "canary-embedding-key",
    "rerank_api_key": "canary-rerank-key",
    "secret_key": "canary-secret-key-0123456789abcdef,canary-older-key-0123456789abcdef",
}
_DATABASE_PASSWORD = "canary-database-password"

ServiceFactory = Callable[..., AbstractContextManager["Service"]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker is left alone with one."""
    place = {name: number for number, name in enumerate(_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def _watched_logs() -> Iterator[None]:
    with WATCH.logs():
        yield
    WATCH.check()


@pytest.fixture(autouse=True)
def _no_secret_gets_out() -> Iterator[None]:
    yield
    WATCH.check()


@pytest.fixture(autouse=True)
def _levels_of_logs() -> Iterator[None]:
    """Give our loggers their levels back: a command sets up the log of its process, here ours."""
    levels = {name: logging.getLogger(name).level for name in _OURS}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class Service:
    """A running service: its address, its app, and the settings that it was started with."""

    url: str
    app: FastAPI
    settings: Settings

    def client(self, **headers: str) -> httpx.Client:
        """An HTTP client for it; every wait is bounded."""
        # The service closes an idle connection after 5 s, and so would httpx: in the same moment.
        limits = httpx.Limits(keepalive_expiry=2)
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=30, trust_env=False, limits=limits
        )

    def beside(self) -> dict[str, Any]:
        """The settings of another worker on the same database."""
        return self.settings.model_dump(exclude={"data_dir"})

    @contextmanager
    def changing(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection to the service's database, committed at the end."""
        assert self.settings.database_url is not None
        with psycopg.connect(self.settings.database_url.get_secret_value()) as connection:
            yield connection

    def query(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of the service's database."""
        assert self.settings.database_url is not None
        url = self.settings.database_url.get_secret_value()
        with psycopg.connect(url, row_factory=dict_row) as connection:
            return connection.execute(sql, values).fetchall()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The URL of an embedded Postgres server for the whole session.

    Not under pytest's folder, which a session that starts beside this one closes to other users:
    as root, Postgres runs as another user.
    """
    with TemporaryDirectory() as folder, embedded_postgres(Path(folder) / "data") as url:
        with psycopg.connect(url, autocommit=True) as connection:
            # Nothing here is to outlive the machine.
            connection.execute("alter system set fsync = off")
            connection.execute("select pg_reload_conf()")
        yield url


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for an embedded Postgres of the test's own, outside pytest's: see `postgres_url`."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


def make_database(postgres_url: str, *, like: str = "template1") -> str:
    """Make a database of its own on the server, and give its URL."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'create database "{name}" template "{like}"')
    # Which is not asked for.
    with_password = postgres_url.replace("postgres:@", f"postgres:{_DATABASE_PASSWORD}@")
    return with_password.replace("/postgres?", f"/{name}?")


def migrated_database(postgres_url: str) -> str:
    """A database like that, with all tables."""
    return make_database(postgres_url, like=_with_all_tables(postgres_url))


@cache
def _with_all_tables(postgres_url: str) -> str:
    """The name of a database that others are copied from: migrating takes longer."""
    url = make_database(postgres_url)
    migrate(url)
    return conninfo_to_dict(url)["dbname"]


def _drop_database(postgres_url: str, url: str) -> None:
    """Drop it at once: to remove hundreds at the end takes longer than a test may."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f'drop database "{conninfo_to_dict(url)["dbname"]}" with (force)')


@contextmanager
def running(app: FastAPI, settings: Settings) -> Iterator[Service]:
    """Serve `app` on a free port of loopback, in a thread with an event loop of its own.

    No secret of `settings` and of its callers may get out of it, nor be in what it leaves behind.
    """
    WATCH.know_settings(settings)
    config = uvicorn.Config(
        WatchedApp(app, WATCH),
        host="127.0.0.1",
        port=0,
        http=BoundedHttp,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        _wait_until(lambda: server.started or not thread.is_alive(), 60)
        assert server.started, "the service did not start"
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Service(f"http://127.0.0.1:{port}", app, settings)
        if settings.database_url is None:
            WATCH.search_database(app.state.parts.pool.conninfo)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the service did not stop"
    if settings.database_url is not None:
        WATCH.search_database(settings.database_url.get_secret_value())
    WATCH.search_folder(settings.data_dir)
    WATCH.check()


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        pause.wait(0.02)


@pytest.fixture(scope="session")
def start_service(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> ServiceFactory:
    """Start a service with its own database and data folder; settings by keyword."""

    @contextmanager
    def start(**overrides: Any) -> Iterator[Service]:
        values = {
            "data_dir": tmp_path_factory.mktemp("data"),
            "database_url": migrated_database(postgres_url),
            "log_level": "WARNING",
            **_CANARIES,
            **overrides,
        }
        settings = Settings(_env_file=None, **values)
        with running(create_app(settings), settings) as service:
            yield service
        if "database_url" not in overrides:
            _drop_database(postgres_url, values["database_url"])

    return start


@pytest.fixture(scope="session")
def shared_model() -> Iterator[OpenAIStandIn]:
    """The model that the shared service asks."""
    with OpenAIStandIn() as model:
        yield model


@pytest.fixture(scope="session")
def shared_tavily() -> Iterator[TavilyStandIn]:
    """The web search that the shared service asks."""
    with TavilyStandIn() as tavily:
        yield tavily


@pytest.fixture(scope="session")
def shared_service(
    start_service: ServiceFactory, shared_model: OpenAIStandIn, shared_tavily: TavilyStandIn
) -> Iterator[Service]:
    """One service for all tests that need nothing special."""
    with start_service(
        openai_base_url=shared_model.base_url,
        openai_api_key="sk-canary-model-key",
        openai_model="stand-in",
        tavily_api_key="tvly-canary-key",
        tavily_base_url=shared_tavily.base_url,
    ) as service:
        yield service


@pytest.fixture
def model(shared_model: OpenAIStandIn) -> OpenAIStandIn:
    """The shared model, with no answers left over from another test."""
    shared_model.reset()
    return shared_model


@pytest.fixture
def tavily(shared_tavily: TavilyStandIn) -> TavilyStandIn:
    """The shared web search, with no answers left over from another test."""
    shared_tavily.reset()
    return shared_tavily


@pytest.fixture
def service(shared_service: Service, model: OpenAIStandIn, tavily: TavilyStandIn) -> Service:
    """The shared service."""
    return shared_service


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    """A client of the shared service."""
    with service.client() as client:
        yield client


@pytest.fixture
def project(http: httpx.Client) -> str:
    """The id of an empty project."""
    answer = http.post("/projects", json={"name": "Harbour"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["project"]["id"])


def upload(client: httpx.Client, project: str, name: str, data: bytes) -> dict[str, Any]:
    """Upload a file and wait until it is indexed or failed; gives the document."""
    answer = client.post(f"/documents/projects/{project}", files={"file": (name, data)})
    assert answer.status_code == 202, answer.text
    [document] = answer.json()["documents"]
    found: dict[str, Any] = {}

    def settled() -> bool:
        found.update(client.get(f"/documents/{document['id']}").json()["document"])
        return found["status"] != "processing"

    _wait_until(settled, 30)
    assert settled(), "the document was not processed in time"
    return found
