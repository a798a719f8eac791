"""Conversations as they are read: lists, messages, and the sources behind citations."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import Field, StringConstraints

from api.access.principals import Principal
from api.access.resolver import ACCESS, about, access_to
from api.access.rules import Caller, GuardedRoute, UsableProject, rule
from api.dependencies import Parts, Service
from api.errors import not_found
from api.lists import Before, Limit
from api.schema import CLEAN, NOT_BLANK, ONE_LINE, ONE_WAY, SAFE, CamelModel, example
from graph.postgres import Pool, row_of, rows_of

router = APIRouter(prefix="/chat", tags=["chat"], route_class=GuardedRoute)

Status = Literal["complete", "streaming", "stopped", "failed"]


class MessageCount(CamelModel):
    """The number of messages, as older clients read it."""

    messages: int


class ConversationEntry(CamelModel):
    """A conversation in its project's list."""

    id: uuid.UUID
    title: str
    created_at: datetime
    updated_at: datetime
    message_count: int
    count: MessageCount = Field(alias="_count")


class ConversationList(CamelModel):
    """Conversations, the newest first."""

    conversations: list[ConversationEntry]


class CitationEntry(CamelModel):
    """What `[index]` in the text stands on; the document is null for a page of the web.

    `quote`: the words of the passage that carry what is said, word for word, or those nearest to
    it; empty where none are. `supported`: the passage bears out all that is said before the
    marker. `by`: who set the marker, `model` if the model did so at least once.
    """

    index: int
    chunk_id: uuid.UUID
    document_id: uuid.UUID | None
    document_name: str
    page_number: int | None
    quote: str
    supported: bool
    by: Literal["model", "service"]


class MessageEntry(CamelModel):
    """A message of a conversation; `model` has written the answer, from words of these versions.

    Where its turn was asked again, a later answer counts in place of one that is superseded.
    """

    id: uuid.UUID
    role: Literal["user", "assistant", "system"]
    content: str
    created_at: datetime
    citations: list[CitationEntry]
    status: Status
    is_superseded: bool
    model: str | None
    prompt_version: str | None
    template_version: str | None


class Conversation(CamelModel):
    """A conversation with all of its messages, in order."""

    id: uuid.UUID
    title: str
    project_id: uuid.UUID
    messages: list[MessageEntry]


class ConversationAnswer(CamelModel):
    """One conversation."""

    conversation: Conversation


class ConversationChange(CamelModel):
    """The body of `PATCH /chat/conversations/{id}`."""

    model_config = example(title="Alarm levels")
    title: Annotated[
        str, StringConstraints(max_length=200), CLEAN, ONE_WAY, SAFE, ONE_LINE, NOT_BLANK
    ]


class ChunkSource(CamelModel):
    """The passage behind a citation; `context` is the passage with what stands around it."""

    document_id: uuid.UUID | None
    document_name: str
    page_number: int | None
    chunk_id: uuid.UUID
    snippet: str
    context: str
    url: str | None = None


class RecentProject(CamelModel):
    """The project of a recent conversation."""

    id: uuid.UUID
    name: str
    color: str | None


class RecentConversation(CamelModel):
    """A conversation in the list across all projects."""

    id: uuid.UUID
    title: str
    project_id: uuid.UUID
    project: RecentProject
    updated_at: datetime


class RecentList(CamelModel):
    """The caller's conversations in all projects, the newest first."""

    conversations: list[RecentConversation]


async def own_conversation(
    pool: Pool, conversation_id: uuid.UUID, caller: Principal
) -> dict[str, Any]:
    """The caller's conversation, in a project that they can still see.

    Raises:
        Refusal: 404.
    """
    row = await row_of(pool, _SELECT_ONE, {**about(caller), "id": conversation_id})
    if row is None:
        raise not_found("conversation")
    return row


@rule("a conversation of one's own")
async def own(conversation_id: uuid.UUID, service: Service, caller: Caller) -> dict[str, Any]:
    """Id, title and project of the conversation of the path."""
    row = await own_conversation(service.pool, conversation_id, caller)
    await service.fair_use.count_project_request(row["project_id"])
    return row


OwnConversation = Annotated[dict[str, Any], Depends(own)]


@router.get("/projects/{project_id}/conversations")
async def list_conversations(
    project_id: UsableProject,
    service: Service,
    caller: Caller,
    limit: Limit = 50,
    before: Before = None,
) -> ConversationList:
    """The caller's own conversations in a project."""
    rows = await rows_of(
        service.pool,
        _SELECT_LIST,
        {"project": project_id, "me": caller.id, "before": before, "limit": limit},
    )
    entries = [
        ConversationEntry(**row, count=MessageCount(messages=row["message_count"])) for row in rows
    ]
    return ConversationList(conversations=entries)


@router.get("/conversations/{conversation_id}")
async def get_conversation(conversation: OwnConversation, service: Service) -> ConversationAnswer:
    """One conversation with its messages."""
    return await _answer(service.pool, conversation)


@router.patch("/conversations/{conversation_id}")
async def rename_conversation(
    conversation: OwnConversation, body: ConversationChange, service: Service
) -> ConversationAnswer:
    """Give a conversation another title."""
    async with service.pool.connection() as connection:
        await connection.execute(
            "update conversations set title = %s where id = %s", (body.title, conversation["id"])
        )
    return await _answer(service.pool, {**conversation, "title": body.title})


