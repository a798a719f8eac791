"""A server in a child process, on loopback, which never outlives the process that started it."""

import json
import os
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, ClassVar, Self

from graph.errors import PipelineError

_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0


class ChildServer(ABC):
    """A context manager; it starts on entering. The child dies with this process, however it ends.

    The child prints `{"port": …}` as a line when it answers, and ends when its stdin closes.
    `log_path` gets its stderr; without it that is dropped. `part` is what it is to the service.
    """

    part: ClassVar[str]

    def __init__(self, log_path: Path | None = None) -> None:
        self._log_path = log_path
        self._port = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """What to run; it takes a free port where `port` is 0."""

    @abstractmethod
    def _environment(self) -> Mapping[str, str]:
        """The child's environment."""

    @abstractmethod
    def _not_started(self) -> PipelineError:
        """What to raise when it ended, or was late."""

    def __enter__(self) -> Self:
        self.restart_if_dead()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id, null if there is none."""
        return self._child.pid if self._child else None

    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.poll() is None

    def restart_if_dead(self) -> None:
        """Start the child if it does not run, and wait until it answers; blocks, any thread.

        Its port stays the same. Raises a PipelineError if it ended, or was not ready within 60 s.
        """
        with self._starting:
            if not self.alive():
                self._end()
                self._start()

    def close(self) -> None:
        """End the child: ask, wait 5 s, then kill. A second call changes nothing."""
        self._end()

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        # Closing stdin is the request: to SIGTERM Chroma waits for its clients.
        _close_pipes(child)
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _start(self) -> None:
        child = self._child = self._spawn()
        # The child is killed if it is late, which ends the wait for its line.
        late = threading.Timer(_START_TIMEOUT_S, child.kill)
        late.start()
        try:
            line = child.stdout.readline() if child.stdout else b""
        finally:
            late.cancel()
        try:
            self._port = int(json.loads(line)["port"])
        except ValueError as error:
            self._end()
            raise self._not_started() from error

    def _spawn(self) -> subprocess.Popen[bytes]:
        with _opened(self._log_path) as errors:
            return subprocess.Popen(
                self._command(self._port),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=Path(__file__).parent.parent,
                env=self._environment(),
                # Ctrl-C in the terminal must not end it before those who use it.
                start_new_session=True,
            )


def _opened(log_path: Path | None) -> IO[bytes]:
    if log_path is None:
        return open(os.devnull, "wb")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    return log_path.open("wb")


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
