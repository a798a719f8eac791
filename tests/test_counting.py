"""Tokens are counted by the model's endpoint where it can, and only where an estimate would cut."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from standins.openai import Answer, OpenAIStandIn

from graph.context import Context
from graph.errors import PromptTooLong
from graph.events import Failed, Finished, Terminal
from graph.knowledge.library import Library
from graph.local_model import LocalModel
from graph.models import Models, Offer, open_models
from graph.pipeline import build_pipeline
from graph.providers import Provider
from graph.run import Stop, Thread, run_turn
from graph.settings import ROOT, PipelineSettings
from graph.streaming import StreamingChatModel
from graph.texts.texts import Texts

ENVIRONMENT = Provider("Environment", "default", "", ())
ROOM = 3000 - 3000 // 4
NOTES = "The pier is made of oak.\n" * 300


def sparing(text: str) -> list[int]:
    """A tokenizer with long tokens."""
    return [0] * (1 + len(text) // 20)


def turns(model: OpenAIStandIn, *notes: str, question: str = "Why?") -> list[Terminal]:
    """A turn for each of `notes`, one process; the model's window has 3,000 tokens."""

    async def play() -> list[Terminal]:
        settings = PipelineSettings(
            _env_file=None,
            openai_base_url=model.base_url,
            openai_model="stand-in",
            openai_context_window=3000,
        )
        models = open_models(settings)
        pipeline = build_pipeline(
            texts=Texts(ROOT / "prompts", ROOT / "templates"),
            library=cast(Library, None),
            web=None,
            models=models,
            checkpoints=InMemorySaver(),
        )
        ends = [
            await run_turn(
                pipeline,
                {
                    "messages": [{"role": "user", "content": question, "id": "q"}],
                    "project_context": {"notes.md": text},
                },
                Context(answer_id="a"),
                thread=Thread(str(number), "a", 100_000),
                emit=_tell_nobody,
                stop=Stop(),
            )
            for number, text in enumerate(notes)
        ]
        await models.aclose()
        return ends

    return asyncio.run(play())


async def _tell_nobody(_: object) -> None:
    pass


def asked(model: OpenAIStandIn) -> list[str]:
    """The texts that the endpoint was to count."""
    return [one.body["content"] for one in model.requests if one.path == "/tokenize"]


def warnings(ends: list[Terminal]) -> list[list[str]]:
    return [
        [warning.message for warning in end.answer.warnings]
        for end in ends
        if isinstance(end, Finished)
    ]


CUT = "Shortened to fit the model's context window: the document 'notes.md'."


def test_what_fits_is_not_counted(model: OpenAIStandIn) -> None:
    model.tokenize = sparing
    assert warnings(turns(model, "Short.", "The pier is made of oak.\n" * 60)) == [[], []]
    assert asked(model) == []


def test_the_models_own_tokenizer_has_the_last_word(model: OpenAIStandIn) -> None:
    model.tokenize = sparing
    assert warnings(turns(model, NOTES)) == [[]]
    assert NOTES in model.chats[-1].body["messages"][-1]["content"]
    assert asked(model)[0] == "Hello"
    assert any(NOTES in text for text in asked(model))


def test_it_may_cut_more_than_the_estimate(model: OpenAIStandIn) -> None:
    model.tokenize = lambda text: [0] * len(text)
    assert warnings(turns(model, NOTES)) == [[CUT]]
    assert len(model.chats[-1].body["messages"][-1]["content"]) < ROOM


@pytest.mark.parametrize("answer", [lambda _: 404, lambda _: [], lambda _: 400])
def test_an_endpoint_without_a_tokenizer_is_tried_once(
    model: OpenAIStandIn, answer: Callable[[str], list[int] | int]
) -> None:
    model.tokenize = answer
    assert warnings(turns(model, NOTES, NOTES)) == [[CUT], [CUT]]
    assert asked(model) == ["Hello"]


def test_an_endpoint_that_fails_meanwhile_is_not_asked_on(model: OpenAIStandIn) -> None:
    model.tokenize = lambda text: sparing(text) if text == "Hello" else 503
    assert warnings(turns(model, NOTES)) == [[CUT]]
    assert len(asked(model)) == 2


def test_a_long_message_is_refused_only_if_the_tokenizer_says_so(model: OpenAIStandIn) -> None:
    model.will(Answer(["Yes."]))
    [end] = turns(model, "", question=NOTES + NOTES)
    assert isinstance(end, Failed)
    assert isinstance(end.error, PromptTooLong)
    model.tokenize = sparing
    assert warnings(turns(model, "", question=NOTES + NOTES)) == [[]]


def test_the_embedded_model_counts_as_it_reads() -> None:
    async def count(local: LocalModel) -> tuple[int, int]:
        chat = StreamingChatModel(
            model=local.name, base_url=local.base_url, api_key=local.api_key, max_tokens=1
        )
        models = Models([Offer("embedded", local.name, chat)], ENVIRONMENT)
        counted = await models.tokenizer(models.resolve(None, None))
        assert counted is not None
        texts = ("", NOTES[:1000])
        few, many = [await asyncio.to_thread(counted, text) for text in texts]
        read = [
            (await chat.ainvoke([("system", "x"), ("user", f"y{text}")])).usage_metadata
            for text in texts
        ]
        await models.aclose()
        assert read[0] is not None
        assert read[1] is not None
        return many - few, read[1]["input_tokens"] - read[0]["input_tokens"]

    with LocalModel() as local:
        counted, read = asyncio.run(count(local))
    assert abs(counted - read) <= 2
