"""Embedding models: two that come in packages, or any OpenAI-compatible endpoint."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import openai
from langchain_core.embeddings import Embeddings
from langchain_openai import OpenAIEmbeddings
from pydantic import SecretStr

from graph.errors import RetrievalFailed
from graph.knowledge import minilm
from graph.knowledge.batching import Questions
from graph.knowledge.minilm import MiniLM
from graph.knowledge.static_model import StaticModel, unit

QUICK_COSINE = 2**0.5
"""By how much the cosine of a question and a quick vector is too small."""

OTHER_LENGTH = (
    "The embedding model gives vectors of another length than when this project was indexed, under "
    "the same name. Go back to that model, or let the operator run `archwright reindex`."
)
"""Why a question cannot be compared with what is held."""

_LOCAL_BATCH = 64
# The least that common servers take in one request (text-embeddings-inference: 32).
_REMOTE_BATCH = 32

_CONNECT_TIMEOUT_S = 5.0
_WAITS_S = (0.5, 1.0, 2.0)
_RETRYABLE = {408, 409, 425, 429, *range(500, 600)}

T = TypeVar("T")


@dataclass(frozen=True)
class Embedder:
    """An embedding model under the name that vectors are marked with.

    Vectors of embedders with different names cannot be compared. `quick`, where there is one,
    gives vectors of a document that can be searched until the better ones are there. From a cosine
    of `near` on a passage speaks of what is asked, whatever its words.
    """

    name: str
    model: Embeddings
    batch_size: int = _LOCAL_BATCH
    quick: Embeddings | None = None
    near: float = 1.0
    hang_up: Callable[[], Awaitable[None]] | None = None

    async def embed_documents(
        self, texts: Sequence[str], *, quick: bool = False
    ) -> list[list[float]]:
        """Give one vector for each text, in order; transient failures are tried again.

        Raises RetrievalFailed.
        """
        model = (quick and self.quick) or self.model
        vectors: list[list[float]] = []
        for start in range(0, len(texts), self.batch_size):
            batch = list(texts[start : start + self.batch_size])
            vectors += await _embed_patiently(model, batch)
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


def local_embeddings(static: StaticModel) -> Embedder:
    """Two models that come in packages: `static` at once, MiniLM when there is time; no network.

    Blocks for some 0.3 s.
    """
    better = MiniLM()
    name = f"{static.name}+{better.name}"
    quick, thorough = _Mixture(static, None), _Mixture(static, better)
    return Embedder(name, thorough, _LOCAL_BATCH, quick=quick, near=0.55)


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
        chunk_size=_REMOTE_BATCH,
        # The client's own retries sleep as long as `Retry-After` says, up to two minutes.
        max_retries=0,
        request_timeout=openai.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
    )
    return Embedder(model, client, _REMOTE_BATCH, hang_up=http.aclose)


class _Mixture(Embeddings):
    """Unit vectors of two parts, whose cosine is the mean of both models' cosines.

    The base class runs `embed_documents` in a thread for its async one.
    """

    def __init__(self, static: StaticModel, minilm: MiniLM | None) -> None:
        self._static = static
        self._minilm = minilm
        self._questions = Questions(self.embed_documents)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        quick = self._static.embed(texts)
        if self._minilm is None:
            better = np.zeros((len(texts), minilm.DIMENSIONS), dtype=np.float32)
        else:
            better = self._minilm.embed(texts)
        both: list[list[float]] = unit(np.hstack([quick, better])).tolist()
        return both

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]

    async def aembed_query(self, text: str) -> list[float]:
        return await self._questions.vector(text)


async def _embed_patiently(model: Embeddings, texts: list[str]) -> list[list[float]]:
    for wait_s in _WAITS_S:
        try:
            return await _embed_batch(model, texts)
        except RetrievalFailed as error:
            if not error.transient:
                raise
        await asyncio.sleep(wait_s)
    return await _embed_batch(model, texts)


async def _embed_batch(model: Embeddings, texts: list[str]) -> list[list[float]]:
    vectors = await _translated(model.aembed_documents(texts))
    if len(vectors) != len(texts):
        raise _not_embeddings()
    return vectors


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
            "The embedding model could not be reached. Try again, or check EMBEDDING_BASE_URL.",
            transient=True,
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
