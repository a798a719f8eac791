"""Twenty clients ask for minutes, and cut and stop streams: nothing that the service holds grows.

Five seconds, or as many as SOAK_S says:
`SOAK_S=1800 .venv/bin/python -m pytest tests/test_soak.py`.
"""

import asyncio
import os
import random
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from askers import Api, answer_to, replying, text_of
from psycopg.rows import dict_row
from sse import Event, events_of
from standins.openai import Answer, OpenAIStandIn
from test_server import Process, process, stood_in, wait_until

pytestmark = pytest.mark.slow

SOAK_S = float(os.environ.get("SOAK_S", "5"))
SEED = os.environ.get("SEED", "1")
CLIENTS = 20
WORDS = 40
ANSWER = Answer(reply=replying(WORDS), delay_s=0.01)
WARM_UP_S = max(3, SOAK_S / 6)
SAMPLES = 60
CUT = STOPPED = 0.05
NEW = KEYED = 0.3
MOST_BYTES = 6000
MOST_GROWN = 4_000_000
MOST_GROWN_A_TURN = 300
RETENTION_S = 20
CLEANED_WITHIN_S = 70
SETTINGS = {"RUN_RETENTION_MINUTES": str(RETENTION_S / 60), "LOG_LEVEL": "WARNING"}
MOST_BACKENDS = 27
"""The pool's twenty, those of the jobs, and those that listen."""

OF_A_RUN = ("Run", "RunLog", "Stop", "Completion", "Marking", "ClientResponse", "EventStream")


