"""Idempotency-Key: a request that is sent again is the same run, and a turn is asked once."""

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import cycle, islice
from typing import Any, NamedTuple

import httpx
import pytest
from callers import new_key, new_user
from conftest import Service, ServiceFactory
from sse import Event, events_of, live, read
from standins.openai import Answer, OpenAIStandIn, Recorded

KEY, SECRET = "canary-of-requests", "canary-secret-of-32-characters-00"
APIS = ("chat", "drafting", "legacy")
STORED = ("chat", "drafting")
WORDS = [f"w{n} " for n in range(20)]
Start = Callable[[], AbstractContextManager[Service]]

SLOW = Answer(WORDS, delay_s=0.02)

pytestmark = pytest.mark.usefixtures("model")


class Post(NamedTuple):
    """A request that starts a run."""

    path: str
    body: dict[str, Any]

    def sent(self, http: httpx.Client, key: str) -> httpx.Response:
        """Its answer, whatever that is."""
        return http.post(self.path, json=self.body, headers={"Idempotency-Key": key})

    def streamed(self, http: httpx.Client, key: str) -> AbstractContextManager[httpx.Response]:
        """Its answer, whose stream is still to be read."""
        headers = {"Idempotency-Key": key}
        return http.stream("POST", self.path, json=self.body, headers=headers)

    def read(self, http: httpx.Client, key: str) -> list[Event]:
        """Its stream."""
        return read(http, "POST", self.path, json=self.body, headers={"Idempotency-Key": key})


@pytest.fixture(scope="module")
def first(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Service]:
    """A service that needs credentials."""
    with start_service(
        api_key=KEY,
        jwt_secret=SECRET,
        openai_base_url=shared_model.base_url,
        openai_model="stand-in",
    ) as service:
        yield service


@pytest.fixture(scope="module")
def start_other(start_service: ServiceFactory, first: Service) -> Start:
    """Start another worker on the database of the first one."""
    return lambda: start_service(**first.beside())


@pytest.fixture(scope="module")
def second(start_other: Start) -> Iterator[Service]:
    """A worker beside the first one."""
    with start_other() as service:
        yield service


@pytest.fixture(scope="module")
def headers(first: Service) -> dict[str, str]:
    """The credentials of Ada."""
    return {"X-API-Key": new_key(first, new_user(first, "Ada"))}


@pytest.fixture
def here(first: Service, headers: dict[str, str]) -> Iterator[httpx.Client]:
    """Ada at the first worker."""
    with first.client(**headers) as http:
        yield http


@pytest.fixture
def there(second: Service, headers: dict[str, str]) -> Iterator[httpx.Client]:
    """Ada at the second worker."""
    with second.client(**headers) as http:
        yield http


@pytest.fixture
def key() -> str:
    """A key that nobody has used."""
    return str(uuid.uuid4())


def new_project(http: httpx.Client, **body: Any) -> str:
    answer = http.post("/projects", json={"name": "Harbour", **body})
    return str(answer.json()["project"]["id"])


def post(api: str, project: str, **more: Any) -> Post:
    """A request of an API with a conversation of its own, if it has one."""
    match api:
        case "chat":
            return Post(f"/chat/projects/{project}", {"message": "Go on.", **more})
        case "drafting":
            ids = {"conversation_id": str(uuid.uuid4()), "project_id": project}
            return Post("/api/v1/chat/stream", {"message": "Go on.", **ids, **more})
        case _:
            body = {"message": "Go on.", "doc_type": "UNSORTED", **more}
            return Post("/api/v1/chat/generate", body)


def run_of(events: list[Event]) -> str:
    return events[0].id.rpartition(":")[0]


def messages(http: httpx.Client, events: list[Event]) -> list[tuple[str, str, str]]:
    """The conversation of a run: role, content, status of each message, and which do not count."""
    run = http.get(f"/runs/{run_of(events)}").json()["run"]
    conversation = http.get(f"/chat/conversations/{run['conversationId']}").json()["conversation"]
    return [
        (m["role"], m["content"], m["status"] + ", superseded" * m["isSuperseded"])
        for m in conversation["messages"]
    ]


def told(asked: Recorded) -> list[tuple[str, str]]:
    """What a model was told, without the random part of its delimiters."""
    return [
        (m["role"], re.sub(r"(</?[a-z]+)-[b-z]{8}>", r"\1>", m["content"]))
        for m in asked.body["messages"]
    ]


