"""A wire that breaks: relay a TCP connection, and cut it after so many bytes of the answer."""

import asyncio
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from standins.loopback import loop_in_thread

_PIECE = 16 * 1024
_AT_ONCE = struct.pack("ii", 1, 0)


class Relay:
    """Opens ports of loopback, each good for one connection to a service."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._connections: set[asyncio.Task[None]] = set()

    def to(self, url: str, *, cut_after: int | None = None, hard: bool = False) -> str:
        """A URL whose first connection is relayed to `url`.

        After `cut_after` bytes of what the service sends it is cut, wherever that is: by a FIN, or
        with `hard` by a RST, after which what the client has not read yet is lost too. Where the
        service is not there, it is cut at once.
        """
        opening = self._open(url, cut_after, hard)
        port = asyncio.run_coroutine_threadsafe(opening, self._loop).result(10)
        return f"http://127.0.0.1:{port}"

    async def close(self) -> None:
        """Cut what is left."""
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _open(self, url: str, cut_after: int | None, hard: bool) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        connection = self._loop.create_task(self._relay(listener, url, cut_after, hard))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        return int(listener.getsockname()[1])

    async def _relay(
        self, listener: socket.socket, url: str, cut_after: int | None, hard: bool
    ) -> None:
        with listener:
            accepted, _ = await self._loop.sock_accept(listener)
        client_reader, client = await asyncio.open_connection(sock=accepted)
        ways: list[asyncio.Task[None]] = []
        service: asyncio.StreamWriter | None = None
        try:
            with suppress(OSError):
                at = urlsplit(url)
                service_reader, service = await asyncio.open_connection(at.hostname, at.port)
                ways.append(asyncio.create_task(_copy(client_reader, service)))
                ways.append(asyncio.create_task(_copy(service_reader, client, cut_after)))
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            if service:
                service.close()
            if hard:
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            client.close()


@contextmanager
def relaying() -> Iterator[Relay]:
    """A relay in a thread of its own."""
    with loop_in_thread() as loop:
        relay = Relay(loop)
        try:
            yield relay
        finally:
            asyncio.run_coroutine_threadsafe(relay.close(), loop).result(10)


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, most: int | None = None
) -> None:
    """Pass on what comes, until its end, or until `most` bytes were passed on."""
    left = most
    while data := await reader.read(_PIECE if left is None else min(left, _PIECE)):
        writer.write(data)
        await writer.drain()
        if left is not None:
            left -= len(data)
            if not left:
                return
