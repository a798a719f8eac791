"""Turns LangGraph's stream of one turn into our events, with exactly one terminal event."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from langchain_core.runnables import RunnableConfig
from langgraph.types import Durability

from graph.checkpoints import Saved
from graph.context import Context
from graph.errors import InternalFailure, MemoryFailed, PipelineError, ServiceStopping
from graph.events import (
    Answer,
    AnswerGenerated,
    Citation,
    DraftChecked,
    Event,
    Failed,
    Finished,
    ModelChosen,
    PromptComposed,
    SourcesFound,
    StepFinished,
    Terminal,
    TokensStreamed,
    Usage,
    Warned,
)
from graph.marking import Check
from graph.pipeline import Pipeline
from graph.postgres import UNREACHABLE
from graph.state import Source, Turn

log = logging.getLogger(__name__)

Emit = Callable[[Event], Awaitable[None]]
StopReason = Literal["asked", "shutdown"]

_TIMED = ("load_template", "retrieve", "search", "generate", "check", "first_token")

_STOPPING = "The service is going down. Try again in a moment."
_DATABASE_AWAY = "The conversation could not be read: the database is away. Try again later."


@dataclass(frozen=True, slots=True)
class Thread:
    """The conversation that a run goes on with.

    `most`: how many characters of what was said its prompt can hold. `put` is given the checkpoint
    at the end, and stores it; without it none is kept.
    """

    id: str
    run_id: str
    most: int
    put: Callable[[Saved], None] | None = None

    def config(self, put: Callable[[Saved], None]) -> RunnableConfig:
        """What the checkpointer is told."""
        its = {"run_id": self.run_id, "most": self.most, "put": put}
        return {"configurable": {"thread_id": self.id, **its}}


class Stop:
    """A request to end a run before its time; the first reason counts."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._asked = asyncio.Event()

    def ask(self, reason: StopReason) -> None:
        """End the run. A second call changes nothing."""
        self.reason = self.reason or reason
        self._asked.set()

    async def wait(self) -> None:
        """Return when the run is to end."""
        await self._asked.wait()


async def run_turn(
    pipeline: Pipeline,
    turn: Turn,
    context: Context,
    *,
    thread: Thread | None,
    emit: Emit,
    stop: Stop,
) -> Terminal:
    """Execute one turn, emit its events as they come, and return the terminal one.

    The terminal event is returned, not emitted: the caller stores the answer first. Whatever
    fails, it is returned; only cancellation of the caller passes through. With a `thread` the model
    is shown what was said before; what is said now is remembered once the caller has stored it.
    """
    gathered = _Gathered(emit, thread.put if thread else None)
    try:
        return await _run(pipeline, turn, context, thread, gathered, stop)
    finally:
        gathered.let_go()


async def _run(
    pipeline: Pipeline,
    turn: Turn,
    context: Context,
    thread: Thread | None,
    gathered: "_Gathered",
    stop: Stop,
) -> Terminal:
    config = thread.config(gathered.put) if thread else {}
    # A task of its own: under a cancel scope of AnyIO, LangGraph would leave its running node
    # behind, a paid model call with it. See langgraph#5682.
    work = asyncio.create_task(_stream(pipeline, turn, context, config, gathered))
    await _done_or_stopped(work, stop)
    failure = _failure(work, context.answer_id)
    if failure is None and not work.cancelled():
        return gathered.finished()
    if failure is None and stop.reason == "asked":
        return Finished("stopped", gathered.answer())
    return Failed(failure or ServiceStopping(_STOPPING), gathered.answer())


async def _done_or_stopped(work: asyncio.Task[None], stop: Stop) -> None:
    """Wait for the end of `work`, which is cancelled once `stop` is asked for."""
    asked = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, asked}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        asked.cancel()
        work.cancel()
        await asyncio.wait({work})


def _failure(work: asyncio.Task[None], run_id: str | None) -> PipelineError | None:
    error = None if work.cancelled() else work.exception()
    if error is None or isinstance(error, PipelineError):
        return error
    if isinstance(error, UNREACHABLE):
        return MemoryFailed(_DATABASE_AWAY)
    log.error("run %s failed unexpectedly", run_id, exc_info=error)
    return InternalFailure()


async def _stream(
    pipeline: Pipeline,
    turn: Turn,
    context: Context,
    config: RunnableConfig,
    gathered: "_Gathered",
) -> None:
    # Written once, at the end; without a thread there is nothing to write.
    durability: Durability | None = "exit" if config else None
    heard = context.heard_by(gathered)
    stream = pipeline.astream(turn, config, context=heard, stream_mode=[], durability=durability)
    try:
        async for _ in stream:
            pass
    except Exception:
        await gathered.keep_up()
        raise


