"""A model that cannot be reached before its first token is replaced, and the one used is told."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest
from conftest import Service, make_database, running
from fastapi import FastAPI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import SecretStr
from sse import events_of, names, read
from standins.openai import Answer, End, OpenAIStandIn
from standins.tavily import Page, SearchAnswer, TavilyStandIn

from api.app import AppState, create_app
from api.chat import ChatDialect
from api.opening import DIALECTS, open_parts
from api.runs.dialects import Told
from api.runs.transcripts import Transcripts
from api.settings import Settings
from api.turns import Turns, with_model
from graph import events as e
from graph.checkpoints import open_checkpoints
from graph.context import Context
from graph.errors import ModelUnreachable, PipelineError, PromptTooLong
from graph.knowledge.library import Library
from graph.models import Models, Offer
from graph.pipeline import build_pipeline
from graph.providers import Provider
from graph.run import Stop, Thread, run_turn
from graph.settings import ROOT, PipelineSettings
from graph.state import Mode, Source
from graph.streaming import StreamingChatModel
from graph.texts.texts import Texts
from graph.web import open_web_search

NOBODY = "http://127.0.0.1:9/v1"
ENVIRONMENT = Provider("Environment", "default", NOBODY, ())
CONTEXT = Context(answer_id="a")
REPLACED = e.Warned("model_fallback", "acme/large could not be reached; spare/small was used.")
WHOLE = Answer(["Be", "cause"], one_write=True)


@pytest.fixture(scope="module")
def module_spare() -> Iterator[OpenAIStandIn]:
    """The endpoint of the fallback."""
    with OpenAIStandIn() as model:
        yield model


@pytest.fixture
def spare(module_spare: OpenAIStandIn) -> OpenAIStandIn:
    """The fallback, which answers `WHOLE`."""
    module_spare.reset()
    module_spare.will(WHOLE)
    return module_spare


def models_at(url: str, spare: OpenAIStandIn, spare_window: int = 32_768) -> Models:
    """`acme/large` at `url`, and its fallback `spare/small`; each has 0.5 s to begin."""

    def chat(name: str, url: str) -> StreamingChatModel:
        times = {"connect_timeout_s": 0.5, "first_token_timeout_s": 0.5, "idle_timeout_s": 0.5}
        return StreamingChatModel(model=name, base_url=url, api_key=SecretStr("k"), **times)

    offers = [
        Offer("acme", "large", chat("large", url), 32_768),
        Offer("spare", "small", chat("small", spare.base_url), spare_window, is_fallback=True),
    ]
    return Models(offers, ENVIRONMENT)


def play(
    models: Models,
    *,
    question: str = "Why?",
    context: Context = CONTEXT,
    tavily: TavilyStandIn | None = None,
    stop_at: OpenAIStandIn | None = None,
) -> tuple[list[e.Event], e.Terminal]:
    """One turn without a project; its events but for the steps, neighbouring tokens joined.

    With `stop_at` the run is stopped once that model has been asked.
    """

    async def turn() -> tuple[list[e.Event], e.Terminal]:
        url = tavily.base_url if tavily else None
        key = SecretStr("tvly-canary-key") if tavily else None
        settings = PipelineSettings(_env_file=None, tavily_api_key=key, tavily_base_url=url)
        web = open_web_search(settings)
        pipeline = build_pipeline(
            texts=Texts(ROOT / "prompts", ROOT / "templates"),
            library=cast(Library, None),
            web=web,
            models=models,
            checkpoints=InMemorySaver(),
        )
        mode: Mode = "web" if tavily else "docs"
        found: list[e.Event] = []

        async def emit(event: e.Event) -> None:
            found.append(event)

        stop = Stop()
        stopping = asyncio.create_task(stop_once_asked(stop, stop_at)) if stop_at else None
        terminal = await run_turn(
            pipeline,
            {"messages": [{"role": "user", "content": question, "id": "q"}], "mode": mode},
            context,
            thread=Thread("t", "a", 100_000),
            emit=emit,
            stop=stop,
        )
        if stopping:
            await stopping
        await models.aclose()
        if web:
            await web.close()
        return joined(found), terminal

    return asyncio.run(turn())


async def stop_once_asked(stop: Stop, model: OpenAIStandIn) -> None:
    await asyncio.to_thread(model.wait_for_request)
    stop.ask("asked")


def joined(events: list[e.Event]) -> list[e.Event]:
    told: list[e.Event] = []
    for event in events:
        if isinstance(event, e.TokensStreamed) and told and isinstance(told[-1], e.TokensStreamed):
            told[-1] = e.TokensStreamed(
                told[-1].tokens + event.tokens, told[-1].checks + event.checks
            )
        elif not isinstance(event, e.StepFinished):
            told.append(event)
    return told


def composed(terminal: e.Terminal, *warnings: e.Warned) -> e.PromptComposed:
    version = terminal.answer.prompt_version
    assert version is not None
    # What the prompt is guessed to be stands in the accounts for what nobody counted.
    guessed = terminal.answer.estimate.prompt_tokens
    return e.PromptComposed(("UNSORTED",), None, version, guessed, warnings)


def usage(model: OpenAIStandIn, tokens: int) -> e.Usage:
    """What the stand-in counts: words of the prompt, tokens of the answer."""
    messages = model.chats[-1].body["messages"]
    return e.Usage(sum(len(message["content"].split()) for message in messages), tokens)


# Which model answers


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(None, id="nothing listens"),
        pytest.param(Answer(status=503), id="503"),
        pytest.param(Answer(status=429), id="429"),
        pytest.param(Answer(hang_before_headers=True), id="hangs before the headers"),
        pytest.param(Answer([], end="hang"), id="hangs after the headers"),
        pytest.param(Answer([], end="cut"), id="breaks off"),
        pytest.param(Answer([], end="no_finish"), id="ends without a token"),
        pytest.param(Answer(body="<html>Login</html>"), id="HTML"),
    ],
)
def test_a_model_that_fails_before_its_first_token_is_replaced_once(
    model: OpenAIStandIn, spare: OpenAIStandIn, answer: Answer | None
) -> None:
    if answer:
        model.will(answer)
    # Together with the time that the first has, this is longer than either may take.
    spare.will(replace(WHOLE, first_delay_s=0.2))
    url = model.base_url if answer else NOBODY
    events, terminal = play(models_at(url, spare))
    assert isinstance(terminal, e.Finished)
    assert events == [
        e.SourcesFound(()),
        composed(terminal),
        e.SourcesFound(()),
        composed(terminal, REPLACED),
        e.ModelChosen("small", "spare"),
        e.TokensStreamed(("Be", "cause")),
        e.AnswerGenerated("stop", usage(spare, 2), ()),
    ]
    assert (len(model.chats), len(spare.chats)) == (1 if answer else 0, 1)
    assert spare.chats[0].body["model"] == "small"
    told = terminal.answer
    assert (told.text, told.model, told.provider) == ("Because", "small", "spare")
    assert (told.warnings, told.usage) == ((REPLACED,), usage(spare, 2))


def test_the_time_to_the_first_token_has_the_failed_attempt_in_it(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    model.will(Answer(hang_before_headers=True))
    _, terminal = play(models_at(model.base_url, spare))
    assert 500 <= terminal.answer.timings_ms["first_token"] < 5000


@pytest.mark.parametrize("tokens", [["It", " is."], []], ids=["an answer", "an empty answer"])
def test_a_model_that_answers_is_chosen_when_it_begins(
    model: OpenAIStandIn, spare: OpenAIStandIn, tokens: list[str]
) -> None:
    model.will(Answer(tokens, one_write=True))
    events, terminal = play(models_at(model.base_url, spare))
    empty = e.Warned("empty_answer", "The model came to its end without a word.")
    assert events == [
        e.SourcesFound(()),
        composed(terminal),
        e.ModelChosen("large", "acme"),
        *([e.TokensStreamed(tuple(tokens))] if tokens else []),
        e.AnswerGenerated("stop", usage(model, len(tokens)), () if tokens else (empty,)),
    ]
    assert (terminal.answer.model, terminal.answer.provider) == ("large", "acme")
    assert (len(model.chats), len(spare.chats)) == (1, 0)


def test_the_fallback_has_none_itself_and_is_chosen_at_once(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    spare.reset()
    spare.will(Answer(status=503))
    events, terminal = play(models_at(model.base_url, spare), context=Context(model="spare/small"))
    assert events == [e.ModelChosen("small", "spare"), e.SourcesFound(()), composed(terminal)]
    assert isinstance(terminal, e.Failed)
    assert str(terminal.error).startswith("503 ")
    assert (len(model.chats), len(spare.chats)) == (0, 1)


@pytest.mark.parametrize("answer", [Answer(status=code) for code in (400, 401, 403, 404)])
def test_a_failure_that_somebody_must_see_to_is_told(
    model: OpenAIStandIn, spare: OpenAIStandIn, answer: Answer
) -> None:
    model.will(answer)
    events, terminal = play(models_at(model.base_url, spare))
    assert isinstance(terminal, e.Failed)
    assert str(terminal.error).startswith(f"{answer.status} ")
    assert events == [e.SourcesFound(()), composed(terminal)]
    assert (len(model.chats), len(spare.chats)) == (1, 0)
    assert (terminal.answer.model, terminal.answer.provider) == (None, None)


def test_an_error_object_in_place_of_an_answer_is_told(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    model.will(Answer([], end="error_object"))
    _, terminal = play(models_at(model.base_url, spare))
    assert isinstance(terminal, e.Failed)
    assert (len(model.chats), len(spare.chats)) == (1, 0)


def test_a_message_that_is_too_long_for_the_chosen_model_is_told(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    events, terminal = play(models_at(model.base_url, spare), question="Why? " * 40_000)
    assert isinstance(terminal, e.Failed)
    assert (type(terminal.error), events) == (PromptTooLong, [])
    assert (model.chats, spare.chats) == ([], [])


@pytest.mark.parametrize("end", ["cut", "hang", "html"])
def test_after_its_first_token_a_model_is_not_replaced(
    model: OpenAIStandIn, spare: OpenAIStandIn, end: End
) -> None:
    model.will(Answer(["Half", " an"], end=end))
    events, terminal = play(models_at(model.base_url, spare))
    assert events == [
        e.SourcesFound(()),
        composed(terminal),
        e.ModelChosen("large", "acme"),
        e.TokensStreamed(("Half", " an")),
    ]
    assert isinstance(terminal, e.Failed)
    assert isinstance(terminal.error, ModelUnreachable)
    assert (len(model.chats), len(spare.chats)) == (1, 0)
    assert (terminal.answer.text, terminal.answer.model) == ("Half an", "large")


def test_a_token_that_still_waits_for_its_marker_is_the_first_too(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    model.will(Answer(["["], end="cut"))
    events, terminal = play(models_at(model.base_url, spare))
    assert events[-1] == e.ModelChosen("large", "acme")
    assert isinstance(terminal, e.Failed)
    assert spare.chats == []


@pytest.mark.parametrize(
    ("window", "answer"),
    [(32_768, Answer(status=503)), (32_768, Answer(status=401)), (200, WHOLE)],
    ids=["away", "wrong key", "prompt too long"],
)
def test_where_both_fail_the_error_of_the_chosen_model_is_told(
    model: OpenAIStandIn, spare: OpenAIStandIn, window: int, answer: Answer
) -> None:
    model.will(Answer(status=429))
    spare.reset()
    spare.will(answer)
    events, terminal = play(models_at(model.base_url, spare, window))
    assert isinstance(terminal, e.Failed)
    assert str(terminal.error).startswith("429 ")
    assert not [event for event in events if isinstance(event, e.ModelChosen)]
    assert (len(model.chats), len(spare.chats)) == (1, 0 if answer is WHOLE else 1)


def test_a_stop_during_the_first_attempt_ends_the_run(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    model.will(Answer(hang_before_headers=True))
    events, terminal = play(models_at(model.base_url, spare), stop_at=model)
    model.wait_for_hangup(model.chats[0])
    assert events == [e.SourcesFound(()), composed(terminal)]
    assert isinstance(terminal, e.Finished)
    assert (terminal.finish_reason, terminal.answer.model) == ("stopped", None)
    assert (len(model.chats), len(spare.chats)) == (1, 0)


def test_an_id_that_matches_nothing_is_told_with_the_model_that_answers(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    model.will(Answer(status=503))
    _, terminal = play(models_at(model.base_url, spare), context=Context(model="gone"))
    assert terminal.answer.warnings == (
        e.Warned("model_not_found", "No enabled model is named 'gone'; small was used."),
        REPLACED,
    )


def test_a_default_that_changes_after_the_request_changes_no_run(
    model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    models = models_at(model.base_url, spare)
    context = Context(model="gone", preferred_model="gone too")
    chosen = models.resolve(context.model, context.preferred_model)
    by_then = Models(models._offers[::-1], ENVIRONMENT)
    _, terminal = play(by_then, context=with_model(context, chosen))
    assert (terminal.answer.model, terminal.answer.provider) == ("large", "acme")
    assert terminal.answer.warnings == (
        e.Warned("model_not_found", "No enabled model is named 'gone'; large was used."),
    )


# What the fallback is asked with


PAGES = SearchAnswer(
    [
        Page("Long", "https://moon.example/long", "The pier is made of oak. " * 500),
        Page("Short", "https://moon.example/short", "The moon pulls the water of the sea."),
    ]
)


@pytest.mark.parametrize("counts", [False, True], ids=["estimated", "its own tokenizer"])
def test_the_prompt_is_composed_anew_for_the_window_of_the_fallback(
    model: OpenAIStandIn, spare: OpenAIStandIn, tavily: TavilyStandIn, counts: bool
) -> None:
    tavily.will(PAGES)
    model.will(Answer(status=503))
    spare.reset()
    spare.will(Answer(["The moon pulls the water of the sea [1]."], one_write=True))
    if counts:
        spare.tokenize = lambda text: [0] * (1 + len(text) // 40)
    events, terminal = play(
        models_at(model.base_url, spare, 3000), question="What pulls the sea?", tavily=tavily
    )
    first, last = [event for event in events if isinstance(event, e.SourcesFound)]
    assert [source["document_name"] for source in first.sources] == ["Long", "Short"]
    assert list(last.sources) == (list(first.sources) if counts else [first.sources[1]])
    [citation] = terminal.answer.citations
    assert (citation.index, citation.source) == (1, last.sources[0])
    assert ("oak" in str(spare.chats[0].body)) == counts
    assert "oak" in str(model.chats[0].body)
    left_out = [warning.code for warning in terminal.answer.warnings if warning != REPLACED]
    assert [code for code in left_out if code == "cut_to_fit"] == ([] if counts else ["cut_to_fit"])


# How the chat API tells it


IDS = (uuid.UUID(int=1), uuid.UUID(int=2))
PAGE: Source = {
    "id": "p",
    "document_id": None,
    "document_name": "Tides",
    "page_number": None,
    "heading": "",
    "text": "It pulls.",
    "context": "It pulls.",
    "url": None,
}
CHUNK = {
    "id": "p", "documentId": None, "documentName": "Tides", "pageNumber": None,
    "snippet": "It pulls.",
}  # fmt: skip


def frames(*events: e.Event, may_change: bool) -> list[list[tuple[str, Any]]]:
    """What the dialect opens with and makes of each event."""
    dialect = ChatDialect(Told(IDS[1], IDS[0], model="large", may_change=may_change))
    told = [dialect.opening(), *(dialect(event) for event in events)]
    return [[(name, json.loads(data)) for name, data in batch] for batch in told]


def meta(model: str) -> tuple[str, Any]:
    return ("meta", {"conversationId": str(IDS[0]), "messageId": str(IDS[1]), "model": model})


SOURCES = ("sources", {"chunks": [CHUNK]})
TEXT = ("text", {"delta": "Be"})


def test_without_a_fallback_meta_opens_the_stream() -> None:
    events = (
        e.ModelChosen("large", "acme"),
        e.SourcesFound((PAGE,)),
        e.TokensStreamed(("Be",)),
    )
    assert frames(*events, may_change=False) == [[meta("large")], [], [SOURCES], [TEXT]]


def test_with_a_fallback_meta_and_the_last_sources_wait_for_the_model_that_answers() -> None:
    events = (
        e.SourcesFound(()),
        e.SourcesFound((PAGE,)),
        e.ModelChosen("small", "spare"),
        e.TokensStreamed(("Be",)),
    )
    told = frames(*events, may_change=True)
    assert told == [[], [], [], [meta("small"), SOURCES], [TEXT]]


def test_a_fallback_that_is_gone_by_then_changes_no_order() -> None:
    events = (e.ModelChosen("large", "acme"), e.SourcesFound((PAGE,)), e.TokensStreamed(("Be",)))
    assert frames(*events, may_change=True) == [[], [meta("large")], [SOURCES], [TEXT]]


@pytest.mark.parametrize("found", [[], [e.SourcesFound((PAGE,))]], ids=["early", "asked"])
def test_a_run_that_fails_before_a_model_answers_begins_with_meta_still(
    found: list[e.Event],
) -> None:
    failed = e.Failed(PipelineError("No."), e.Answer())
    error = ("error", {"type": "error", "message": "INTERNAL_ERROR", "detail": "No."})
    told = frames(*found, failed, failed, may_change=True)
    # The engine asks for the last event more than once.
    assert told[-2:] == [[meta("large"), *([SOURCES] if found else []), error]] * 2


# Over HTTP


@pytest.fixture(scope="module")
def replaced_service(
    postgres_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    shared_model: OpenAIStandIn,
    shared_tavily: TavilyStandIn,
    module_spare: OpenAIStandIn,
) -> Iterator[Service]:
    """A service whose models are those of `models_at`."""
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("data"),
        database_url=make_database(postgres_url),
        log_level="ERROR",
        openai_base_url=shared_model.base_url,
        openai_model="large",
        tavily_api_key="tvly-canary-key",
        tavily_base_url=shared_tavily.base_url,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[AppState]:
        models, web = models_at(shared_model.base_url, module_spare), open_web_search(settings)
        assert web is not None
        async with open_parts(settings) as parts:
            pipeline = build_pipeline(
                texts=parts.texts,
                library=parts.library,
                web=web,
                models=models,
                checkpoints=await open_checkpoints(parts.pool, Transcripts(parts.pool)),
            )
            turns = Turns(
                parts.pool,
                models,
                parts.runs,
                DIALECTS,
                pipeline=pipeline,
                forgetful_pipeline=parts.forgetful_pipeline,
            )
            yield {"parts": replace(parts, models=models, turns=turns)}
            await models.aclose()
            await web.close()

    with running(create_app(settings, lifespan=lifespan), settings) as service:
        yield service


@pytest.fixture
def http(replaced_service: Service, spare: OpenAIStandIn) -> Iterator[httpx.Client]:
    """A client of that service."""
    with replaced_service.client() as client:
        yield client


def ask(http: httpx.Client, project: str, **body: Any) -> list[tuple[str, Any]]:
    body = {"message": "Why?", **body}
    events = read(http, "POST", f"/chat/projects/{project}", json=body)
    return [(event.name, event.data) for event in events]


def told(events: list[tuple[str, Any]]) -> tuple[list[str], str, list[str]]:
    """The events' names, the model in `meta`, the codes of the warnings in the last one."""
    warnings = [one["code"] for one in events[-1][1].get("warnings", [])]
    return [name for name, _ in events], events[0][1]["model"], warnings


