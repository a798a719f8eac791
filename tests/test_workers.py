"""Several processes behind one address, with everything embedded."""

import re
import signal
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from conftest import upload
from freezing import frozen
from sse import read
from standins.collector import CollectorStandIn
from standins.openai import Answer, OpenAIStandIn
from test_documents import search
from test_server import (
    SERVE,
    Draft,
    Process,
    drafting_body,
    environment,
    refused,
    wait_until,
)
from timed import timed

from graph.knowledge.ownership import Ownership, VectorsInUse
from graph.postgres import embedded_postgres

pytestmark = pytest.mark.slow

TEXT = (
    b"# Gauges\n\nThe gauge at the north pier reads 41 cm at low water, and 212 cm at high water."
)


class Workers(Process):
    """A service of two workers."""

    def __init__(self, folder: Path, settings: dict[str, str]) -> None:
        super().__init__(folder, environment(WORKERS="2", **settings), SERVE)

    @property
    def workers(self) -> list[psutil.Process]:
        return self._children("api.worker")

    @property
    def vectors(self) -> list[psutil.Process]:
        return self._children("graph.knowledge.chroma_server")

    def _children(self, module: str) -> list[psutil.Process]:
        found = psutil.Process(self.child.pid).children()
        return [one for one in found if one.is_running() and module in command(one)]

    def everything(self) -> list[psutil.Process]:
        """All processes, those of Postgres too."""
        [first, *_] = (self.folder / "data/postgres/postmaster.pid").read_text().splitlines()
        roots = [psutil.Process(self.child.pid), psutil.Process(int(first))]
        return [*roots, *(one for root in roots for one in root.children(recursive=True))]


def command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@contextmanager
def serving(folder: Path, settings: dict[str, str]) -> Iterator[Workers]:
    service = Workers(folder, settings)
    try:
        service.wait_until_ready()
        yield service
    finally:
        service.child.kill()
        service.child.wait()


def assert_gone(processes: list[psutil.Process], within_s: float = 30) -> None:
    def left() -> list[psutil.Process]:
        return [one for one in processes if one.is_running() and one.status() != "zombie"]

    wait_until(lambda: not left(), within_s)


@pytest.fixture(scope="module")
def collector() -> Iterator[CollectorStandIn]:
    with CollectorStandIn() as running:
        yield running


@pytest.fixture(scope="module")
def settings(shared_model: OpenAIStandIn, collector: CollectorStandIn) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": shared_model.base_url,
        "OPENAI_MODEL": "stand-in",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
    }


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Not under pytest's folder, which the user may not enter as whom Postgres runs."""
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def service(folder: Path, settings: dict[str, str]) -> Iterator[Workers]:
    """A service of which the last worker has erased a project."""
    with serving(folder, settings) as running:
        with connected(running) as http, alone(running.workers[-1], running.workers):
            project = http.post("/projects", json={"name": "Gone"}).json()["project"]["id"]
            assert http.delete(f"/projects/{project}").status_code == 204
        yield running


@pytest.fixture
def http(service: Workers) -> Iterator[httpx.Client]:
    with connected(service) as client:
        yield client


def connected(service: Workers) -> httpx.Client:
    """A client whose every request has a connection of its own."""
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=service.url, timeout=30, trust_env=False, limits=limits)


def alone(worker: psutil.Process, workers: list[psutil.Process]) -> AbstractContextManager[None]:
    """The other workers stand still meanwhile."""
    return frozen([one for one in workers if one != worker])


def test_the_start_up_text_is_printed_once_and_tells_what_is_embedded(service: Workers) -> None:
    facts = dict(re.findall(r"^  (\w[\w ]*?)  +(\S.*)$", service.out, re.MULTILINE))
    assert (facts["Database"], facts["Vectors"], facts["Workers"]) == (
        "Postgres, embedded",
        "Chroma, embedded",
        "2 processes",
    )
    assert service.out.count("is running") == 1
    assert len(service.workers) == 2


def test_what_one_worker_took_in_each_finds(service: Workers, http: httpx.Client) -> None:
    project = http.post("/projects", json={"name": "Gauges"}).json()["project"]["id"]
    upload(http, project, "gauges.md", TEXT)
    found = []
    for worker in service.workers:
        with alone(worker, service.workers):
            found += [hit["content"] for hit in search(http, project, "north pier")]
    assert found == [found[0]] * 2
    assert "41 cm" in found[0]


def test_each_worker_tells_the_metrics_of_all_and_sends_its_traces(
    service: Workers,
    http: httpx.Client,
    shared_model: OpenAIStandIn,
    collector: CollectorStandIn,
) -> None:
    shared_model.will(Answer(["One", " two"]))
    body = {"message": "Which?", "doc_type": "UNSORTED"}
    for worker in service.workers:
        with alone(worker, service.workers):
            events = read(http, "POST", "/api/v1/chat/generate", json=body)
        collector.trace_of(events[0].id.split(":")[0])
    for worker in service.workers:
        with alone(worker, service.workers):
            assert metric(http, 'runs_total{api="legacy",outcome="stop"}') == 2
            assert metric(http, 'tokens_streamed_total{api="legacy"}') == 4
            assert metric(http, 'first_token_seconds_count{api="legacy"}') == 2


