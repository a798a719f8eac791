"""The chat API's stream: a question about a project's documents, answered with citations."""

import uuid
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from fastapi import APIRouter
from pydantic import BaseModel, StringConstraints

from api.access.rules import Caller, GuardedRoute, Use
from api.active_html import stripped
from api.conversations import own_conversation
from api.dependencies import Parts, Service
from api.errors import Refusal, not_found
from api.questions import check_limits, not_blank
from api.runs.dialects import Told
from api.runs.ending import citation_row, warning_row
from api.runs.keys import RequestKey, key_for
from api.schema import CLEAN, CamelModel, CleanText, example
from api.streams import chat_stream_docs
from api.turns import Asked
from api.wire import EventStream, Frame, as_json_string, frame
from graph.errors import (
    ModelForbidden,
    ModelRefused,
    ModelReported,
    ModelUnreachable,
    ModelUnusable,
    PipelineError,
    RetrievalFailed,
    ServiceStopping,
    WebSearchFailed,
)
from graph.events import Event, Failed, Finished, ModelChosen, SourcesFound, TokensStreamed
from graph.state import Mode, Source

router = APIRouter(prefix="/chat", tags=["chat"], route_class=GuardedRoute)

_SNIPPET = 400


class Question(CamelModel):
    """The body of `POST /chat/projects/{projectId}`."""

    model_config = example(message="What is the water level of the state Alarm?", mode="docs")
    message: CleanText
    conversation_id: uuid.UUID | None = None
    model_id: Annotated[str, StringConstraints(max_length=200), CLEAN] | None = None
    mode: Mode = "docs"


class ChatConfig(BaseModel):
    """Which modes can be used."""

    docs: bool
    web: bool
    deep: bool


@router.get("/config")
async def get_config(service: Service, caller: Caller) -> ChatConfig:
    """Which modes can be used; `web` and `deep` need a search key."""
    has_web = service.settings.tavily_api_key is not None
    return ChatConfig(docs=True, web=has_web, deep=has_web)


@router.post("/projects/{project_id}", response_class=EventStream, responses=chat_stream_docs())
async def ask(
    project_id: uuid.UUID,
    access: Use,
    body: Question,
    service: Service,
    caller: Caller,
    key: RequestKey = None,
) -> EventStream:
    """Ask about the project's documents. Events: `meta`, `sources`, `text`, `done` or `error`."""
    question = await _checked(body, service)
    if body.conversation_id is not None:
        row = await own_conversation(service.pool, body.conversation_id, caller)
        if row["project_id"] != project_id:
            raise not_found("conversation")
    asked = Asked(
        question=question,
        project_id=project_id,
        brief=access.brief,
        conversation_id=body.conversation_id,
        may_create=body.conversation_id is None,
        mode=body.mode,
        model=body.model_id,
    )
    sent = await key_for("chat", key, body, project_id)
    run_id = await service.turns.begin(asked, caller.id, "chat", sent)
    return EventStream(await service.runs.begun(run_id, caller.id), run_id=str(run_id))


async def _checked(body: Question, service: Parts) -> str:
    """The message without active HTML; refuses what does not keep to the limits."""
    check_limits(service, body.message)
    if body.mode != "docs" and service.settings.tavily_api_key is None:
        raise Refusal(
            400,
            "web_search_not_configured",
            "Web search is not set up here. Use mode `docs`, or have TAVILY_API_KEY set.",
        )
    [message] = await stripped(body.message)
    return not_blank(message)


class ChatDialect:
    """The pipeline's events under the names that the chat API documents.

    `meta` names the model that is really used and comes first. Where the model may change, `meta`
    and `sources` wait until it is certain which of them answers.
    """

    token: ClassVar[tuple[str, str]] = ("text", "delta")

    def __init__(self, told: Told) -> None:
        self._conversation_id = str(told.conversation_id)
        self._run_id = str(told.run_id)
        self._model = told.model
        self._waits = told.may_change
        self._sources: list[Frame] = []

    def opening(self) -> Sequence[Frame]:
        """What can be sent before the run begins: `meta`, or nothing yet."""
        return [] if self._waits else [self._meta()]

    def __call__(self, event: Event) -> Sequence[Frame]:
        """The frames of `event`, none where the API does not tell it."""
        match event:
            case TokensStreamed(tokens):
                return [("text", f'{{"delta":{as_json_string(token)}}}') for token in tokens]
            case ModelChosen(model):
                return self._begun(model)
            case SourcesFound(sources):
                self._sources = [frame("sources", {"chunks": [_chunk(one) for one in sources]})]
                return () if self._waits else self._sources
            case Finished():
                return [*self._waiting(), frame("done", self._done(event))]
            case Failed(error, next_run_id=next_run_id):
                next_run = {"nextRunId": str(next_run_id)} if next_run_id else {}
                return [*self._waiting(), frame("error", {**_error(error), **next_run})]
            case _:
                return ()

    def _begun(self, model: str) -> list[Frame]:
        self._model = model
        begun, self._waits = self._waiting(), False
        return begun

    def _waiting(self) -> list[Frame]:
        return [self._meta(), *self._sources] if self._waits else []

    def _meta(self) -> Frame:
        return frame(
            "meta",
            {
                "conversationId": self._conversation_id,
                "messageId": self._run_id,
                "model": self._model,
            },
        )

    def _done(self, event: Finished) -> dict[str, Any]:
        answer = event.answer
        return {
            "messageId": self._run_id,
            "totalTokens": answer.used.total_tokens,
            "citations": [citation_row(citation) for citation in answer.citations],
            "finishReason": event.finish_reason,
            "usage": {
                "promptTokens": answer.used.prompt_tokens,
                "completionTokens": answer.used.completion_tokens,
                "totalTokens": answer.used.total_tokens,
            },
            "timingsMs": {_TIMINGS.get(k, k): v for k, v in answer.timings_ms.items()},
            "promptVersion": answer.prompt_version,
            "templateVersion": answer.template_version,
            "warnings": [warning_row(warning) for warning in answer.warnings],
        }


_TIMINGS = {"load_template": "loadTemplate", "first_token": "firstToken"}


def _chunk(source: Source) -> dict[str, Any]:
    chunk = {
        "id": source["id"],
        "documentId": source["document_id"],
        "documentName": source["document_name"],
        "pageNumber": source["page_number"],
        "snippet": source["text"][:_SNIPPET],
    }
    return {**chunk, "url": source["url"]} if source["url"] else chunk


def _error(error: PipelineError) -> dict[str, Any]:
    return {"type": "error", "message": code_of(error), "detail": str(error)}


def code_of(error: PipelineError) -> str:
    """The chat API's code for what went wrong."""
    match error:
        case ModelRefused() | ModelReported():
            return "LLM_API_ERROR"
        case ModelUnreachable() | ModelForbidden() | ModelUnusable() | ServiceStopping():
            return "LLM_CONNECTION_ERROR"
        case RetrievalFailed():
            return "RETRIEVAL_ERROR"
        case WebSearchFailed():
            return "WEB_SEARCH_ERROR"
        case _:
            return "INTERNAL_ERROR"
