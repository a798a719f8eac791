"""HTTP/1.1 from whoever connects: a head of a request has an end, and comes in time."""

from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MOST_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers, or of what stands between pieces of a body."""

HEAD_S = 30.0
"""Seconds from the first byte of a request, or from the connection, to the end of its headers."""


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes headers without end and waits for them for ever.

    A stranger needs no credentials for that: 100 MB of one header keep the event loop busy for
    more than ten seconds.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as in uvicorn
        super().__init__(*args, **kwargs)
        self._bytes = 0
        self._deadline: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first request, not for ever."""
        super().connection_made(transport)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, as long as it leads somewhere."""
        self._bytes += len(data)
        super().data_received(data)
        if self._bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The head of the request is too large.")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._wait_for_head()

    def on_headers_complete(self) -> None:
        """Its head is there."""
        self._bytes = 0
        self._head_is_there()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of its body is there, which the app counts."""
        self._bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is there as a whole."""
        self._bytes = 0
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        self._head_is_there()
        self._deadline = self.loop.call_later(HEAD_S, self.transport.close)

    def _head_is_there(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
