"""What all APIs do to start a turn: its model, its context, its place in a conversation."""

import textwrap
import uuid
from contextlib import suppress
from dataclasses import dataclass, replace

from api.access.resolver import Brief, brief_of
from api.active_html import strip_active_html
from api.errors import Refusal, not_found
from api.runs.beginning import NewRun, Place, Request
from api.runs.dialects import Api, Dialects, Told
from api.runs.engine import Runs
from api.runs.keys import Key, KeyTaken, run_of
from api.runs.recovery import Waiting
from api.runs.rows import RunRow
from graph.context import Context
from graph.models import Models, Resolved
from graph.pipeline import Pipeline
from graph.postgres import Pool
from graph.sanitizing import one_line, one_way
from graph.state import UNSORTED, Message, Mode, Turn

_TITLE_LENGTH = 60
_MOST_RACES = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """A question as a request brings it, checked and sanitized.

    Without a project (legacy) nothing is stored. One without a brief does not exist, and is made
    with the turn. A conversation that does not exist is made where `may_create` allows it;
    `history` counts only then. Without an id a new one begins.
    """

    question: str
    project_id: uuid.UUID | None = None
    brief: Brief | None = None
    conversation_id: uuid.UUID | None = None
    may_create: bool = True
    mode: Mode = "docs"
    model: str | None = None
    doc_type: str = UNSORTED
    user_name: str = "Developer"
    history: tuple[Message, ...] = ()
    project_context: dict[str, str] | None = None
    metadata: dict[str, str] | None = None


class Turns:
    """Starts turns, however they come: asked for, sent again with their key, or left by a crash."""

    def __init__(
        self,
        pool: Pool,
        models: Models,
        runs: Runs,
        dialects: Dialects,
        *,
        pipeline: Pipeline,
        forgetful_pipeline: Pipeline,
    ) -> None:
        self._pool = pool
        self._models = models
        self._runs = runs
        self._dialects = dialects
        self._pipeline = pipeline
        self._forgetful_pipeline = forgetful_pipeline

    async def begin(
        self, asked: Asked, owner_id: uuid.UUID, api: Api, key: Key | None = None
    ) -> uuid.UUID:
        """Start a run, and give its id; with a key that is known, the id of the run it began.

        A run that has failed and may be repeated is asked again under its key: in a new run of
        the same turn.

        Raises:
            ProjectTaken: there is, or was, a project where one was to be made.
            Refusal: see `Runs.start`; 404, the project is gone; 422, the key was used with
                another body.
        """
        for _ in range(_MOST_RACES):
            known = await run_of(self._pool, owner_id, key) if key else None
            if known and not (known.status == "failed" and known.is_retryable):
                return known.id
            with suppress(KeyTaken):
                return await self._start(asked, owner_id, api, key, known)
        raise Refusal(
            409, "key_in_use", "Other requests use this Idempotency-Key. Try again in a moment."
        )

    async def begin_again(self, waiting: Waiting) -> None:
        """Begin a run that has taken the place of one which a crash has ended."""
        row, request = waiting.row, Request(**waiting.request)
        brief = await self._brief(row.project_id) if row.project_id else None
        context, told = await self._prepared(brief, request.model, row.told())
        dialect = self._dialects[row.api](told)
        await self._runs.keep_opening(row, dialect)
        self._runs.go_on(row, request.turn, self._pipeline_of(row.api), context, dialect)

    async def _start(
        self,
        asked: Asked,
        owner_id: uuid.UUID,
        api: Api,
        key: Key | None,
        earlier: RunRow | None,
    ) -> uuid.UUID:
        run_id, place = uuid.uuid4(), _place(asked, earlier)
        replaces = earlier.id if earlier else None
        told = Told(run_id, place.conversation_id if place else None, asked.doc_type)
        context, told = await self._prepared(asked.brief, asked.model, told)
        question_id = place.question_id if place else uuid.uuid4()
        request = Request(_pipeline_turn(asked, question_id), asked.model, told.model)
        new = NewRun(run_id, owner_id, api, request, place, key, replaces)
        await self._runs.start(new, self._pipeline_of(api), context, self._dialects[api](told))
        return run_id

    async def _prepared(
        self, brief: Brief | None, model: str | None, told: Told
    ) -> tuple[Context, Told]:
        """How the project wants it done, with which model, and what the run will say of that."""
        context = Context(model=model, answer_id=str(told.run_id))
        if brief:
            context = _context_for(brief, model, told.run_id)
        await self._models.refresh()
        chosen = self._models.resolve(context.model, context.preferred_model)
        may_change = self._models.fallback(chosen) is not None
        told = replace(told, model=chosen.name, may_change=may_change)
        return with_model(context, chosen), told

    async def _brief(self, project_id: uuid.UUID) -> Brief:
        brief = await brief_of(self._pool, project_id)
        if brief is None:
            raise not_found("project")
        return brief

    def _pipeline_of(self, api: Api) -> Pipeline:
        return self._forgetful_pipeline if api == "legacy" else self._pipeline


def _place(asked: Asked, earlier: RunRow | None) -> Place | None:
    """Where the turn stands: at a new place, or at that of the run which is asked again."""
    if asked.project_id is None:
        return None
    conversation_id = earlier.conversation_id if earlier else asked.conversation_id
    return Place(
        conversation_id=conversation_id or uuid.uuid4(),
        project_id=asked.project_id,
        question_id=(earlier and earlier.question_id) or uuid.uuid4(),
        question=asked.question,
        title=_title_of(asked.question),
        may_create=asked.may_create and not earlier,
        makes_project=asked.brief is None,
        history=asked.history,
        doc_type=asked.doc_type,
        metadata=asked.metadata,
    )


def _pipeline_turn(asked: Asked, question_id: uuid.UUID) -> Turn:
    """The pipeline's input. What was said before the question, its thread knows if it has one."""
    question: Message = {"role": "user", "content": asked.question, "id": str(question_id)}
    turn: Turn = {
        "messages": [question] if asked.project_id else [*asked.history, question],
        "doc_type": asked.doc_type,
        "mode": asked.mode,
        "user_name": asked.user_name,
        "project_context": asked.project_context or {},
    }
    return {**turn, "project_id": str(asked.project_id)} if asked.project_id else turn


def _context_for(brief: Brief, model: str | None, answer_id: uuid.UUID) -> Context:
    """How this project wants its questions answered."""
    settings = {key: value for key, value in brief.settings.items() if value is not None}
    return Context(
        model=model,
        preferred_model=settings.pop("model", None),
        project_name=brief.name,
        instructions=brief.instructions,
        answer_id=str(answer_id),
        **settings,
    )


def with_model(context: Context, chosen: Resolved) -> Context:
    """`context` with the model that it was resolved to, so that the pipeline finds the same."""
    return context.model_copy(update={"model": chosen.id, "fell_through": chosen.fell_through})


def _title_of(message: str) -> str:
    """The first message, shortened to 60 characters at a word."""
    line = strip_active_html(one_line(one_way(message), 1000)).strip()
    shortened = textwrap.shorten(line, _TITLE_LENGTH, placeholder="…")
    return shortened if shortened != "…" else line[: _TITLE_LENGTH - 1] + "…"
