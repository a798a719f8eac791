"""Requests whose head has no end, sent by whoever connects."""

import socket
from collections.abc import Iterator

import httpx
import pytest
from conftest import Service
from fastapi import FastAPI

from api import heads
from api.heads import MOST_HEAD_BYTES, BoundedHttp
from api.server import Server
from api.settings import Settings

PIECE = 16 * 1024


@pytest.fixture
def connection(service: Service) -> Iterator[socket.socket]:
    """A connection to the service, bytes as they are."""
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port or 80), timeout=30) as opened:
        yield opened


def answered(connection: socket.socket) -> bytes:
    """All that comes until the service hangs up."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        # It hung up while more was on the way.
        pass
    return found


def send_on(connection: socket.socket, piece: bytes) -> int:
    """Send `piece` again and again; gives how many bytes it took until the service hung up."""
    sent = 0
    connection.settimeout(30)
    try:
        while sent < 100 * MOST_HEAD_BYTES:
            connection.sendall(piece)
            sent += len(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return sent


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (b"GET /", b"a" * PIECE),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ", b"a" * PIECE),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n" * (PIECE // 8)),
        (
            b"POST /projects HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"1\r\na\r\n0\r\nX-A: ",
            b"a" * PIECE,
        ),
    ],
    ids=["path", "header", "headers", "trailer"],
)
def test_a_head_without_end_is_not_read_for_ever(
    connection: socket.socket, begin: bytes, piece: bytes
) -> None:
    connection.sendall(begin)
    # What the sockets hold on both sides is sent, too.
    assert send_on(connection, piece) < 100 * MOST_HEAD_BYTES


def test_a_head_that_is_too_large_is_told_so(connection: socket.socket) -> None:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: " + b"a" * MOST_HEAD_BYTES)
    assert answered(connection).startswith(b"HTTP/1.1 400 ")


def test_many_requests_and_long_bodies_are_served(service: Service, project: str) -> None:
    def pieces() -> Iterator[bytes]:
        yield b'{"name": "'
        for _ in range(200):
            yield b"a" * 1000
        yield b'"}'

    with service.client() as client:
        long = {"X-A": "a" * (MOST_HEAD_BYTES // 2)}
        assert {client.get("/", headers=long).status_code for _ in range(5)} == {200}
        body = {"Content-Type": "application/json"}
        answer = client.patch(f"/projects/{project}", content=pieces(), headers=body)
        assert answer.json()["error"]["issues"][0]["path"] == ["name"]
        assert client.get("/").status_code == 200


@pytest.mark.parametrize("begin", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"], ids=["nothing", "half"])
def test_a_head_that_does_not_come_is_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch, begin: bytes
) -> None:
    monkeypatch.setattr(heads, "HEAD_S", 0.2)
    url = httpx.URL(service.url)
    with socket.create_connection((url.host, url.port or 80), timeout=30) as opened:
        opened.sendall(begin)
        assert answered(opened) == b""


def test_the_service_runs_so() -> None:
    server = Server(FastAPI(), Settings(_env_file=None), lambda parts: None)
    assert server.config.http is BoundedHttp
