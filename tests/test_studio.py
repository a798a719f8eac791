"""The pipeline in LangGraph's own server: a real `langgraph dev`, asked with LangGraph's SDK."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import ServiceFactory, make_database, upload
from langgraph_sdk import get_sync_client
from langgraph_sdk.client import SyncLangGraphClient
from standins.openai import Answer, OpenAIStandIn

from graph.knowledge.passages import Outline, Passages
from graph.knowledge.vectors import Vectors
from graph.postgres import open_pool
from graph.settings import ROOT
from graph.studio import InItsLoop

pytestmark = pytest.mark.slow

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 20
MODES: Any = ["messages-tuple", "updates", "custom"]
TURN = {"messages", "project_id", "doc_type", "mode", "user_name", "project_context"}
CONTEXT = {"model", "temperature", "top_k", "instructions", "project_name"}
PROMPTS = {"answer_prompt", "draft_prompt", "question_prompt"}
FACT = "The pumps of the northern lock are started by the flood warden alone."


@dataclass(frozen=True)
class Studio:
    """A running `langgraph dev`: its client, its output, and whoever it asked far away."""

    client: SyncLangGraphClient
    log: Path
    outside: socket.socket

    def thread(self) -> str:
        """The id of a new thread."""
        return str(self.client.threads.create()["thread_id"])

    def run(self, thread: str | None = None, **more: Any) -> list[tuple[str, Any]]:
        """All events of a run, a metadata event being the first; `context` goes beside the turn."""
        context = more.pop("context", None)
        turn = {"messages": [{"role": "user", "content": "Who starts the pumps?"}], **more}
        stream = self.client.runs.stream(
            thread or self.thread(), "archwright", input=turn, context=context, stream_mode=MODES
        )
        (first, _), *rest = [(part.event, part.data) for part in stream]
        assert first == "metadata"
        return rest

    def messages(self, thread: str) -> list[Any]:
        """What the thread has kept, which must be messages and nothing else."""
        values: Any = self.client.threads.get_state(thread)["values"]
        assert list(values) == ["messages"]
        return list(values["messages"])


@contextmanager
def langgraph_dev(folder: Path, **settings: str) -> Iterator[Studio]:
    """Start it in `folder`, with these settings and nothing else in its environment."""
    log, port = folder / "log", _free_port()
    with socket.create_server(("127.0.0.1", 0)) as outside, log.open("wb") as output:
        process = subprocess.Popen(
            [
                *(Path(sys.executable).with_name("langgraph"), "dev"),
                *("--no-browser", "--no-reload", "--port", str(port)),
                *("--config", ROOT / "langgraph.json"),
            ],
            cwd=folder,
            env=_environment(outside) | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(url, process, log)
            with get_sync_client(url=url, api_key=None, timeout=30) as client:
                yield Studio(client, log, outside)
        finally:
            _stop(process)


def _environment(outside: socket.socket) -> dict[str, str]:
    """What a child needs, and a proxy to the outside which lets nothing through."""
    proxy = f"http://127.0.0.1:{outside.getsockname()[1]}"
    return {
        **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
        "HTTP_PROXY": proxy,
        "HTTPS_PROXY": proxy,
        "NO_PROXY": "127.0.0.1",
        "LANGGRAPH_CLI_NO_ANALYTICS": "1",
        "LANGGRAPH_NO_VERSION_CHECK": "true",
        "LANGSMITH_TRACING": "false",
        "LOG_COLOR": "false",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    pause = threading.Event()
    for _ in range(START_TIMEOUT_S * 10):
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/ok", trust_env=False).is_success:
                return
        pause.wait(0.1)
    raise TimeoutError(log.read_text())


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def model() -> Iterator[OpenAIStandIn]:
    """The model that Studio asks."""
    with OpenAIStandIn() as standin:
        yield standin


@pytest.fixture(autouse=True)
def _no_answers_left_over(model: OpenAIStandIn) -> None:
    model.reset()


@pytest.fixture(scope="module")
def settings(
    model: OpenAIStandIn, postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The settings that Studio shares with the service that ran before it."""
    prompts = tmp_path_factory.mktemp("texts") / "prompts"
    shutil.copytree(ROOT / "prompts", prompts)
    return {
        "DATA_DIR": str(tmp_path_factory.mktemp("data")),
        "PROMPTS_DIR": str(prompts),
        "DATABASE_URL": make_database(postgres_url),
        "OPENAI_BASE_URL": model.base_url,
        "OPENAI_MODEL": "stand-in",
        "SECRET_KEY": "canary-secret-of-service-and-studio",
    }


