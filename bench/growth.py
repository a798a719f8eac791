"""What a turn costs in a long conversation beside a short one, and what all tables take.

A service in a process of its own is asked 500 times in one conversation, the last times in turn
with a new one. Its model is a server of this process, which answers at once with some 300 tokens;
its window is so small that the prompt is full from the start. Postgres never vacuums. `make bench`
runs it.
"""

import argparse
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
from httpx_sse import connect_sse
from rich.console import Console
from rich.table import Table

from api.settings import Settings
from bench.answers import GENERAL
from graph.postgres import embedded_postgres

WINDOW = 2_048
AROUND = 20
SHORT = 10
SENTENCES = 17

Measured = dict[str, float]


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one turn: on the clock, and of a CPU in the service and in Postgres."""

    retrieve: float
    first_token: float
    done: float
    service: float
    postgres: float


class Asked:
    """A running service, and the processes of it that take time."""

    def __init__(self, http: httpx.Client, service: int, postgres: int) -> None:
        self.http = http
        self._service, self._postgres = psutil.Process(service), psutil.Process(postgres)
        answer = http.post("/projects", json={"name": "bench"}).raise_for_status()
        self.project: str = answer.json()["project"]["id"]

    def turn(
        self, conversation: str | None, question: str = "", project: str = ""
    ) -> tuple[str, Cost]:
        """Ask once; gives the conversation's id, and what it cost."""
        question = question or f"What of the gauge at post {random.randrange(1000)} must be known?"
        url = f"/chat/projects/{project or self.project}"
        body = {"message": question, "conversationId": conversation}
        service, postgres = used(self._service), used(self._postgres)
        first, began = 0.0, time.perf_counter()
        with connect_sse(self.http, "POST", url, json=body) as sse:
            for event in sse.iter_sse():
                if event.event == "meta":
                    conversation = event.json()["conversationId"]
                elif event.event == "text":
                    first = first or time.perf_counter() - began
                last = event
        done = time.perf_counter() - began
        assert last.event == "done", last.data
        assert conversation is not None
        seconds = first, done, used(self._service) - service, used(self._postgres) - postgres
        retrieve = last.json()["timingsMs"]["retrieve"]
        return conversation, Cost(retrieve, *(each * 1000 for each in seconds))


def main() -> None:
    """Ask, and print medians, and the tables with their sizes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=500, help="turns of the long conversation")
    turns = parser.parse_args().n
    with asked() as (service, database):
        for _ in range(3):
            service.turn(None)
        before = sizes(database)
        long: str | None = None
        costs: list[Cost] = []
        for _ in range(turns - AROUND):
            long, cost = service.turn(long)
            costs.append(cost)
        assert long is not None
        after, transcript = sizes(database), said(database, long)
        short: str | None = None
        for _ in range(SHORT - AROUND // 2):
            short, _ = service.turn(short)
        late, fresh = [], []
        for _ in range(AROUND):
            late.append(service.turn(long)[1])
            short, cost = service.turn(short)
            fresh.append(cost)
    show_costs(
        {
            f"turns around {SHORT}": costs[SHORT - AROUND // 2 :][:AROUND],
            f"turns up to {turns}": late,
            f"turns around {SHORT} of a new one, meanwhile": fresh,
        }
    )
    show_sizes(before, after, transcript)


@contextmanager
def asked(prepare: Callable[[Settings], None] | None = None) -> Iterator[tuple[Asked, str]]:
    """A service that asks a model of this process, and the URL of its database.

    `prepare` is called with where its data will be, before it starts.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        database = stack.enter_context(embedded_postgres(folder / "postgres"))
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("alter system set autovacuum = off")
            connection.execute("select pg_reload_conf()")
        postgres = int((folder / "postgres" / "postmaster.pid").read_text().split("\n")[0])
        data = folder / "data"
        if prepare:
            # Not the service's own model: nothing is asked yet.
            prepare(Settings(_env_file=None, database_url=database, data_dir=data))
        settings = {
            "DATABASE_URL": database,
            "DATA_DIR": str(data),
            "OPENAI_BASE_URL": stack.enter_context(answering()),
            "OPENAI_MODEL": "none",
            "OPENAI_CONTEXT_WINDOW": str(WINDOW),
            "LOG_LEVEL": "ERROR",
        }
        process, url = stack.enter_context(serving(folder, settings))
        http = stack.enter_context(httpx.Client(base_url=url, timeout=60))
        yield Asked(http, process, postgres), database


