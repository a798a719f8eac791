"""The service as a process: what it prints at start, what stops it, and how it ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import make_database
from forked import Forked, ran
from secrets_watch import WATCH
from standins.openai import Answer, OpenAIStandIn
from timed import timed

SERVE = ["serve", "--port", "0"]
ENDLESS = Answer(["word "] * 1000, delay_s=0.1)

Start = Callable[..., AbstractContextManager["Process"]]


class Process:
    """A service in a process of its own; what it wrote is in `out` and `err`."""

    def __init__(
        self,
        folder: Path,
        environment: dict[str, str],
        arguments: Sequence[str] = SERVE,
        *,
        renew_s: float | None = None,
    ) -> None:
        self.folder = folder
        self._out, self._err = folder / "out", folder / "err"
        self._out.write_text("")
        self._err.write_text("")
        self.child = Forked(arguments, folder, environment, self._out, self._err, renew_s=renew_s)

    @property
    def out(self) -> str:
        return self._out.read_text()

    @property
    def err(self) -> str:
        return self._err.read_text()

    @property
    def url(self) -> str:
        [url] = re.findall(r"Address +(http://\S+)", self.out)
        return str(url)

    def wait_until_ready(self) -> None:
        wait_until(lambda: "curl" in self.out or self.child.poll() is not None, 60)
        assert self.child.poll() is None, self.err

    def wait_for_exit(self, within_s: float) -> int:
        return self.child.wait(within_s)


def wait_until(condition: Callable[[], bool], within_s: float) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, f"not within {within_s:g} s"
        time.sleep(0.05)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with other settings; those of the developer don't count."""
    kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR")}
    return {**kept, **settings}


@contextmanager
def process(folder: Path, **settings: str) -> Iterator[Process]:
    """A service that is ready, in a process that works in `folder`."""
    process = Process(folder, environment(**settings))
    try:
        process.wait_until_ready()
        yield process
    finally:
        process.child.kill()
        process.child.wait()
    for name in ("API_KEY", "OPENAI_API_KEY"):
        WATCH.know(name, settings.get(name, ""))
    WATCH.search_folder(folder)
    if "DATABASE_URL" in settings:
        WATCH.search_database(settings["DATABASE_URL"])
    WATCH.check()


def stood_in(model: OpenAIStandIn, postgres_url: str) -> dict[str, str]:
    """The settings for a database of its own and the stand-in model."""
    return {
        "DATABASE_URL": make_database(postgres_url),
        "OPENAI_BASE_URL": model.base_url,
        "OPENAI_API_KEY": "sk-canary-model-key",
        "OPENAI_MODEL": "stand-in",
    }


@pytest.fixture
def start(model: OpenAIStandIn, postgres_url: str, tmp_path: Path) -> Start:
    """Start a service with a database of its own, which asks the stand-in model."""
    return lambda **more: process(tmp_path, **stood_in(model, postgres_url), **more)


