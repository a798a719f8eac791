"""Resume away from the run: at another worker, after a restart, when its stream is gone."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import httpx
import pytest
from callers import new_key, new_user
from conftest import Service, ServiceFactory, migrated_database
from sse import Event, events_of, live, names, read
from standins.openai import Answer, OpenAIStandIn
from test_server import wait_until
from timed import timed

APIS = ("chat", "drafting", "legacy")
WORDS = [f"w{n} " for n in range(20)]


@pytest.fixture(scope="module")
def other(start_service: ServiceFactory, shared_service: Service) -> Iterator[Service]:
    """A worker beside the shared one."""
    with start_service(**shared_service.beside()) as service:
        yield service


def asked(http: httpx.Client, api: str, project: str) -> AbstractContextManager[httpx.Response]:
    """A stream of an API that has begun."""
    body: dict[str, Any] = {"message": "Go on."}
    match api:
        case "chat":
            path = f"/chat/projects/{project}"
        case "drafting":
            path = "/api/v1/chat/stream"
            body |= {"conversation_id": str(uuid.uuid4()), "project_id": project}
        case _:
            path = "/api/v1/chat/generate"
            body |= {"doc_type": "UNSORTED"}
    return http.stream("POST", path, json=body)


def finished(http: httpx.Client, api: str, project: str) -> tuple[str, list[Event]]:
    """The path of the stream of a run that has ended, and its events."""
    with asked(http, api, project) as response:
        return f"/runs/{response.headers['x-run-id']}/stream", events_of(response.read())


def noted(response: httpx.Response, shown: list[tuple[Event, float]]) -> None:
    """Note each event, and when it came, in monotonic seconds."""
    shown.extend((event, time.monotonic()) for event in live(response.iter_lines()))


@timed
@pytest.mark.parametrize("api", APIS)
def test_a_live_run_is_followed_at_another_worker_to_its_end_and_in_time(
    http: httpx.Client, project: str, model: OpenAIStandIn, other: Service, api: str
) -> None:
    model.will(Answer(WORDS, delay_s=0.1))
    here: list[tuple[Event, float]] = []
    there: list[tuple[Event, float]] = []

    def follow(path: str) -> None:
        with other.client() as client, client.stream("GET", path) as response:
            assert response.status_code == 200, response.read()
            noted(response, there)

    with asked(http, api, project) as response:
        path = f"/runs/{response.headers['x-run-id']}/stream"
        follower = threading.Thread(target=follow, args=(path,))
        follower.start()
        noted(response, here)
        follower.join(30)
    assert names(event for event, _ in here).count("done") == 1
    assert [event for event, _ in there] == [event for event, _ in here]
    late = [there_at - here_at for (_, here_at), (_, there_at) in zip(here, there, strict=True)]
    # What came before the follower did is as late as the follower.
    assert max(late[len(late) // 2 :]) < 1


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("after", [0, 1, 7, 20])
def test_a_run_is_resumed_at_another_worker_where_it_was_left(
    http: httpx.Client, project: str, model: OpenAIStandIn, other: Service, api: str, after: int
) -> None:
    model.will(Answer(WORDS, delay_s=0.01))
    with asked(http, api, project) as response, other.client() as there:
        run_id = response.headers["x-run-id"]
        path, place = f"/runs/{run_id}/stream", {"Last-Event-ID": f"{run_id}:{after}"}
        rest_live = read(there, "GET", path, headers=place)
        whole = events_of(response.read())
        rest = read(there, "GET", path, params={"after": after})
    assert rest_live == rest == whole[after:]


def test_another_worker_tells_how_far_a_run_is(
    http: httpx.Client, project: str, model: OpenAIStandIn, other: Service
) -> None:
    model.will(Answer(["Half", " an"], end="hang"))
    with asked(http, "chat", project) as response, other.client() as there:
        path = f"/runs/{response.headers['x-run-id']}"
        stream = live(response.iter_lines())
        begun = [next(stream) for _ in range(4)]
        wait_until(lambda: there.get(path).json()["run"]["seq"] == len(begun), 5)
        told = [client.get(path).json() for client in (there, http)]
        there.post(f"{path}/stop").raise_for_status()
    assert [(one["run"]["status"], one["run"]["seq"]) for one in told] == [("running", 4)] * 2


def test_finished_runs_are_whole_after_a_restart(
    start_service: ServiceFactory, service: Service, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(WORDS))
    with start_service(**service.beside()) as before, before.client() as http:
        runs = [finished(http, api, project) for api in APIS]
    with start_service(**service.beside()) as after, after.client() as http:
        for path, whole in runs:
            assert read(http, "GET", path) == whole
            assert read(http, "GET", path, params={"after": 5}) == whole[5:]
            run = http.get(path.removesuffix("/stream")).json()["run"]
            assert (run["status"], run["seq"], run["finishReason"]) == ("done", len(whole), "stop")


def test_a_browser_that_comes_again_after_the_last_event_is_told_to_stop(
    http: httpx.Client, project: str, model: OpenAIStandIn, other: Service
) -> None:
    model.will(Answer(WORDS))
    path, whole = finished(http, "chat", project)
    run_id, _, last = whole[-1].id.partition(":")
    with other.client() as there:
        answers = [
            client.get(path, headers={"Last-Event-ID": f"{run_id}:{seq}", **asks})
            for asks in ({"Accept": "text/event-stream"}, {})
            for client in (http, there)
            for seq in (int(last) - 1, int(last), int(last) + 1)
        ]
    assert [(one.status_code, events_of(one.content)) for one in answers] == [
        *[(200, whole[-1:]), (204, []), (204, [])] * 2,
        *[(200, whole[-1:]), (200, []), (200, [])] * 2,
    ]
    assert {one.headers["x-run-id"] for one in answers} == {run_id}


def test_a_stream_that_is_no_longer_kept_is_410_everywhere_and_the_run_still_told(
    start_service: ServiceFactory, model: OpenAIStandIn, postgres_url: str
) -> None:
    settings = {
        "database_url": migrated_database(postgres_url),
        "openai_base_url": model.base_url,
        "openai_model": "stand-in",
    }
    with start_service(**settings, run_retention_minutes=0.001) as first, first.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        with start_service(**first.beside()) as second, second.client() as there:
            path, whole = finished(http, "chat", project)
            time.sleep(0.5)
            gone = [client.get(path) for client in (http, there)]
            runs = [client.get(path.removesuffix("/stream")) for client in (http, there)]
    with start_service(**first.beside()) as again, again.client() as http:
        gone.append(http.get(path))
        runs.append(http.get(path.removesuffix("/stream")))
        [conversation] = http.get(f"/chat/projects/{project}/conversations").json()["conversations"]
    assert [(a.status_code, a.json()["error"]) for a in gone] == [(410, "stream_gone")] * 3
    assert [run.json() for run in runs] == [runs[0].json()] * 3
    assert (runs[0].json()["run"]["status"], runs[0].json()["run"]["seq"]) == ("done", len(whole))
    assert conversation["messageCount"] == 2


def test_a_run_that_is_unknown_or_somebody_elses_is_404_at_each_worker(
    start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    model.will(Answer(["Half"], end="hang"))
    with start_service(**settings, api_key="canary-of-runs") as first:
        ada, bob = ({"X-API-Key": new_key(first, new_user(first, name))} for name in ("Ada", "Bob"))
        with (
            start_service(**first.beside()) as second,
            first.client(**ada) as own,
            first.client(**bob) as here,
            second.client(**bob) as there,
        ):
            body = {"name": "x", "isPrivate": False}
            project = own.post("/projects", json=body).json()["project"]["id"]
            for api in APIS:
                with asked(own, api, project) as response:
                    run_id = response.headers["x-run-id"]
                    for http in (here, there):
                        refused = [
                            http.request(method, f"/runs/{one}{what}")
                            for one in (run_id, uuid.uuid4())
                            for method, what in (("GET", ""), ("GET", "/stream"), ("POST", "/stop"))
                        ]
                        assert {answer.status_code for answer in refused} == {404}
                        assert len({answer.content for answer in refused}) == 1
                    assert own.post(f"/runs/{run_id}/stop").json()["run"]["status"] == "stopped"


def test_a_run_that_is_stopped_while_it_waits_for_a_process_ends_after_what_it_has_said(
    http: httpx.Client, service: Service, project: str
) -> None:
    run_id = str(uuid.uuid4())
    with service.changing() as connection:
        connection.execute(_WAITING, {"run": run_id, "project": project})
    with http.stream("GET", f"/runs/{run_id}/stream") as response:
        events = live(response.iter_lines())
        shown = [next(events)]
        assert http.post(f"/runs/{run_id}/stop").json()["run"]["status"] == "stopped"
        shown += events
    whole = [(f"{run_id}:1", "meta"), (f"{run_id}:2", "done")]
    assert [(event.id, event.name) for event in shown] == whole
    assert read(http, "GET", f"/runs/{run_id}/stream") == shown


@pytest.mark.parametrize(
    ("api", "expected", "model_of"),
    [
        ("chat", ["meta", "done"], lambda events: events[0].data["model"]),
        ("drafting", ["done"], lambda events: events[0].data["metadata"]["model"]),
    ],
    ids=["chat", "drafting"],
)
def test_a_run_that_was_never_begun_names_the_model_that_it_was_to_ask(
    http: httpx.Client,
    service: Service,
    project: str,
    api: str,
    expected: list[str],
    model_of: Callable[[list[Event]], str],
) -> None:
    run_id = str(uuid.uuid4())
    with service.changing() as connection:
        connection.execute(_WAITING, {"run": run_id, "project": project})
        connection.execute("delete from run_events where run_id = %s", (run_id,))
        connection.execute(
            "update runs set api = %s, request = %s where id = %s",
            (api, '{"told_model": "large"}', run_id),
        )
    assert http.post(f"/runs/{run_id}/stop").json()["run"]["status"] == "stopped"
    events = read(http, "GET", f"/runs/{run_id}/stream")
    assert names(events) == expected
    assert model_of(events) == "large"


def test_of_a_run_that_nobody_works_on_any_more_the_tokens_that_are_kept_are_counted(
    http: httpx.Client, service: Service, project: str
) -> None:
    run_id = str(uuid.uuid4())
    said = [f'text {{"type":"text","delta":"{token}"}}' for token in ("High", " water")]
    with service.changing() as connection:
        connection.execute(_WAITING, {"run": run_id, "project": project})
        connection.execute(
            "insert into run_events (run_id, seq, count, events) values (%s, 2, 2, %s)",
            (run_id, "\n".join(said)),
        )
    assert http.post(f"/runs/{run_id}/stop").json()["run"]["status"] == "stopped"
    total = http.get("/usage", params={"projectId": project}).json()["total"]
    counted = {"promptTokens": 0, "completionTokens": 2, "totalTokens": 2}
    assert total == {"runs": 1, **counted, "cost": None}


# As a process leaves it that has lost the database's answer that it was begun.
_WAITING = """
with conversation as (
    insert into conversations (id, project_id, owner_id, title)
    select gen_random_uuid(), id, owner_id, 'x' from projects where id = %(project)s
    returning id, owner_id
),
answer as (
    insert into messages (id, conversation_id, role, content, status)
    select %(run)s, id, 'assistant', '', 'streaming' from conversation returning id
),
run as (
    insert into runs (id, conversation_id, owner_id, status, api, request, stop_asked)
    select answer.id, c.id, owner_id, 'running', 'chat', '{}', true from conversation c, answer
    returning id
)
insert into run_events (run_id, seq, count, events) select id, 1, 1, 'meta {"model":"m"}' from run
"""
