"""Several processes that serve one address: started, watched, replaced and told to end together.

The parent binds the address, and opens what is embedded and has one owner: the vector store and
the language model. The workers reach both over loopback. The embedded Postgres is theirs as it is
the parent's: it ends with its last user, even where the parent was killed.
"""

import logging
import multiprocessing.connection
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from tempfile import TemporaryDirectory
from types import FrameType

from rich.console import Console

from api.logs import set_up_logging
from api.server import StartFailed, address, bound_socket, end_at_latest, told_as
from api.settings import Settings, warn_of_misspelt
from api.welcome import Opened, embedded_parts, welcome
from graph.child_server import ChildServer
from graph.errors import PipelineError
from graph.knowledge.vector_server import VectorServer
from graph.local_model import LentModel, open_local_model
from graph.postgres import embedded_postgres

log = logging.getLogger(__name__)

_LOOK_S = 0.2
_SHORTEST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
# Who served for so long is replaced at once, whatever was before.
_WELL_S = 60.0
_WORKERS_END_S = 13.5
_END_AT_LATEST_S = 14.7


@dataclass(frozen=True)
class Task:
    """What a worker is told: its settings, and the embedded model of the parent, if there is one.

    It goes through a pipe, since there are secrets in it.
    """

    settings: Settings
    lent_model: LentModel | None


@dataclass(frozen=True)
class Failed:
    """What a worker says that cannot serve: one line that tells why."""

    sentence: str


def serve_with(settings: Settings) -> None:
    """Serve with `settings.workers` processes until SIGTERM or SIGINT; prints what runs where.

    Raises:
        SettingsError: everybody could reach the service; see `Settings.refuse_open_door`.
        StartFailed: the address is taken, or a part of the service cannot be opened.
    """
    settings.refuse_open_door()
    set_up_logging(settings.log_level, settings.log_format)
    warn_of_misspelt()
    out = Console(highlight=False, soft_wrap=True)
    signals = _Signals()
    with (
        bound_socket(settings) as listener,
        TemporaryDirectory(prefix="archwright-metrics-", ignore_cleanup_errors=True) as metrics,
        _Workers(settings.workers, listener, signals, metrics) as workers,
    ):
        here = address(settings, listener)
        with ExitStack() as stack:
            with out.status(f"Starting {embedded_parts(settings)}…"):
                task = stack.enter_context(_shared(settings))
                # Before what they use.
                stack.callback(workers.end)
                opened = workers.wait_until_ready(task)
            if opened:
                out.print(welcome(settings, here, opened, settings.workers))
                workers.watch()


class _Signals:
    """What the operator wants: the first signal asks for the end, the second Ctrl-C insists."""

    def __init__(self) -> None:
        self.asked = self.insists = False
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, self._take)

    def _take(self, sig: int, frame: FrameType | None) -> None:
        if self.insists and sig == signal.SIGINT:
            os._exit(128 + sig)
        if not self.asked:
            end_at_latest(_END_AT_LATEST_S)
        elif sig == signal.SIGINT:
            self.insists = True
        self.asked = True


@contextmanager
def _shared(settings: Settings) -> Iterator[Task]:
    """Open what is embedded, once for all workers; what has died meanwhile is started again."""
    with ExitStack() as stack:
        servers: list[ChildServer] = []
        lent_model = None
        with told_as(StartFailed):
            if settings.database_url is None:
                stack.enter_context(embedded_postgres(settings.data_dir / "postgres"))
            if settings.chroma_url is None:
                vectors = stack.enter_context(VectorServer(settings.data_dir / "chroma"))
                settings = settings.model_copy(update={"chroma_url": vectors.url})
                servers.append(vectors)
            if settings.embeds_model:
                model = stack.enter_context(open_local_model(settings))
                lent_model = model.lent()
                servers.append(model)
        stack.enter_context(_kept_alive(servers))
        yield Task(settings, lent_model)