@pytest.fixture(scope="module")
def served(
    shared_model: OpenAIStandIn, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    """One service with a key, for the tests that leave it as it is."""
    folder = tmp_path_factory.mktemp("served")
    settings = stood_in(shared_model, postgres_url)
    with process(folder, **settings, API_KEY="canary-of-a-key", LOG_LEVEL="DEBUG") as service:
        yield service


def drafting_body(message: str) -> dict[str, str]:
    return {
        "conversation_id": str(uuid.uuid4()),
        "project_id": str(uuid.uuid4()),
        "message": message,
    }


class Draft(threading.Thread):
    """A draft that is being read; `events` are its events so far."""

    def __init__(self, url: str, message: str = "Draft it.") -> None:
        super().__init__(daemon=True)
        self._url, self._body = url, drafting_body(message)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.start()
        wait_until(lambda: bool(self.events), 20)

    def run(self) -> None:
        path = f"{self._url}/api/v1/chat/stream"
        with httpx.stream("POST", path, json=self._body, timeout=30) as response:
            name = ""
            for line in response.iter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    self.events.append((name, json.loads(value)))

    @property
    def terminal(self) -> list[tuple[str, dict[str, Any]]]:
        self.join(30)
        assert not self.is_alive(), "the stream did not end"
        return [event for event in self.events if event[0] != "message"]


def test_sigterm_lets_a_short_run_finish_and_the_log_holds_nothing_that_was_asked(
    start: Start, model: OpenAIStandIn
) -> None:
    model.will(Answer(["one ", "two ", "three"], delay_s=0.5))
    with start(LOG_FORMAT="json", LOG_LEVEL="DEBUG") as service:
        draft = Draft(service.url, "canary of a message")
        service.child.send_signal(signal.SIGTERM)
        assert service.wait_for_exit(20) == 0
        [(name, data)] = draft.terminal
        assert (name, data["full_response"]) == ("done", "one two three")
        lines = [json.loads(line) for line in service.err.splitlines()]
        assert {"time", "level", "logger", "message"} <= lines[0].keys()
        assert "canary" not in service.err


@timed
def test_a_second_interrupt_does_not_wait_for_runs(start: Start, model: OpenAIStandIn) -> None:
    model.will(ENDLESS)
    with start() as service:
        draft = Draft(service.url)
        service.child.send_signal(signal.SIGINT)
        time.sleep(0.5)
        service.child.send_signal(signal.SIGINT)
        assert service.wait_for_exit(9) == 0
        assert [name for name, _ in draft.terminal] == ["error"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_line_works_as_printed_and_does_not_show_the_key(
    served: Process, model: OpenAIStandIn
) -> None:
    model.will(Answer(["Tide", "watch"]))
    [line] = [line for line in served.out.splitlines() if line.startswith("curl")]
    key = {"API_KEY": "canary-of-a-key"}
    asked = subprocess.run(
        ["sh", "-c", line], env=environment(**key), capture_output=True, timeout=30, check=True
    )
    assert b'"token":"Tide"' in asked.stdout
    assert b"event: done" in asked.stdout
    assert "canary-of-a-key" not in served.out + served.err


def test_the_start_up_text_says_what_is_external_and_where_the_data_lies(served: Process) -> None:
    facts = dict(re.findall(r"^  (\w[\w ]*?)  +(\S.*)$", served.out, re.MULTILINE))
    assert facts["Database"].endswith(", external")
    assert facts["Vectors"] == "Chroma, embedded"
    assert facts["Embeddings"] == "WordLlama and MiniLM, embedded"
    assert re.fullmatch(r"stand-in at 127\.0\.0\.1:\d+, external", facts["Language model"])
    assert facts["Data"] == str(served.folder / "data")
    assert facts["API"] == (
        f"{served.url}/docs, for those who send their credentials with each request"
    )
    assert "\x1b" not in served.out
    assert httpx.get(served.url).json()["status"] == "running"


def refused(folder: Path, *options: str, **settings: str) -> tuple[int, str]:
    """The exit code and what stands on stderr of a service that does not start."""
    done = ran(folder, environment(**settings), "serve", *options)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_an_open_door_is_refused_with_one_line_before_anything_is_opened(tmp_path: Path) -> None:
    code, said = refused(tmp_path, HOST="0.0.0.0", PORT="0")
    assert code == 2
    assert said.startswith("HOST: ")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = refused(tmp_path, PORT=str(port))
    assert code == 1
    assert f"port {port}: Address already in use" in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["203.0.113.7", "a..b"])
def test_a_host_that_is_not_here_is_one_line(tmp_path: Path, host: str) -> None:
    code, said = refused(tmp_path, HOST=host, PORT="0", API_KEY="a-key")
    assert (code, said.count("\n")) == (1, 1)
    assert host in said


@pytest.mark.parametrize(
    ("url", "ends"),
    [("postgresql://127.0.0.1:1/away", 1), ("postgresql://[away", 2), ("no address", 2)],
)
def test_a_database_that_is_away_is_one_line(tmp_path: Path, url: str, ends: int) -> None:
    code, said = refused(tmp_path, DATABASE_URL=url, PORT="0")
    assert (code, said.count("\n")) == (ends, 1)
    assert said.startswith("DATABASE_URL: ")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_misspelt_setting_is_told_at_the_start(tmp_path: Path, workers: str) -> None:
    (tmp_path / ".env").write_text("DATABASE_ULR=postgresql://ann:hush@h/x\n")
    code, said = refused(tmp_path, "--workers", workers, HOST="203.0.113.7", API_KEY="a-key")
    assert (code, "hush" in said) == (1, False)
    assert said.count(".env: there is no setting DATABASE_ULR; the nearest is DATABASE_URL") == 1


def test_a_data_folder_in_use_is_one_line(served: Process, postgres_url: str) -> None:
    code, said = refused(
        served.folder,
        PORT="0",
        DATABASE_URL=make_database(postgres_url),
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
        OPENAI_MODEL="any",
    )
    assert code == 1
    assert f"in use by process {served.child.pid}" in said
    assert said.count("\n") == 1