@router.delete("/conversations/{conversation_id}", status_code=204)
async def delete_conversation(
    conversation: OwnConversation, service: Service, caller: Caller
) -> Response:
    """Erase a conversation with its messages, runs and checkpoints."""
    await service.erasure.conversation(conversation["id"], by=caller)
    return Response(status_code=204)


@router.get("/recent")
async def list_recent(
    service: Service, caller: Caller, limit: Limit = 50, before: Before = None
) -> RecentList:
    """The caller's conversations in all projects that they can still see."""
    rows = await rows_of(
        service.pool,
        _SELECT_RECENT,
        {**about(caller), "before": before, "limit": limit},
    )
    return RecentList(
        conversations=[
            RecentConversation(
                **{key: row[key] for key in ("id", "title", "project_id", "updated_at")},
                project=RecentProject(id=row["project_id"], name=row["name"], color=row["color"]),
            )
            for row in rows
        ]
    )


@rule("tier use of the passage's project")
async def seen_chunk(chunk_id: uuid.UUID, service: Service, caller: Caller) -> ChunkSource:
    """The passage of the path: as it was cited to the caller, else as it is."""
    row = await row_of(service.pool, _SELECT_PASSAGE, {**about(caller), "id": chunk_id})
    if row:
        return ChunkSource(chunk_id=chunk_id, **row)
    found = await service.library.surroundings(str(chunk_id))
    if found is None:
        return await _shown(chunk_id, service, caller)
    if not await access_to(service.pool, caller, uuid.UUID(found.project_id)):
        raise not_found("chunk")
    return ChunkSource(
        document_id=uuid.UUID(found.document_id),
        document_name=found.document_name,
        page_number=found.page_number,
        chunk_id=chunk_id,
        snippet=found.snippet,
        context=found.context,
    )


async def _shown(chunk_id: uuid.UUID, service: Parts, caller: Principal) -> ChunkSource:
    """A page of the web, or a passage of what was replaced, as a run that goes on has shown it."""
    shown = service.runs.source(str(chunk_id), caller.id)
    if shown is None:
        raise not_found("chunk")
    run, source = shown
    values = {
        **about(caller),
        "project": run.project_id,
        "run": run.id,
        "url": source["url"],
        "name": source["document_name"],
    }
    if not await rows_of(service.pool, _SEES, values):
        raise not_found("chunk")
    return ChunkSource(
        document_id=source["document_id"] and uuid.UUID(source["document_id"]),
        document_name=source["document_name"],
        page_number=source["page_number"],
        chunk_id=chunk_id,
        snippet=source["text"],
        context=source["context"],
        url=source["url"],
    )


@router.get("/chunks/{chunk_id}/source")
async def get_chunk_source(chunk: Annotated[ChunkSource, Depends(seen_chunk)]) -> ChunkSource:
    """The passage that a citation stands on, as it was cited, or the page of the web."""
    return chunk


async def _answer(pool: Pool, conversation: dict[str, Any]) -> ConversationAnswer:
    messages = await rows_of(pool, _SELECT_MESSAGES, {"id": conversation["id"]})
    entries = [MessageEntry(**message) for message in messages]
    return ConversationAnswer(conversation=Conversation(**conversation, messages=entries))


_SELECT_LIST = """
select c.id, c.title, c.created_at, c.updated_at,
    (select count(*) from messages m where m.conversation_id = c.id) as message_count
from conversations c
where c.project_id = %(project)s and c.owner_id = %(me)s
    and (%(before)s::timestamptz is null or c.updated_at < %(before)s)
order by c.updated_at desc, c.id limit %(limit)s
"""
_SELECT_ONE = f"""
select c.id, c.title, c.project_id
from conversations c join {ACCESS} access on access.project_id = c.project_id
where c.id = %(id)s and c.owner_id = %(me)s and access_tier is not null
"""
_SELECT_MESSAGES = """
select id, role, content, created_at, citations, status, is_superseded, model, prompt_version,
    template_version
from messages where conversation_id = %(id)s order by position, created_at
"""
_SELECT_RECENT = f"""
select c.id, c.title, c.project_id, c.updated_at, p.name, p.color
from conversations c
join projects p on p.id = c.project_id
join {ACCESS} access on access.project_id = c.project_id
where c.owner_id = %(me)s and access_tier is not null
    and (%(before)s::timestamptz is null or c.updated_at < %(before)s)
order by c.updated_at desc, c.id limit %(limit)s
"""
_SELECT_PASSAGE = f"""
select p.document_id, p.document_name, p.page_number, p.url, p.snippet, p.context
from cited_passages p
join messages m on m.id = p.message_id
join conversations c on c.id = m.conversation_id
join {ACCESS} access on access.project_id = p.project_id
where p.chunk_id = %(id)s and c.owner_id = %(me)s and access_tier is not null
order by m.created_at desc limit 1
"""
# What was erased is shown no more, though another document has its name by now: a run that goes on
# can be followed unless it has shown what was erased.
_SEES = f"""
select from {ACCESS} access
where access.project_id = %(project)s and access_tier is not null and (
    %(url)s::text is not null
    or exists (select from documents d where d.project_id = %(project)s and d.name = %(name)s)
        and exists (select from runs r where r.id = %(run)s and r.is_followable))
"""
