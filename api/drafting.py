"""The drafting API's stream: a document written from its template and the project's documents."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field, StringConstraints

from api.access.principals import Principal
from api.access.resolver import Access, access_to, brief_of
from api.access.rules import NO_PROJECT, Caller, GuardedRoute, rule
from api.dependencies import Parts, Service
from api.errors import DRAFTING_PREFIX, Refusal
from api.first_use import ProjectTaken
from api.questions import HistoryEntry, check_limits, known_doc_type, safely
from api.runs.dialects import Told
from api.runs.ending import citation_row, warning_row
from api.runs.keys import Key, RequestKey, key_for
from api.schema import CLEAN, FIRST_WRONG, SAFE, CleanText, example
from api.streams import drafting_stream_docs
from api.turns import Asked
from api.wire import EventStream, Frame, as_json_string, frame
from graph.errors import (
    ModelRefused,
    ModelUnreachable,
    PipelineError,
    RetrievalFailed,
    ServiceStopping,
)
from graph.events import Event, Failed, Finished, TokensStreamed
from graph.sanitizing import one_line
from graph.state import UNSORTED

router = APIRouter(prefix=f"{DRAFTING_PREFIX}/chat", tags=["drafting"], route_class=GuardedRoute)


Texts = Annotated[dict[CleanText, CleanText], FIRST_WRONG]


class StreamRequest(BaseModel):
    """The body of `POST /api/v1/chat/stream`. Unknown keys are ignored."""

    model_config = example(
        conversation_id="1f6f2f0a-2c53-4a58-8f10-54b7d8a1c3e2",
        project_id="36164b86-8725-4061-82bb-d30409c34c0f",
        doc_type="PROJECT_MANIFESTO",
        message="Draft the manifesto of Tidewatch.",
    )
    conversation_id: uuid.UUID
    message: CleanText
    project_id: uuid.UUID
    user_name: Annotated[str, StringConstraints(max_length=100), CLEAN, SAFE] = "Developer"
    doc_type: str | None = None
    history: Annotated[list[HistoryEntry], FIRST_WRONG] = Field(default_factory=list)
    project_context: Texts = Field(default_factory=dict)
    metadata: Texts | None = None


@rule("tier use of the body's project, which is made on first use")
async def drafter(caller: Caller) -> Principal:
    """The caller; what they may do in the project, `_project` asks, since the body names it."""
    return caller


Drafter = Annotated[Principal, Depends(drafter)]


@router.post("/stream", response_class=EventStream, responses=drafting_stream_docs())
async def draft(
    body: StreamRequest, service: Service, caller: Drafter, key: RequestKey = None
) -> EventStream:
    """Answer, or draft the document `doc_type`. Events: `message`, then `done` or `error`."""
    check_limits(service, body.message, body.history, "history")
    question, history = await safely(body.message, body.history)
    doc_type = await known_doc_type(
        service, body.doc_type or UNSORTED, caller=caller, project_id=body.project_id
    )
    service.runs.refuse_when_closing()
    access = await _enter_project(service, caller, body.project_id)
    await service.fair_use.count_project_request(body.project_id)
    asked = Asked(
        question=question,
        project_id=body.project_id,
        brief=access.brief if access else None,
        conversation_id=body.conversation_id,
        doc_type=doc_type,
        user_name=one_line(body.user_name, 100),
        history=history,
        project_context=body.project_context,
        metadata=body.metadata,
    )
    run_id = await _begin(service, caller, asked, await key_for("drafting", key, body))
    return EventStream(await service.runs.begun(run_id, caller.id), run_id=str(run_id))


async def _enter_project(service: Parts, caller: Principal, project_id: uuid.UUID) -> Access | None:
    """The caller's access, or null for a project that is to be made; refuses who has none."""
    access = await access_to(service.pool, caller, project_id)
    if access is None and await brief_of(service.pool, project_id) is not None:
        # Another request of theirs may have made it since.
        return await _required(service, caller, project_id)
    return access


async def _begin(service: Parts, caller: Principal, asked: Asked, key: Key | None) -> uuid.UUID:
    """Start the run, and on first use make the project with it, owned by the caller."""
    with suppress(ProjectTaken):
        return await service.turns.begin(asked, caller.id, "drafting", key)
    # Made by another request meanwhile, or erased.
    assert asked.project_id is not None
    access = await _required(service, caller, asked.project_id)
    entered = replace(asked, brief=access.brief)
    return await service.turns.begin(entered, caller.id, "drafting", key)


async def _required(service: Parts, caller: Principal, project_id: uuid.UUID) -> Access:
    access = await access_to(service.pool, caller, project_id)
    if access is None:
        raise Refusal(403, "forbidden", NO_PROJECT)
    return access


class DraftingDialect:
    """The pipeline's events under the names that the drafting API documents.

    The model that was chosen is told where the run was stopped before one had begun to answer.
    """

    token: ClassVar[tuple[str, str]] = ("message", "token")

    def __init__(self, told: Told) -> None:
        self._conversation_id = str(told.conversation_id)
        self._run_id = str(told.run_id)
        self._doc_type = told.doc_type
        self._model = told.model

    def opening(self) -> Sequence[Frame]:
        """Nothing is sent before the run begins."""
        return ()

    def __call__(self, event: Event) -> Sequence[Frame]:
        """The frames of `event`, none where the API does not tell it."""
        match event:
            case TokensStreamed(tokens):
                return [
                    ("message", f'{{"token":{as_json_string(token)},"is_final":false}}')
                    for token in tokens
                ]
            case Finished():
                return [frame("done", self._done(event))]
            case Failed(error, next_run_id=next_run_id):
                next_run = {"next_run_id": str(next_run_id)} if next_run_id else {}
                return [frame("error", {**_error(error), **next_run})]
            case _:
                return ()

    def _done(self, event: Finished) -> dict[str, Any]:
        return {
            "full_response": event.answer.text,
            "is_final": True,
            "sources": list(event.answer.context_types) or [self._doc_type],
            "metadata": self._metadata(event),
        }

    def _metadata(self, event: Finished) -> dict[str, Any]:
        answer = event.answer
        return {
            "template_used": None if self._doc_type == UNSORTED else self._doc_type,
            "run_id": self._run_id,
            "conversation_id": self._conversation_id,
            "message_id": self._run_id,
            "model": self._model if answer.model is None else answer.model,
            "finish_reason": event.finish_reason,
            "template_version": answer.template_version,
            "prompt_version": answer.prompt_version,
            "usage": {
                "prompt_tokens": answer.used.prompt_tokens,
                "completion_tokens": answer.used.completion_tokens,
                "total_tokens": answer.used.total_tokens,
            },
            "timings_ms": answer.timings_ms,
            "citations": [citation_row(citation) for citation in answer.citations],
            "warnings": [warning_row(warning) for warning in answer.warnings],
        }


def _error(error: PipelineError) -> dict[str, Any]:
    code, retry = code_of(error)
    return {"error": str(error), "code": code, "retry": retry}


def code_of(error: PipelineError) -> tuple[str, bool]:
    """The drafting API's code for what went wrong, and whether trying again may help."""
    match error:
        case ModelUnreachable() | ServiceStopping():
            return "LLM_CONNECTION_ERROR", True
        case ModelRefused(transient=True):
            return "LLM_CONNECTION_ERROR", True
        case RetrievalFailed():
            return "RAG_RETRIEVAL_ERROR", error.transient
        case _:
            return "STREAM_ERROR", False
