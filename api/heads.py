"""HTTP/1.1 from whoever connects: heads have an end and come in time, and answers are read."""

import logging
import socket
from asyncio import TimerHandle, Transport
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

MOST_HEAD_BYTES = 64 * 1024
"""Of a request line with its headers, or of what stands between pieces of a body."""

HEAD_S = 30.0
"""Seconds from the first byte of a request, or from the connection, to the end of its headers."""

UNREAD_S = 60.0
"""Seconds for which a client may read nothing of an answer that waits for it."""

_UNSENT_BYTES = 16 * 1024


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, which by itself takes headers without end and waits for them for ever.

    A stranger needs no credentials for that: 100 MB of one header keep the event loop busy for
    more than ten seconds.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - as in uvicorn
        super().__init__(*args, **kwargs)
        self._bytes = 0
        self._deadline: TimerHandle | None = None
        self._unread: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Wait for the first request, not for ever."""
        super().connection_made(transport)
        # What a client does not fetch waits with us, where it is seen, and not in the kernel.
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_is_there()
        self._is_read()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More waits to be read than is kept in advance."""
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        """It was read."""
        super().resume_writing()
        self._is_read()

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

    def _wait_for_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        self._unread = self.loop.call_later(UNREAD_S, self._drop_if_still, unread)

    def _drop_if_still(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:
            self._wait_for_reader()
            return
        log.info("a client was dropped that had read nothing for %g s", UNREAD_S)
        self.transport.abort()

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
