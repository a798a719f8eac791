"""Stand in for a model that never comes to an end, and sends as fast as it is read."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from standins.loopback import loop_in_thread

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
_AT_ONCE = 64 * 1024


class Endless:
    """What it has sent, to anybody: in bytes, and when the last of it in monotonic seconds."""

    def __init__(self, token: str) -> None:
        delta = {"choices": [{"index": 0, "delta": {"content": token}, "finish_reason": None}]}
        event = b"data: " + json.dumps(delta).encode() + b"\n\n"
        self._piece = event * (_AT_ONCE // len(event) + 1)
        self.base_url = ""
        self.sent = 0
        self.sent_at = time.monotonic()
        self.open = 0

    def is_held_back(self, seconds: float) -> bool:
        """Whether somebody is connected, but has taken nothing for so long."""
        return self.open > 0 and time.monotonic() - self.sent_at > seconds

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, until whoever asked hangs up."""
        with closing(writer), suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b"/chat/completions" not in head:
                writer.write(_NOT_FOUND)
                return
            await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            writer.write(_HEAD)
            self.open += 1
            try:
                await self._send(writer)
            finally:
                self.open -= 1

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(self._piece)
            await writer.drain()
            self.sent += len(self._piece)
            self.sent_at = time.monotonic()


@contextmanager
def endless(token: str) -> Iterator[Endless]:
    """A model whose every token is `token`, on a free port of loopback."""
    model = Endless(token)
    with loop_in_thread() as loop:
        starting = asyncio.start_server(model.serve, "127.0.0.1", 0)
        server = asyncio.run_coroutine_threadsafe(starting, loop).result(10)
        model.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield model
        finally:
            loop.call_soon_threadsafe(server.close)
