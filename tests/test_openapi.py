"""The OpenAPI document: every route says what it does, and the examples are what streams send."""

import time
import uuid
from functools import cache
from typing import Any

import httpx
import jwt
import pytest
from conftest import Service, ServiceFactory, upload
from fastapi import UploadFile
from fastapi.routing import iter_route_contexts
from pydantic import BaseModel, TypeAdapter
from sse import Event, events_of, names, read
from standins.openai import Answer, OpenAIStandIn
from test_text_editing import PLAN, TEMPLATE

from api.access.principals import LOCAL_USER
from api.app import create_app
from api.refusals import CHAT_API, DRAFTING_API
from api.settings import Settings
from graph.settings import ROOT

CHAT = "/chat/projects/{project_id}"
DRAFTING = "/api/v1/chat/stream"
LEGACY = "/api/v1/chat/generate"
RESUMED = "/runs/{run_id}/stream"
INGESTION = "/documents/{document_id}/events"

_SECRET = "a secret of more than thirty-two bytes"
HANDBOOK = b"The state Alarm is reached at 4.90 m above chart datum.\n"


@cache
def document() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()


def operations() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]


def examples(path: str) -> dict[str, list[Event]]:
    """The examples of a stream, parsed as strictly as a stream."""
    [operation] = document()["paths"][path].values()
    content = operation["responses"]["200"]["content"]
    assert list(content) == ["text/event-stream"], f"{path} must declare text/event-stream only."
    return {
        name: events_of(example["value"].encode())
        for name, example in content["text/event-stream"]["examples"].items()
    }


def keys(value: Any) -> Any:
    """`value` with its keys only; a list has the keys that its entries have together."""
    match value:
        case dict():
            return {key: keys(inner) for key, inner in value.items()}
        case [*entries]:
            shapes: list[Any] = []
            for shape in map(keys, entries):
                if shape not in shapes:
                    shapes.append(shape)
            return shapes
        case _:
            return None


def keys_by_name(events: list[Event]) -> dict[str, Any]:
    return {event.name: keys(event.data) for event in events}


def test_every_route_says_what_it_does() -> None:
    silent = [
        name
        for name, operation in operations()
        if not operation.get("summary") or not operation.get("description")
    ]
    assert not silent, f"These routes have no summary or no description: {silent}."


def test_every_stream_declares_itself_and_names_its_run() -> None:
    streams = {
        name: operation["responses"]["200"]
        for name, operation in operations()
        if "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
    }
    assert set(streams) == {
        f"POST {CHAT}", f"POST {DRAFTING}", f"POST {LEGACY}", f"GET {RESUMED}",
        f"GET {INGESTION}",
    }  # fmt: skip
    for name, response in streams.items():
        assert response["description"], f"{name} does not say what it streams."
        assert "X-Run-Id" in response["headers"], f"{name} does not declare X-Run-Id."


def test_every_body_has_an_example_that_can_be_sent() -> None:
    bodies = {
        body.field_info.annotation
        for route in iter_route_contexts(create_app(Settings(_env_file=None)).routes)
        if route.include_in_schema
        for body in route.dependant.body_params
    }
    models = [body for body in bodies if isinstance(body, type) and issubclass(body, BaseModel)]
    assert bodies - {*models} == {list[UploadFile]}
    told = {model: model.model_json_schema().get("example") for model in models}
    assert [model.__name__ for model in models if told[model] is None] == []
    for model, example in told.items():
        assert set(model.model_validate(example).model_dump(by_alias=True)) >= set(example)


