"""A project's documents: uploaded, listed, read and erased."""

import asyncio
import uuid
from collections.abc import Callable, Coroutine
from typing import Annotated, Any
from unicodedata import normalize
from urllib.parse import quote

from fastapi import APIRouter, Depends, Response, UploadFile

from api.access.resolver import Tier, access_to
from api.access.rules import Caller, EditableProject, GuardedRoute, UsableProject, rule, too_low
from api.dependencies import Parts, Service
from api.errors import Refusal, invalid, not_found
from api.lists import Before, Limit
from api.resuming import After, LastEventId, StopsAt204, place
from api.schema import CamelModel
from api.streams import ingestion_stream_docs
from api.versions import COLUMNS, Document, content_of, told
from api.wire import EventStream, NothingFollows
from graph.errors import UnsupportedDocument
from graph.knowledge.parsing import recognise
from graph.postgres import row_of, rows_of
from graph.sanitizing import one_line, one_way

router = APIRouter(prefix="/documents", tags=["documents"], route_class=GuardedRoute)

_FILE = {
    "description": "The file, of its own type.",
    "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
}
_LONGEST_NAME = 255


class DocumentAnswer(CamelModel):
    """One document."""

    document: Document


class DocumentList(CamelModel):
    """Documents, the newest first."""

    documents: list[Document]


def document_in_project(needed: Tier) -> Callable[..., Coroutine[Any, Any, dict[str, Any]]]:
    """The rule for a route about the document of its path; gives its row."""

    @rule(f"tier {needed} of the document's project")
    async def allowed(document_id: uuid.UUID, service: Service, caller: Caller) -> dict[str, Any]:
        row = await row_of(service.pool, _SELECT, (document_id,))
        access = row and await access_to(service.pool, caller, row["project_id"])
        if not row or not access:
            raise not_found("document")
        if not access.allows(needed):
            raise too_low(access, needed)
        await service.fair_use.count_project_request(row["project_id"])
        return row

    return allowed


UsableDocument = Annotated[dict[str, Any], Depends(document_in_project("use"))]
EditableDocument = Annotated[dict[str, Any], Depends(document_in_project("edit"))]


@router.post("/projects/{project_id}", status_code=202)
async def upload_documents(
    project_id: EditableProject, file: list[UploadFile], service: Service
) -> DocumentList:
    """Take in one or more files. A file of the same name becomes a new version."""
    names = [_name(upload) for upload in file]
    for upload in file:
        _require_size(upload, service)
    # One file after another is in memory; none is stored before all were looked at.
    files = list(zip(names, file, strict=True))
    kinds = [await _recognised(name, upload) for name, upload in files]
    rows = [
        await service.ingestion.accept(project_id, name, await _read(upload), kind)
        for (name, upload), kind in zip(files, kinds, strict=True)
    ]
    return DocumentList(documents=[told(row) for row in rows])


@router.get("/projects/{project_id}")
async def list_documents(
    project_id: UsableProject, service: Service, limit: Limit = 50, before: Before = None
) -> DocumentList:
    """The project's documents."""
    values = {"project": project_id, "before": before, "limit": limit}
    rows = await rows_of(service.pool, _SELECT_LIST, values)
    return DocumentList(documents=[told(row) for row in rows])


@router.get("/{document_id}")
async def get_document(document: UsableDocument) -> DocumentAnswer:
    """One document, without its content."""
    return DocumentAnswer(document=told(document))


@router.get("/{document_id}/content", response_class=Response, responses={200: _FILE})
async def get_content(document: UsableDocument, service: Service) -> Response:
    """The original file."""
    async with service.pool.connection() as connection:
        content = await content_of(connection, document["id"])
    if content is None:
        raise not_found("document")
    return Response(
        content,
        headers={
            # Not as media_type: Starlette would add a charset, which nobody knows.
            "Content-Type": document["mime_type"],
            "Content-Disposition": _disposition(document["name"]),
        },
    )


@router.get("/{document_id}/events", response_class=EventStream, responses=ingestion_stream_docs())
async def follow_document(
    document: UsableDocument,
    service: Service,
    stops_at_204: StopsAt204,
    after: After = None,
    last_event_id: LastEventId = None,
) -> Response:
    """How far a document is: from the start, or after `Last-Event-ID` or `after`; then live."""
    document_id = document["id"]
    last = place(document_id, after, last_event_id)
    if stops_at_204 and last and await service.ingestion.progress.is_over(document_id, last):
        return NothingFollows(str(document_id))
    content = service.ingestion.progress.follow(document_id, last)
    return EventStream(content, run_id=str(document_id))


@router.delete("/{document_id}", status_code=204)
async def delete_document(document: EditableDocument, service: Service, caller: Caller) -> Response:
    """Erase a document with its file, chunks and vectors, and what answers quote of it."""
    project_id, name = document["project_id"], document["name"]
    await service.erasure.document(project_id, document["id"], name, by=caller)
    return Response(status_code=204)


def _name(upload: UploadFile) -> str:
    # A browser may send a path; its last part is the name, whatever the separators.
    last = (upload.filename or "").replace("\\", "/").rpartition("/")[2]
    # A Mac may send letters and their marks apart; it is the same name.
    name = normalize("NFC", one_line(one_way(last), len(last)))
    if not name.strip("."):
        raise invalid("file", "Each file needs a name, of more than dots.")
    if len(name) > _LONGEST_NAME:
        about = f"{name[:40]}…"
        raise invalid("file", f"The name {about!r} has more than {_LONGEST_NAME} characters.")
    return name


def _disposition(name: str) -> str:
    """`name` as a browser saves it: an ingested text may be called like a path."""
    last = name.rpartition("/")[2] or "document"
    plain = "".join(one if one.isascii() and one not in '"\\%' else "_" for one in last)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(last, safe='')}"


def _require_size(upload: UploadFile, service: Parts) -> None:
    most = service.settings.max_upload_mb
    if (upload.size or 0) > most * 1_000_000:
        raise Refusal(413, "too_large", f"A file may have at most {most} MB.")


async def _read(upload: UploadFile) -> bytes:
    await upload.seek(0)
    return await upload.read()


async def _recognised(name: str, upload: UploadFile) -> str:
    try:
        return await asyncio.to_thread(recognise, await _read(upload), name)
    except UnsupportedDocument as error:
        raise Refusal(415, "unsupported_document", str(error)) from error


_SELECT = f"select {COLUMNS} from documents where id = %s"
_SELECT_LIST = f"""
select {COLUMNS} from documents
where project_id = %(project)s
    and (%(before)s::timestamptz is null or created_at < %(before)s)
order by created_at desc, id limit %(limit)s
"""