async def sent_at_once(clients: list[httpx.Client], one: Post, key: str) -> list[list[Event]]:
    """The streams of as many requests as there are clients, sent at the same moment."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, trust_env=False, limits=limits) as http:

        async def send(client: httpx.Client) -> list[Event]:
            headers = {**client.headers, "Idempotency-Key": key}
            url = client.base_url.join(one.path)
            answer = await http.post(url, json=one.body, headers=headers)
            assert answer.status_code == 200, answer.text
            return events_of(answer.content)

        return list(await asyncio.gather(*map(send, clients)))


@pytest.mark.parametrize("api", APIS)
def test_the_same_key_and_body_are_the_same_run_live_and_after_its_end_from_each_worker(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    model.will(SLOW)
    one = post(api, new_project(here))
    with one.streamed(here, key) as response:
        begun = live(response.iter_lines())
        own = [next(begun) for _ in range(4)]
        assert not model.chats[0].finished
        from_there = one.read(there, key)
        own += begun
    assert response.headers["x-run-id"] == run_of(own)
    assert "".join(e.data.get("delta", e.data.get("token", "")) for e in own) == "".join(WORDS)
    assert from_there == one.read(here, key) == one.read(there, key) == own
    assert len(model.chats) == 1


def test_a_key_is_known_after_a_restart(
    here: httpx.Client,
    start_other: Start,
    headers: dict[str, str],
    model: OpenAIStandIn,
    key: str,
) -> None:
    project = new_project(here)
    posts = [post(api, project) for api in APIS]
    with start_other() as before, before.client(**headers) as http:
        runs = [one.read(http, key) for one in posts]
    with start_other() as after, after.client(**headers) as http:
        assert [one.read(http, key) for one in posts] == runs
    assert len(model.chats) == len(APIS)


@pytest.mark.parametrize("api", APIS)
def test_fifty_requests_at_once_with_one_key_are_one_run_and_one_model_call(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    model.will(SLOW)
    one = post(api, new_project(here))
    clients = list(islice(cycle([here, there]), 50))
    streams = asyncio.run(sent_at_once(clients, one, key))
    assert streams == [streams[0]] * 50
    assert streams[0][-1].name == "done"
    assert len(model.chats) == 1


@pytest.mark.parametrize(
    ("api", "other"),
    [
        ("chat", {"message": "Go on!"}),
        ("chat", {"modelId": "stand-in"}),
        ("drafting", {"message": "Go on!"}),
        ("drafting", {"conversation_id": str(uuid.UUID(int=7))}),
        ("drafting", {"user_name": "Ada"}),
        ("drafting", {"project_context": {"a.md": "A"}}),
        ("drafting", {"metadata": {"a": "b"}}),
        ("legacy", {"message": "Go on!"}),
        ("legacy", {"chat_history": [{"role": "user", "content": "A"}]}),
    ],
)
def test_a_key_that_was_used_with_another_body_is_422(
    here: httpx.Client,
    there: httpx.Client,
    model: OpenAIStandIn,
    api: str,
    other: dict[str, Any],
    key: str,
) -> None:
    one = post(api, new_project(here))
    one.read(here, key)
    another = one._replace(body={**one.body, **other})
    for http in (here, there):
        assert_reused(api, another.sent(http, key))
    assert len(model.chats) == 1


def test_a_key_that_was_used_in_another_project_is_422(
    here: httpx.Client, model: OpenAIStandIn, key: str
) -> None:
    post("chat", new_project(here)).read(here, key)
    assert_reused("chat", post("chat", new_project(here)).sent(here, key))
    assert len(model.chats) == 1


def assert_reused(api: str, answer: httpx.Response) -> None:
    assert answer.status_code == 422, answer.text
    if api == "chat":
        assert set(answer.json()) == {"error", "message"}
        assert answer.json()["error"] == "idempotency_key_reused"
    else:
        assert set(answer.json()) == {"detail"}


@pytest.mark.parametrize("bad", ["", "k" * 256], ids=["empty", "256"])
@pytest.mark.parametrize("api", APIS)
def test_a_key_that_is_empty_or_too_long_is_refused(
    here: httpx.Client, model: OpenAIStandIn, api: str, bad: str
) -> None:
    answer = post(api, new_project(here)).sent(here, bad)
    assert answer.status_code == (400 if api == "chat" else 422), answer.text
    assert set(answer.json()) == ({"success", "error"} if api == "chat" else {"detail"})
    assert model.chats == []


@pytest.mark.parametrize("api", APIS)
def test_a_key_of_255_characters_is_taken(
    here: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    one, longest = post(api, new_project(here)), key.ljust(255, "~")
    assert one.read(here, longest) == one.read(here, longest)
    assert len(model.chats) == 1


def test_the_same_key_of_another_caller_or_on_another_route_is_another_run(
    first: Service, here: httpx.Client, model: OpenAIStandIn, key: str
) -> None:
    project = new_project(here, isPrivate=False)
    posts = [post(api, project) for api in APIS]
    runs = [run_of(one.read(here, key)) for one in posts]
    with first.client(**{"X-API-Key": new_key(first, new_user(first, "Bob"))}) as bob:
        conversation = {"conversation_id": str(uuid.uuid4())}
        posts[1] = posts[1]._replace(body={**posts[1].body, **conversation})
        runs += [run_of(one.read(bob, key)) for one in posts]
    assert len(set(runs)) == len(model.chats) == 6


@pytest.mark.parametrize(
    ("fault", "part"),
    [(Answer(status=503), ""), (Answer(["Half", " of"], end="cut"), "Half of")],
    ids=["refused", "broken off"],
)
@pytest.mark.parametrize("api", APIS)
def test_after_an_error_that_may_be_retried_the_same_key_asks_the_same_turn_again(
    here: httpx.Client,
    there: httpx.Client,
    model: OpenAIStandIn,
    api: str,
    fault: Answer,
    part: str,
    key: str,
) -> None:
    model.will(fault, Answer(["Good."]))
    one = post(api, new_project(here))
    failed = one.read(here, key)
    again = one.read(there, key)
    assert (failed[-1].name, again[-1].name) == ("error", "done")
    assert run_of(failed) != run_of(again)
    assert one.read(here, key) == one.read(there, key) == again
    first_asked, last_asked = (told(asked) for asked in model.chats)
    assert last_asked == first_asked
    if api in STORED:
        assert messages(here, again) == [
            ("user", "Go on.", "complete"),
            ("assistant", part, "failed, superseded"),
            ("assistant", "Good.", "complete"),
        ]
        assert read(here, "GET", f"/runs/{run_of(failed)}/stream") == failed


@pytest.mark.parametrize("api", APIS)
def test_of_twenty_retries_at_once_one_asks_again(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    model.will(Answer(status=503), SLOW)
    one = post(api, new_project(here))
    failed = one.read(here, key)
    streams = asyncio.run(sent_at_once([here, there] * 10, one, key))
    assert streams == [streams[0]] * 20
    assert (failed[-1].name, streams[0][-1].name) == ("error", "done")
    assert len(model.chats) == 2
    if api in STORED:
        roles = [role for role, _, _ in messages(here, streams[0])]
        assert roles == ["user", "assistant", "assistant"]


@pytest.mark.parametrize("api", APIS)
def test_after_an_error_that_may_not_be_retried_the_same_key_gives_that_error(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    model.will(Answer(status=401), Answer(["Good."]))
    one = post(api, new_project(here))
    failed = one.read(here, key)
    assert failed[-1].name == "error"
    assert one.read(here, key) == one.read(there, key) == failed
    assert len(model.chats) == 1


@pytest.mark.parametrize("api", APIS)
def test_the_key_of_a_run_that_was_stopped_gives_its_stream(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    model.will(Answer(["Half", " of"], end="hang"))
    one = post(api, new_project(here))
    with one.streamed(here, key) as response:
        stream = live(response.iter_lines())
        own = [next(stream)]
        model.wait_for_request()
        there.post(f"/runs/{response.headers['x-run-id']}/stop").raise_for_status()
        own += stream
    assert own[-1].name == "done"
    assert one.read(here, key) == one.read(there, key) == own
    assert len(model.chats) == 1


def test_a_conversation_that_was_erased_is_404_with_its_key_too(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, key: str
) -> None:
    project = new_project(here)
    conversation_id = post("chat", project).read(here, str(uuid.uuid4()))[0].data["conversationId"]
    one = post("chat", project, conversationId=conversation_id)
    one.read(here, key)
    assert here.delete(f"/chat/conversations/{conversation_id}").status_code == 204
    assert [one.sent(http, key).status_code for http in (here, there)] == [404, 404]
    assert len(model.chats) == 2


@pytest.mark.parametrize("api", STORED)
def test_the_key_of_a_question_goes_with_the_conversation_that_it_began(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    one = post(api, new_project(here))
    erased = one.read(here, key)
    run = here.get(f"/runs/{run_of(erased)}").json()["run"]
    assert here.delete(f"/chat/conversations/{run['conversationId']}").status_code == 204
    anew = one.read(there, key)
    assert one.read(here, key) == anew
    assert run_of(anew) != run_of(erased)
    assert messages(here, anew) == [
        ("user", "Go on.", "complete"), ("assistant", "The answer.", "complete"),
    ]  # fmt: skip
    assert len(model.chats) == 2


@pytest.mark.parametrize("api", STORED)
def test_a_key_that_got_a_409_is_free(
    here: httpx.Client, there: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    model.will(SLOW, Answer(["Second."]))
    one = post(api, new_project(here))
    with here.stream("POST", one.path, json=one.body) as response:
        run_id = response.headers["x-run-id"]
        run = there.get(f"/runs/{run_id}").json()["run"]
        name = "conversationId" if api == "chat" else "conversation_id"
        another = one._replace(body={**one.body, "message": "?", name: run["conversationId"]})
        busy = [another.sent(http, key) for http in (here, there, here)]
        response.read()
    assert [answer.status_code for answer in busy] == [409] * 3
    assert {answer.json()["runId" if api == "chat" else "run_id"] for answer in busy} == {run_id}
    second = another.read(there, key)
    assert another.read(here, key) == second
    assert [content for _, content, _ in messages(here, second)] == [
        "Go on.", "".join(WORDS), "?", "Second.",
    ]  # fmt: skip
    assert len(model.chats) == 2


@pytest.mark.parametrize(
    ("api", "more"),
    [
        ("chat", {"mode": "docs", "conversationId": None, "modelId": None}),
        ("drafting", {"user_name": "Developer", "history": [], "doc_type": None, "metadata": None}),
        ("legacy", {"project_context": {}, "chat_history": []}),
    ],
)
def test_keys_in_another_order_and_defaults_spelled_out_are_the_same_body(
    here: httpx.Client,
    model: OpenAIStandIn,
    api: str,
    more: dict[str, Any],
    key: str,
) -> None:
    one = post(api, new_project(here))
    events = one.read(here, key)
    turned = dict(reversed([*one.body.items(), *more.items()]))
    answer = here.post(
        one.path,
        content=json.dumps(turned, indent=4),
        headers={"Idempotency-Key": key, "Content-Type": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    assert events_of(answer.content) == events
    assert len(model.chats) == 1


@pytest.mark.parametrize("api", APIS)
def test_a_day_later_the_key_is_free(
    first: Service, here: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    one = post(api, new_project(here))
    before = one.read(here, key)
    with first.changing() as database:
        database.execute(
            "update run_keys set created_at = now() - interval '24 hours 1 minute' where key = %s",
            (key,),
        )
    after = one.read(here, key)
    assert run_of(before) != run_of(after)
    assert one.read(here, key) == after
    assert len(model.chats) == 2


@pytest.mark.parametrize("api", APIS)
def test_a_key_stands_for_a_day_from_the_last_time_that_it_asked(
    first: Service, here: httpx.Client, model: OpenAIStandIn, api: str, key: str
) -> None:
    older = "update run_keys set created_at = created_at - interval '13 hours' where key = %s"
    model.will(Answer(status=503), Answer(["Good."]))
    one = post(api, new_project(here))
    streams = []
    for _ in range(3):
        streams.append(one.read(here, key))
        with first.changing() as database:
            database.execute(older, (key,))
    assert [events[-1].name for events in streams] == ["error", "done", "done"]
    assert streams[2] == streams[1]
    assert len(model.chats) == 2


@pytest.mark.parametrize(
    ("api", "name"),
    [("drafting", "project_context"), ("drafting", "metadata"), ("legacy", "project_context")],
)
def test_within_the_body_too_keys_in_another_order_are_the_same(
    here: httpx.Client, model: OpenAIStandIn, api: str, name: str, key: str
) -> None:
    one = post(api, new_project(here), **{name: {"a.md": "A", "b.md": "B"}})
    turned = one._replace(body={**one.body, name: {"b.md": "B", "a.md": "A"}})
    assert turned.read(here, key) == one.read(here, key)
    assert len(model.chats) == 1


def test_a_body_with_half_a_character_has_a_key_too(
    here: httpx.Client, model: OpenAIStandIn, key: str
) -> None:
    body = rb'{"message": "Go on.", "doc_type": "UNSORTED", "project_context": {"a.md": "\ud800"}}'
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    path = "/api/v1/chat/generate"
    first, again = (here.post(path, content=body, headers=headers) for _ in range(2))
    assert (first.status_code, again.content) == (200, first.content)
    assert len(model.chats) == 1
