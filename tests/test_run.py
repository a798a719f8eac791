"""A run returns exactly one terminal event, whatever breaks underneath it."""

import asyncio
from typing import Any, cast

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from standins.openai import Answer, OpenAIStandIn

from graph.context import Context
from graph.errors import InternalFailure, ModelUnreachable
from graph.events import (
    DraftChecked,
    Event,
    Failed,
    Finished,
    StepFinished,
    Terminal,
    TokensStreamed,
    Warned,
)
from graph.knowledge.library import Library
from graph.models import open_models
from graph.pipeline import build_pipeline
from graph.run import Stop, Thread, run_turn
from graph.settings import ROOT, PipelineSettings
from graph.state import UNSORTED
from graph.texts.texts import Texts


class FullDisk(InMemorySaver):
    """LangGraph's own saver, on a disk that takes nothing."""

    async def aput(self, *_: Any, **__: Any) -> Any:
        raise OSError("no space left")


def run(
    model: OpenAIStandIn, saver: InMemorySaver, doc_type: str = UNSORTED
) -> tuple[list[Event], Terminal]:
    """One turn without a project, so that no library is asked."""

    async def turn() -> tuple[list[Event], Terminal]:
        settings = PipelineSettings(
            _env_file=None, openai_base_url=model.base_url, openai_model="stand-in"
        )
        models = open_models(settings)
        pipeline = build_pipeline(
            texts=Texts(ROOT / "prompts", ROOT / "templates"),
            library=cast(Library, None),
            web=None,
            models=models,
            checkpoints=saver,
        )
        events: list[Event] = []

        async def emit(event: Event) -> None:
            events.append(event)

        terminal = await run_turn(
            pipeline,
            {"messages": [{"role": "user", "content": "Why?", "id": "q"}], "doc_type": doc_type},
            Context(answer_id="a"),
            thread=Thread("t", "a", 100_000),
            emit=emit,
            stop=Stop(),
        )
        await models.aclose()
        return events, terminal

    return asyncio.run(turn())


def test_the_steps_come_in_the_order_of_the_map(model: OpenAIStandIn) -> None:
    model.will(Answer(["Be", "cause"]))
    events, terminal = run(model, InMemorySaver())
    assert [e.step if isinstance(e, StepFinished) else e.type for e in events] == [
        "load_template",
        "retrieve",
        "model_chosen",
        "sources_found",
        "prompt_composed",
        *["tokens_streamed"] * sum(isinstance(e, TokensStreamed) for e in events),
        "answer_generated",
        "generate",
    ]
    assert isinstance(terminal, Finished)
    assert (terminal.finish_reason, terminal.answer.text) == ("stop", "Because")


def test_a_draft_is_checked_after_its_last_token(model: OpenAIStandIn) -> None:
    model.will(Answer(["# A\n", "TBD"]))
    events, terminal = run(model, InMemorySaver(), "PROJECT_MANIFESTO")
    order = [e.step if isinstance(e, StepFinished) else e.type for e in events]
    assert order[-4:] == ["answer_generated", "generate", "draft_checked", "check"]
    assert order.index("check") > max(
        at for at, one in enumerate(order) if one == "tokens_streamed"
    )
    checked = next(event for event in events if isinstance(event, DraftChecked))
    assert isinstance(terminal, Finished)
    assert terminal.answer.warnings == checked.warnings
    assert checked.warnings[-1] == Warned(
        "open_placeholder", "'TBD' is left open; fill it in or take it out.", 2
    )
    timings = terminal.answer.timings_ms
    assert 0 < timings["first_token"] <= timings["total"] - timings["check"]


def test_a_thread_that_cannot_be_written_is_a_failure_and_keeps_the_part(
    model: OpenAIStandIn,
) -> None:
    model.will(Answer(["Be", "cause"]))
    _, terminal = run(model, FullDisk())
    assert isinstance(terminal, Failed)
    assert (type(terminal.error), terminal.answer.text) == (InternalFailure, "Because")


@pytest.mark.slow
def test_a_model_that_fails_is_told_even_if_its_part_cannot_be_kept(model: OpenAIStandIn) -> None:
    model.will(Answer(["Be"], end="cut"))
    _, terminal = run(model, FullDisk())
    assert isinstance(terminal, Failed)
    assert (type(terminal.error), terminal.answer.text) == (ModelUnreachable, "Be")
