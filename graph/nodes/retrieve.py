"""Finds the passages of the project's documents that bear on the question."""

from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from graph.context import Context
from graph.errors import RetrievalFailed
from graph.knowledge.library import Library
from graph.knowledge.questions import understood
from graph.knowledge.ranking import Passage
from graph.state import UNSORTED, Source, State


class Retrieved(TypedDict):
    """What this step adds to the state, best first."""

    passages: list[Source]


async def retrieve(state: State, runtime: Runtime[Context], *, library: Library) -> Retrieved:
    """Search the project's documents; a turn without a project finds nothing.

    A draft takes what is nearest. A question takes nothing where no passage speaks of it.

    Raises:
        RetrievalFailed: the knowledge base could not be searched, or the id is none of a project.
    """
    project_id = state.get("project_id")
    if not project_id:
        return {"passages": []}
    *before, question = [m["content"] for m in state["messages"] if m["role"] == "user"]
    is_question = state.get("doc_type", UNSORTED) == UNSORTED
    try:
        found = await library.search(
            project_id,
            understood(question, before),
            limit=runtime.context.top_k,
            floor=is_question,
        )
    except ValueError as error:
        raise RetrievalFailed(f"{project_id!r} is no project id, which is a UUID.") from error
    return {"passages": [_source(passage) for passage in found]}


def _source(passage: Passage) -> Source:
    chunk = passage.chunk
    return Source(
        id=chunk.id,
        document_id=chunk.place[0],
        document_name=chunk.document_name,
        page_number=chunk.page_number,
        heading=chunk.heading,
        text=passage.text,
        context=passage.context,
        url=None,
    )
