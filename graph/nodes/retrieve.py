"""Finds what of the project's documents a turn needs: passages, and for a draft whole ones."""

import asyncio
from uuid import UUID

from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from graph.context import Context
from graph.errors import RetrievalFailed
from graph.knowledge.library import Library
from graph.knowledge.questions import understood
from graph.knowledge.ranking import Passage
from graph.state import UNSORTED, Source, State
from graph.texts.paths import document_names
from graph.texts.wording import type_of


class Retrieved(TypedDict):
    """What this step adds to the state: passages, best first, and documents by name."""

    passages: list[Source]
    documents: dict[str, str]


async def retrieve(state: State, runtime: Runtime[Context], *, library: Library) -> Retrieved:
    """Search the project's documents; a turn without a project finds nothing.

    A draft takes what is nearest, and the documents that its type depends on. A question takes
    nothing where no passage speaks of it.

    Raises:
        RetrievalFailed: the knowledge base could not be searched, or the id is none of a project.
    """
    project_id = state.get("project_id")
    if not project_id:
        return {"passages": [], "documents": {}}
    _check_id(project_id)
    searching = _passages(state, project_id, runtime.context, library)
    if not _needed(state):
        return {"passages": await searching, "documents": {}}
    passages, documents = await asyncio.gather(searching, _documents(state, project_id, library))
    return {"passages": passages, "documents": documents}


def _check_id(project_id: str) -> None:
    try:
        UUID(project_id)
    except ValueError as error:
        raise RetrievalFailed(f"{project_id!r} is no project id, which is a UUID.") from error


async def _passages(
    state: State, project_id: str, context: Context, library: Library
) -> list[Source]:
    *before, question = [m["content"] for m in state["messages"] if m["role"] == "user"]
    is_question = state.get("doc_type", UNSORTED) == UNSORTED
    asked = understood(question, before)
    outline = context.standing.outline if context.standing else None
    found = await library.search(
        project_id, asked, limit=context.top_k, floor=is_question, outline=outline
    )
    return [_source(passage) for passage in found]


async def _documents(state: State, project_id: str, library: Library) -> dict[str, str]:
    """The documents that the type depends on, but for those that the request brings itself.

    One of each type: the newest, where the project has it under several names.
    """
    needed = _needed(state)
    found = await library.documents(project_id, list(needed))
    newest: dict[str, str] = {}
    for name in found:
        newest.setdefault(needed[name], name)
    return {name: found[name] for name in newest.values()}


def _needed(state: State) -> dict[str, str]:
    """The names that documents of these types may have, each with its type."""
    template, output_paths = state.get("template"), state.get("output_paths", {})
    brought = {type_of(path, output_paths) for path in state.get("project_context") or {}}
    return {
        name: kind
        for kind in (template["depends_on"] if template else [])
        if kind not in brought
        for name in document_names(kind, output_paths.get(kind, f"{kind}.md"))
    }


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