@pytest.fixture(scope="module")
def project(start_service: ServiceFactory, settings: dict[str, str], model: OpenAIStandIn) -> str:
    """A project with a document, left behind by a service that has ended; and a provider."""
    lower = {name.lower(): value for name, value in settings.items()}
    with start_service(**lower) as service, service.client() as http:
        found = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
        assert upload(http, found, "locks.md", FACT.encode())["status"] == "indexed"
        provider = {"name": "Near", "slug": "near", "baseUrl": model.base_url, "models": ["small"]}
        entered = http.post("/providers", json={**provider, "apiKey": "sk-canary-near-0001"})
        assert entered.status_code == 201
        return str(found)


@pytest.fixture(scope="module")
def studio(
    settings: dict[str, str], project: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Studio]:
    """Studio after that service, each run in another event loop than that of the server."""
    folder = tmp_path_factory.mktemp("studio")
    with langgraph_dev(folder, **settings, BG_JOB_ISOLATED_LOOPS="true") as running:
        yield running


def of(kind: str, events: list[tuple[str, Any]]) -> list[Any]:
    return [data for event, data in events if event == kind]


def without_times(events: list[Any]) -> list[Any]:
    return [{key: value for key, value in one.items() if key != "ms"} for one in events]


def test_the_schemas_show_turn_conversation_and_prompts(studio: Studio) -> None:
    [assistant] = studio.client.assistants.search()
    assert assistant["name"] == "archwright"
    schemas: Any = studio.client.assistants.get_schemas(assistant["assistant_id"])
    assert set(schemas["input_schema"]["properties"]) == TURN
    assert schemas["input_schema"]["required"] == ["messages"]
    assert set(schemas["output_schema"]["properties"]) == {"messages"}
    assert set(schemas["context_schema"]["properties"]) == CONTEXT | PROMPTS
    assert shown_prompts(studio) == {
        name: (["generate"], (ROOT / f"prompts/{name.removesuffix('_prompt')}.md").read_text())
        for name in PROMPTS
    }


def shown_prompts(studio: Studio) -> dict[str, tuple[list[str], str]]:
    """The prompts that Studio shows for editing: their nodes and their text."""
    [assistant] = studio.client.assistants.search()
    schemas: Any = studio.client.assistants.get_schemas(assistant["assistant_id"])
    return {
        name: (field["langgraph_nodes"], field["default"])
        for name, field in schemas["context_schema"]["properties"].items()
        if field.get("langgraph_type") == "prompt"
    }


def test_a_prompt_that_changes_on_disk_is_shown_and_used_at_once(
    studio: Studio, settings: dict[str, str], model: OpenAIStandIn
) -> None:
    file = Path(settings["PROMPTS_DIR"]) / "answer.md"
    before = file.read_text()
    file.write_text("Speak like a warden.")
    try:
        assert shown_prompts(studio)["answer_prompt"] == (["generate"], "Speak like a warden.")
        studio.run()
    finally:
        file.write_text(before)
    studio.run()
    first, second = [chat.body["messages"][0]["content"] for chat in model.chats]
    assert first == "Speak like a warden."
    assert second.startswith("You are Archwright")


def test_a_run_streams_tokens_steps_and_our_events_and_keeps_the_messages(
    studio: Studio, model: OpenAIStandIn
) -> None:
    model.will(Answer(tokens=["The", " warden", "."], one_write=True))
    thread = studio.thread()
    events = studio.run(thread)

    chunks = [chunk for chunk, _ in of("messages", events)]
    assert [chunk["additional_kwargs"].get("tokens") for chunk in chunks] == [
        ["The", " warden", "."]
    ]
    assert chunks[0]["content"] == "The warden."

    composed = {"type": "prompt_composed", "template_version": None, "warnings": []}
    custom = without_times(of("custom", events))
    assert len(custom[4].pop("prompt_version")) == 16
    assert custom[4].pop("prompt_tokens") > 100
    assert custom.pop(6)["usage"]["completion_tokens"] == 3
    assert custom == [
        {"type": "step_finished", "step": "load_template"},
        {"type": "step_finished", "step": "retrieve"},
        {"type": "model_chosen", "model": "stand-in", "provider": "default"},
        {"type": "sources_found", "sources": []},
        {**composed, "context_types": ["UNSORTED"]},
        {"type": "tokens_streamed", "tokens": ["The", " warden", "."], "checks": []},
        {"type": "step_finished", "step": "generate"},
    ]

    *before, generated = of("updates", events)
    assert before == [{"load_template": None}, {"retrieve": None}]
    [answer] = generated["generate"]["messages"]
    assert studio.messages(thread) == [
        {"role": "user", "content": "Who starts the pumps?"},
        {"role": "assistant", "content": "The warden.", "id": answer["id"]},
    ]