class _Gathered:
    """What a run has brought so far. Passes each event on in the order that they come."""

    def __init__(self, emit: Emit, put: Callable[[Saved], None] | None) -> None:
        self._emit = emit
        self._put = put
        self._waiting: deque[Event] = deque()
        self._started = time.perf_counter()
        self._tokens: list[str] = []
        self._checks: list[Check] = []
        self._sources: tuple[Source, ...] = ()
        self._timings = dict.fromkeys(_TIMED, 0.0)
        self._chosen: ModelChosen | None = None
        self._composed: PromptComposed | None = None
        self._generated: AnswerGenerated | None = None
        self._checked: DraftChecked | None = None

    def let_go(self) -> None:
        """Hold the run no longer.

        What its nodes have begun keeps their context, and so this: such as a timer, which asyncio
        forgets only when its time has come.
        """
        self._emit, self._put = _unheard, None
        self._waiting.clear()
        self._tokens, self._checks, self._sources = [], [], ()

    def put(self, saved: Saved) -> None:
        if self._put:
            self._put(saved)

    def tell(self, event: Event) -> None:
        self._waiting.append(event)

    async def keep_up(self) -> None:
        while self._waiting:
            event = self._waiting.popleft()
            self._note(event)
            await self._emit(event)

    def _note(self, event: Event) -> None:
        if isinstance(event, TokensStreamed):
            if not self._tokens:
                self._timings["first_token"] = self._elapsed()
            self._tokens += event.tokens
            self._checks += event.checks
        elif isinstance(event, StepFinished):
            self._timings[event.step] = round(event.ms, 1)
        elif isinstance(event, ModelChosen):
            self._chosen = event
        elif isinstance(event, SourcesFound):
            self._sources = event.sources
        elif isinstance(event, PromptComposed):
            self._composed = event
        elif isinstance(event, AnswerGenerated):
            self._generated = event
        elif isinstance(event, DraftChecked):
            self._checked = event

    @property
    def text(self) -> str:
        return "".join(self._tokens)

    def finished(self) -> Terminal:
        if self._generated is None:
            log.error("the pipeline ended without an answer")
            return Failed(InternalFailure(), self.answer())
        return Finished(self._generated.finish_reason, self.answer())

    def answer(self) -> Answer:
        composed, generated = self._composed, self._generated
        citations = _citations(self._checks, self._sources)
        return Answer(
            text=self.text,
            citations=citations,
            context_types=composed.context_types if composed else (),
            usage=generated.usage if generated else Usage(),
            estimate=Usage(composed.prompt_tokens, len(self._tokens)) if composed else Usage(),
            template_version=composed.template_version if composed else None,
            prompt_version=composed.prompt_version if composed else None,
            timings_ms={**self._timings, "total": self._elapsed()},
            warnings=(
                *(composed.warnings if composed else ()),
                *(generated.warnings if generated else ()),
                *(self._checked.warnings if self._checked else ()),
                *_unsupported(citations),
            ),
            model=self._chosen.model if self._chosen else None,
            provider=self._chosen.provider if self._chosen else None,
        )

    def _elapsed(self) -> float:
        return round((time.perf_counter() - self._started) * 1000, 1)


async def _unheard(event: Event) -> None:
    """Nobody listens any more."""


def _citations(checks: Sequence[Check], sources: Sequence[Source]) -> tuple[Citation, ...]:
    """One for each number, ascending. Its quote is of the sentence that the source holds best."""
    found: dict[int, list[Check]] = {}
    for check in checks:
        found.setdefault(check.finding.index, []).append(check)
    return tuple(
        Citation(
            index=index,
            source=sources[index - 1],
            quote=max(
                (check.finding for check in found[index]),
                key=lambda finding: (finding.supported and finding.quote != "", finding.share),
            ).quote,
            supported=all(check.finding.supported for check in found[index]),
            by="model" if any(check.by == "model" for check in found[index]) else "service",
        )
        for index in sorted(found)
    )


def _unsupported(citations: Sequence[Citation]) -> tuple[Warned, ...]:
    markers = [f"[{one.index}]" for one in citations if not one.supported]
    if not markers:
        return ()
    stand, its = ("stands", "its source") if len(markers) == 1 else ("stand", "their sources")
    told = " and ".join(markers)
    return (
        Warned("unsupported_claim", f"Not all that {told} {stand} behind is borne out by {its}."),
    )
