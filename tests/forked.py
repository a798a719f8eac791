"""Processes of the service that need not import it first: forked from one that has, once a session.

The command runs as it does from a shell, but for the seconds that importing takes each time.
"""

import multiprocessing
import os
import sys
from collections.abc import Sequence
from pathlib import Path

_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(["api.app", "api.server", "api.cli"])


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

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()


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
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
    sys.argv = ["archwright", *arguments]

    from api.cli import app  # noqa: PLC0415
    from api.runs import upkeep  # noqa: PLC0415

    upkeep.RENEW_S = renew_s or upkeep.RENEW_S
    app()
