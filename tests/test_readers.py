"""Many readers of one run: one that never reads harms nobody, and one that is slow gets it all."""

import asyncio
import logging
import socket
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from typing import NamedTuple

import httpx
import pytest
from conftest import Service, ServiceFactory
from sse import Event, events_of, read
from standins.openai import Answer, OpenAIStandIn
from timed import timed

from api import heads
from api.runs.log import RunLog

MANY = 50
TOKENS = [f"{n:04} {'word ' * 200}" for n in range(160)]
"""Of 1 kB each: more than waits between a service and a reader that reads nothing."""


@pytest.fixture(scope="module")
def other(start_service: ServiceFactory, shared_service: Service) -> Iterator[Service]:
    """A worker beside the shared one."""
    with start_service(**shared_service.beside()) as service:
        yield service


class Timed(NamedTuple):
    """What a reader got, and when it had all of it, in monotonic seconds."""

    events: list[Event]
    at: float


@contextmanager
def dialled(service: Service, path: str) -> Iterator[socket.socket]:
    """A connection on which `path` was asked for, with room for a few kB; nothing is read yet."""
    url = httpx.URL(service.url)
    with socket.socket() as opened:
        opened.settimeout(20)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        opened.connect((url.host, url.port or 80))
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        opened.sendall(head.encode())
        yield opened


def received(connection: socket.socket, pause_s: float = 0) -> list[Event]:
    """The whole events that come until the service hangs up, in reads of 4 kB."""
    raw = b""
    try:
        while data := connection.recv(4096):
            raw += data
            time.sleep(pause_s)
    except ConnectionResetError:
        # A service that drops a reader hangs up in the middle.
        pass
    whole, end, _ = body_of(raw).rpartition(b"\n\n")
    return events_of(whole + end)


def body_of(raw: bytes) -> bytes:
    """What an answer in chunks says, as far as it came."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), raw
    body = b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return body


@contextmanager
def answering(http: httpx.Client, project: str) -> Iterator[httpx.Response]:
    """A run that has begun; its own stream is still to be read."""
    question = {"message": "Go on."}
    with http.stream("POST", f"/chat/projects/{project}", json=question) as response:
        assert response.status_code == 200
        yield response


def finished(http: httpx.Client, project: str) -> tuple[str, list[Event]]:
    """The path of the stream of a run that has ended, and its events."""
    with answering(http, project) as response:
        return f"/runs/{response.headers['x-run-id']}/stream", events_of(response.read())


async def asked_and_followed(
    workers: list[Service], project: str, readers: int
) -> tuple[Timed, list[Timed]]:
    """What the one that asked got, and each of so many others, beside one that never reads."""
    service = workers[0]
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=30, trust_env=False, limits=limits) as http:

        async def timed(response: httpx.Response) -> Timed:
            return Timed(events_of(await response.aread()), time.monotonic())

        async def follow(url: str) -> Timed:
            return await timed(await http.get(url))

        asked = f"{service.url}/chat/projects/{project}"
        async with http.stream("POST", asked, json={"message": "Go on."}) as response:
            path = f"/runs/{response.headers['x-run-id']}/stream"
            urls = islice(cycle(worker.url + path for worker in workers), readers)
            with dialled(service, path):
                own, *others = await asyncio.gather(timed(response), *map(follow, urls))
        return own, others


@pytest.mark.parametrize("workers", [1, 2])
def test_of_many_readers_one_that_never_reads_holds_up_nobody(
    project: str, model: OpenAIStandIn, service: Service, other: Service, workers: int
) -> None:
    model.will(Answer(TOKENS, delay_s=0.005))
    at = [service, other][:workers]
    own, others = asyncio.run(asked_and_followed(at, project, MANY - 2))
    assert [event.data for event in own.events[2:-1]] == [{"delta": token} for token in TOKENS]
    assert own.events[-1].data["finishReason"] == "stop"
    assert [other.events for other in others] == [own.events] * (MANY - 2)
    # Who never reads is cut off after a minute; whom that held up would wait as long.
    assert max(other.at for other in others) - own.at < 15


def test_what_is_held_for_readers_that_never_read_does_not_grow_with_the_answer(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    # Of 4 MB in all, of which 20 readers would hold 80.
    model.will(Answer([f"{n:04} {'word ' * 400}" for n in range(2000)], one_write=True))
    path, _ = finished(http, project)
    read(http, "GET", path)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        with ExitStack() as idle:
            connections = [idle.enter_context(dialled(service, path)) for _ in range(20)]
            for connection in connections:
                connection.recv(2000, socket.MSG_PEEK | socket.MSG_WAITALL)
            held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 20e6


def test_a_reader_that_never_reads_is_dropped_and_may_come_again(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(heads, "UNREAD_S", 0.3)
    caplog.set_level(logging.INFO, logger="api.heads")
    model.will(Answer(TOKENS, one_write=True))
    path, whole = finished(http, project)
    with dialled(service, path) as idle:
        for _ in range(100):
            if caplog.messages:
                break
            time.sleep(0.05)
        part = received(idle)
    assert caplog.messages == ["a client was dropped that had read nothing for 0.3 s"]
    assert 0 < len(part) < len(whole)
    rest = read(http, "GET", path, headers={"Last-Event-ID": part[-1].id})
    assert part + rest == whole


@timed
def test_a_reader_that_reads_slowly_is_not_dropped_and_gets_every_event(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(heads, "UNREAD_S", 0.5)
    caplog.set_level(logging.INFO, logger="api.heads")
    model.will(Answer(TOKENS, one_write=True))
    path, whole = finished(http, project)
    began = time.monotonic()
    with dialled(service, path) as slow:
        assert received(slow, pause_s=0.04) == whole
    assert time.monotonic() - began > 1
    assert caplog.messages == []


def test_a_reader_that_takes_all_at_once_lets_others_have_their_turn() -> None:
    async def play() -> list[int]:
        log, turns = RunLog(), 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        log.append([("text", "{}")] * 5000, last=True)
        beside = asyncio.create_task(others())
        seen = [turns async for _ in log.follow(0, silence_s=10)]
        beside.cancel()
        return seen

    assert asyncio.run(play()) == [0, 1, 2, 3, 4]
