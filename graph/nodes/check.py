"""Checks a finished draft, after its last word was streamed."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from langgraph.runtime import Runtime

from graph.checks.drafts import check_draft
from graph.checks.findings import Finding
from graph.checks.project import Kind, Project
from graph.checks.references import linked_names
from graph.context import Context
from graph.events import DraftChecked, Warned
from graph.state import State, Template
from graph.texts.paths import document_names

log = logging.getLogger(__name__)

# Characters. Markdown that was made to be slow takes seconds for so many.
_LONGEST_DRAFT = 300_000
# Of a longer document of the project, what comes after is not looked at.
_MOST_OF_A_DOCUMENT = 300_000
_TOO_LONG = f"The draft is longer than {_LONGEST_DRAFT} characters and was not checked."
_FAILED = "The draft could not be checked; look it over, or draft it again later."


class Documents(Protocol):
    """Where the whole texts of a project's documents come from."""

    async def documents(self, project_id: str, names: Sequence[str]) -> dict[str, str]:
        """The texts of those of these documents that the project has, by name."""


async def check(state: State, runtime: Runtime[Context], *, library: Documents) -> None:
    """Say what is wrong with the draft. A check that fails is a warning, no failure of the run."""
    template = state.get("template")
    draft = state["messages"][-1]["content"]
    warnings: tuple[Warned, ...] = ()
    if template and len(draft) > _LONGEST_DRAFT:
        warnings = (Warned("not_checked", _TOO_LONG),)
    elif template and draft.strip():
        try:
            found = await _findings(draft, template, state, library)
            warnings = tuple(Warned(one.code, one.message, one.line) for one in found)
        except Exception:
            log.exception("run %s: the draft could not be checked", runtime.context.answer_id)
            warnings = (Warned("not_checked", _FAILED),)
    runtime.stream_writer(DraftChecked(warnings))


async def _findings(
    draft: str, template: Template, state: State, library: Documents
) -> list[Finding]:
    kind = Kind(template["doc_type"], template["output_path"], tuple(template["required_headings"]))
    project = await _project(draft, kind, state, library)
    # In a thread: it takes some 10 ms, and seconds for a text that was made to be slow.
    return await asyncio.to_thread(check_draft, draft, kind, project)


async def _project(draft: str, kind: Kind, state: State, library: Documents) -> Project:
    """The documents that the request brought come first, then those that were loaded."""
    project_id, output_paths = state.get("project_id"), state.get("output_paths") or {}
    context, loaded = state.get("project_context") or {}, state.get("documents") or {}
    documents = dict(context)
    documents |= {name: text for name, text in loaded.items() if name not in documents}
    if project_id:
        of_types = (name for one in output_paths.items() for name in document_names(*one))
        names = dict.fromkeys([*of_types, *linked_names(draft, kind.output_path)])
        missing = [name for name in names if name not in documents]
        documents |= await library.documents(project_id, missing)
    cut = {name: text[:_MOST_OF_A_DOCUMENT] for name, text in documents.items()}
    return Project(cut, output_paths, is_whole=bool(project_id))
