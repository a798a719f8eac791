"""The drafting API's knowledge endpoints: take a text in, search, and say what is there."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, StringConstraints

from api.access import Principal, access_to
from api.dependencies import Caller, Parts, Service
from api.errors import DRAFTING_PREFIX, Refusal
from api.projects import NewProject, insert_project
from api.schema import CLEAN, NOT_BLANK, CleanText
from graph.knowledge.parsing import MARKDOWN

router = APIRouter(prefix=DRAFTING_PREFIX, tags=["knowledge"])


class IngestRequest(BaseModel):
    """The body of `POST .../documents/ingest`."""

    doc_name: Annotated[
        str,
        StringConstraints(strip_whitespace=True, min_length=1, max_length=255),
        CLEAN,
        NOT_BLANK,
    ]
    markdown_content: CleanText


class IngestAnswer(BaseModel):
    """How much became searchable."""

    project_id: uuid.UUID
    doc_name: str
    chunks_ingested: int


class SearchResult(BaseModel):
    """A passage; `score` is the cosine similarity."""

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


@router.post("/projects/{project_id}/documents/ingest")
async def ingest(
    project_id: uuid.UUID, body: IngestRequest, service: Service, caller: Caller
) -> IngestAnswer:
    """Make a Markdown text searchable; the same name replaces the old text entirely."""
    if not body.markdown_content.strip():
        raise Refusal(400, "bad_request", "markdown_content must not be blank.")
    await insert_project(service.pool, project_id, caller, NewProject(name="Untitled"))
    await _require(service, caller, project_id, "edit")
    row = await service.ingestion.accept(
        project_id, body.doc_name, body.markdown_content.encode(), MARKDOWN
    )
    chunks = row["chunk_count"]
    if row["status"] == "processing":
        chunks = await service.ingestion.work_on(row["id"])
    if not chunks:
        raise Refusal(503, "not_indexed", "The text could not be indexed. Try again later.")
    return IngestAnswer(project_id=project_id, doc_name=body.doc_name, chunks_ingested=chunks)


@router.get("/knowledge/search")
async def search(
    project_id: uuid.UUID,
    q: Annotated[CleanText, Query(min_length=1, max_length=2000)],
    service: Service,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=50)] = 5,
) -> SearchAnswer:
    """The passages of the project's documents nearest to `q`."""
    await _require(service, caller, project_id, "use")
    found = await service.library.search_scored(str(project_id), q, limit=limit)
    return SearchAnswer(
        results=[
            SearchResult(
                id=uuid.UUID(source["id"]),
                content=source["text"],
                metadata={
                    "document_id": source["document_id"],
                    "document_name": source["document_name"],
                    "page_number": source["page_number"],
                },
                score=round(score, 4),
            )
            for source, score in found
        ]
    )


@router.get("/knowledge/status")
async def status(project_id: uuid.UUID, service: Service, caller: Caller) -> KnowledgeStatus:
    """How many documents and vectors the project has."""
    await _require(service, caller, project_id, "use")
    async with service.pool.connection() as connection:
        cursor = await connection.execute(
            "select count(*) as n from documents where project_id = %s and status = 'indexed'",
            (project_id,),
        )
        row = await cursor.fetchone()
    documents = row["n"] if row else 0
    vectors = await service.library.count(str(project_id))
    return KnowledgeStatus(
        status="OK" if vectors else "EMPTY",
        documents=documents,
        vectors=vectors,
        collections=int(vectors > 0),
    )


async def _require(
    service: Parts, caller: Principal, project_id: uuid.UUID, needed: Literal["use", "edit"]
) -> None:
    """Refuse with 403, as the drafting API does where the chat API says 404."""
    access = await access_to(service.pool, caller, project_id)
    if access is None or not access.allows(needed):
        raise Refusal(403, "forbidden", "This project does not exist or is somebody else's.")
