"""LangServe's routes for the pipeline, over real HTTP, against a stand-in model."""

import json
import re
from typing import Any

import httpx
import pytest
from conftest import ServiceFactory
from standins.openai import Answer, OpenAIStandIn

BASE = "/langserve/pipeline"
QUESTION = {"role": "user", "content": "What is it for?"}
INPUT = {"messages": [QUESTION]}
TURN = {"messages", "project_id", "doc_type", "mode", "user_name", "project_context"}

# LangServe's playground lives on it; at run time api/langserve.py keeps it out of the log.
uses_astream_log = pytest.mark.filterwarnings("ignore:astream_log is deprecated")


def events(answer: httpx.Response) -> list[tuple[str, Any]]:
    """The events of a stream of LangServe, each with its JSON."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line)
        if fields:
            found.append((fields["event"], json.loads(fields.get("data", "null"))))
    return found


def ask(http: httpx.Client, path: str = "invoke", **more: Any) -> httpx.Response:
    return http.post(f"{BASE}/{path}", json={"input": {**INPUT, **more}})


def test_invoke_gives_the_conversation_and_nothing_else(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    model.will(Answer(tokens=["It", " warns", "."]))
    answer = ask(http, doc_type="TECH_STACK", user_name="Ann", project_context={"a.md": "Pianos."})

    output = answer.json()["output"]
    answer_id = output["messages"][1].pop("id")
    assert len(answer_id) == 36
    assert output == {"messages": [QUESTION, {"role": "assistant", "content": "It warns."}]}
    system, asked = model.chats[-1].body["messages"]
    assert "TECH_STACK" in system["content"]
    assert "Ann" in system["content"]
    assert "Pianos." in asked["content"]


def test_fields_that_are_left_out_count_as_not_given(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    ask(http)
    [system, _] = model.chats[-1].body["messages"]
    assert "Developer" in system["content"]


def test_a_batch_answers_each_input(http: httpx.Client, model: OpenAIStandIn) -> None:
    model.will(Answer(tokens=["Yes."]))
    answer = http.post(f"{BASE}/batch", json={"inputs": [INPUT, INPUT]})
    assert [one["messages"][-1]["content"] for one in answer.json()["output"]] == ["Yes.", "Yes."]


def test_a_stream_tells_what_each_step_changed(http: httpx.Client, model: OpenAIStandIn) -> None:
    model.will(Answer(tokens=["It", " warns", "."]))
    metadata, *steps, end = events(ask(http, "stream"))

    assert metadata[0] == "metadata"
    assert end == ("end", None)
    assert {name for name, _ in steps} == {"data"}
    *before, generated = [data for _, data in steps]
    pinned = before[0]["load_template"]
    assert (set(pinned), pinned["template"]) == ({"template", "prompts", "output_paths"}, None)
    assert before[1:] == [{"retrieve": {"passages": [], "documents": {}}}]
    [message] = generated["generate"]["messages"]
    assert message["content"] == "It warns."


def test_stream_events_have_the_models_tokens(http: httpx.Client, model: OpenAIStandIn) -> None:
    model.will(Answer(tokens=["It", " warns", "."]))
    told = [data for name, data in events(ask(http, "stream_events")) if name == "data"]
    chunks = [one["data"]["chunk"] for one in told if one["event"] == "on_chat_model_stream"]
    assert "".join(chunk["content"] for chunk in chunks) == "It warns."


def test_openapi_tells_streams_from_other_answers(http: httpx.Client) -> None:
    told = {
        path: list(methods["post"]["responses"]["200"]["content"])
        for path, methods in http.get("/openapi.json").json()["paths"].items()
        if path.startswith(BASE) and "post" in methods
    }
    kinds = {"invoke": "application/json", "batch": "application/json"} | dict.fromkeys(
        ("stream", "stream_log", "stream_events"), "text/event-stream"
    )
    assert told == {
        f"{base}/{name}": [kind]
        for base in (BASE, f"{BASE}/c/{{config_hash}}")
        for name, kind in kinds.items()
    }


@uses_astream_log
def test_the_playgrounds_own_stream_ends_with_the_answer(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    model.will(Answer(tokens=["It", " warns", "."]))
    *_, (last, _) = told = events(ask(http, "stream_log"))
    assert last == "end"
    assert "It warns." in json.dumps(told)


@pytest.mark.parametrize("path", ["stream", "stream_events", "stream_log"])
@uses_astream_log
def test_what_fails_inside_a_stream_is_its_last_event(
    http: httpx.Client, model: OpenAIStandIn, path: str
) -> None:
    model.will(Answer(tokens=["It"], end="cut"))
    told = events(ask(http, path))
    assert [name for name, _ in told].count("error") == 1
    assert told[-1] == (
        "error",
        {
            "status_code": 503,
            "message": "The model's stream broke off before the answer was complete. Try again.",
        },
    )


def test_hanging_up_ends_the_models_work(http: httpx.Client, model: OpenAIStandIn) -> None:
    ask(http)  # after which the model's context window is known, and not asked again
    before = len(model.requests)
    model.will(Answer(tokens=["It"] * 100, delay_s=0.1))
    with http.stream("POST", f"{BASE}/stream", json={"input": INPUT}):
        chat = model.wait_for_request(before)
    model.wait_for_hangup(chat)


def test_a_refusing_model_is_an_answer_with_its_reason(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    model.will(Answer(status=401))
    answer = ask(http)
    sentence = "401 Authentication Failed. Check the provider's API key."
    assert (answer.status_code, answer.json()) == (
        500, {"error": "llm_api_error", "message": sentence}
    )  # fmt: skip
    model.will(Answer(status=500))
    later = ask(http)
    assert (later.status_code, later.json()["error"]) == (503, "llm_api_error")
    assert later.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("changes", "path", "sentence"),
    [
        ({"messages": [{**QUESTION, "content": " "}]}, [], "the question must not be blank"),
        (
            {"messages": [{**QUESTION, "content": "a" * 20_001}]},
            [],
            "a message must have at most 20000 characters",
        ),
        (
            {"messages": [QUESTION, {"role": "assistant", "content": "Why?"}]},
            [],
            "messages must end with the question",
        ),
        (
            {"messages": [QUESTION] * 102},
            [],
            "there must be at most 100 messages before the question",
        ),
        ({"project_id": "zz"}, [], "project_id must be a UUID"),
        (
            {"doc_type": "TECK_STACK"},
            ["doc_type"],
            "There is no document type 'TECK_STACK'. The nearest known types are "
            "TECH_STACK, TECH_STACK_DECISION, PROJECT_STRUCTURE_MAP.",
        ),
    ],
)
def test_what_the_chat_api_would_refuse_is_refused_with_a_sentence(
    http: httpx.Client,
    model: OpenAIStandIn,
    changes: dict[str, Any],
    path: list[str],
    sentence: str,
) -> None:
    answer = ask(http, **changes)
    issue = {"path": path, "message": sentence, "code": "value_error"}
    assert (answer.status_code, answer.json()) == (
        400, {"success": False, "error": {"name": "ZodError", "issues": [issue]}}
    )  # fmt: skip
    assert model.chats == []


def test_an_unknown_document_type_ends_a_stream_as_a_mistake_of_the_caller(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    last, data = events(ask(http, "stream", doc_type="NOPE"))[-1]
    assert (last, data["status_code"], model.chats) == ("error", 400, [])
    assert data["message"].startswith("There is no document type 'NOPE'. The nearest known types")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"input": {"messages": []}}, []),
        ({"input": {"messages": "hello"}}, ["messages"]),
        ({"input": {"messages": [{"role": "robot", "content": ""}]}}, ["messages", 0, "role"]),
        ({"input": {**INPUT, "mode": None}}, ["mode"]),
        ({"input": "hello"}, []),
        ({}, ["input"]),
        ([], []),
    ],
)
def test_another_input_is_refused_with_its_place(
    http: httpx.Client, model: OpenAIStandIn, body: object, path: list[str | int]
) -> None:
    answer = http.post(f"{BASE}/stream", json=body)
    assert answer.status_code == 400
    [issue] = answer.json()["error"]["issues"]
    assert issue["path"] == path
    assert model.chats == []


def test_another_input_in_a_batch_is_refused_too(http: httpx.Client, model: OpenAIStandIn) -> None:
    robot = {"messages": [{"role": "robot", "content": ""}]}
    answer = http.post(f"{BASE}/batch", json={"inputs": [INPUT, robot]})
    assert answer.status_code == 400
    [issue] = answer.json()["error"]["issues"]
    assert issue == {
        "path": ["messages", 0, "role"],
        "message": "Input should be 'user', 'assistant' or 'system'",
        "code": "literal_error",
    }
    assert model.chats == []


@pytest.mark.parametrize(
    "body", [b"{", b'"\xff"', b"[" * 100_000, b"1" * 5_000], ids=["half", "utf", "deep", "digits"]
)
@pytest.mark.parametrize("route", ["invoke", "batch", "stream", "stream_log", "stream_events"])
def test_what_is_no_json_is_refused(http: httpx.Client, route: str, body: bytes) -> None:
    answer = http.post(f"{BASE}/{route}", content=body)
    issue = {"path": [], "message": "Invalid JSON body", "code": "json_invalid"}
    error = {"name": "ZodError", "issues": [issue]}
    assert (answer.status_code, answer.json()) == (400, {"success": False, "error": error})


def test_characters_that_cannot_be_sent_are_taken_out(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    body = r'{"input": {"messages": [{"role": "user", "content": "a\ud83d\u0000b"}]}}'
    answer = http.post(f"{BASE}/invoke", content=body.encode())
    assert answer.json()["output"]["messages"][0]["content"] == "ab"


def test_the_schemas_name_the_turn_and_the_conversation(http: httpx.Client) -> None:
    turn = http.get(f"{BASE}/input_schema").json()["$defs"]["Turn"]
    assert set(turn["properties"]) == TURN
    assert turn["required"] == ["messages"]
    assert list(http.get(f"{BASE}/output_schema").json()["properties"]) == ["messages"]
    assert http.get(f"{BASE}/config_schema").json()["properties"] == {}


def test_the_playground_and_what_it_loads_come_from_here(http: httpx.Client) -> None:
    page = http.get(f"{BASE}/playground/")
    assert page.headers["content-type"].startswith("text/html")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(loaded) == 3
    for address in loaded:
        assert address.startswith(f"{BASE}/playground/")
        assert http.get(address).status_code == 200


def test_openapi_describes_the_routes_among_the_others(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    assert {f"{BASE}/{name}" for name in ("invoke", "batch", "stream")} < set(paths)
    assert "/api/v1/chat/stream" in paths


def test_every_route_refuses_a_caller_without_the_key(
    start_service: ServiceFactory, shared_model: OpenAIStandIn
) -> None:
    shared_model.reset()
    settings = {"openai_base_url": shared_model.base_url, "openai_model": "stand-in"}
    with start_service(api_key="canary-sesame", **settings) as service, service.client() as http:
        routes = [
            (method, path.replace("{config_hash}", "x"))
            for path, methods in service.app.openapi()["paths"].items()
            for method in methods
            if path.startswith(BASE)
        ]
        pages = [("get", f"{BASE}/playground/"), ("get", f"{BASE}/c/x/playground/")]
        assert ("post", f"{BASE}/invoke") in routes
        assert [http.request(*route).status_code for route in routes + pages] == [401] * 18
        assert shared_model.chats == []

        with service.client(**{"X-API-Key": "canary-sesame"}) as friend:
            assert ask(friend).status_code == 200
