"""Processes of the service that need not import it first: forked from one that has, once a session.

The command runs as it does from a shell, but for the seconds that importing takes each time, and
that it can be asked what it holds.
"""

import asyncio
import gc
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["api.app", "api.server", "api.cli"])


_HELD = "held.json"


class Held(TypedDict):
    """What a process holds: tasks by the name of what they do, objects by their type."""

    tasks: dict[str, int]
    objects: dict[str, int]


class Forked:
    """A command `archwright`, with what `subprocess.Popen` offers for a process."""

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: dict[str, str],
        out: Path,
        err: Path,
        *,
        renew_s: float | None = None,
    ) -> None:
        settings = (list(arguments), folder, environment, out, err, renew_s)
        self._held = folder / _HELD
        self._process = _FORKING.Process(target=_run, args=settings)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its id."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, null while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and give the exit code."""
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, f"it did not end within {timeout} s"
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def held(self) -> Held:
        """What it holds now, when all garbage is gone; its event loop stands still for that."""
        self._held.unlink(missing_ok=True)
        self.send_signal(signal.SIGUSR2)
        for _ in range(200):
            if self._held.exists():
                held: Held = json.loads(self._held.read_text())
                return held
            time.sleep(0.05)
        raise TimeoutError("the process does not tell what it holds")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def ran(folder: Path, environment: dict[str, str], *arguments: str) -> Done:
    """Run a command in `folder` to its end; what it writes is kept elsewhere."""
    with tempfile.TemporaryDirectory() as kept:
        out, err = Path(kept, "out"), Path(kept, "err")
        command = Forked(arguments, folder, environment, out, err)
        try:
            code = command.wait(110)
        finally:
            command.kill()
        return Done(code, out.read_text(), err.read_text())


def _run(
    arguments: list[str],
    folder: Path,
    environment: dict[str, str],
    out: Path,
    err: Path,
    renew_s: float | None,
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    # It was found in the environment of before.
    tempfile.tempdir = None
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.argv = ["archwright", *arguments]
    signal.signal(signal.SIGUSR2, lambda *_: _tell_what_is_held(folder / _HELD))

    from api.cli import app  # noqa: PLC0415
    from api.runs import upkeep  # noqa: PLC0415

    upkeep.RENEW_S = renew_s or upkeep.RENEW_S
    app()


def _tell_what_is_held(path: Path) -> None:
    gc.collect()
    held = {
        "tasks": Counter(_name(task) for task in asyncio.all_tasks()),
        "objects": Counter(type(one).__qualname__ for one in gc.get_objects()),
    }
    new = path.with_suffix(".new")
    new.write_text(json.dumps(held))
    new.rename(path)


def _name(task: asyncio.Task[object]) -> str:
    return getattr(task.get_coro(), "__qualname__", "")
