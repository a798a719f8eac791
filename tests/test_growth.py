"""A turn of a long conversation costs what one of a short one costs, and tables grow with the text.

Forty turns, or as many as TURNS says: `TURNS=500 .venv/bin/python -m pytest tests/test_growth.py`.
What is measured is exact but for the little that the service does beside: see bench/growth.py
for the times.
"""

import asyncio
import os
import random
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from conftest import Service, ServiceFactory, make_database
from sse import read
from standins.openai import Answer, OpenAIStandIn

pytestmark = pytest.mark.slow

TURNS = int(os.environ.get("TURNS", "40"))
# So small that the prompt is full long before the tenth turn.
WINDOW = 2_048
AROUND_TEN = slice(5, 15)
MOST = 1.3
MOST_STORED = 5
WORDS = [
    "the",
    "gauge",
    "pier",
    "reads",
    "tide",
    "at",
    "post",
    "level",
    "is",
    "above",
    "below",
    "chart",
    "alarm",
    "and",
    "water",
]


class Cost(NamedTuple):
    """Bytes of one turn: from Postgres, to it, in its log of what was written, to the model."""

    read: float
    sent: float
    written: float
    asked: float


class Wire:
    """Counts what goes over the connections to a server that listens on a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._over = asyncio.Event()
        self.sent = self.received = 0

    async def run(self, started: "Future[int]") -> None:
        """Pass on what clients and the server say, until it is over; tells the port."""
        self._loop = asyncio.get_running_loop()
        async with await asyncio.start_server(self._serve, "127.0.0.1") as server:
            started.set_result(server.sockets[0].getsockname()[1])
            await self._over.wait()

    def end(self) -> None:
        """Hang up on everybody."""
        self._loop.call_soon_threadsafe(self._over.set)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_unix_connection(self._socket)
        await asyncio.gather(self._send(reader, outer), self._receive(inner, writer))

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError), closing(writer):
            while data := await reader.read(65536):
                self.sent += len(data)
                writer.write(data)

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError), closing(writer):
            while data := await reader.read(65536):
                self.received += len(data)
                writer.write(data)


@contextmanager
def counted(url: str) -> Iterator[tuple[Wire, str]]:
    """What counts, and the URL by which the server behind `url` is reached through it."""
    parts = urlsplit(url)
    wire = Wire(Path(parse_qs(parts.query)["host"][0]) / ".s.PGSQL.5432")
    started: Future[int] = Future()
    with ThreadPoolExecutor(1) as thread:
        relaying = thread.submit(asyncio.run, wire.run(started))
        port = started.result(10)
        try:
            yield wire, parts._replace(query=f"host=127.0.0.1&port={port}").geturl()
        finally:
            wire.end()
        relaying.result(10)


@pytest.mark.timeout(60 + TURNS)
def test_a_turn_costs_the_same_after_many_and_the_tables_hold_little_more_than_was_said(
    postgres_url: str, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    chance = random.Random(1)
    model.will(Answer(reply=lambda _: [f"{chance.choice(WORDS)} " for _ in range(300)]))
    settings = {
        "openai_base_url": model.base_url,
        "openai_model": "stand-in",
        "openai_context_window": WINDOW,
    }
    with (
        counted(make_database(postgres_url)) as (wire, url),
        start_service(**settings, database_url=url) as service,
        service.client() as http,
    ):
        never_vacuum(service)
        project = new_project(http)
        conversation = ask(http, project, "How does it begin?")
        before = sizes(service)
        body = {"message": "What is read at this post?", "conversationId": conversation}
        costs = [
            cost_of_a_turn(service, wire, model, lambda: ask(http, project, **body))
            for _ in range(TURNS)
        ]
        after, [row] = sizes(service), service.query(_SAID, conversation)

    tenth = [statistics.median(each) for each in zip(*costs[AROUND_TEN], strict=True)]
    last = [statistics.median(each) for each in zip(*costs[-10:], strict=True)]
    grown = {name: size for name, size in after.items() if size > before[name]}
    # A table takes some pages before it holds a row, which count little among many.
    own = {name: size if TURNS >= 500 else size - before[name] for name, size in grown.items()}
    shares = {name: round(size / row["said"], 2) for name, size in own.items()}
    told = f"turn 10: {Cost(*tenth)}\nturn {TURNS}: {Cost(*last)}\nof the transcript: {shares}"
    sys.stderr.write(f"\n{told}\n")
    assert max(late / early for early, late in zip(tenth, last, strict=True)) <= MOST, told
    assert sum(own.values()) <= MOST_STORED * row["said"], told


def new_project(http: httpx.Client) -> str:
    return str(http.post("/projects", json={"name": "Gauges"}).json()["project"]["id"])


def ask(http: httpx.Client, project: str, message: str, **body: str) -> str:
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": message, **body})
    assert events[-1].name == "done"
    return str(events[0].data["conversationId"])


def cost_of_a_turn(
    service: Service, wire: Wire, model: OpenAIStandIn, ask_it: Callable[[], object]
) -> Cost:
    began, received, sent = place(service), wire.received, wire.sent
    ask_it()
    received, sent = wire.received - received, wire.sent - sent
    asked = sum(len(message["content"]) for message in model.chats[-1].body["messages"])
    return Cost(received, sent, place(service) - began, asked)


def place(service: Service) -> int:
    """How many bytes Postgres has ever put into its log of what was written."""
    [row] = service.query("select (pg_current_wal_insert_lsn() - '0/0')::bigint as place")
    return int(row["place"])


def never_vacuum(service: Service) -> None:
    with service.changing() as database:
        for table in sizes(service):
            database.execute(f"alter table {table} set (autovacuum_enabled = false)")


def sizes(service: Service) -> dict[str, int]:
    """Bytes of each table with its indexes and what is stored aside, by name."""
    return {row["name"]: row["size"] for row in service.query(_SIZES)}


_SIZES = """
select relname as name, pg_total_relation_size(oid)::bigint as size from pg_class
where relkind = 'r' and relnamespace = 'public'::regnamespace
"""
_SAID = "select sum(octet_length(content))::int as said from messages where conversation_id = %s"
