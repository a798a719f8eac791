"""Whatever fails, a stream has exactly one terminal event, and the question is kept."""

import time
import uuid
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
import pytest
from conftest import Service, ServiceFactory, make_database
from freezing import frozen
from sse import Event, events_of, names, read
from standins.openai import Answer, OpenAIStandIn
from test_server import wait_until
from timed import timed

from api.runs import finishing
from graph.postgres import embedded_postgres, patiently

pytestmark = pytest.mark.slow

PART = ["Half", " an"]
BROKE_OFF = ("LLM_CONNECTION_ERROR", True, "LLM_CONNECTION_ERROR")
REFUSED = ("STREAM_ERROR", False, "LLM_API_ERROR")
BUSY = ("LLM_CONNECTION_ERROR", True, "LLM_API_ERROR")

BEFORE_THE_FIRST_TOKEN = [
    pytest.param(Answer(status=401), REFUSED, "401 Authentication Failed", id="401"),
    pytest.param(Answer(status=404), REFUSED, "404 Not Found", id="404"),
    pytest.param(Answer(status=400), REFUSED, "400 Bad Request", id="400"),
    pytest.param(
        Answer(status=429, headers={"Retry-After": "60"}), BUSY, "429 Too Many Requests", id="429"
    ),
    pytest.param(Answer(status=500), BUSY, "500 Internal Server Error", id="500"),
    pytest.param(Answer(hang_before_headers=True), BROKE_OFF, "1.5 s", id="hangs at once"),
    pytest.param(Answer(body="<html>Login</html>"), BROKE_OFF, "protocol", id="html at once"),
]
IN_MID_ANSWER = [
    pytest.param(Answer(PART, end="no_finish"), BROKE_OFF, "", id="no finish reason"),
    pytest.param(Answer(PART, end="cut"), BROKE_OFF, "", id="cut"),
    pytest.param(Answer(PART, end="hang"), BROKE_OFF, "", id="hangs"),
    pytest.param(Answer(PART, end="broken_json"), BROKE_OFF, "", id="broken JSON"),
    pytest.param(Answer(PART, end="bad_utf8"), BROKE_OFF, "", id="bad UTF-8"),
    pytest.param(Answer(PART, end="html"), BROKE_OFF, "", id="turns into HTML"),
    pytest.param(Answer(PART, end="error_object"), REFUSED, "", id="error object"),
]


@pytest.fixture(scope="module")
def impatient(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Service]:
    """A service that does not wait long for its model."""
    with start_service(
        openai_base_url=shared_model.base_url,
        openai_api_key="sk-canary-model-key",
        openai_model="stand-in",
        llm_first_token_timeout_s=1.5,
        llm_idle_timeout_s=1,
    ) as service:
        yield service


@pytest.fixture
def service(impatient: Service, model: OpenAIStandIn) -> Service:
    """In place of the shared one."""
    return impatient


def draft(http: httpx.Client, project: str, **changes: Any) -> tuple[str, list[Event]]:
    body = {
        "conversation_id": str(uuid.uuid4()),
        "project_id": project,
        "message": "What is it?",
        **changes,
    }
    return body["conversation_id"], read(http, "POST", "/api/v1/chat/stream", json=body)


def kept(http: httpx.Client, conversation_id: str) -> list[tuple[str, str, str]]:
    conversation = http.get(f"/chat/conversations/{conversation_id}").json()["conversation"]
    return [(m["role"], m["content"], m["status"]) for m in conversation["messages"]]


@timed
@pytest.mark.parametrize(("answer", "codes", "says"), [*BEFORE_THE_FIRST_TOKEN, *IN_MID_ANSWER])
def test_a_model_that_fails_ends_a_draft_with_one_error_and_keeps_the_part(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    answer: Answer,
    codes: tuple[str, bool, str],
    says: str,
) -> None:
    model.will(answer)
    conversation, events = draft(http, project)
    part = PART if answer.end != "finish" else []
    *tokens, last = [(event.name, event.data) for event in events]
    assert tokens == [("message", {"token": token, "is_final": False}) for token in part]
    assert last[0] == "error"
    assert {**last[1], "error": ""} == {"error": "", "code": codes[0], "retry": codes[1]}
    assert says in last[1]["error"]
    assert kept(http, conversation) == [
        ("user", "What is it?", "complete"),
        ("assistant", "".join(part), "failed"),
    ]
    assert len(model.chats) == 1


