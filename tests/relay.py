"""An address before a service: it stays while services come and go, and breaks connections."""

import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit


@contextmanager
def breaking(url: str, cuts: Sequence[int | None]) -> Iterator[tuple[str, list[int | None]]]:
    """An address before the service at `url`; each connection breaks after so many bytes.

    It gives the address and the list of what is left of `cuts`; None lets a connection be.
    """
    left = list(cuts)
    with relay(left) as (address, target):
        target.append(url)
        yield address, left


@contextmanager
def relay(
    cuts: list[int | None] | None = None, opened: list[socket.socket] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """An address that stays, and a list whose last entry is the service that it leads to.

    `opened` gets the connections to it, so that a test can break them when it wants to.
    """
    targets: list[str] = []

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            left = cuts.pop(0) if cuts else None
            if opened is not None:
                opened.append(self.request)
            target = urlsplit(targets[-1])
            try:
                upstream = socket.create_connection((target.hostname, target.port))
            except OSError:
                return
            with upstream:
                threading.Thread(target=_pump, args=(self.request, upstream), daemon=True).start()
                _pump(upstream, self.request, left)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Relay) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", targets
        finally:
            server.shutdown()


def _pump(source: socket.socket, target: socket.socket, most: int | None = None) -> None:
    """Pass on what comes, until it ends or `most` bytes were passed on."""
    left = most
    try:
        while data := source.recv(65536):
            target.sendall(data[:left])
            if left is not None:
                left -= len(data)
                if left <= 0:
                    return
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
