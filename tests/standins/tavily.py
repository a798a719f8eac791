"""Stand in for Tavily's web search over real HTTP, faults included."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, Self

from aiohttp import web

from standins.loopback import (
    MAX_REQUEST_BYTES,
    Journal,
    Recorded,
    Script,
    forever,
    numbered,
    serving,
)

__all__ = ["Page", "Recorded", "SearchAnswer", "TavilyStandIn"]

# Tavily's own default for max_results.
MAX_RESULTS = 5

_ERRORS = {
    400: "Invalid request.",
    401: "Unauthorized: missing or invalid API key.",
    403: "Forbidden.",
    429: "Your request has been blocked due to excessive requests.",
    432: "This request exceeds your plan's set usage limit.",
    433: "This request exceeds the pay-as-you-go limit.",
}


@dataclass(frozen=True)
class Page:
    """One search result; `score` is 0 to 1, `raw_content` is sent only when it is asked for."""

    title: str
    url: str
    content: str
    score: float = 0.9
    raw_content: str | None = None


DEFAULT_PAGES = (
    Page("Stand-in result", "https://example.com/stand-in", "A page that the stand-in found."),
)


@dataclass(frozen=True)
class SearchAnswer:
    """What one search gets. Times are seconds.

    results: pages, best first, cut to the request's max_results.
    status: other than 200 gives Tavily's error JSON, with `error` as its text when given.
    delay_s: pause before the answer; hang: take the request and never answer it.
    body: sent as it is, with `status` and `content_type`, in place of JSON.
    """

    results: Sequence[Page] = DEFAULT_PAGES
    _: KW_ONLY
    status: int = 200
    error: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    hang: bool = False
    body: str | bytes | None = None
    content_type: str = "text/html"


class TavilyStandIn:
    """A Tavily server on loopback; use it as a context manager.

    `base_url` is the client's `api_base_url`. A request with neither a bearer key nor the
    client's keyless header gets a 401, and leaves the queued answers alone.
    """

    def __init__(self) -> None:
        self.base_url = ""
        self._journal = Journal()
        self._answers = Script(SearchAnswer())
        self._ids = numbered("search")
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.base_url = self._open.enter_context(serving(self._app()))
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        self._open.close()

    def will(self, *answers: SearchAnswer) -> None:
        """Queue answers for the next searches; the last one stays in force."""
        self._answers.add(*answers)

    def reset(self) -> None:
        """Forget the requests so far, and all answers but the default."""
        self._journal.reset()
        self._answers.reset()

    @property
    def requests(self) -> list[Recorded]:
        """All requests so far, oldest first."""
        return self._journal.requests

    def wait_for_request(self, number: int = 0, timeout_s: float = 20.0) -> Recorded:
        """Return request `number` of `requests` once it came; TimeoutError otherwise."""
        return self._journal.wait_for_request(number, timeout_s)

    def wait_for_hangup(self, request: Recorded, timeout_s: float = 20.0) -> float:
        """Return the monotonic second at which the client hung up; TimeoutError if it did not."""
        return self._journal.wait_for_hangup(request, timeout_s)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_post("/search", self._journal.recorded(self._search))
        return app

    async def _search(self, _request: web.Request, recorded: Recorded) -> web.Response:
        if not _is_allowed(recorded.headers):
            return _response(SearchAnswer(status=401))
        answer = self._answers.next()
        if answer.hang:
            await forever()
        await asyncio.sleep(answer.delay_s)
        if answer.status != 200 or answer.body is not None:
            return _response(answer)
        return web.json_response(self._found(answer, recorded.body), headers=answer.headers)

    def _found(self, answer: SearchAnswer, asked: dict[str, Any]) -> dict[str, Any]:
        pages = answer.results[: asked.get("max_results", MAX_RESULTS)]
        return {
            "query": asked.get("query"),
            "follow_up_questions": None,
            "answer": None,
            "images": [],
            "results": [_result(page, bool(asked.get("include_raw_content"))) for page in pages],
            "response_time": 0.01,
            "request_id": next(self._ids),
        }


def _is_allowed(headers: dict[str, str]) -> bool:
    has_key = headers.get("authorization", "").startswith("Bearer ")
    return has_key or headers.get("x-tavily-access-mode") == "keyless"


def _result(page: Page, with_raw_content: bool) -> dict[str, Any]:
    return {**asdict(page), "raw_content": page.raw_content if with_raw_content else None}


def _response(answer: SearchAnswer) -> web.Response:
    if answer.body is None:
        message = answer.error or _ERRORS.get(answer.status, "Internal Server Error")
        error = {"detail": {"error": message}}
        return web.json_response(error, status=answer.status, headers=answer.headers)
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=body, headers=headers)
