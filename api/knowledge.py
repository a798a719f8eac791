"""The drafting API's knowledge endpoints: take a text in, search, and say what is there."""

import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from psycopg.rows import DictRow
from pydantic import BaseModel, StringConstraints

from api.access.resolver import brief_of
from api.access.rules import Caller, GuardedRoute, UsableProject, require, rule
from api.dependencies import Service
from api.errors import DRAFTING_PREFIX, Refusal
from api.progress import GONE
from api.projects import NewProject, insert_project
from api.schema import CLEAN, NOT_BLANK, ONE_LINE, CleanText, example
from graph.knowledge.parsing import MARKDOWN, PLAIN
from graph.knowledge.questions import understood
from graph.knowledge.ranking import Passage

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
async def ingestible_project(
    project_id: uuid.UUID, request: Request, service: Service, caller: Caller
) -> uuid.UUID:
    """The project of the path, whose documents the caller may change if it is there."""
    if await brief_of(service.pool, project_id) is not None:
        await require(request, service.pool, caller, project_id, "edit")
    return project_id


@router.post("/projects/{project_id}/documents/ingest")
async def ingest(
    project_id: Annotated[uuid.UUID, Depends(ingestible_project)],
    body: IngestRequest,
    request: Request,
    service: Service,
    caller: Caller,
) -> IngestAnswer:
    """Make a Markdown text searchable; the same name replaces the old text entirely."""
    if not body.markdown_content.strip():
        raise Refusal(400, "bad_request", "markdown_content must not be blank.")
    await insert_project(service.pool, project_id, caller, NewProject(name="Untitled"))
    # Somebody else may have made it since the rule looked.
    await require(request, service.pool, caller, project_id, "edit")
    # As Markdown, JSON would lose its underscores and asterisks.
    kind = PLAIN if body.doc_name.lower().endswith(".json") else MARKDOWN
    row = await service.ingestion.accept(
        project_id, body.doc_name, body.markdown_content.encode(), kind
    )
    if row["status"] == "processing":
        settled = await service.ingestion.progress.settled(row["id"], _INGEST_S)
        row = _indexed(settled)
    return IngestAnswer(
        project_id=project_id, doc_name=body.doc_name, chunks_ingested=row["chunk_count"]
    )


@router.get("/knowledge/search")
async def search(
    project_id: UsableProject,
    q: Annotated[CleanText, Query(min_length=1, max_length=2000)],
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
