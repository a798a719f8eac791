"""The drafting API's knowledge endpoints: take a text in, search, and say what is there."""

import uuid
from contextlib import suppress
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from psycopg.rows import DictRow
from pydantic import BaseModel, StringConstraints

from api.access.principals import Principal
from api.access.resolver import brief_of
from api.access.rules import Caller, GuardedRoute, UsableProject, count_once, require, rule
from api.dependencies import Parts, Service
from api.errors import DRAFTING_PREFIX, Refusal
from api.first_use import ProjectTaken, make_project
from api.progress import GONE
from api.schema import CLEAN, NOT_BLANK, ONE_LINE, ONE_WAY, CleanText, example
from graph.errors import UnreadableDocument
from graph.knowledge.parsing import MARKDOWN, PLAIN
from graph.knowledge.questions import understood
from graph.knowledge.ranking import Passage
from graph.postgres import Pool, rows_of

router = APIRouter(prefix=DRAFTING_PREFIX, tags=["knowledge"], route_class=GuardedRoute)

# Proxies give up after a minute; the text is taken in all the same.
_INGEST_S = 50.0


class IngestRequest(BaseModel):
    """The body of `POST .../documents/ingest`."""

    model_config = example(
        doc_name="levels.md", markdown_content="# Levels\n\nThe state Alarm begins at 4.90 m.\n"
    )
    doc_name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
        CLEAN,
        ONE_WAY,
        ONE_LINE,
        NOT_BLANK,
    ]
    markdown_content: CleanText


class IngestAnswer(BaseModel):
    """How much became searchable."""

    project_id: uuid.UUID
    doc_name: str
    chunks_ingested: int


class SearchResult(BaseModel):
    """A passage; `score` is from 0 to 1, and tells only among the results of one search."""

    id: uuid.UUID
    content: str
    metadata: dict[str, Any]
    score: float


class SearchAnswer(BaseModel):
    """Passages, best first."""

    results: list[SearchResult]


class KnowledgeStatus(BaseModel):
    """What is in a project's knowledge base; `collections` is 1 once it holds a vector."""

    status: Literal["OK", "EMPTY"]
    documents: int
    vectors: int
    collections: int


@rule("tier edit of the project, which is made on first use")
async def is_new_project(
    project_id: uuid.UUID, request: Request, service: Service, caller: Caller
) -> bool:
    """Whether the project of the path is to be made; else the caller may change its documents."""
    is_new = await brief_of(service.pool, project_id) is None
    if is_new:
        await count_once(request, project_id)
    else:
        await require(request, service.pool, caller, project_id, "edit")
    return is_new


@router.post("/projects/{project_id}/documents/ingest")
async def ingest(
    project_id: uuid.UUID,
    is_new: Annotated[bool, Depends(is_new_project)],
    body: IngestRequest,
    request: Request,
    service: Service,
    caller: Caller,
) -> IngestAnswer:
    """Make a Markdown text searchable; the same name replaces the old text entirely."""
    if not body.markdown_content.strip():
        raise Refusal(400, "bad_request", "markdown_content must not be blank.")
    data = body.markdown_content.encode()
    # As Markdown, JSON would lose its underscores and asterisks.
    kind = PLAIN if body.doc_name.lower().endswith(".json") else MARKDOWN
    if is_new:
        await _refuse_without_text(service, body.doc_name, data, kind)
        await _make_project(service.pool, project_id, caller)
        # Somebody else may have made it since the rule looked.
        await require(request, service.pool, caller, project_id, "edit")
    row = await service.ingestion.accept(project_id, body.doc_name, data, kind)
    if row["status"] == "processing":
        row = await _settled(service, row["id"])
    return IngestAnswer(
        project_id=project_id, doc_name=body.doc_name, chunks_ingested=row["chunk_count"]
    )


async def _refuse_without_text(service: Parts, name: str, data: bytes, kind: str) -> None:
    """Refuse, before a project is made for it, what would fail in it."""
    try:
        await service.ingestion.require_text(name, data, kind)
    except UnreadableDocument as error:
        raise Refusal(400, "not_indexed", str(error)) from error


async def _make_project(pool: Pool, project_id: uuid.UUID, owner: Principal) -> None:
    async with pool.connection() as connection:
        with suppress(ProjectTaken):
            await make_project(connection, project_id, owner.id)


@router.get("/knowledge/search")
async def search(
    project_id: UsableProject,
    q: Annotated[str, StringConstraints(min_length=1, max_length=2000), CLEAN],
    service: Service,
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
) -> SearchAnswer:
    """The passages of the project's documents nearest to `q`."""
    found = await service.library.search(str(project_id), understood(q), limit=limit)
    return SearchAnswer(results=[_result(passage) for passage in found])


def _result(passage: Passage) -> SearchResult:
    chunk = passage.chunk
    return SearchResult(
        id=uuid.UUID(chunk.id),
        content=passage.text,
        metadata={
            "document_id": chunk.place[0],
            "document_name": chunk.document_name,
            "page_number": chunk.page_number,
            "heading": chunk.heading,
        },
        score=round(passage.score, 4),
    )


@router.get("/knowledge/status")
async def status(project_id: UsableProject, service: Service) -> KnowledgeStatus:
    """How many documents and vectors the project has."""
    [row] = await rows_of(service.pool, _COUNT_INDEXED, (project_id,))
    vectors = await service.library.count(str(project_id))
    return KnowledgeStatus(
        status="OK" if vectors else "EMPTY",
        documents=row["documents"],
        vectors=vectors,
        collections=int(vectors > 0),
    )


async def _settled(service: Parts, document_id: uuid.UUID) -> DictRow:
    """The row of an ingested text once it is searchable; one that failed is refused and goes."""
    row = await service.ingestion.progress.settled(document_id, _INGEST_S)
    if row and row["status"] == "failed":
        await service.ingestion.withdraw(document_id)
    return _indexed(row)


def _indexed(row: DictRow | None) -> DictRow:
    """The row of a text that is searchable now.

    Raises:
        Refusal: it is not: for good (400), for the moment (503), or not any more (409).
    """
    if row is None:
        raise Refusal(409, "replaced", GONE)
    if row["status"] == "failed":
        raise Refusal(400, "not_indexed", row["error"])
    if row["status"] == "processing":
        sentence = "The text is not searchable yet. Try again in a few seconds."
        raise Refusal(503, "not_indexed", sentence, headers={"Retry-After": "5"})
    return row


_COUNT_INDEXED = """
select count(*) as documents from documents where project_id = %s and status = 'indexed'
"""