@pytest.mark.parametrize(
    ("answer", "body", "expected"),
    [
        (WHOLE, {}, (["meta", "sources", "text", "text", "done"], "large", [])),
        (
            Answer(status=503),
            {},
            (["meta", "sources", "text", "text", "done"], "small", ["model_fallback"]),
        ),
        (
            Answer(hang_before_headers=True),
            {"modelId": "gone"},
            (
                ["meta", "sources", "text", "text", "done"],
                "small",
                ["model_not_found", "model_fallback"],
            ),
        ),
        (
            Answer(status=503),
            {"modelId": "small"},
            (["meta", "sources", "text", "text", "done"], "small", []),
        ),
        (Answer(status=401), {}, (["meta", "sources", "error"], "large", [])),
        (
            Answer(["Half"], end="cut"),
            {},
            (["meta", "sources", "text", "error"], "large", []),
        ),
    ],
    ids=["answers", "away", "hangs, wrong id", "fallback itself", "wrong key", "breaks off"],
)
def test_a_chat_tells_the_model_that_answers(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    answer: Answer,
    body: dict[str, str],
    expected: tuple[list[str], str, list[str]],
) -> None:
    model.will(answer)
    events = ask(http, project, **body)
    assert told(events) == expected
    found = http.get(f"/chat/conversations/{events[0][1]['conversationId']}").json()
    wrote = expected[1] if "text" in expected[0] else None
    assert [one["model"] for one in found["conversation"]["messages"]] == [None, wrote]