@timed
@pytest.mark.parametrize(("answer", "codes", "says"), [*BEFORE_THE_FIRST_TOKEN, *IN_MID_ANSWER])
def test_a_model_that_fails_ends_a_chat_with_one_error(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    answer: Answer,
    codes: tuple[str, bool, str],
    says: str,
) -> None:
    model.will(answer)
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": "What is it?"})
    part = PART if answer.end != "finish" else []
    assert [event.name for event in events] == ["meta", "sources", *["text"] * len(part), "error"]
    error = events[-1].data
    assert {**error, "detail": ""} == {"type": "error", "message": codes[2], "detail": ""}
    if codes[2] == "LLM_API_ERROR" and answer.status != 200:
        assert error["detail"].startswith(says)


def test_a_model_that_is_not_there_is_a_connection_error(
    start_service: ServiceFactory,
) -> None:
    settings = {"openai_base_url": "http://127.0.0.1:9/v1", "openai_model": "x"}
    with start_service(**settings) as service, service.client() as http:
        conversation, events = draft(http, str(uuid.uuid4()))
        health = http.get("/api/v1/system/health")
        assert [event.data["code"] for event in events] == ["LLM_CONNECTION_ERROR"]
        assert kept(http, conversation)[0] == ("user", "What is it?", "complete")
    assert (health.status_code, health.json()["status"]) == (200, "DEGRADED")
    assert health.json()["services"] == {"database": "OK", "vectors": "OK", "llm": "ERROR"}


@timed
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(status=401), "LLM_001"),
        (Answer(hang_before_headers=True), "LLM_002"),
        (Answer(PART, end="cut"), "LLM_001"),
    ],
)
def test_the_legacy_stream_has_codes_of_its_own(
    http: httpx.Client, model: OpenAIStandIn, answer: Answer, code: str
) -> None:
    model.will(answer)
    events = read(
        http, "POST", "/api/v1/chat/generate", json={"message": "x", "doc_type": "UNSORTED"}
    )
    assert (events[-1].name, events[-1].data["code"]) == ("error", code)
    assert set(events[-1].data) == {"code", "message"}


def test_after_a_failure_the_thread_has_question_and_part_and_goes_on(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(PART, end="cut"), Answer(["Whole."]))
    conversation, _ = draft(http, project)
    draft(http, project, conversation_id=conversation, message="Again?")
    roles_and_ends = [(m["role"], m["content"][-20:]) for m in model.chats[-1].body["messages"][1:]]
    assert [role for role, _ in roles_and_ends] == ["user", "assistant", "user"]
    assert roles_and_ends[1][1] == "Half an"