def test_every_refusal_is_described_as_it_is(http: httpx.Client, project: str) -> None:
    none = uuid.uuid4()
    draft = {"conversation_id": str(none), "project_id": project, "message": "Draft it."}
    asked = {
        "POST /projects": http.post("/projects", json={}),
        "GET /projects/{project_id}": http.get("/projects/none"),
        f"POST {CHAT}": http.post(f"/chat/projects/{project}", json={}),
        f"GET {RESUMED}": http.get(f"/runs/{none}/stream"),
        f"GET {INGESTION}": http.get(f"/documents/{none}/events"),
        f"POST {DRAFTING}": http.post(DRAFTING, json={}),
        f"POST {LEGACY}": http.post(LEGACY, json={"message": "Why?", "doc_type": "NONE"}),
        "POST /api/v1/chat/message": http.post("/api/v1/chat/message", json=draft),
        "GET /api/v1/knowledge/search": http.get("/api/v1/knowledge/search"),
        "GET /api/v1/texts/{path}": http.get("/api/v1/texts/prompts/none.md"),
    }
    statuses = [400, 404, 400, 404, 404, 422, 422, 400, 422, 404]
    assert [answer.status_code for answer in asked.values()] == statuses
    for name, answer in asked.items():
        shape = DRAFTING_API if "/api/v1" in name else CHAT_API
        assert TypeAdapter(shape).validate_python(answer.json()).model_dump() == answer.json()
    open_to_all = {"GET /", "GET /api/v1/system/health"}
    for name, operation in operations():
        shape = DRAFTING_API if "/api/v1" in name else CHAT_API
        refs = [{"$ref": f"#/components/schemas/{one.__name__}"} for one in shape.__args__]
        content = operation["responses"].get("default", {}).get("content", {})
        said = {media: told["schema"]["anyOf"] for media, told in content.items()}
        assert said == ({} if name in open_to_all else {"application/json": refs}), name
    named = {one.__name__ for shape in (CHAT_API, DRAFTING_API) for one in shape.__args__}
    assert named & set(document()["components"]["schemas"]) == named


@pytest.mark.parametrize("prefix", ["/api/v1", "/api/v1/projects/{project_id}"])
def test_an_edit_that_is_refused_has_a_shape_for_each_status(prefix: str) -> None:
    unusable = {"Unusable", "DraftingRefused", "DraftingInvalid"}
    conditions = {"412": {"DraftingRefused"}, "428": {"DraftingRefused"}}
    paths = document()["paths"]
    edited = paths[f"{prefix}/texts/{{path}}"]
    restored = paths[f"{prefix}/texts/{{path}}/restore"]["post"]
    assert {
        name: {status: shapes(told, status) for status in ("412", "422", "428")}
        for name, told in (("put", edited["put"]), ("restore", restored))
    } == dict.fromkeys(("put", "restore"), {**conditions, "422": unusable})
    assert {status: shapes(edited["delete"], status) for status in conditions} == conditions


def test_what_is_gone_and_what_is_a_file_are_described() -> None:
    gone = document()["paths"]["/api/v1/chat/message"]["post"]
    assert shapes(gone, "400") == {"DraftingRefused"}
    file = document()["paths"]["/documents/{document_id}/content"]["get"]
    assert file["responses"]["200"] == {
        "description": "The file, of its own type.",
        "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}},
    }


def shapes(operation: dict[str, Any], status: str) -> set[str]:
    """The names of the schemas of an answer with this status."""
    schema = operation["responses"][status]["content"]["application/json"].get("schema", {})
    refs = schema.get("anyOf", [schema])
    return {ref["$ref"].rpartition("/")[2] for ref in refs if ref}


@pytest.mark.parametrize("path", [CHAT, DRAFTING, LEGACY, RESUMED, INGESTION])
def test_every_example_is_a_stream_and_there_is_one_of_each_event(path: str) -> None:
    whole, *single = examples(path).items()
    assert [event.id.rpartition(":")[2] for event in whole[1]] == [
        str(number) for number in range(1, len(whole[1]) + 1)
    ]
    assert names(whole[1])[-1] == "done"
    assert [(name, names(events)) for name, events in single] == [
        (name, [name]) for name in [*names(whole[1]), "error"]
    ]


