"""What both APIs do to start a turn: its ids, its context, its place in a conversation."""

import textwrap
import uuid
from dataclasses import dataclass
from typing import Any

from api.access.principals import Principal
from api.runs.rows import NewTurn
from graph.context import Context
from graph.models import Resolved
from graph.sanitizing import one_line
from graph.state import UNSORTED, Message, Mode, Turn

_TITLE_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as a request brings it, checked and sanitized.

    `history` counts only where the conversation does not exist yet.
    """

    question: str
    project_id: uuid.UUID
    conversation_id: uuid.UUID
    mode: Mode = "docs"
    model: str | None = None
    doc_type: str = UNSORTED
    user_name: str = "Developer"
    history: tuple[Message, ...] = ()
    project_context: dict[str, str] | None = None
    metadata: dict[str, str] | None = None


def new_turn(asked: Asked, owner: Principal) -> NewTurn:
    """The rows that this question will become; the answer's id is the run's id."""
    return NewTurn(
        run_id=uuid.uuid4(),
        conversation_id=asked.conversation_id,
        question_id=uuid.uuid4(),
        project_id=asked.project_id,
        owner_id=owner.id,
        title=title_of(asked.question),
        question=asked.question,
        history=asked.history,
        doc_type=asked.doc_type,
        metadata=asked.metadata,
    )


def pipeline_turn(asked: Asked, question_id: uuid.UUID) -> Turn:
    """The pipeline's input: the question. What was said before it, its thread knows."""
    question: Message = {"role": "user", "content": asked.question, "id": str(question_id)}
    return {
        "messages": [question],
        "project_id": str(asked.project_id),
        "doc_type": asked.doc_type,
        "mode": asked.mode,
        "user_name": asked.user_name,
        "project_context": asked.project_context or {},
    }


def context_for(project: dict[str, Any], model: str | None, answer_id: uuid.UUID) -> Context:
    """How this project wants its questions answered."""
    settings = {key: value for key, value in project["settings"].items() if value is not None}
    return Context(
        model=model,
        preferred_model=settings.pop("model", None),
        project_name=project["name"],
        instructions=project["instructions"],
        answer_id=str(answer_id),
        **settings,
    )


def with_model(context: Context, chosen: Resolved) -> Context:
    """`context` with the model that it was resolved to, so that the pipeline finds the same."""
    return context.model_copy(update={"model": chosen.id, "fell_through": chosen.fell_through})


def title_of(message: str) -> str:
    """The first message, shortened to 60 characters at a word."""
    line = one_line(message, 1000)
    shortened = textwrap.shorten(line, _TITLE_LENGTH, placeholder="…")
    return shortened if shortened != "…" else line[: _TITLE_LENGTH - 1] + "…"
