"""The promise of every stream: a run of its own, ids, resume, stop, one at a time, never silent."""

import threading
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from conftest import Service, ServiceFactory
from sse import Event, events_of, live, read
from standins.openai import Answer, OpenAIStandIn
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send
from timed import timed

import api.runs.following
from api.browsers import BrowserHeaders
from api.wire import EventStream

WORDS = [f"w{n} " for n in range(20)]


@contextmanager
def asking(http: httpx.Client, project: str, **body: Any) -> Iterator[httpx.Response]:
    """A stream that has begun: its answer is there, its events are still to be read."""
    question = {"message": "Go on.", **body}
    with http.stream("POST", f"/chat/projects/{project}", json=question) as response:
        assert response.status_code == 200
        yield response


def hang_up_after(response: httpx.Response, events: int) -> list[Event]:
    stream = live(response.iter_lines())
    return [next(stream) for _ in range(events)]


def wait_for(http: httpx.Client, run_id: str, status: str) -> dict[str, Any]:
    for _ in range(100):
        run: dict[str, Any] = http.get(f"/runs/{run_id}").json()["run"]
        if run["status"] == status:
            return run
        time.sleep(0.05)
    raise AssertionError(f"the run is {run['status']}")


def test_hanging_up_changes_nothing_and_the_answer_is_in_the_conversation(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(WORDS, delay_s=0.02))
    with asking(http, project) as response:
        run_id = response.headers["x-run-id"]
        meta, *_ = hang_up_after(response, 4)
    run = wait_for(http, run_id, "done")
    assert model.chats[0].finished
    assert {**run, "startedAt": "", "endedAt": ""} == {
        "id": run_id,
        "conversationId": meta.data["conversationId"],
        "status": "done",
        "seq": 23,
        "startedAt": "",
        "endedAt": "",
        "finishReason": "stop",
        "error": None,
        "nextRunId": None,
    }
    conversation = http.get(f"/chat/conversations/{run['conversationId']}").json()["conversation"]
    assert conversation["messages"][1]["content"] == "".join(WORDS)


@pytest.mark.parametrize("live_still", [True, False], ids=["live", "finished"])
@pytest.mark.parametrize("after", [0, 1, 7, 22])
def test_a_resumed_stream_goes_on_where_the_other_ended(
    http: httpx.Client, project: str, model: OpenAIStandIn, live_still: bool, after: int
) -> None:
    model.will(Answer(WORDS, delay_s=0.02))
    with asking(http, project) as response:
        run_id = response.headers["x-run-id"]
        if not live_still:
            response.read()
    resumed = read(
        http, "GET", f"/runs/{run_id}/stream", headers={"Last-Event-ID": f"{run_id}:{after}"}
    )
    whole = read(http, "GET", f"/runs/{run_id}/stream")
    assert read(http, "GET", f"/runs/{run_id}/stream", params={"after": after}) == resumed
    assert whole[after:] == resumed
    assert [event.name for event in whole] == ["meta", "sources", *["text"] * 20, "done"]
    assert [event.data for event in whole[2:-1]] == [{"delta": word} for word in WORDS]


def test_a_browser_that_comes_again_says_in_the_header_what_it_has_by_then(
    http: httpx.Client, project: str
) -> None:
    with asking(http, project) as response:
        run_id = response.headers["x-run-id"]
        whole = events_of(response.read())
    again = read(
        http,
        "GET",
        f"/runs/{run_id}/stream",
        params={"after": 1},
        headers={"Last-Event-ID": f"{run_id}:3"},
    )
    assert again == whole[3:]


