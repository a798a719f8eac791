"""Run an aiohttp application on loopback in a thread, and keep a journal of what it was asked."""

import asyncio
import itertools
import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from aiohttp import web

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
MAX_REQUEST_BYTES = 64 * 1024 * 1024

T = TypeVar("T")


@dataclass(eq=False)
class Recorded:
    """One request as the server got it, and how it ended.

    `headers` has lower-case names; `body` is the JSON object sent ({} when there was none);
    `closed_early_at` is the `time.monotonic()` second at which the client hung up; `finished` is
    true from just before the last byte is written, so a client with a whole answer sees it true.
    """

    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    closed_early_at: float | None = None
    finished: bool = False


Handler = Callable[[web.Request, Recorded], Awaitable[web.StreamResponse]]


class Journal:
    """The requests of one server in order of arrival, safe to read from any thread.

    The newest `most` of them; null for all.
    """

    def __init__(self, most: int | None = None) -> None:
        self._changed = threading.Condition()
        self._requests: deque[Recorded] = deque(maxlen=most)
        self._closed = False

    @property
    def requests(self) -> list[Recorded]:
        """A snapshot list of the live records, oldest first."""
        with self._changed:
            return list(self._requests)

    def recorded(
        self, handler: Handler
    ) -> Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]:
        """Make an aiohttp handler that records its request before `handler` answers it."""

        async def record(request: web.Request) -> web.StreamResponse:
            recorded = self._add(await _read(request))
            try:
                response = await handler(request, recorded)
            except (asyncio.CancelledError, ConnectionResetError):
                self._hung_up(recorded)
                raise
            self.finish(recorded)
            return response

        return record

    def reset(self) -> None:
        """Forget the requests so far."""
        with self._changed:
            self._requests.clear()

    def finish(self, recorded: Recorded) -> None:
        """Note that all that was to be sent is on its way."""
        with self._changed:
            recorded.finished = True
            self._changed.notify_all()

    def close(self) -> None:
        """From now on a lost connection is the server's own doing, not the client's."""
        with self._changed:
            self._closed = True

    def wait_for_request(self, number: int, timeout_s: float) -> Recorded:
        """Return request `number` (0 is the first) once it came; TimeoutError otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._requests) > number, timeout_s):
                seen = [request.path for request in self._requests]
                raise TimeoutError(f"no request {number!r} within {timeout_s!r} s, only {seen!r}")
            return self._requests[number]

    def wait_for_hangup(self, recorded: Recorded, timeout_s: float) -> float:
        """Return the monotonic second at which the client hung up; TimeoutError if it did not."""
        with self._changed:
            self._changed.wait_for(lambda: recorded.closed_early_at is not None, timeout_s)
            if recorded.closed_early_at is None:
                raise TimeoutError(f"no hang-up within {timeout_s!r} s on {recorded!r}")
            return recorded.closed_early_at

    def _add(self, recorded: Recorded) -> Recorded:
        with self._changed:
            self._requests.append(recorded)
            self._changed.notify_all()
        return recorded

    def _hung_up(self, recorded: Recorded) -> None:
        with self._changed:
            if self._closed:
                return
            recorded.finished = False
            recorded.closed_early_at = time.monotonic()
            self._changed.notify_all()


class Script(Generic[T]):
    """Answers given in order from any thread; the last one stays in force."""

    def __init__(self, default: T) -> None:
        self._lock = threading.Lock()
        self._default = default
        self._current = default
        self._queue: deque[T] = deque()

    def add(self, *answers: T) -> None:
        """Queue answers for the next requests."""
        with self._lock:
            self._queue.extend(answers)

    def reset(self) -> None:
        """Forget all answers but the default."""
        with self._lock:
            self._queue.clear()
            self._current = self._default

    def next(self) -> T:
        """Take the answer for one request."""
        with self._lock:
            if self._queue:
                self._current = self._queue.popleft()
            return self._current


async def forever() -> NoReturn:
    """Wait until the handler is cancelled, by the client's leaving or by the server's end."""
    await asyncio.Event().wait()
    raise AssertionError("nothing sets this event")


@contextmanager
def serving(app: web.Application) -> Iterator[str]:
    """Serve `app` on a free port of 127.0.0.1 in a thread; gives the URL, no trailing slash.

    Leaving aborts all connections and cancels their handlers, so it takes well under a second.
    """
    # Handler cancellation is how a handler learns that its client has left.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    with loop_in_thread() as loop:
        try:
            yield _result(_start(runner), loop, START_TIMEOUT_S)
        finally:
            _result(_stop(runner), loop, STOP_TIMEOUT_S)


@contextmanager
def loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    """A running event loop in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="standin", daemon=True)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(STOP_TIMEOUT_S)
        loop.close()


def _result(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop, timeout_s: float) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result(timeout_s)


async def _start(runner: web.AppRunner) -> str:
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def _stop(runner: web.AppRunner) -> None:
    for site in list(runner.sites):
        await site.stop()
    for connection in runner.server.connections if runner.server else []:
        if connection.transport is not None:
            connection.transport.abort()
    await runner.cleanup()


async def _read(request: web.Request) -> Recorded:
    raw = await request.read()
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Recorded(path=request.path, headers=headers, body=_json_object(raw))


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def numbered(prefix: str) -> Iterator[str]:
    """Endless ids `prefix-1`, `prefix-2`, … so that runs compare equal."""
    return (f"{prefix}-{number}" for number in itertools.count(1))
