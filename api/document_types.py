"""The document types that can be drafted, and how far a project is on its way through them."""

import uuid
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from api.access.rules import Caller, GuardedRoute, UsableProject, require, rule
from api.dependencies import Service
from api.errors import DRAFTING_PREFIX
from graph.texts.document_types import DocumentType
from graph.texts.paths import document_names

router = APIRouter(prefix=DRAFTING_PREFIX, tags=["document types"], route_class=GuardedRoute)

Status = Literal["done", "stale", "draft", "ready", "missing"]


class DocumentTypeEntry(BaseModel):
    """A document type; `version` names the exact template and example."""

    type: str
    title: str
    phase: str
    output_path: str
    depends_on: list[str]
    required_headings: list[str]
    version: str


class DocumentTypeList(BaseModel):
    """All types that have a template."""

    document_types: list[DocumentTypeEntry]


class WorkflowEntry(BaseModel):
    """Where a project stands with one type."""

    type: str
    phase: str
    output_path: str
    depends_on: list[str]
    status: Status
    updated_at: datetime | None


class Workflow(BaseModel):
    """Where a project stands; `next` is the first type that is ready or stale."""

    project_id: uuid.UUID
    documents: list[WorkflowEntry]
    next: str | None


@rule("a caller who is known, and tier use of a project that is named")
async def usable_project_if_named(
    request: Request, service: Service, caller: Caller, project_id: uuid.UUID | None = None
) -> uuid.UUID | None:
    """The project of the query, null if none is named."""
    if project_id is not None:
        await require(request, service.pool, caller, project_id, "use")
    return project_id


@router.get("/document-types")
async def list_document_types(
    service: Service, project_id: Annotated[uuid.UUID | None, Depends(usable_project_if_named)]
) -> DocumentTypeList:
    """The types that can be given as `doc_type`, beside UNSORTED; a project may have its own."""
    wording = await service.texts.wording(str(project_id) if project_id else None)
    return DocumentTypeList(
        document_types=[
            DocumentTypeEntry(type=kind.name, version=kind.version, **_shown(kind))
            for kind in wording.document_types()
        ]
    )


@router.get("/projects/{project_id}/workflow")
async def get_workflow(project_id: UsableProject, service: Service, caller: Caller) -> Workflow:
    """Which documents are done, stale, drafted, ready to be drafted, or missing."""
    async with service.pool.connection() as connection:
        documents = await (await connection.execute(_DOCUMENTS, (project_id,))).fetchall()
        drafts = await (await connection.execute(_DRAFTS, (project_id, caller.id))).fetchall()
    kinds = (await service.texts.wording(str(project_id))).document_types()
    done = _done_at(kinds, {row["name"]: row["at"] for row in documents})
    entries = _entries(kinds, done, {row["doc_type"]: row["at"] for row in drafts})
    following = (entry.type for entry in entries if entry.status in ("ready", "stale"))
    return Workflow(project_id=project_id, documents=entries, next=next(following, None))


def _done_at(kinds: list[DocumentType], documents: dict[str, datetime]) -> dict[str, datetime]:
    """When each type was done: a document has its output path or is named after it."""
    found = {}
    for kind in kinds:
        names = document_names(kind.name, kind.about.output_path)
        if at := [documents[name] for name in names if name in documents]:
            found[kind.name] = max(at)
    return found


def _entries(
    kinds: list[DocumentType], done: dict[str, datetime], drafts: dict[str, datetime]
) -> list[WorkflowEntry]:
    """Each type's status, from when it and what it depends on was done or drafted."""
    return [
        WorkflowEntry(
            type=kind.name,
            phase=kind.about.phase,
            output_path=kind.about.output_path,
            depends_on=kind.about.depends_on,
            status=_status(kind, done, drafts),
            updated_at=done.get(kind.name) or drafts.get(kind.name),
        )
        for kind in kinds
    ]


def _status(kind: DocumentType, done: dict[str, datetime], drafts: dict[str, datetime]) -> Status:
    needs = kind.about.depends_on
    if at := done.get(kind.name):
        return "stale" if any(done[need] > at for need in needs if need in done) else "done"
    if kind.name in drafts:
        return "draft"
    return "ready" if all(need in done for need in needs) else "missing"


def _shown(kind: DocumentType) -> dict[str, object]:
    return kind.about.model_dump(exclude={"order", "good"})


_DOCUMENTS = """
select name, max(created_at) as at from documents
where project_id = %s and status = 'indexed' group by name
"""
_DRAFTS = """
select m.doc_type, max(r.ended_at) as at
from messages m join runs r on r.id = m.id join conversations c on c.id = m.conversation_id
where c.project_id = %s and c.owner_id = %s and r.status = 'done' and m.doc_type is not null
group by m.doc_type
"""
