"""A re-ranker puts passages in order, and a search goes on without one that fails."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from standins.loopback import Journal, Script, serving

from graph.knowledge.reranking import Reranker

PASSAGES = ["first", "second", "third"]


class RerankStandIn:
    """Speaks the protocol; answers what it is told to, a status or a JSON value."""

    def __init__(self) -> None:
        self.journal = Journal()
        self.script: Script[Any] = Script(500)
        self.app = web.Application()
        self.app.router.add_post("/v1/rerank", self.journal.recorded(self._answer))

    async def _answer(self, request: web.Request, _: object) -> web.StreamResponse:
        answer = self.script.next()
        if isinstance(answer, int):
            return web.Response(status=answer, text="<html>")
        return web.json_response(answer)


@pytest.fixture
def standin() -> RerankStandIn:
    return RerankStandIn()


@pytest.fixture
def url(standin: RerankStandIn) -> Iterator[str]:
    with serving(standin.app) as url:
        yield f"{url}/v1"


def ordered(url: str, key: SecretStr | None = None) -> list[int]:
    async def ask() -> list[int]:
        reranker = Reranker(url, key, "rerank-1")
        try:
            return await reranker.order("Which?", PASSAGES)
        finally:
            await reranker.close()

    return asyncio.run(ask())


def test_it_is_asked_as_cohere_documents_it(standin: RerankStandIn, url: str) -> None:
    standin.script.add({"results": [{"index": 2, "relevance_score": 0.9}]})
    ordered(url, SecretStr("sk-1"))
    [request] = standin.journal.requests
    assert request.headers["authorization"] == "Bearer sk-1"
    assert request.body == {
        "model": "rerank-1",
        "query": "Which?",
        "documents": PASSAGES,
        "top_n": 3,
    }


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"results": [{"index": 2, "relevance_score": 1}, {"index": 1, "relevance_score": 0}]},
         [2, 1, 0]),
        ({"data": [{"index": 1, "relevance_score": 0.1}]}, [1, 0, 2]),
        ([{"index": 0, "score": -3}, {"index": 1, "score": -1}, {"index": 2, "score": -2}],
         [1, 2, 0]),
    ],
)  # fmt: skip
def test_the_best_come_first_and_what_it_leaves_out_last(
    standin: RerankStandIn, url: str, answer: Any, expected: list[int]
) -> None:
    standin.script.add(answer)
    assert ordered(url) == expected


@pytest.mark.parametrize(
    "answer",
    [500, 401, 200, {}, [], {"results": [{"index": 9, "score": 1}]}, {"results": [{"index": 0}]},
     {"results": [{"index": -1, "score": 1}]}, {"error": "no"}, {"results": 3}],
)  # fmt: skip
def test_where_it_fails_the_order_stays(standin: RerankStandIn, url: str, answer: Any) -> None:
    standin.script.add(answer)
    assert ordered(url) == [0, 1, 2]


def test_a_probe_says_how_it_fails(standin: RerankStandIn, url: str) -> None:
    standin.script.add({"results": [{"index": 0, "relevance_score": 1}]}, 401, {"error": "no"})

    async def probed(address: str) -> str | None:
        reranker = Reranker(address, None, "rerank-1")
        try:
            await reranker.probe()
        except ConnectionError as error:
            return str(error)
        finally:
            await reranker.close()
        return None

    asked = [url, url, url, "http://127.0.0.1:9"]
    said = [asyncio.run(probed(address)) for address in asked]
    assert said == [None, "status 401", "KeyError", "ConnectError"]


def test_where_nothing_answers_the_order_stays() -> None:
    assert ordered("http://127.0.0.1:9") == [0, 1, 2]
