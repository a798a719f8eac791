"""A re-ranker behind an endpoint: reads question and passages together, and puts them in order.

`POST {base_url}/rerank` as Cohere defined it and Jina, Voyage, vLLM and others speak it; the
answers of text-embeddings-inference are understood too.
"""

import logging
from collections.abc import Sequence
from typing import Any

import httpx
from pydantic import SecretStr

log = logging.getLogger(__name__)

CANDIDATES = 30
"""How many passages it is given."""

_TIMEOUT = httpx.Timeout(5.0, connect=2.0)
_FAILURES = (httpx.HTTPError, ValueError, TypeError, KeyError, IndexError)


class Reranker:
    """One endpoint with one model; connects when first used."""

    def __init__(self, base_url: str, api_key: SecretStr | None, model: str) -> None:
        headers = {"Authorization": f"Bearer {api_key.get_secret_value()}"} if api_key else {}
        self._url = f"{base_url.rstrip('/')}/rerank"
        self._model = model
        self._http = httpx.AsyncClient(headers=headers, timeout=_TIMEOUT)

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def order(self, question: str, passages: Sequence[str]) -> list[int]:
        """The places of the passages, the best first.

        Where it does not answer, they stay as they are: a search must not fail for it.
        """
        try:
            scores = await self._scores(question, passages)
        except _FAILURES as error:
            log.warning("the re-ranker was passed over: %s", type(error).__name__)
            return list(range(len(passages)))
        return sorted(range(len(passages)), key=lambda at: -scores[at])

    async def probe(self) -> None:
        """Have it order two passages.

        Raises:
            ConnectionError: it cannot be reached, refuses, or does not answer with scores.
        """
        try:
            await self._scores("How high is the water?", ["The water is high.", "It is noon."])
        except httpx.HTTPStatusError as error:
            raise ConnectionError(f"status {error.response.status_code}") from error
        except _FAILURES as error:
            raise ConnectionError(type(error).__name__) from error

    async def _scores(self, question: str, passages: Sequence[str]) -> list[float]:
        body = {
            "model": self._model,
            "query": question,
            "documents": list(passages),
            "top_n": len(passages),
        }
        response = await self._http.post(self._url, json=body)
        response.raise_for_status()
        # Those that it leaves out are the worst.
        scores = [float("-inf")] * len(passages)
        for one in _results(response.json()):
            place = int(one["index"])
            if place < 0:
                raise IndexError(place)
            scores[place] = float(one["relevance_score" if "relevance_score" in one else "score"])
        return scores


def _results(answer: Any) -> list[dict[str, Any]]:  # noqa: ANN401
    if isinstance(answer, dict):
        answer = answer["results"] if "results" in answer else answer["data"]
    results: list[dict[str, Any]] = answer
    return results
