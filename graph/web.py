"""The only file that knows Tavily: a question in, web pages as sources out."""

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from pydantic import BaseModel, ValidationError
from tavily import AsyncTavilyClient
from tavily.errors import (
    BadRequestError,
    ForbiddenError,
    InvalidAPIKeyError,
    UsageLimitExceededError,
)
from tavily.errors import TimeoutError as TavilyTimeout

from graph.errors import WebSearchFailed
from graph.sanitizing import clean, one_line
from graph.settings import PipelineSettings
from graph.state import Source

_LONGEST_QUERY = 400
_TIMEOUT_S = 20
_MOST_PAGES = 5


class _Page(BaseModel):
    title: str = ""
    url: str
    content: str


class _Found(BaseModel):
    results: list[_Page]


class WebSearch:
    """Tavily's basic and advanced search over one connection pool."""

    def __init__(self, client: AsyncTavilyClient) -> None:
        self._client = client

    async def search(self, question: str, *, deep: bool) -> list[Source]:
        """The best pages for `question`, of which Tavily reads the first 400 characters.

        Raises:
            WebSearchFailed: Tavily refused, was not reached, or sent something else than results.
        """
        with _translated():
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await self._ask(question, deep=deep)
            pages = _Found.model_validate(answer).results
            return [_source(page) for page in pages if page.url.startswith(("https://", "http://"))]

    async def close(self) -> None:
        """Close the connections to Tavily."""
        await self._client.close()

    async def _ask(self, question: str, *, deep: bool) -> Any:  # noqa: ANN401 - JSON of a third party
        return await self._client.search(
            one_line(question, _LONGEST_QUERY),
            search_depth="advanced" if deep else "basic",
            max_results=_MOST_PAGES,
            timeout=_TIMEOUT_S,
        )


def open_web_search(settings: PipelineSettings) -> WebSearch | None:
    """The web search of these settings, null without a key."""
    if settings.tavily_api_key is None:
        return None
    return WebSearch(
        AsyncTavilyClient(
            api_key=settings.tavily_api_key.get_secret_value(),
            api_base_url=settings.tavily_base_url,
        )
    )


def _source(page: _Page) -> Source:
    url, text = one_line(page.url, 2000), clean(page.content)
    return {
        "id": str(uuid.uuid4()),
        "document_id": None,
        "document_name": one_line(page.title, 300) or url,
        "page_number": None,
        "text": text,
        "url": url,
        "heading": "",
        "context": text,
    }


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (InvalidAPIKeyError, ForbiddenError) as error:
        raise WebSearchFailed(
            "The web search refused the service's key or its plan is used up. "
            "Check TAVILY_API_KEY, or use mode `docs`."
        ) from error
    except BadRequestError as error:
        raise WebSearchFailed("The web search did not accept the question.") from error
    except UsageLimitExceededError as error:
        raise WebSearchFailed("The web search is busy. Try again later.", transient=True) from error
    except (TimeoutError, TavilyTimeout, httpx.HTTPError) as error:
        raise WebSearchFailed(
            "The web search was not reached or failed. Try again later, or use mode `docs`.",
            transient=True,
        ) from error
    except (ValidationError, ValueError) as error:
        raise WebSearchFailed(
            "The web search answered with something that is no result.", transient=True
        ) from error