@contextmanager
def _kept_alive(servers: Sequence[ChildServer]) -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=_keep_alive, args=(servers, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(1)


def _keep_alive(servers: Sequence[ChildServer], over: threading.Event) -> None:
    pause = _SHORTEST_PAUSE_S
    while not over.wait(pause):
        dead = [server for server in servers if not server.alive()]
        try:
            for server in dead:
                log.warning("%s has died; starting it again", server.part)
                server.restart_if_dead()
        except PipelineError as error:
            log.error("%s", error)
        pause = min(2 * pause, _LONGEST_PAUSE_S) if dead else _SHORTEST_PAUSE_S


class _Workers:
    """The processes. They load the service at once, and open it when they have their task."""

    def __init__(
        self, count: int, listener: socket.socket, signals: _Signals, metrics: str
    ) -> None:
        self._listener = listener
        self._signals = signals
        self._all = [_Worker(listener, metrics) for _ in range(count)]

    def __enter__(self) -> "_Workers":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def wait_until_ready(self, task: Task) -> Opened | None:
        """Give them their task and wait until all serve; null if told to end before.

        Gives what one of them knows then.

        Raises:
            StartFailed: one of them cannot serve.
        """
        for one in self._all:
            one.give(task)
        while not self._signals.asked:
            self._hear()
            for one in self._all:
                if isinstance(one.said, Failed):
                    raise StartFailed(one.said.sentence)
            opened = [one.said for one in self._all if isinstance(one.said, Opened)]
            if len(opened) == len(self._all):
                return opened[0]
        return None

    def watch(self) -> None:
        """Replace workers that end, until told to end."""
        while not self._signals.asked:
            self._hear()
            for one in self._all:
                one.replace_if_due()

    def _hear(self) -> None:
        lines = {one.line: one for one in self._all if one.line}
        for line in multiprocessing.connection.wait(list(lines), _LOOK_S):
            assert isinstance(line, Connection)
            lines[line].hear()

    def end(self) -> None:
        """End them, in order if they can, within 14 s; a second call changes nothing."""
        # What still comes is refused then, as soon as the workers take nothing any more.
        self._listener.close()
        began = time.monotonic()
        for one in self._live():
            # Who does not serve yet would go on to open its parts first.
            one.tell(signal.SIGTERM if isinstance(one.said, Opened) else signal.SIGKILL)
        while live := self._live():
            for one in live:
                if time.monotonic() - began > _WORKERS_END_S:
                    one.tell(signal.SIGKILL)
                elif self._signals.insists:
                    one.let_go()
            time.sleep(0.05)

    def _live(self) -> list["_Worker"]:
        return [one for one in self._all if one.alive()]


class _Worker:
    """A process, and after it the one that replaces it; `said` is the last that it said."""

    def __init__(self, listener: socket.socket, metrics: str) -> None:
        self._task: Task | None = None
        self._listener = listener
        self._metrics = metrics
        self._pause = _SHORTEST_PAUSE_S
        self._start()

    def _start(self) -> None:
        self.line: Connection | None
        self.said: Opened | Failed | None = None
        self._due: float | None = None
        self._began = time.monotonic()
        self.line, theirs = Pipe()
        handles = (theirs.fileno(), self._listener.fileno())
        with theirs:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "api.worker", *map(str, handles)],
                pass_fds=handles,
                env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": self._metrics},
                stdin=subprocess.DEVNULL,
                # Ctrl-C in the terminal is for the parent, which tells the workers.
                start_new_session=True,
            )

    def give(self, task: Task) -> None:
        """Have the process, and each that replaces it, open the service."""
        self._task = task
        # One that has ended meanwhile is heard of.
        if self.line:
            with suppress(OSError):
                self.line.send(task)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._child.poll() is None

    def tell(self, sig: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        self._child.send_signal(sig)

    def let_go(self) -> None:
        """Have the process end at once; may be repeated."""
        if self.line:
            self.line.close()
            self.line = None

    def hear(self) -> None:
        """Take what the process says; where it has ended, it is to be replaced."""
        assert self.line
        try:
            self.said = self.line.recv()
        except (EOFError, OSError):
            self._has_ended()

    def replace_if_due(self) -> None:
        """Start another process where this one has ended, after a pause."""
        if self.line is not None:
            return
        if self._due is None:
            self._due = time.monotonic() + self._next_pause()
        elif time.monotonic() >= self._due and self._task:
            # Where there is no room for a process, its line is closed: tried again after a pause.
            with suppress(OSError):
                self._start()
            self.give(self._task)

    def _next_pause(self) -> float:
        if time.monotonic() - self._began > _WELL_S:
            self._pause = _SHORTEST_PAUSE_S
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_S)
        why = f": {self.said.sentence}" if isinstance(self.said, Failed) else ""
        log.warning("worker %d has ended%s; another starts in %g s", self._child.pid, why, pause)
        return pause

    def _has_ended(self) -> None:
        self.let_go()
        # Without its line it is none of ours any more, should it still hang.
        self._child.kill()
        code = self._child.wait()
        self._forget_gauges()
        if self.said is None:
            self.said = Failed(f"It ended while it was being started, with exit code {code}.")

    def _forget_gauges(self) -> None:
        """What stood in the process as it ended is over; what it has counted stays."""
        # Nobody else here needs it.
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

        mark_process_dead(self._child.pid, self._metrics)  # type: ignore[no-untyped-call]