def test_the_next_turn_of_a_thread_inherits_its_messages_only(
    studio: Studio, model: OpenAIStandIn
) -> None:
    thread = studio.thread()
    studio.run(thread, doc_type="TECH_STACK", user_name="Ann", project_context={"a.md": "Pianos."})
    studio.run(thread)
    drafted, answered = [str(chat.body["messages"]) for chat in model.chats]
    for text in ("TECH_STACK", "Ann", "Pianos."):
        assert text in drafted
        assert text not in answered
    assert answered.count("Who starts the pumps?") == 2
    assert len(studio.messages(thread)) == 4


def test_an_edited_prompt_in_the_context_is_used(studio: Studio, model: OpenAIStandIn) -> None:
    studio.run(user_name="Ann", context={"answer_prompt": "Speak like {{ user_name }}."})
    system, asked = model.chats[-1].body["messages"]
    assert system == {"role": "system", "content": "Speak like Ann."}
    assert "Who starts the pumps?" in asked["content"]


def test_the_documents_of_the_service_are_found(
    studio: Studio, project: str, model: OpenAIStandIn
) -> None:
    events = studio.run(project_id=project)
    [found] = [one for one in of("custom", events) if one["type"] == "sources_found"]
    assert [(source["document_name"], source["text"]) for source in found["sources"]] == [
        ("locks.md", FACT)
    ]
    assert FACT in model.chats[-1].body["messages"][1]["content"]


def test_tasks_show_what_each_step_is_given_and_gives(studio: Studio, project: str) -> None:
    stream = studio.client.runs.stream(
        studio.thread(),
        "archwright",
        input={"messages": [{"role": "user", "content": "Who starts the pumps?"}]}
        | {"project_id": project},
        stream_mode="tasks",
    )
    tasks: list[Any] = [part.data for part in stream if part.event == "tasks"]
    given = {one["name"]: list(one["input"]) for one in tasks if "input" in one}
    gave = {one["name"]: one["result"] for one in tasks if "result" in one}
    assert given == {
        "load_template": ["messages", "project_id"],
        "retrieve": ["messages", "project_id", "template", "prompts", "output_paths"],
        "generate": [
            *("messages", "project_id", "template", "documents", "prompts", "output_paths"),
            "passages",
        ],
    }
    assert [*map(list, gave.values())] == [
        ["template", "prompts", "output_paths"],
        ["passages", "documents"],
        ["messages"],
    ]
    assert [one["text"] for one in gave["retrieve"]["passages"]] == [FACT]


def test_the_providers_of_the_service_are_found(studio: Studio, model: OpenAIStandIn) -> None:
    for _ in range(2):
        studio.run(context={"model": "near/small"})
    asked = [(chat.body["model"], chat.headers["authorization"]) for chat in model.chats]
    assert asked == [("small", "Bearer sk-canary-near-0001")] * 2


@pytest.mark.parametrize(
    ("turn", "error", "message"),
    [
        ({"project_id": "harbour"}, "RetrievalFailed", "'harbour' is no project id"),
        ({"doc_type": "TECH_STAK"}, "UnknownType", "The nearest known types are TECH_STACK"),
        ({"mode": "web"}, "WebSearchFailed", "Set TAVILY_API_KEY"),
        ({"mode": "nope"}, "TurnUnusable", "mode: Input should be 'docs', 'web' or 'deep'."),
        ({"project_context": "str"}, "TurnUnusable", "project_context: Input should be"),
        ({"messages": []}, "TurnUnusable", "messages must end with the question"),
        (
            {"messages": None},
            "TurnUnusable",
            "messages must be a list of objects with role and content.",
        ),
        (
            {"messages": ["hid"]},
            "TurnUnusable",
            "messages must be a list of objects with role and content.",
        ),
        (
            {"messages": "hi"},
            "TurnUnusable",
            "messages must be a list of objects with role and content.",
        ),
        ({"messages": [{"role": "user"}]}, "TurnUnusable", "messages.0.content: Field required."),
        (
            {"messages": [{"role": "user", "content": " "}]},
            "TurnUnusable",
            "messages must end with the question",
        ),
        (
            {"messages": [{"role": "assistant", "content": "Hello."}]},
            "TurnUnusable",
            "messages must end with the question",
        ),
    ],
)
def test_what_fails_says_why(
    studio: Studio, turn: dict[str, Any], error: str, message: str
) -> None:
    last, told = studio.run(**turn)[-1]
    assert (last, told["error"]) == ("error", error)
    assert message in told["message"]