def test_many_readers_get_the_same_events(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    model.will(Answer(WORDS, delay_s=0.02))
    got: list[list[Event]] = []

    def follow(run_id: str) -> None:
        with service.client() as client:
            got.append(read(client, "GET", f"/runs/{run_id}/stream"))

    with asking(http, project) as response:
        run_id = response.headers["x-run-id"]
        readers = [threading.Thread(target=follow, args=(run_id,)) for _ in range(5)]
        for reader in readers:
            reader.start()
        own = events_of(response.read())
        for reader in readers:
            reader.join(30)
    assert got == [own] * 5


def test_a_place_that_is_no_event_of_the_run_is_refused(http: httpx.Client, project: str) -> None:
    with asking(http, project) as response:
        run_id = response.headers["x-run-id"]
        response.read()
    for place in ("7", f"{uuid.uuid4()}:1", f"{run_id}:x", f"{run_id}:-1"):
        answer = http.get(f"/runs/{run_id}/stream", headers={"Last-Event-ID": place})
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_last_event_id")


@timed
def test_stop_closes_the_upstream_keeps_the_part_and_may_be_repeated(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    model.will(Answer(["Half", " an"], end="hang"))
    with asking(http, project) as response:
        run_id = response.headers["x-run-id"]
        stream = live(response.iter_lines())
        begun = [next(stream) for _ in range(4)]
        with service.client() as other:
            asked_at = time.monotonic()
            first = other.post(f"/runs/{run_id}/stop")
            again = other.post(f"/runs/{run_id}/stop")
        rest = list(stream)
    assert model.wait_for_hangup(model.chats[0]) - asked_at < 1
    assert [event.name for event in (*begun, *rest)] == [
        "meta", "sources", "text", "text", "done",
    ]  # fmt: skip
    assert rest[-1].data["finishReason"] == "stopped"
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert first.json()["run"]["status"] == "stopped"
    conversation_id = begun[0].data["conversationId"]
    messages = http.get(f"/chat/conversations/{conversation_id}").json()["conversation"]["messages"]
    assert [(m["content"], m["status"]) for m in messages] == [
        ("Go on.", "complete"), ("Half an", "stopped"),
    ]  # fmt: skip

    model.will(Answer(["Whole."]))
    with asking(http, project, conversationId=conversation_id) as response:
        response.read()
    assert "Half an" in [message["content"] for message in model.chats[-1].body["messages"]]


def test_a_drafting_stream_that_is_stopped_names_its_sources_still(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    model.will(Answer(["# A"], end="hang"))
    body = {
        "conversation_id": str(uuid.uuid4()),
        "project_id": project,
        "message": "x",
        "doc_type": "TECH_STACK",
    }
    with http.stream("POST", "/api/v1/chat/stream", json=body) as response:
        stream = live(response.iter_lines())
        next(stream)
        with service.client() as other:
            other.post(f"/runs/{response.headers['x-run-id']}/stop").raise_for_status()
        *_, done = stream
    assert done.name == "done"
    assert done.data["full_response"] == "# A"
    assert done.data["sources"] == ["TECH_STACK"]
    assert done.data["metadata"]["finish_reason"] == "stopped"


def test_a_second_run_in_a_conversation_is_409_and_nothing_of_it_is_stored(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    model.will(Answer(WORDS, delay_s=0.05))
    with asking(http, project) as response, service.client() as other:
        run_id = response.headers["x-run-id"]
        [meta] = hang_up_after(response, 1)
        conversation_id = meta.data["conversationId"]
        second = other.post(
            f"/chat/projects/{project}",
            json={"message": "Me too!", "conversationId": conversation_id},
        )
        drafted = other.post(
            "/api/v1/chat/stream",
            json={
                "conversation_id": conversation_id,
                "project_id": project,
                "message": "Me three!",
            },
        )
    assert (second.status_code, second.json()["runId"]) == (409, run_id)
    assert (drafted.status_code, drafted.json()["run_id"]) == (409, run_id)
    assert set(drafted.json()) == {"detail", "run_id"}
    wait_for(http, run_id, "done")
    conversation = http.get(f"/chat/conversations/{conversation_id}").json()["conversation"]
    assert [message["content"] for message in conversation["messages"]] == [
        "Go on.", "".join(WORDS),
    ]  # fmt: skip


def test_of_eight_runs_at_once_in_a_conversation_one_runs_and_no_turn_is_lost(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    with asking(http, project) as response:
        conversation_id = events_of(response.read())[0].data["conversationId"]
    model.will(Answer(["ok"], first_delay_s=0.3))
    statuses: list[int] = []

    def ask(n: int) -> None:
        with service.client() as client:
            body = {"message": f"Question {n}", "conversationId": conversation_id}
            statuses.append(client.post(f"/chat/projects/{project}", json=body).status_code)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(statuses) == [200] + [409] * 7
    messages = http.get(f"/chat/conversations/{conversation_id}").json()["conversation"]["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2


@timed
def test_silence_is_filled_with_comments(
    http: httpx.Client, project: str, model: OpenAIStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.runs.following, "KEEP_ALIVE_S", 0.1)
    model.will(Answer(["late"], first_delay_s=0.55))
    with asking(http, project) as response:
        body = response.read()
    assert body.startswith(b": open\n\n")
    assert 3 <= body.count(b": keep-alive\n\n") <= 20
    assert [event.name for event in events_of(body)] == ["meta", "sources", "text", "done"]


def test_tokens_of_one_read_travel_in_one_write(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(WORDS * 10, one_write=True))
    with asking(http, project) as response:
        writes = [chunk for chunk in response.iter_raw() if b"event: text" in chunk]
    assert sum(chunk.count(b"event: text\n") for chunk in writes) == 200
    assert len(writes) <= 10


def test_on_disconnect_cancel_ends_the_run_with_its_last_reader(
    start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    model.will(Answer(["Half"], end="hang"))
    with start_service(**settings, chat_on_disconnect="cancel") as service:
        with service.client() as http:
            project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
            with asking(http, project) as response:
                run_id = response.headers["x-run-id"]
                hang_up_after(response, 3)
        with service.client() as http:
            wait_for(http, run_id, "stopped")
    model.wait_for_hangup(model.chats[0])


def test_a_stream_that_is_no_longer_kept_is_410_and_the_run_still_told(
    start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    with (
        start_service(**settings, run_retention_minutes=0.001) as service,
        service.client() as http,
    ):
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        with asking(http, project) as response:
            run_id = response.headers["x-run-id"]
            response.read()
        time.sleep(0.3)
        answer = http.get(f"/runs/{run_id}/stream")
        run = http.get(f"/runs/{run_id}").json()["run"]
    assert (answer.status_code, answer.json()["error"]) == (410, "stream_gone")
    assert (run["status"], run["seq"]) == ("done", 6)


def test_the_conversation_outlives_the_service(
    start_service: ServiceFactory, model: OpenAIStandIn, shared_service: Service
) -> None:
    settings = shared_service.settings.model_dump(include={"database_url"})
    with (
        start_service(**settings, openai_base_url=model.base_url, openai_model="stand-in") as other,
        other.client() as http,
        shared_service.client() as first,
    ):
        project = first.post("/projects", json={"name": "x"}).json()["project"]["id"]
        with asking(first, project) as response:
            run_id = response.headers["x-run-id"]
            conversation_id = events_of(response.read())[0].data["conversationId"]
        assert http.get(f"/runs/{run_id}").json()["run"]["status"] == "done"
        with asking(http, project, conversationId=conversation_id) as response:
            response.read()
    assert len(model.chats[-1].body["messages"]) == 4


def test_of_a_stream_only_head_and_end_pass_the_middlewares() -> None:
    passed: list[Message] = []

    async def said() -> AsyncIterator[bytes]:
        yield b": one\n\n"
        yield b": two\n\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            passed.append(message)
            await send(message)

        await EventStream(said(), run_id="r")(scope, receive, note)

    client = TestClient(BrowserHeaders(app))
    assert client.get("/").content == b": one\n\n: two\n\n"
    head, end = passed
    assert head["type"] == "http.response.start"
    assert end == {"type": "http.response.body", "body": b"", "more_body": False}
