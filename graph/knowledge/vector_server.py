"""The embedded vector store for several processes: Chroma's Rust server in a child process."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from graph.child_server import ChildServer
from graph.errors import RetrievalFailed
from graph.knowledge.ownership import Ownership

# Nothing of the service's environment: there are secrets in it, and Chroma reads its own from it.
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "RUST_LOG": "error"}


class VectorServer(ChildServer):
    """Serves the vectors of `folder` on loopback to whoever asks; owns the folder meanwhile.

    Raises VectorsInUse on entering when another process owns it.
    """

    part = "the embedded vector store"

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._ownership: Ownership | None = None

    def __enter__(self) -> Self:
        self._ownership = Ownership(self._folder)
        try:
            return super().__enter__()
        except RetrievalFailed:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Its address, which stays the same when the child is restarted."""
        return f"http://127.0.0.1:{self._port}"

    def close(self) -> None:
        """End the child and let go of the folder; a second call changes nothing."""
        super().close()
        if self._ownership:
            self._ownership.release()

    def _command(self, port: int) -> list[str]:
        options = ["--folder", str(self._folder.resolve()), "--port", str(port)]
        return [sys.executable, "-I", "-m", "graph.knowledge.chroma_server", *options]

    def _environment(self) -> Mapping[str, str]:
        return _ENVIRONMENT

    def _not_started(self) -> RetrievalFailed:
        return RetrievalFailed(
            "The embedded vector store could not be started. Check DATA_DIR and the free memory, "
            "or set CHROMA_URL."
        )
