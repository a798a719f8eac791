"""Embedding models: one that comes in a package, or any OpenAI-compatible endpoint."""

import asyncio
import importlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import numpy as np
import openai
from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from graph.errors import RetrievalFailed

LOCAL_BATCH = 256
# The least that common servers take in one request (text-embeddings-inference: 32).
REMOTE_BATCH = 32

_CONNECT_TIMEOUT_S = 5.0
_WAITS_S = (0.5, 1.0, 2.0)
_RETRYABLE = {408, 409, 425, 429, *range(500, 600)}

T = TypeVar("T")


@dataclass(frozen=True)
class Embedder:
    """An embedding model under the name that vectors are marked with.

    Vectors of embedders with different names cannot be compared.
    """

    name: str
    model: Embeddings
    batch_size: int = LOCAL_BATCH
    hang_up: Callable[[], Awaitable[None]] | None = None

    async def embed_documents(self, texts: Sequence[str]) -> list[list[float]]:
        """Give one vector for each text, in order; transient failures are tried again.

        Raises RetrievalFailed.
        """
        vectors: list[list[float]] = []
        for start in range(0, len(texts), self.batch_size):
            vectors += await self._embed_patiently(list(texts[start : start + self.batch_size]))
        return vectors

    async def embed_query(self, text: str) -> list[float]:
        """Give the vector of a question, at the first attempt: somebody is waiting.

        Raises RetrievalFailed.
        """
        return await _translated(self.model.aembed_query(text))

    async def close(self) -> None:
        """Close the connections to an endpoint; an event loop cannot end while one is open."""
        if self.hang_up is not None:
            await self.hang_up()

    async def _embed_patiently(self, texts: list[str]) -> list[list[float]]:
        for wait_s in _WAITS_S:
            try:
                return await self._embed_batch(texts)
            except RetrievalFailed as error:
                if not error.transient:
                    raise
            await asyncio.sleep(wait_s)
        return await self._embed_batch(texts)

    async def _embed_batch(self, texts: list[str]) -> list[list[float]]:
        vectors = await _translated(self.model.aembed_documents(texts))
        if len(vectors) != len(texts):
            raise _not_embeddings()
        return vectors


def local_embeddings() -> Embedder:
    """Load the model that comes with the package `wordllama`: 256 dimensions, no network.

    Blocks for some 0.7 s.
    """
    return Embedder("wordllama-l2-supercat-256", _WordLlamaEmbeddings(), LOCAL_BATCH)


def remote_embeddings(
    base_url: str, api_key: SecretStr | None, model: str, *, timeout_s: float = 30
) -> Embedder:
    """Ask `POST {base_url}/embeddings` for the vectors of `model`; connects when first used."""
    # The client's own would be shared with other event loops, and never closed.
    http = openai.DefaultAsyncHttpxClient()
    client = OpenAIEmbeddings(
        http_async_client=http,
        openai_api_base=base_url,
        openai_api_key=api_key or SecretStr("none"),
        model=model,
        # Its check would download a tokenizer and send token numbers in place of text.
        check_embedding_ctx_length=False,
        chunk_size=REMOTE_BATCH,
        # The client's own retries sleep as long as `Retry-After` says, up to two minutes.
        max_retries=0,
        request_timeout=openai.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
    )
    return Embedder(model, client, REMOTE_BATCH, http.aclose)


class _WordLlamaEmbeddings(Embeddings):
    """Unit vectors; the base class runs these methods in threads for its async ones."""

    def __init__(self) -> None:
        wordllama = _import_wordllama()
        # WordLlama looks for its tokenizer in the wrong folder of its package, and then in
        # the cache; so the package is given as the cache.
        package = Path(str(wordllama.__file__)).parent
        self._model = wordllama.WordLlama.load(cache_dir=package, disable_download=True)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        if not texts:
            return []
        vectors = self._model.embed(texts)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: list[list[float]] = (vectors / np.maximum(lengths, 1e-12)).tolist()
        return unit

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


def _import_wordllama() -> ModuleType:
    """Import it without what it does on import: `logging.basicConfig` for the whole process."""
    placeholder = logging.NullHandler()
    logging.root.addHandler(placeholder)  # basicConfig leaves a root with a handler alone
    try:
        return importlib.import_module("wordllama")
    finally:
        logging.root.removeHandler(placeholder)


async def _translated(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except openai.APITimeoutError as error:
        raise RetrievalFailed(
            "The embedding model did not answer in time. Try again.", transient=True
        ) from error
    except openai.APIStatusError as error:
        raise _refused(error.status_code) from error
    except openai.APIConnectionError as error:
        raise RetrievalFailed(
            "The embedding model could not be reached. Try again.", transient=True
        ) from error
    except (openai.OpenAIError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _not_embeddings() from error


def _refused(status: int) -> RetrievalFailed:
    if status in _RETRYABLE:
        return RetrievalFailed(
            f"The embedding model answered with status {status}. Try again later.", transient=True
        )
    return RetrievalFailed(
        f"The embedding model answered with status {status}. "
        "Check EMBEDDING_BASE_URL, EMBEDDING_API_KEY and EMBEDDING_MODEL."
    )


def _not_embeddings() -> RetrievalFailed:
    return RetrievalFailed(
        "The embedding model did not answer with embeddings. "
        "Check EMBEDDING_BASE_URL and EMBEDDING_MODEL."
    )
