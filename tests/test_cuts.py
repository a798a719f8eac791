"""Streams that are cut at random bytes and resumed: nothing lost, nothing twice, nothing reordered.

25 cuts, or as many as CUTS says: `CUTS=200 .venv/bin/python -m pytest tests/test_cuts.py`.
"""

import os
import random
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from threading import Event as Flag
from typing import Any

import httpx
import pytest
from conftest import Service, ServiceFactory
from sse import Event, events_of, read
from standins.openai import Answer, OpenAIStandIn
from standins.relay import Relay, relaying

pytestmark = pytest.mark.slow

CUTS = int(os.environ.get("CUTS", "25"))
SEED = os.environ.get("SEED", "1")
READERS = 5
RESTARTS = max(1, CUTS // 50)
ANSWER = Answer([f"w{n} " for n in range(40)], delay_s=0.015)
MOST_BYTES = 2500
ENDS = ("done", "error")


@dataclass
class Reader:
    """A client behind a wire that breaks; `urls` are where the workers are now."""

    relay: Relay
    urls: list[str]
    project: str
    rng: random.Random
    restarting: Flag
    cuts: Counter[str] = field(default_factory=Counter)

    def ask(self) -> tuple[str, list[Event]]:
        """Start a run and read it to its end; gives its id and what was put together."""
        path, body = self._question()
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        run_id, events = "", list[Event]()
        is_late = self.rng.random() < 0.4
        until = time.monotonic() + 60
        while not events or events[-1].name not in ENDS:
            assert time.monotonic() < until, f"run {run_id} did not come to its end"
            if not run_id:
                run_id, new = self._piece(0, "POST", path, json=body, headers=headers)
            else:
                if is_late:
                    self._wait_for_end(run_id)
                place = self._place(events)
                worker = self.rng.randrange(2)
                _, new = self._piece(worker, "GET", f"/runs/{run_id}/stream", **place)
            events += new
        return run_id, events

    def _question(self) -> tuple[str, dict[str, Any]]:
        if self.rng.random() < 0.5:
            return f"/chat/projects/{self.project}", {"message": "Go on."}
        ids = {"conversation_id": str(uuid.uuid4()), "project_id": self.project}
        return "/api/v1/chat/stream", {"message": "Go on.", **ids}

    def _place(self, events: list[Event]) -> dict[str, Any]:
        if not events:
            return {}
        if self.rng.random() < 0.3:
            return {"params": {"after": events[-1].id.rpartition(":")[2]}}
        return {"headers": {"Last-Event-ID": events[-1].id}}

    def _piece(
        self, worker: int, method: str, path: str, **arguments: Any
    ) -> tuple[str, list[Event]]:
        """The run's id, if it came through, and the whole events of one connection."""
        hard = self.rng.random() < 0.5
        cut_after = self.rng.randrange(1, MOST_BYTES)
        url = self.relay.to(self.urls[worker], cut_after=cut_after, hard=hard)
        run_id, received = "", b""
        try:
            with (
                httpx.Client(base_url=url, timeout=20, trust_env=False) as http,
                http.stream(method, path, **arguments) as response,
            ):
                if response.status_code == 503:
                    return "", []
                assert response.status_code == 200, response.read()
                run_id = response.headers["x-run-id"]
                for piece in response.iter_raw():
                    received += piece
        except httpx.TransportError:
            self.cuts[f"{'RST' if hard else 'FIN'} at worker {worker}"] += 1
            self.cuts["during a restart"] += self.restarting.is_set()
        whole, end, half = received.rpartition(b"\n\n")
        self.cuts["in the middle of an event"] += bool(half)
        return run_id, events_of(whole + end)

    def _wait_for_end(self, run_id: str) -> None:
        with httpx.Client(base_url=self.urls[0], timeout=20, trust_env=False) as http:
            for _ in range(200):
                if http.get(f"/runs/{run_id}").json()["run"]["status"] != "running":
                    return
                time.sleep(0.05)
        raise AssertionError(f"run {run_id} does not end")

    def read_until_cut(self, times: int, over: Flag) -> list[tuple[str, list[Event]]]:
        """Run after run, until the wire was cut so many times and `over` is set."""
        runs = []
        while self.count < times or not over.is_set():
            runs.append(self.ask())
        return runs

    @property
    def count(self) -> int:
        """How many times it was cut."""
        return sum(n for what, n in self.cuts.items() if "worker" in what)


@contextmanager
def second(start_service: ServiceFactory, first: Service, urls: list[str]) -> Iterator[Service]:
    """Another worker on the database of the first one; `urls` says where it is."""
    with start_service(**first.beside()) as other:
        urls[1] = other.url
        yield other


@pytest.mark.timeout(90 + 2 * CUTS)
def test_streams_that_are_cut_at_any_byte_are_put_together_without_a_flaw(
    start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    model.will(ANSWER)
    restarting, over = Flag(), Flag()
    with (
        start_service(openai_base_url=model.base_url, openai_model="stand-in") as first,
        first.client() as http,
        relaying() as relay,
        ThreadPoolExecutor(READERS) as pool,
        ExitStack() as stack,
    ):
        stack.callback(over.set)
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        urls = [first.url, ""]
        readers = [
            Reader(relay, urls, project, random.Random(f"{SEED} {n}"), restarting)
            for n in range(READERS)
        ]
        with second(start_service, first, urls):
            reading = [pool.submit(r.read_until_cut, CUTS // READERS, over) for r in readers]
            wait(reading, timeout=1)
            restarting.set()
        for left in reversed(range(RESTARTS)):
            with second(start_service, first, urls) as other:
                restarting.clear()
                wait(reading, timeout=1)
                restarting.set()
                if not left:
                    over.set()
                    runs = [run for one in reading for run in one.result(60 + CUTS)]
                    for run_id, events in runs:
                        assert events == whole(first, run_id) == whole(other, run_id)
    assert sum(reader.count for reader in readers) >= CUTS
    assert len(model.chats) == len(runs)
    cuts = sum((reader.cuts for reader in readers), Counter[str]())
    assert cuts["during a restart"] > 0
    sys.stderr.write(f"\n{len(runs)} runs, {RESTARTS} restarts, cuts: {dict(cuts)}\n")


def whole(service: Service, run_id: str) -> list[Event]:
    with service.client() as http:
        return read(http, "GET", f"/runs/{run_id}/stream")
