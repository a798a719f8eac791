"""A database that falls silent: noticed before a connection is used, and while it is."""

import asyncio
import errno
import logging
import os
import select
import socket
from contextlib import suppress
from time import monotonic
from typing import Any, cast
from weakref import WeakKeyDictionary

from psycopg import AsyncConnection, Error
from psycopg.errors import ConnectionTimeout
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool

log = logging.getLogger(__name__)

Connection = AsyncConnection[DictRow]

# Why the system cannot send anything there; libpq hands it on in its own words.
_NO_WAY = (os.strerror(errno.ENETUNREACH), os.strerror(errno.EHOSTUNREACH))
_FRESH_S = 1.0
_CONNECT_S = 2
_CHECK_S = 1.0
_LOOKS = 4
_LONG_S = 1.5
_LOOK_S = 0.5


class CheckedPool(AsyncConnectionPool[Connection]):
    """A pool that gives no dead connection, and ends the use of one that has died meanwhile.

    Who uses a connection on which Postgres has fallen silent gets an OperationalError after some
    four seconds, unless Postgres answers elsewhere: a statement may take its time.
    """

    def __init__(self, conninfo: str, **options: Any) -> None:  # noqa: ANN401 - as in the pool
        super().__init__(conninfo, check=self._alive, open=False, **options)
        self._heard: WeakKeyDictionary[Connection, float] = WeakKeyDictionary()
        self._taken: dict[Connection, float] = {}

    async def getconn(self, timeout: float | None = None) -> Connection:  # noqa: ASYNC109
        """As in the pool."""
        connection = await super().getconn(timeout)
        self._taken[connection] = monotonic()
        return connection

    async def putconn(self, conn: Connection) -> None:
        """As in the pool."""
        del self._taken[conn]
        self._heard[conn] = monotonic()
        await super().putconn(conn)

    async def _get_ready_connection(self, timeout: float | None) -> Connection | None:  # noqa: ASYNC109
        # The one that was used last, not the one that has waited longest: it needs no look, and the
        # process behind it is still in the processor's caches. The latter is closed first.
        self._pool.rotate()
        return await super()._get_ready_connection(timeout)

    async def watch(self) -> None:
        """Hang up for ever what waits for a silent database."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if self._overdue() and not await self._answers():
                overdue = self._overdue()
                log.warning("the database is silent; %d statements are given up", len(overdue))
                for connection in overdue:
                    _hang_up(connection)

    async def _alive(self, connection: Connection) -> None:
        """Ask a connection that was not used just now, or that has something to say."""
        is_fresh = monotonic() - self._heard.get(connection, 0.0) < _FRESH_S
        if not is_fresh or _has_news(connection):
            await _check(connection)

    def _overdue(self) -> list[Connection]:
        before = monotonic() - _LONG_S
        return [connection for connection, since in self._taken.items() if since < before]

    async def _answers(self) -> bool:
        """Whether the database answers on another connection; a refusal is an answer."""
        try:
            other = await AsyncConnection.connect(
                cast(str, self.conninfo), autocommit=True, connect_timeout=_CONNECT_S
            )
        except ConnectionTimeout:
            return False
        except Error as error:
            return not any(reason in str(error) for reason in _NO_WAY)
        async with other:
            try:
                await _check(other)
            except Error:
                return False
        return True


async def _check(connection: AsyncConnection[Any]) -> None:
    """Refuse a connection that does not answer. The pool's time limit does not cover its check."""
    probe = asyncio.ensure_future(AsyncConnectionPool.check_connection(connection))
    probe.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        # Several times, so that a process that got no time does not take that for silence: after
        # the first look that came too late it reads what has come.
        for _ in range(_LOOKS):
            if (await asyncio.wait({probe}, timeout=_CHECK_S / _LOOKS))[0]:
                break
    finally:
        if not probe.done():
            _hang_up(connection)
            await _end_of(probe)
    await probe


def _has_news(connection: Connection) -> bool:
    """Whether something came that nobody asked for, such as the end of the connection."""
    look = select.poll()
    look.register(connection.fileno(), select.POLLIN)
    return bool(look.poll(0))


async def _end_of(probe: asyncio.Future[None]) -> None:
    """Wait for what fails in a moment, however often the waiting is cancelled.

    After that the pool closes the connection, and closed under the probe it takes the process down.
    """
    while not probe.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait({probe})


def _hang_up(connection: AsyncConnection[Any]) -> None:
    """End the connection from below, so that what waits on it fails by itself.

    To cancel a query, psycopg asks the server, which is silent; and a connection that is closed
    under a query is memory that is freed under it: the process may die of it.
    """
    with (
        suppress(OSError, Error),
        socket.fromfd(connection.fileno(), socket.AF_INET, socket.SOCK_STREAM) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)