def test_no_error_tells_a_key_an_address_or_what_the_provider_said(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    secret = "sk-canary-model-key at /etc/passwd"
    for answer in (
        Answer(status=401, error={"message": secret}),
        Answer(PART, end="error_object", error={"message": secret}),
    ):
        model.will(answer)
        _, events = draft(http, project)
        told = str(events[-1])
        assert "canary" not in told
        assert "passwd" not in told
        assert "127.0.0.1" not in told


@timed
def test_without_the_database_requests_get_503_and_the_service_comes_back(
    postgres_url: str, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    url = make_database(postgres_url)
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in", "database_url": url}
    with start_service(**settings) as service, service.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        with database_away(postgres_url, url):
            answers = [
                http.post(f"/chat/projects/{project}", json={"message": "x"}),
                http.get("/api/v1/document-types"),
            ]
            health = http.get("/api/v1/system/health")
            drafted = http.post(
                "/api/v1/chat/stream",
                json={"conversation_id": project, "project_id": project, "message": "x"},
            )
        assert [answer.status_code for answer in answers] == [503, 503]
        assert all(answer.elapsed.total_seconds() < 6 for answer in answers)
        assert answers[0].headers["retry-after"] == "5"
        assert answers[0].json()["error"] == "database_unavailable"
        assert (drafted.status_code, set(drafted.json())) == (503, {"detail"})
        assert health.status_code == 503
        assert health.json()["status"] == "ERROR"
        assert health.elapsed.total_seconds() < 2.5
        assert _answers_again(http, f"/projects/{project}")


def _answers_again(http: httpx.Client, path: str) -> bool:
    """A client that comes again after `Retry-After`, twice at most."""
    for _ in range(3):
        answer = http.get(path)
        if answer.status_code == 200:
            return True
        time.sleep(float(answer.headers["retry-after"]) / 5)
    return False


def serving(server_url: str) -> list[psutil.Process]:
    """The processes that serve the connections of all databases, and the one that starts them."""
    with psycopg.connect(server_url) as connection:
        rows = connection.execute(
            "select pid from pg_stat_activity where datname is not null and pid <> pg_backend_pid()"
        ).fetchall()
    backends = [psutil.Process(pid) for (pid,) in rows]
    return [backends[0].parent(), *backends]


@timed
def test_a_database_that_is_frozen_is_503_within_6_s_and_health_answers_within_2(
    scratch: Path, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    with embedded_postgres(scratch / "own") as server:
        settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
        with (
            start_service(**settings, database_url=make_database(server)) as service,
            service.client() as http,
        ):
            http.get("/projects").raise_for_status()
            with frozen(serving(server)):
                health = http.get("/api/v1/system/health")
                answer = http.get("/projects")
            assert (health.status_code, answer.status_code) == (503, 503)
            assert health.elapsed.total_seconds() < 2.5
            assert answer.elapsed.total_seconds() < 6.5
            assert _answers_again(http, "/projects")


class database_away:
    """Cut all connections to a database and refuse new ones, until the end of the block."""

    def __init__(self, server_url: str, url: str) -> None:
        self._server_url = server_url
        self._name = url.split("/")[3].split("?")[0]

    def __enter__(self) -> None:
        self._allow("false")
        self._run("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s")

    def __exit__(self, *_: object) -> None:
        self._allow("true")

    def _allow(self, whether: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(f'alter database "{self._name}" allow_connections {whether}')

    def _run(self, sql: str) -> None:
        with psycopg.connect(self._server_url, autocommit=True) as connection:
            connection.execute(sql, (self._name,))


@pytest.fixture
def losable(
    postgres_url: str, start_service: ServiceFactory, model: OpenAIStandIn
) -> Iterator[tuple[httpx.Client, str, str]]:
    """A client, the path of a project's chat, and the URL of a database of their own."""
    url = make_database(postgres_url)
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in", "database_url": url}
    with start_service(**settings) as service, service.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        yield http, f"/chat/projects/{project}", url


def test_a_database_that_goes_away_in_mid_answer_still_ends_the_stream(
    postgres_url: str, losable: tuple[httpx.Client, str, str], model: OpenAIStandIn
) -> None:
    http, chat, url = losable
    model.will(Answer(["a", "b"], first_delay_s=1.0))
    with http.stream("POST", chat, json={"message": "x"}) as response:
        chunks = response.iter_raw()
        got = next(chunks)
        wait_until(lambda: bool(model.chats), 30)
        with database_away(postgres_url, url):
            while b"delta" not in got:
                got += next(chunks)
        got += b"".join(chunks)
    conversation = http.get("/chat/recent").json()["conversations"][0]["id"]
    assert got.count(b"event: done\n") + got.count(b"event: error\n") == 1
    assert kept(http, conversation)[0] == ("user", "x", "complete")
    assert kept(http, conversation)[1][1:] == ("ab", "complete" if b"done" in got else "failed")


def test_an_end_that_is_stored_late_is_stored_as_it_was_told(
    postgres_url: str,
    losable: tuple[httpx.Client, str, str],
    model: OpenAIStandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finishing, "patiently", partial(patiently, seconds=0.5))
    http, chat, url = losable
    model.will(Answer(["a", "b"], first_delay_s=1.0))
    with http.stream("POST", chat, json={"message": "x"}) as response:
        wait_until(lambda: bool(model.chats), 30)
        with database_away(postgres_url, url):
            told = events_of(response.read())
    run = f"/runs/{response.headers['x-run-id']}"
    assert _answers_again(http, "/projects")
    wait_until(lambda: http.get(run).json()["run"]["status"] == "failed", 30)
    assert names(told) == ["meta", "sources", "text", "text", "error"]
    assert events_of(http.get(f"{run}/stream").content) == told


def test_a_model_that_failed_is_not_asked_again(service: Service, model: OpenAIStandIn) -> None:
    """No silent retry: one question is one model call, whatever the model answers."""
    with service.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        model.will(Answer(status=500))
        draft(http, project)
    assert len(model.chats) == 1
