"""Reads Server-Sent Events in tests, strictly: every line must be as the contract says."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import httpx


class Event(NamedTuple):
    """An event: its name, its JSON, and its id."""

    name: str
    data: Any
    id: str


def events_of(body: bytes) -> list[Event]:
    """All events of a stream that has ended; fails on a line that does not belong."""
    assert body.isascii(), "the stream is not ASCII"
    blocks = body.decode().split("\n\n")
    assert blocks[-1] == "", "the stream ends in the middle of an event"
    return [_event(block) for block in blocks[:-1] if not block.startswith(":")]


def _event(block: str) -> Event:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    assert list(fields) == ["id", "event", "data"], block
    return Event(fields["event"], json.loads(fields["data"]), fields["id"])


def read(client: httpx.Client, method: str, path: str, **arguments: Any) -> list[Event]:
    """Read a whole stream; its ids must count from 1 (or on from `after`) without a gap."""
    with client.stream(method, path, **arguments) as response:
        body = response.read()
        assert response.status_code == 200, body
        assert response.headers["content-type"].startswith("text/event-stream")
        events = events_of(body)
    run_id = response.headers["x-run-id"]
    first = int(events[0].id.rpartition(":")[2]) if events else 1
    assert [e.id for e in events] == [f"{run_id}:{first + n}" for n in range(len(events))]
    return events


def names(events: Iterable[Event]) -> list[str]:
    """The events' names."""
    return [event.name for event in events]


def live(lines: Iterator[str]) -> Iterator[Event]:
    """The events of a stream that goes on, one at a time, from an iterator of lines."""
    block: list[str] = []
    for line in lines:
        if line:
            block.append(line)
        elif block:
            if not block[0].startswith(":"):
                yield _event("\n".join(block))
            block = []