def metric(http: httpx.Client, name: str) -> float:
    found = re.findall(f"^archwright_{re.escape(name)} (.+)$", http.get("/metrics").text, re.M)
    return float(found[0])


def test_the_parent_owns_the_vectors(service: Workers, folder: Path) -> None:
    with pytest.raises(VectorsInUse, match=f"in use by process {service.child.pid}"):
        Ownership(folder / "data/chroma")


def test_no_secret_is_in_the_command_or_the_environment_of_a_child(service: Workers) -> None:
    [vectors] = service.vectors
    assert set(vectors.environ()) == {"LC_ALL", "RUST_LOG"}
    for one in service.workers:
        assert all(word.isdigit() for word in command(one)[3:])


def test_who_is_killed_is_replaced_and_the_others_go_on(
    service: Workers, http: httpx.Client
) -> None:
    before, [vectors] = service.workers, service.vectors
    for one in (before[0], vectors):
        one.kill()
    assert http.get("/").json()["status"] == "running"
    wait_until(lambda: len({*service.workers} - {before[0]}) == 2, 30)
    wait_until(lambda: http.get("/api/v1/system/health").json()["status"] == "OK", 30)
    assert f"worker {before[0].pid} has ended; another starts in 0.5 s" in service.err
    assert "the embedded vector store has died; starting it again" in service.err


def test_the_embedded_postgres_is_scrubbed(service: Workers, folder: Path) -> None:
    with (
        embedded_postgres(folder / "data/postgres") as url,
        psycopg.connect(url, autocommit=True) as rows,
    ):
        wait_until(lambda: rows.execute("select from erasures").rowcount == 0, 60)
    assert "what was erased is out of the database's files" in service.err


def test_the_replacement_serves(service: Workers, http: httpx.Client) -> None:
    with alone(service.workers[-1], service.workers):
        assert http.get("/api/v1/system/health").json()["status"] == "OK"


def test_what_was_open_in_a_worker_that_is_killed_is_open_no_more(
    service: Workers, http: httpx.Client, shared_model: OpenAIStandIn
) -> None:
    shared_model.will(Answer(["One "], end="hang"))
    ours, theirs = service.workers
    with ExitStack() as streams:
        with alone(ours, service.workers):
            draft = http.stream("POST", "/api/v1/chat/stream", json=drafting_body("Which?"))
            run_id = streams.enter_context(draft).headers["x-run-id"]
        with alone(theirs, service.workers):
            streams.enter_context(http.stream("GET", f"/runs/{run_id}/stream"))
        wait_until(lambda: metric(http, "streams_open") == 2, 20)
        theirs.kill()
        wait_until(lambda: metric(http, "streams_open") == 1, 20)
        assert metric(http, 'runs_total{api="legacy",outcome="stop"}') == 2
        http.post(f"/runs/{run_id}/stop").raise_for_status()
    wait_until(lambda: len(service.workers) == 2, 20)
    wait_until(lambda: metric(http, "streams_open") == 0, 20)


@timed
def test_sigterm_lets_a_run_finish_and_leaves_no_process(
    service: Workers, shared_model: OpenAIStandIn, collector: CollectorStandIn
) -> None:
    shared_model.will(Answer(["one ", "two ", "three"], delay_s=0.5))
    draft, everything = Draft(service.url), service.everything()
    service.child.send_signal(signal.SIGTERM)
    assert service.wait_for_exit(30) == 0
    [(name, data)] = draft.terminal
    assert (name, data["full_response"]) == ("done", "one two three")
    assert collector.trace_of(data["metadata"]["run_id"], within_s=0)
    assert_gone(everything, 1)
    assert "Traceback" not in service.err
    assert "other vectors" not in service.err


def test_a_parent_that_is_killed_leaves_no_process_and_its_address_is_free(
    folder: Path, settings: dict[str, str]
) -> None:
    with serving(folder, settings) as service:
        everything, port = service.everything(), int(service.url.rpartition(":")[2])
        service.child.kill()
        service.child.wait()
        assert_gone(everything, 20)
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused(tmp_path, "--workers", "2", PORT=str(port))
    assert (code, said.count("\n")) == (1, 1)
    assert f"port {port}: Address already in use" in said
    assert list(tmp_path.iterdir()) == []


def test_what_keeps_a_worker_from_starting_is_one_line(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    away = "postgresql://127.0.0.1:1/away"
    code, said = refused(tmp_path, "--workers", "2", PORT="0", DATABASE_URL=away, **settings)
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("DATABASE_URL: ")
