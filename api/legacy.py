"""What older clients of the drafting API still call: `/chat/generate` and `/chat/message`."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from fastapi import APIRouter
from pydantic import BaseModel, Field, JsonValue

from api.access.rules import Caller, GuardedRoute
from api.dependencies import Service
from api.errors import DRAFTING_PREFIX, Refusal
from api.questions import HistoryEntry, check_limits, known_doc_type, safely
from api.refusals import DraftingRefused
from api.runs.dialects import Told
from api.runs.keys import RequestKey, key_for
from api.schema import FIRST_WRONG, CleanText, example
from api.streams import legacy_stream_docs
from api.turns import Asked
from api.wire import EventStream, Frame, as_json, as_json_string, frame
from graph.errors import (
    ModelError,
    ModelTimedOut,
    PipelineError,
    RetrievalFailed,
    TemplateFailed,
)
from graph.events import Event, Failed, Finished, TokensStreamed
from graph.sanitizing import clean

router = APIRouter(prefix=f"{DRAFTING_PREFIX}/chat", tags=["legacy"], route_class=GuardedRoute)


class GenerateRequest(BaseModel):
    """The body of `POST /api/v1/chat/generate`. Unknown keys are ignored."""

    model_config = example(
        doc_type="PROJECT_MANIFESTO", message="A network of buoys that warns a harbour of floods."
    )
    message: CleanText
    doc_type: str
    project_context: dict[str, JsonValue] = Field(default_factory=dict)
    chat_history: Annotated[list[HistoryEntry], FIRST_WRONG] = Field(default_factory=list)


@router.post("/generate", response_class=EventStream, responses=legacy_stream_docs())
async def generate(
    body: GenerateRequest, service: Service, caller: Caller, key: RequestKey = None
) -> EventStream:
    """Draft without a project: nothing is retrieved, no conversation is stored."""
    check_limits(service, body.message, body.chat_history, "chat_history")
    question, history = await safely(body.message, body.chat_history)
    asked = Asked(
        question=question,
        doc_type=await known_doc_type(service, body.doc_type, caller=caller),
        history=history,
        # In a thread, since it may be megabytes.
        project_context=await asyncio.to_thread(_as_texts, body.project_context),
    )
    run_id = await service.turns.begin(
        asked, caller.id, "legacy", await key_for("legacy", key, body)
    )
    return EventStream(await service.runs.begun(run_id, caller.id), run_id=str(run_id))


@router.post(
    "/message",
    deprecated=True,
    status_code=400,
    response_model=DraftingRefused,
    response_description="Gone.",
)
async def message(caller: Caller) -> None:
    """Gone: answers 400 whatever it is sent, and names its successor."""
    raise Refusal(
        400,
        "deprecated",
        f"This endpoint is deprecated. Use POST {DRAFTING_PREFIX}/chat/stream, which streams.",
    )


class LegacyDialect:
    """The pipeline's events as older clients know them; counts the tokens as they pass."""

    token: ClassVar[tuple[str, str]] = ("token", "token")

    def __init__(self, told: Told) -> None:
        self._index = 0

    def opening(self) -> Sequence[Frame]:
        """Nothing is sent before the run begins."""
        return ()

    def __call__(self, event: Event) -> Sequence[Frame]:
        """The frames of `event`, none where the API does not tell it."""
        match event:
            case TokensStreamed(tokens):
                first, self._index = self._index, self._index + len(tokens)
                return [
                    ("token", f'{{"token":{as_json_string(token)},"index":{index}}}')
                    for index, token in enumerate(tokens, first)
                ]
            case Finished(answer=answer):
                total = round(answer.timings_ms.get("total", 0))
                return [frame("done", {"total_tokens": self._index, "duration_ms": total})]
            case Failed(error, next_run_id=next_run_id):
                next_run = {"next_run_id": str(next_run_id)} if next_run_id else {}
                data = {"code": code_of(error), "message": str(error), **next_run}
                return [frame("error", data)]
            case _:
                return ()


def code_of(error: PipelineError) -> str:
    """The legacy code for what went wrong."""
    match error:
        case ModelTimedOut():
            return "LLM_002"
        case ModelError():
            return "LLM_001"
        case RetrievalFailed():
            return "RAG_001"
        case TemplateFailed():
            return "TEMPLATE_001"
        case _:
            return "ERR"


def _as_texts(context: Mapping[str, JsonValue]) -> dict[str, str]:
    return {
        clean(name): clean(value if isinstance(value, str) else as_json(value))
        for name, value in context.items()
    }