def test_the_examples_of_the_chat_api_have_the_keys_of_a_real_stream(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    assert upload(http, project, "handbook.txt", HANDBOOK)["status"] == "indexed"
    model.will(Answer(["At 4.90 m", " [1]", "."]), Answer(status=401))
    body = {"message": "At which level is the state Alarm reached?"}
    finished = read(http, "POST", f"/chat/projects/{project}", json=body)
    failed = read(http, "POST", f"/chat/projects/{project}", json=body)
    run_id = finished[0].data["messageId"]
    again = read(http, "GET", f"/runs/{run_id}/stream")

    assert again == finished
    for path in (CHAT, RESUMED):
        assert keys_by_name(examples(path)["finished"]) == keys_by_name(finished)
        assert keys_by_name(examples(path)["error"]) == keys_by_name(failed[-1:])


def test_the_examples_of_the_drafting_api_have_the_keys_of_a_real_stream(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    assert upload(http, project, "handbook.txt", HANDBOOK)["status"] == "indexed"
    example = ROOT / "templates/context/PROJECT_MANIFESTO/example.md"
    said = [example.read_text(encoding="utf-8"), "\n[TODO: why]\n\n"]
    said.append("The state Alarm is reached at 4.90 m.")
    model.will(Answer(said), Answer(status=401))
    body = {
        "conversation_id": str(uuid.uuid4()),
        "project_id": project,
        "doc_type": "PROJECT_MANIFESTO",
        "message": "Draft it.",
    }
    finished = read(http, "POST", DRAFTING, json=body)
    failed = read(http, "POST", DRAFTING, json=body)

    assert keys_by_name(examples(DRAFTING)["finished"]) == keys_by_name(finished)
    assert keys_by_name(examples(DRAFTING)["error"]) == keys_by_name(failed[-1:])


def test_the_examples_of_the_legacy_stream_have_the_keys_of_a_real_one(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    model.will(Answer(["# Tidewatch"]), Answer(status=401))
    body = {"message": "Draft it.", "doc_type": "PROJECT_MANIFESTO"}
    finished = read(http, "POST", LEGACY, json=body)
    failed = read(http, "POST", LEGACY, json=body)

    assert keys_by_name(examples(LEGACY)["finished"]) == keys_by_name(finished)
    assert keys_by_name(examples(LEGACY)["error"]) == keys_by_name(failed[-1:])


def test_the_examples_of_a_documents_events_have_the_keys_of_real_ones(
    http: httpx.Client, project: str
) -> None:
    indexed = upload(http, project, "handbook.txt", HANDBOOK)["id"]
    failed = upload(http, project, "empty.txt", b" ")["id"]
    finished = read(http, "GET", f"/documents/{indexed}/events")
    error = read(http, "GET", f"/documents/{failed}/events")[-1:]

    assert keys_by_name(examples(INGESTION)["finished"]) == keys_by_name(finished)
    assert keys_by_name(examples(INGESTION)["error"]) == keys_by_name(error)


def test_the_examples_of_prompts_and_templates_have_the_keys_of_real_answers(
    http: httpx.Client, project: str
) -> None:
    base = f"/api/v1/projects/{project}"
    prompt = f"{base}/texts/prompts/answer.md"
    plan = f"{base}/texts/{PLAN}"
    body = {"conversation_id": str(uuid.uuid4()), "project_id": project, "message": "Why?"}
    used = read(http, "POST", DRAFTING, json=body)[-1].data["metadata"]["prompt_version"]
    any_version = {"If-Match": "*"}
    asked = {
        "GET /texts": http.get(f"{base}/texts"),
        "POST /texts/check": http.post(f"{base}/texts/check", json={"texts": {"a.md": "x"}}),
        "GET /texts/{path}": http.get(prompt),
        "PUT /texts/{path}": http.put(
            plan, json={"content": TEMPLATE}, headers={"If-None-Match": "*"}
        ),
        "GET /texts/{path}/history": http.get(f"{plan}/history"),
        "GET /texts/{path}/diff": http.get(f"{plan}/diff"),
        "POST /texts/{path}/preview": http.post(f"{plan}/preview", json={}),
        "GET /versions/{version}": http.get(f"{base}/versions/{used}"),
    }
    [made] = asked["GET /texts/{path}/history"].json()["versions"]
    asked |= {
        "GET /texts/{path}/versions/{version}": http.get(f"{plan}/versions/{made['version']}"),
        "POST /texts/{path}/restore": http.post(
            f"{plan}/restore", json={"version": made["version"]}, headers=any_version
        ),
    }
    http.put(prompt, json={"content": "Own."}, headers=any_version)
    asked["DELETE /texts/{path}"] = http.delete(prompt, headers=any_version)
    assert {name: answer.status_code for name, answer in asked.items() if answer.is_error} == {}
    described = document()
    for prefix in ("/api/v1", "/api/v1/projects/{project_id}"):
        for name, answer in asked.items():
            method, path = name.split()
            operation = described["paths"][prefix + path][method.lower()]
            example = model_example(described, operation["responses"]["200"])
            assert keys(example) == keys(answer.json()), name
            if method in ("POST", "PUT"):
                assert model_example(described, operation["requestBody"])


def test_the_examples_of_who_may_do_what_have_the_keys_of_real_answers(
    service: Service, project: str, model: OpenAIStandIn
) -> None:
    entry = {"name": "small", "contextWindow": 4096, "inputPrice": 1, "outputPrice": 2}
    body = {"name": "Acme", "slug": "example", "baseUrl": model.base_url, "apiKey": "sk-1"}
    target = {"targetType": "user", "targetId": str(LOCAL_USER.id), "tier": "use"}
    grants = f"/projects/{project}/grants"
    with service.client() as http:
        read(http, "POST", f"/chat/projects/{project}", json={"message": "Why?"})
        asked = {
            "POST /providers": http.post("/providers", json={**body, "models": [entry]}),
            "POST /projects/{project_id}/grants": http.post(grants, json=target),
            "GET /projects/{project_id}/grants": http.get(grants),
        }
        own = f"/providers/{asked['POST /providers'].json()['provider']['id']}"
        asked |= {
            "GET /users": http.get("/users"),
            "GET /providers": http.get("/providers"),
            "GET /providers/models": http.get("/providers/models"),
            "GET /providers/admin": http.get("/providers/admin"),
            "POST /providers/{provider_id}/test": http.post(f"{own}/test", json={"model": "small"}),
            "PATCH /providers/{provider_id}": http.patch(own, json={"name": "Acme & Co."}),
            "GET /usage": http.get("/usage", params={"projectId": project}),
            "GET /audit": http.get("/audit", params={"action": "grant.created"}),
        }
        assert http.delete(own).status_code == 204
    check_examples(asked)


def test_the_examples_of_callers_have_the_keys_of_real_answers(
    start_service: ServiceFactory, shared_model: OpenAIStandIn
) -> None:
    claims = {"sub": "ada", "groups": ["writers"], "exp": time.time() + 60}
    token = jwt.encode(claims, _SECRET, "HS256")
    with (
        start_service(
            jwt_secret=_SECRET,
            max_user_requests="60/minute",
            openai_base_url=shared_model.base_url,
            openai_model="stand-in",
        ) as service,
        service.client(Authorization=f"Bearer {token}") as http,
    ):
        asked = {
            "GET /me": http.get("/me"),
            "GET /groups": http.get("/groups"),
            "POST /keys": http.post("/keys", json={"name": "report"}),
            "GET /keys": http.get("/keys"),
            "GET /usage/limits": http.get("/usage/limits"),
        }
    check_examples(asked)


def check_examples(asked: dict[str, httpx.Response]) -> None:
    """The example of each operation has the keys of what it answered."""
    assert {name: answer.text for name, answer in asked.items() if answer.is_error} == {}
    described = document()
    for name, answer in asked.items():
        method, path = name.split()
        operation = described["paths"][path][method.lower()]
        example = model_example(described, operation["responses"][str(answer.status_code)])
        assert keys(example) == keys(answer.json()), name
        if "requestBody" in operation:
            assert model_example(described, operation["requestBody"])


def model_example(described: dict[str, Any], body: dict[str, Any]) -> Any:
    """The example of the model of a body."""
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    return described["components"]["schemas"][name]["example"]
