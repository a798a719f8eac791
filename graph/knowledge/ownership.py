"""Who owns the folder of the embedded vector store: one process, until it ends."""

import os
from pathlib import Path

from filelock import FileLock, Timeout

from graph.errors import PipelineError


class VectorsInUse(PipelineError):
    """Another process owns the folder of the embedded store."""

    def __init__(self, folder: Path, pid: str) -> None:
        owner = f"process {pid}" if pid else "another process"
        super().__init__(
            f"The folder {str(folder)!r} is in use by {owner}. "
            "Stop it, choose another DATA_DIR, or set CHROMA_URL to share a Chroma server."
        )


class Ownership:
    """A lock on the folder that ends with the process, and the owner's pid beside it.

    Raises VectorsInUse when another process has it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._pid_file = folder / "owner.pid"
        # Released from whichever thread closes the store.
        self._lock = FileLock(folder / "owner.lock", thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise VectorsInUse(folder, self._read_pid()) from None
        self._pid_file.write_text(str(os.getpid()))

    def release(self) -> None:
        """Let go of the folder; may be repeated."""
        if self._lock.is_locked:
            self._pid_file.unlink(missing_ok=True)
            self._lock.release()

    def _read_pid(self) -> str:
        try:
            return self._pid_file.read_text()
        except OSError:
            return ""
