"""Finds the passages of the project's documents that bear on the question."""

from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from graph.context import Context
from graph.errors import RetrievalFailed
from graph.knowledge.library import Library
from graph.state import Source, State


class Retrieved(TypedDict):
    """What this step adds to the state, best first."""

    passages: list[Source]


async def retrieve(state: State, runtime: Runtime[Context], *, library: Library) -> Retrieved:
    """Search the project's documents; a turn without a project finds nothing.

    Raises:
        RetrievalFailed: the knowledge base could not be searched, or the id is none of a project.
    """
    project_id = state.get("project_id")
    if not project_id:
        return {"passages": []}
    question = state["messages"][-1]["content"]
    try:
        found = await library.search(project_id, question, limit=runtime.context.top_k)
    except ValueError as error:
        raise RetrievalFailed(f"{project_id!r} is no project id, which is a UUID.") from error
    return {"passages": found}