@dataclass
class Client:
    """Somebody who asks one question after the other, and does not always wait for the end."""

    http: httpx.AsyncClient
    project: str
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)
    conversation: str | None = None
    api: Api = "chat"

    async def work(self, until: float) -> None:
        """Ask until the time is up."""
        while time.monotonic() < until:
            if self.conversation is None or self.chance.random() < NEW:
                self.api = self.chance.choice(["chat", "drafting"])
                self.conversation = str(uuid.uuid4()) if self.api == "drafting" else None
            # Of few words: the service remembers what the last 50 000 told.
            await self._turn(f"question {self.chance.randrange(500)}?")

    async def _turn(self, question: str) -> None:
        what = self.chance.random()
        if what < CUT:
            await self._cut(question)
        elif what < CUT + STOPPED:
            await self._stopped(question)
        else:
            check_whole(await self._read(question), question)
            self.done["whole"] += 1

    async def _cut(self, question: str) -> None:
        """Hang up after so many bytes; then read the rest, or turn away."""
        events = await self._read(question, up_to=self.chance.randrange(1, MOST_BYTES))
        if self.chance.random() < 0.4:
            self.conversation = None
            self.done["left"] += 1
            return
        path = f"/runs/{self.run_id}/stream"
        headers = {"Last-Event-ID": events[-1].id} if events else {}
        async with self.http.stream("GET", path, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            events += events_of(await response.aread())
        check_whole(events, question)
        self._note(events)
        self.done["resumed"] += 1

    async def _stopped(self, question: str) -> None:
        events = await self._read(question, stop_after=self.chance.randrange(1, MOST_BYTES))
        *_, last = events
        assert last.name == "done", last
        about = last.data.get("metadata") or last.data
        reason = about.get("finishReason") or about.get("finish_reason")
        assert reason in ("stopped", "stop"), last
        assert "".join(answer_to(question, WORDS)).startswith(text_of(events))
        self.done[reason] += 1

    async def _read(
        self, question: str, *, up_to: int | None = None, stop_after: int | None = None
    ) -> list[Event]:
        """The whole events of one stream: all of them, or those in its first `up_to` bytes."""
        path, body = self._request(question)
        headers = {"Idempotency-Key": str(uuid.uuid4())} if self.chance.random() < KEYED else {}
        received = b""
        async with self.http.stream("POST", path, json=body, headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            self.run_id = response.headers["x-run-id"]
            async for piece in response.aiter_raw():
                received += piece
                if up_to is not None and len(received) >= up_to:
                    received = received[:up_to]
                    break
                if stop_after is not None and len(received) >= stop_after:
                    stop_after = None
                    (await self.http.post(f"/runs/{self.run_id}/stop")).raise_for_status()
        whole, end, _ = received.rpartition(b"\n\n")
        events = events_of(whole + end)
        self._note(events)
        return events

    def _request(self, question: str) -> tuple[str, dict[str, Any]]:
        body = {"message": question}
        if self.api == "chat":
            about = {"conversationId": self.conversation} if self.conversation else {}
            return f"/chat/projects/{self.project}", {**body, **about}
        ids = {"conversation_id": self.conversation, "project_id": self.project}
        return "/api/v1/chat/stream", {**body, **ids}

    def _note(self, events: Sequence[Event]) -> None:
        if events and events[0].name == "meta":
            self.conversation = events[0].data["conversationId"]


def check_whole(events: Sequence[Event], question: str) -> None:
    assert [event.id.rpartition(":")[2] for event in events] == [
        str(n) for n in range(1, len(events) + 1)
    ]
    assert events[-1].name == "done", events[-1]
    assert text_of(events) == "".join(answer_to(question, WORDS))


@dataclass(frozen=True)
class Sample:
    """What a process holds at one moment; `memory` is in bytes.

    `models`, `clients`, `backends`: connections. `files`: all else that has a handle.
    """

    turns: int
    memory: int
    files: int
    threads: int
    clients: int
    models: int
    backends: int


class Watch:
    """Looks at a process of the service, and at its connections."""

    def __init__(
        self, service: Process, rows: psycopg.Connection[dict[str, Any]], model: OpenAIStandIn
    ) -> None:
        self._process = psutil.Process(service.child.pid)
        self._port = urlsplit(service.url).port
        self._model = urlsplit(model.base_url).port
        self._rows = rows
        self.samples: list[Sample] = []

    def look(self, turns: int = 0) -> Sample:
        """What there is now."""
        tcp = self._process.net_connections("tcp")
        clients = sum(one.laddr.port == self._port and one.status != "LISTEN" for one in tcp)
        models = sum(bool(one.raddr) and one.raddr.port == self._model for one in tcp)
        backends = self.count(_BACKENDS)
        return Sample(
            turns,
            # Not what is its own alone: it comes to own what it was forked with, page by page.
            self._process.memory_info().rss,
            self._process.num_fds() - clients - models - backends,
            self._process.num_threads(),
            clients,
            models,
            backends,
        )

    def count(self, sql: str, *values: object) -> int:
        """A number out of the database."""
        [row] = self._rows.execute(sql, values).fetchall()
        return int(row["n"])

    async def work(self, clients: Sequence[Client], each_s: float) -> None:
        """Look again and again."""
        while True:
            await asyncio.sleep(each_s)
            turns = sum(client.done.total() for client in clients)
            self.samples.append(await asyncio.to_thread(self.look, turns))

    def grown_by(self, what: str) -> float:
        """The median of the last third of the samples, above that of the first."""
        values = [getattr(sample, what) for sample in self.samples]
        third = len(values) // 3
        return statistics.median(values[-third:]) - statistics.median(values[:third])

    def rest(self) -> Sample:
        """What there is once no run goes on and nobody is connected."""
        wait_until(lambda: not self.count(_RUNNING) and not self.look().clients, 30)
        return self.look()


async def soak(url: str, project: str, seconds: float, watch: Watch) -> Counter[str]:
    """Let all clients ask for so long; gives what they did."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False, limits=limits) as http:
        clients = [
            Client(http, project, random.Random(f"{SEED} {seconds} {n}")) for n in range(CLIENTS)
        ]
        until = time.monotonic() + seconds
        watching = asyncio.create_task(watch.work(clients, seconds / SAMPLES))
        try:
            await asyncio.gather(*(client.work(until) for client in clients))
        finally:
            watching.cancel()
            await asyncio.wait({watching})
    return sum((client.done for client in clients), Counter[str]())


@pytest.mark.timeout(120 + 2 * SOAK_S)
def test_what_the_service_holds_does_not_grow(postgres_url: str, tmp_path: Path) -> None:
    with OpenAIStandIn(most=100) as model:
        model.will(ANSWER)
        settings = stood_in(model, postgres_url)
        with (
            process(tmp_path, **settings, **SETTINGS) as service,
            psycopg.connect(settings["DATABASE_URL"], row_factory=dict_row) as rows,
        ):
            rows.autocommit = True
            watch = Watch(service, rows, model)
            with httpx.Client(base_url=service.url, timeout=30, trust_env=False) as http:
                project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
            first = asyncio.run(soak(service.url, project, WARM_UP_S, watch))
            before, held = watch.rest(), service.child.held()
            watch.samples.clear()
            done = asyncio.run(soak(service.url, project, SOAK_S, watch))
            after, now = watch.rest(), service.child.held()
            more = Counter(now["objects"])
            more.subtract(held["objects"])
            turns = done.total()
            grown = {what: watch.grown_by(what) for what in ("memory", "files", "threads")}
            sys.stderr.write(f"\n{turns} turns: {dict(done)}\nbefore {before}\nafter  {after}\n")
            sys.stderr.write(f"grown {grown}, objects {more.total()}: {more.most_common(5)}\n")

            # Beside connections, what Chroma and the threads open when they are first needed.
            assert after.files <= before.files + 4
            assert after.threads <= before.threads + 4
            # Where a client has left, its run goes on beside the next one.
            assert after.models <= 2 * CLIENTS
            assert after.backends <= MOST_BACKENDS
            assert abs(grown["files"]) <= 2
            assert grown["threads"] <= 2
            assert grown["memory"] <= MOST_GROWN + MOST_GROWN_A_TURN * turns
            assert [name for name in OF_A_RUN if now["objects"].get(name)] == []
            new_tasks = Counter(now["tasks"]) - Counter(held["tasks"])
            assert new_tasks.total() < CLIENTS, new_tasks
            assert more.total() <= 1000 + turns / 10, more.most_common(20)
            answers = (first + done).total()
            assert [watch.count(sql) for sql in (_QUESTIONS, _ANSWERS)] == [answers, answers]
            assert watch.count(_FOREIGN) == 0
            assert watch.count(_KEPT, RETENTION_S + CLEANED_WITHIN_S) == 0
            assert watch.count("select count(*) as n from processes") == 1


_RUNNING = "select count(*) as n from runs where status = 'running'"
_BACKENDS = """
select count(*) as n from pg_stat_activity
where datname = current_database() and pid <> pg_backend_pid()
"""
_QUESTIONS = "select count(*) as n from messages where role = 'user'"
_ANSWERS = """
select count(*) as n from messages
where role = 'assistant' and status in ('complete', 'stopped')
"""
# Answers that are not what was asked, whoever read them.
_FOREIGN = """
select count(*) as n
from runs r join messages q on q.id = r.question_id join messages a on a.id = r.id
where a.content <> '' and not starts_with(
    a.content,
    'Of ' || rtrim(q.content, '?') || case r.status when 'done' then ': word0' else '' end
)
"""
# A key keeps the log of its run for a day.
_KEPT = """
select count(*) as n from run_events e join runs r on r.id = e.run_id
where r.ended_at < now() - %s * interval '1 s'
    and not exists (select from run_keys k where k.run_id = r.id)
"""
