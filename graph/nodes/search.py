"""Asks the web, in the modes `web` and `deep`."""

from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from graph.context import Context
from graph.errors import WebSearchFailed
from graph.state import Source, State
from graph.web import WebSearch


class Searched(TypedDict):
    """What this step adds to the state, best first."""

    web_results: list[Source]


async def search(state: State, runtime: Runtime[Context], *, web: WebSearch | None) -> Searched:
    """Search the web for the question; `deep` takes Tavily's advanced search.

    Raises:
        WebSearchFailed: no search is configured, or it failed.
    """
    if web is None:
        raise WebSearchFailed("Web search is not set up. Set TAVILY_API_KEY, or use mode `docs`.")
    question = state["messages"][-1]["content"]
    return {"web_results": await web.search(question, deep=state.get("mode") == "deep")}
