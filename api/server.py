"""Runs the service under uvicorn, from the text that it prints at start to its orderly end."""

import asyncio
import gc
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import psycopg
import uvicorn
from rich.console import Console
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from api.heads import BoundedHttp
from api.logs import set_up_logging
from api.settings import Settings, warn_of_misspelt
from api.welcome import Opened, embedded_parts, welcome
from graph.errors import PipelineError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from api.dependencies import Parts

log = logging.getLogger(__name__)

GRACE_S = 10
"""Seconds that runs have to end by themselves once the service was told to stop."""

_OPEN_STREAMS_S = 3
_END_AT_LATEST_S = 14.0
_COLLECTED_AFTER = (3_000, 10, 5)
_EVERYWHERE = {"0.0.0.0", "::", ""}


class StartFailed(Exception):
    """The service cannot start; the message is one line for whoever started it."""


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; prints what runs where, and how to try it.

    Raises:
        SettingsError: everybody could reach the service; see `refuse_open_door`.
        StartFailed: the address is taken, or a part of the service cannot be opened.
    """
    settings.refuse_open_door()
    set_up_logging(settings.log_level, settings.log_format)
    warn_of_misspelt()
    out = Console(highlight=False, soft_wrap=True)
    with bound_socket(settings) as listener, out.status("Loading Archwright…") as waiting:

        def say_ready(parts: "Parts") -> None:
            waiting.stop()
            out.print(welcome(settings, address(settings, listener), Opened.of(parts)))

        server = _server(settings, say_ready)
        waiting.update(f"Starting {embedded_parts(settings)}…")
        run(server, listener)


@contextmanager
def running(settings: Settings) -> Iterator[str]:
    """Serve in a thread of this process while the block runs; gives the service's address.

    Raises:
        StartFailed: as in `serve`.
    """
    with bound_socket(settings) as listener, ThreadPoolExecutor(1, "service") as thread:
        server = _server(settings)
        service = thread.submit(run, server, listener)
        try:
            _wait_for(server, service)
            yield address(settings, listener)
        finally:
            server.should_exit = True
        service.result()


class Server(uvicorn.Server):
    """Opens the app's parts itself, and at the end closes its run engine before anything else.

    uvicorn would open the parts for us, but turn whatever fails then into a traceback in the log.
    """

    def __init__(
        self, app: "FastAPI", settings: Settings, ready: "Callable[[Parts], object]"
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                lifespan="off",
                http=BoundedHttp,
                ws="none",
                log_config=None,
                access_log=settings.log_level == "DEBUG",
                timeout_graceful_shutdown=_OPEN_STREAMS_S,
            )
        )
        self._app = app
        self._ready = ready
        self._open = AsyncExitStack()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop; whatever happens, the parts are closed at the end."""
        async with self._open:
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the parts, then take requests."""
        state = await self._open.enter_async_context(self._app.router.lifespan_context(self._app))
        self.lifespan.state.update(state or {})
        await super().startup(sockets)
        if not self.should_exit:
            self._ready(self._parts)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the runs end, then the streams that show them, then close the parts."""
        closing = asyncio.create_task(self._parts.runs.close(GRACE_S))
        while not closing.done() and not self.force_exit:
            await asyncio.wait({closing}, timeout=0.1)
        # Closes at once what a second Ctrl-C did not want to wait for.
        await self._parts.runs.close(0)
        self._parts.ingestion.progress.close()
        await super().shutdown(sockets)
        await self._open.aclose()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal: the first one asks, the second Ctrl-C insists, the third one ends it."""
        if self.force_exit and sig == signal.SIGINT:
            os._exit(128 + sig)
        if not self.should_exit:
            end_at_latest(_END_AT_LATEST_S)
        super().handle_exit(sig, frame)
        # uvicorn raises them again when it has finished, and the exit code would not be 0.
        self._captured_signals.clear()

    def end_now(self) -> None:
        """End without waiting for runs, as after a second Ctrl-C; may be called in any thread."""
        end_at_latest(_END_AT_LATEST_S)
        self.should_exit = self.force_exit = True

    @property
    def _parts(self) -> "Parts":
        parts: Parts = self._app.state.parts
        return parts


def address(settings: Settings, listener: socket.socket) -> str:
    """The address at which this machine reaches what listens there."""
    host, port = listener.getsockname()[:2]
    if settings.host in _EVERYWHERE or host in _EVERYWHERE:
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _server(settings: Settings, ready: "Callable[[Parts], object]" = lambda parts: None) -> Server:
    # It takes seconds, in which a taken address and a spinner should be seen already.
    with imported_for_good():
        from api.app import create_app  # noqa: PLC0415

    return Server(create_app(settings), settings, ready)


@contextmanager
def imported_for_good() -> Iterator[None]:
    """Collect no garbage while modules are imported, and never look at what they made again.

    It saves a sixth of the time that importing takes, and each later collection much work. These
    come more rarely than Python has them: a turn makes thousands of objects, hardly any in rings.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_COLLECTED_AFTER)
        gc.enable()


def run(server: Server, listener: socket.socket) -> None:
    """Serve what comes to `listener` until told to stop.

    Raises:
        StartFailed: a part of the service cannot be opened.
    """
    with told_as(StartFailed):
        server.run(sockets=[listener])


def _wait_for(server: Server, service: "Future[None]") -> None:
    while not server.started:
        if service.done():
            service.result()
            raise StartFailed("The service ended while it was being started.")
        time.sleep(0.02)


def bound_socket(settings: Settings) -> socket.socket:
    """A socket bound to HOST and PORT, before the parts are opened: an address may be taken.

    Raises:
        StartFailed: it is taken, or none of this machine.
    """
    host, port = settings.host, settings.port
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (socket.gaierror, UnicodeError) as error:
        raise StartFailed(f"HOST: {host!r} is no address of this machine.") from error
    # IPv4 first: `localhost` is both, and clients try both.
    family, kind, protocol, _, place = min(found, key=lambda one: one[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(place)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise StartFailed(
            f"Cannot listen on {host}, port {port}: {reason}. Stop what uses it, or choose "
            "another with PORT or --port (0 takes a free one)."
        ) from error
    return listener


def end_at_latest(seconds: float) -> None:
    """End this process even if a thread hangs that nothing can cancel, such as a parser's."""

    def end() -> None:
        log.warning("ending now: something did not end in time")
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


@contextmanager
def told_as(failure: type[Exception]) -> Iterator[None]:
    """Raise `failure` with one line for people in place of what somebody foresaw."""
    try:
        yield
    except Exception as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        log.debug("%s", sentence, exc_info=error)
        raise failure(sentence) from error


def sentence_of(error: BaseException) -> str | None:
    """What kept the service from starting, in one line; null where nobody foresaw it."""
    match error:
        case PipelineError() | ValueError():
            return str(error)
        case DBAPIError(orig=reason) if reason is not None:
            return f"DATABASE_URL: the database cannot be used: {_first_line(reason)}"
        case SQLAlchemyError() | psycopg.Error():
            return f"DATABASE_URL: the database cannot be used: {_first_line(error)}"
        case subprocess.SubprocessError():
            return "The embedded Postgres in DATA_DIR cannot be started; the lines above say why."
        case OSError():
            return f"DATA_DIR: {error.strerror or error}: {error.filename or ''}".rstrip(": ")
        case _:
            return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]