def test_a_web_search_that_fails_gives_meta_then_error(
    http: httpx.Client, project: str, tavily: TavilyStandIn
) -> None:
    tavily.will(SearchAnswer(status=500))
    events = ask(http, project, mode="web")
    assert told(events) == (["meta", "error"], "large", [])
    assert events[-1][1]["message"] == "WEB_SEARCH_ERROR"


def test_where_both_fail_a_chat_has_one_error_that_is_kept(
    http: httpx.Client, project: str, model: OpenAIStandIn, spare: OpenAIStandIn
) -> None:
    model.will(Answer(status=429))
    spare.reset()
    spare.will(Answer(status=500))
    events = ask(http, project)
    assert told(events) == (["meta", "sources", "error"], "large", [])
    assert events[-1][1]["detail"].startswith("429 ")
    run = http.get(f"/runs/{events[0][1]['messageId']}").json()["run"]
    assert (run["status"], run["error"]) == ("failed", events[-1][1])


def test_a_stop_before_the_first_token_asks_nobody_else(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    spare: OpenAIStandIn,
    replaced_service: Service,
) -> None:
    model.will(Answer(hang_before_headers=True))
    with http.stream("POST", f"/chat/projects/{project}", json={"message": "Why?"}) as response:
        model.wait_for_request()
        with replaced_service.client() as other:
            other.post(f"/runs/{response.headers['x-run-id']}/stop")
        events = [(event.name, event.data) for event in events_of(response.read())]
    assert told(events) == (["meta", "sources", "done"], "large", [])
    assert events[-1][1]["finishReason"] == "stopped"
    assert spare.chats == []


@pytest.mark.parametrize(
    ("answer", "used", "codes"),
    [(WHOLE, "large", []), (Answer(status=503), "small", ["model_fallback"])],
    ids=["answers", "away"],
)
def test_a_draft_tells_the_model_that_answered(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    answer: Answer,
    used: str,
    codes: list[str],
) -> None:
    model.will(answer)
    body = {"conversation_id": str(uuid.uuid4()), "project_id": project, "message": "Why?"}
    events = read(http, "POST", "/api/v1/chat/stream", json=body)
    assert names(events) == ["message", "message", "done"]
    metadata = events[-1].data["metadata"]
    assert metadata["model"] == used
    assert [warning["code"] for warning in metadata["warnings"]] == codes
