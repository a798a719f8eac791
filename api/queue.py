"""The job queue on Postgres, worked by every process of the service: the one file that knows it.

A job is a name and a few strings. Jobs of one lock are done one at a time, in the order in which
they were put. A job whose process died is done again by another one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from procrastinate import App, BaseRetryStrategy, PsycopgConnector, RetryDecision
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager
from psycopg import AsyncConnection
from sqlalchemy import Connection, text

from graph.postgres import UNREACHABLE, Pool, advisory_lock, is_unreachable, patiently, rows_of

log = logging.getLogger(__name__)

AWAY = (ConnectorException, *UNREACHABLE)
"""What a method raises when the database is away."""

SILENT_S = 30.0
"""A process that has not been heard of for so long is taken for dead."""

_HEARTBEAT_S = 5.0
# New jobs are announced with NOTIFY. Behind pgbouncer in transaction mode that is not heard.
_POLL_S = 0.5
_AT_ONCE = 3
_GRACE_S = 1.0
_QUEUE = "archwright"
_TAKE_OVER_LOCK = 0x61726368_0004


class Later(Exception):
    """Raised by a job that cannot go on now: it is done again in `seconds`, its lock is kept."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:g} seconds")
        self.seconds = seconds


class Queue:
    """The queue as one process sees it. `jobs` are the functions by name; arguments are strings.

    A job must bear being repeated from any place on. Methods raise one of `AWAY`.
    """

    def __init__(self, jobs: Mapping[str, Callable[..., Awaitable[None]]]) -> None:
        # It tells of each start and end of a job, and of each try again with a traceback.
        logging.getLogger("procrastinate").setLevel(logging.WARNING)
        for name in ("procrastinate.utils", "procrastinate.worker"):
            logging.getLogger(name).addFilter(_is_news)
        self._app = App(connector=PsycopgConnector())
        self._app.job_manager = _Patient(self._app.connector)
        for name, job in jobs.items():
            self._app.task(name=name, queue=_QUEUE, retry=_Again())(job)

    @asynccontextmanager
    async def open(self, pool: Pool) -> AsyncIterator[None]:
        """Use `pool`, best one of the queue's own: heartbeats must not wait for a request."""
        async with self._app.open_async(pool):
            self._pool = pool
            yield

    async def put(
        self, connection: AsyncConnection[Any], name: str, *, lock: str, key: str, **arguments: str
    ) -> None:
        """Put a job; it counts from when the transaction of `connection` is committed.

        One of the same `key` that still waits makes this one superfluous; then nothing is put.
        """
        options = self._app.configure_task(
            name, queue=_QUEUE, lock=lock, queueing_lock=key, connection=connection
        )
        # What is refused would take the caller's transaction with it.
        with suppress(AlreadyEnqueued):
            async with connection.transaction():
                await options.defer_async(**arguments)

    async def without_job(self, keys: Sequence[str]) -> set[str]:
        """Those of `keys` for which no job waits or is being done."""
        rows = await rows_of(self._pool, _LIVE, (list(keys),))
        return set(keys) - {row["queueing_lock"] for row in rows}

    async def take_over(self, silent_s: float) -> list[dict[str, str]]:
        """Let the jobs of processes that were silent for so long wait again; gives their arguments.

        With 0 all jobs count that were begun before: for a process that knows that it is alone,
        and before it begins to work.
        """
        manager = self._app.job_manager
        async with advisory_lock(self._pool, _TAKE_OVER_LOCK):
            stalled = await manager.get_stalled_jobs(queue=_QUEUE, seconds_since_heartbeat=silent_s)
            return [_arguments(job) for job in stalled if await self._waits_again(job)]

    async def _waits_again(self, job: Job) -> bool:
        try:
            await self._app.job_manager.retry_job(job)
        except ConnectorException as error:
            # It ended in this very moment.
            log.warning("job %s could not be taken over: %s", job.id, error.__cause__)
            return False
        return True

    async def work(self) -> None:
        """Do the jobs of the queue until cancelled; then what is unfinished waits again."""
        this = asyncio.current_task()
        assert this is not None
        # A worker that cannot sign off, since the database is away, says that and not that it was
        # cancelled.
        while not this.cancelling():
            try:
                await self._app.run_worker_async(
                    queues=[_QUEUE],
                    concurrency=_AT_ONCE,
                    fetch_job_polling_interval=_POLL_S,
                    shutdown_graceful_timeout=_GRACE_S,
                    update_heartbeat_interval=_HEARTBEAT_S,
                    stalled_worker_timeout=SILENT_S,
                    delete_jobs="always",
                    install_signal_handlers=False,
                )
            except Exception as error:
                if _is_away(error):
                    log.warning("documents wait: the database is away")
                else:
                    log.exception("the queue broke off")
            await asyncio.sleep(1)


def _arguments(job: Job) -> dict[str, str]:
    return {name: str(value) for name, value in job.task_kwargs.items()}


def make_tables(connection: Connection) -> None:
    """Make the queue's tables, or bring them up to date; the caller holds the migrations' lock."""
    connection.execute(text("create table if not exists queue_migrations (name text primary key)"))
    known = set(connection.execute(text("select name from queue_migrations")).scalars())
    files = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    if not known:
        _run(connection, SchemaManager.get_schema())
    for file in files:
        if known and file.name not in known:
            _run(connection, file.read_text(encoding="utf-8"))
    names = [{"name": file.name} for file in files if file.name not in known]
    if names:
        connection.execute(text("insert into queue_migrations values (:name)"), names)


def _run(connection: Connection, script: str) -> None:
    # As it stands: a colon or a percent sign is no parameter.
    connection.execution_options(no_parameters=True).exec_driver_sql(script)


class _Again(BaseRetryStrategy):
    """A job is done again when it asks for it, and when the service goes down meanwhile.

    However often: some jobs, such as one that deletes vectors, nobody would put again.
    """

    def get_retry_decision(self, *, exception: BaseException, job: Job) -> RetryDecision | None:
        if isinstance(exception, Later):
            wait = timedelta(seconds=exception.seconds)
            return RetryDecision(retry_at=datetime.now(UTC) + wait)
        return RetryDecision() if isinstance(exception, asyncio.CancelledError) else None


class _Patient(JobManager):
    """Writes what became of a job also where the database is away for a while.

    A job that has ended but stands as begun, in a process that lives, would hold its lock for
    ever. Where the database is away for longer, the heartbeat fails first, which ends the worker
    and with it that claim.
    """

    async def finish_job_by_id_async(self, job_id: int, status: Status, delete_job: bool) -> None:
        """Write that a job has ended."""
        async for attempt in patiently(_is_away, 30):
            with attempt:
                await super().finish_job_by_id_async(job_id, status, delete_job)

    async def retry_job_by_id_async(
        self,
        job_id: int,
        retry_at: datetime,
        priority: int | None = None,
        queue: str | None = None,
        lock: str | None = None,
    ) -> None:
        """Write that a job waits again."""
        async for attempt in patiently(_is_away, 30):
            with attempt:
                await super().retry_job_by_id_async(job_id, retry_at, priority, queue, lock)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record of the queue's is no traceback of a database that is away, which is told."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or not _is_away(error)


def _is_away(error: BaseException) -> bool:
    return is_unreachable(error) or isinstance(error.__cause__, UNREACHABLE)


_LIVE = """
select queueing_lock from procrastinate_jobs
where status in ('todo', 'doing') and queueing_lock = any(%s)
"""
