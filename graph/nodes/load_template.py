"""Loads the template and example of the document type that the turn asks for."""

import asyncio
from datetime import UTC, datetime

from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from graph.context import Context
from graph.state import UNSORTED, State, Template
from graph.texts import DocumentType, Texts, render


class Loaded(TypedDict):
    """What this step adds to the state; null for UNSORTED, which has no template."""

    template: Template | None


async def load_template(state: State, runtime: Runtime[Context], *, texts: Texts) -> Loaded:
    """Render the template of `doc_type`.

    Raises:
        TemplateFailed: the type is unknown, or its template is not in order.
    """
    name = state.get("doc_type") or UNSORTED
    if name == UNSORTED:
        return {"template": None}
    kind = await asyncio.to_thread(texts.document_type, name)
    return {"template": _rendered(kind, runtime.context)}


def _rendered(kind: DocumentType, context: Context) -> Template:
    body = render(
        kind.body,
        project_name=context.project_name,
        date=datetime.now(UTC).date().isoformat(),
    )
    return {
        "doc_type": kind.name,
        "title": kind.about.title,
        "output_path": kind.about.output_path,
        "depends_on": kind.about.depends_on,
        "required_headings": kind.about.required_headings,
        "body": body,
        "example": kind.example,
        "version": kind.version,
    }