@pytest.mark.parametrize("step", ["load_template", "retrieve", "generate", "check"])
def test_a_turn_is_repeated_from_any_of_its_steps_if_its_input_is_sent_again(
    studio: Studio, model: OpenAIStandIn, step: str
) -> None:
    thread, client = studio.thread(), studio.client
    studio.run(thread, doc_type="TECH_STACK")
    [there] = [one for one in client.threads.get_history(thread) if one["next"] == [step]]

    def repeated(turn: Any, checkpoint: str) -> list[tuple[str, Any]]:
        parts = client.runs.stream(
            thread, "archwright", input=turn, checkpoint_id=checkpoint, stream_mode=MODES
        )
        return [(part.event, part.data) for part in parts][1:]

    begun = there["checkpoint"]["checkpoint_id"]
    assert begun is not None
    message = (
        "A run cannot begin in the middle of a turn, of which only the messages are kept. Send the "
        'rest of its input again, as in {"messages": [], "doc_type": "TECH_STACK"}; the run then '
        "begins with its first step."
    )
    assert repeated(None, begun) == [("error", {"error": "TurnUnusable", "message": message})]
    edited: Any = client.threads.update_state(
        thread,
        {"messages": [{"role": "user", "content": "Who stops the pumps?"}]},
        checkpoint_id=begun,
        as_node="__start__",
    )
    turn = {"messages": [], "doc_type": "TECH_STACK"}
    steps = of("updates", repeated(turn, edited["checkpoint"]["checkpoint_id"]))
    assert [*map(list, steps)] == [["load_template"], ["retrieve"], ["generate"], ["check"]]
    drafted = [str(chat.body["messages"]) for chat in model.chats]
    assert [("TECH_STACK" in one, "Who stops" in one) for one in drafted] == [
        (True, False),
        (True, True),
    ]


def test_what_is_left_empty_counts_as_left_out(studio: Studio) -> None:
    empty = {"project_id": None, "doc_type": "", "mode": None, "project_context": None}
    context = dict.fromkeys(CONTEXT | PROMPTS)
    assert of("error", studio.run(**empty, context=context)) == []


def test_without_any_key_a_small_model_answers_beside_a_running_service(scratch: Path) -> None:
    mine, aside = scratch / "data", scratch / "data" / "studio"
    with Vectors.open_embedded(mine / "chroma", "any"), langgraph_dev(scratch) as studio:
        thread = studio.thread()
        events = studio.run(thread, project_id=str(uuid.uuid4()))

        tokens = [one["tokens"] for one in of("custom", events) if "tokens" in one]
        assert tokens, events[-1]
        text = "".join(token for batch in tokens for token in batch)
        assert studio.messages(thread)[-1]["content"] == text
        warnings = [line for line in studio.log.read_text().splitlines() if "CHROMA_URL" in line]
        assert len(warnings) == 1
        assert (aside / "postgres" / "postmaster.pid").exists()
        assert (aside / "chroma" / "owner.pid").exists()
        _asked_nobody(studio)
    assert not (aside / "postgres" / "postmaster.pid").exists()
    assert not (aside / "chroma" / "owner.pid").exists()


def test_nothing_is_asked_outside_this_machine(studio: Studio) -> None:
    studio.run()
    _asked_nobody(studio)


def _asked_nobody(studio: Studio) -> None:
    studio.outside.setblocking(False)
    with pytest.raises(BlockingIOError):
        studio.outside.accept()


class Part:
    """A part whose search gives the event loop in which it ran."""

    async def search(self) -> list[Any]:
        return [asyncio.get_running_loop()]


def test_a_search_from_another_loop_runs_in_the_loop_of_its_part() -> None:
    async def search_elsewhere() -> None:
        part: Any = InItsLoop(Part())  # type: ignore[arg-type]
        found = await asyncio.to_thread(asyncio.run, part.search())
        assert found == [asyncio.get_running_loop()]

    asyncio.run(search_elsewhere())


def test_a_database_without_tables_holds_no_documents(postgres_url: str) -> None:
    async def ask() -> tuple[dict[str, bytes], Outline]:
        async with open_pool(make_database(postgres_url)) as pool:
            passages, project = Passages(pool), str(uuid.uuid4())
            return await passages.files(project, ["PLAN.md"], 1), await passages.outline(project)

    assert asyncio.run(ask()) == ({}, Outline("", 0, frozenset()))