@contextmanager
def serving(folder: Path, settings: dict[str, str]) -> Iterator[tuple[int, str]]:
    """The service's process and address; it is ended with the block."""
    said = folder / "out"
    with said.open("wb") as out:
        command = [sys.executable, "-m", "api.cli", "serve", "--port", "0"]
        process = subprocess.Popen(command, cwd=folder, env={**os.environ, **settings}, stdout=out)
    try:
        for _ in range(600):
            if found := re.search(r"Address +(http://\S+)", said.read_text()):
                break
            time.sleep(0.1)
        else:
            raise SystemExit("The service did not start within a minute.")
        yield process.pid, found[1]
    finally:
        process.terminate()
        process.wait()


@contextmanager
def answering() -> Iterator[str]:
    """The address of a model that answers at once, and never the same."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            stream = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks())
            body = f"{stream}data: [DONE]\n\n".encode()
            self.send_response(200 if self.path.endswith("/completions") else 404)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def chunks() -> Iterator[dict[str, object]]:
    """An answer of some 300 tokens, as the events of an OpenAI stream."""
    text = " ".join(random.choices(GENERAL, k=SENTENCES))
    for token in re.findall(r"\s?\S{1,5}", text):
        yield {"choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]}
    yield {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def used(process: psutil.Process) -> float:
    """Seconds of a CPU that a process and its children have used so far."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        times = one.cpu_times()
        total += times.user + times.system
        if one.pid == process.pid:
            total += times.children_user + times.children_system
    return total


def sizes(database: str) -> dict[str, int]:
    """Bytes of each table with its indexes and what is stored aside, by name."""
    with psycopg.connect(database) as connection:
        return dict(connection.execute(_SIZES).fetchall())


def said(database: str, conversation: str) -> int:
    """The bytes of what was said."""
    with psycopg.connect(database) as connection:
        row = connection.execute(_SAID, (conversation,)).fetchone()
    assert row is not None
    return int(row[0])


def show_costs(costs: dict[str, list[Cost]]) -> None:
    """Print the medians; of times of a CPU, which are told in steps of 10 ms, the means."""
    table = Table("ms a turn", "first token", "done", "CPU, service", "CPU, Postgres")
    for name, each in costs.items():
        table.add_row(
            name,
            f"{statistics.median(cost.first_token for cost in each):.1f}",
            f"{statistics.median(cost.done for cost in each):.1f}",
            f"{statistics.mean(cost.service for cost in each):.1f}",
            f"{statistics.mean(cost.postgres for cost in each):.1f}",
        )
    Console().print(table)


def show_ratios(found: dict[str, list[Measured]]) -> None:
    """Print the medians of two cases, and how many times as much the second takes."""
    table = Table("ms, median", *found, "ratio")
    one, other = found.values()
    for name in one[0]:
        few, many = (statistics.median(each[name] for each in rows) for rows in (one, other))
        table.add_row(name.replace("_", " "), f"{few:.1f}", f"{many:.1f}", f"{many / few:.2f}")
    Console().print(table)


def show_sizes(before: dict[str, int], after: dict[str, int], transcript: int) -> None:
    """Print the tables that grew."""
    table = Table("table", "KB", "grown by", "of the transcript")
    grown = {name: size for name, size in after.items() if size > before[name]}
    rows = sorted(grown.items(), key=lambda row: -row[1])
    before["all that grew"] = sum(before[name] for name in grown)
    for name, size in [*rows, ("all that grew", sum(grown.values()))]:
        kilobytes = f"{size / 1024:.0f}", f"{(size - before[name]) / 1024:.0f}"
        table.add_row(name, *kilobytes, f"{size / transcript:.2f}")
    table.add_row("the transcript", f"{transcript / 1024:.0f}", "", "1")
    Console().print(table)


_SIZES = """
select relname, pg_total_relation_size(oid)::bigint from pg_class
where relkind = 'r' and relnamespace = 'public'::regnamespace
"""
_SAID = "select sum(octet_length(content)) from messages where conversation_id = %s"


if __name__ == "__main__":
    main()
