"""What runs used and what it cost, by day, project, user and model, and who sees it."""

import asyncio
import math
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import httpx
import psycopg
import pytest
from conftest import Service
from fastapi import Header
from psycopg.rows import dict_row
from sse import Event, names, read
from standins.openai import Answer, OpenAIStandIn

from api.access.principals import LOCAL_USER, Principal
from api.access.rules import signed_in
from api.fair_use import FairUse, Limits
from api.runs.accounts import ADDED, Spent, columns_of, cost_of, fold, spent_on
from api.runs.beginning import Beginnings, NewRun, Place, Request
from api.runs.ending import End, Endings
from api.runs.leases import Lease
from api.runs.rows import RunRow
from api.runs.stored_log import Batch
from graph import events
from graph.errors import ModelTimedOut
from graph.events import Failed, Finished, Terminal, Usage
from graph.offers import Price
from graph.postgres import open_pool

SPENT = Spent("default", "stand-in", Usage(3, 4), Decimal("0.25"))
UNCOUNTED = (
    'data: {"choices": [{"index": 0, "delta": {"content": "Because."}, "finish_reason": null}]}\n\n'
    'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    "data: [DONE]\n\n"
)


def today() -> date:
    return datetime.now(UTC).date()


def ask(http: httpx.Client, project: str) -> list[Event]:
    return read(http, "POST", f"/chat/projects/{project}", json={"message": "Why?"})


def used(http: httpx.Client, **of: str) -> Any:
    answer = http.get("/usage", params=of)
    assert answer.status_code == 200, answer.text
    return answer.json()


def entry(prompt: int, completion: int, **other: Any) -> dict[str, Any]:
    return {
        "day": today().isoformat(),
        "userId": str(LOCAL_USER.id),
        "provider": "default",
        "model": "stand-in",
        **amount(prompt, completion),
        **other,
    }


def amount(prompt: int, completion: int, runs: int = 1, cost: Any = None) -> dict[str, Any]:
    return {
        "runs": runs,
        "promptTokens": prompt,
        "completionTokens": completion,
        "totalTokens": prompt + completion,
        "cost": cost,
    }


def told(prompt: int, completion: int) -> tuple[int, dict[str, int]]:
    """What the chat API's `done` says of it."""
    total = prompt + completion
    return total, {
        "promptTokens": prompt, "completionTokens": completion, "totalTokens": total
    }  # fmt: skip


def guessed(model: OpenAIStandIn) -> int:
    """What the last prompt is taken for where nobody counts it: four bytes a token."""
    messages = model.chats[-1].body["messages"]
    return sum(math.ceil(len(message["content"].encode()) / 4) for message in messages)


# --- what is counted


def test_runs_of_both_apis_are_added_up(http: httpx.Client, project: str) -> None:
    one = ask(http, project)[-1].data["usage"]
    drafting = {"conversation_id": str(uuid.uuid4()), "project_id": project, "message": "Why?"}
    other = read(http, "POST", "/api/v1/chat/stream", json=drafting)[-1].data["metadata"]["usage"]

    prompt = one["promptTokens"] + other["prompt_tokens"]
    completion = one["completionTokens"] + other["completion_tokens"]
    assert prompt > completion > 0
    assert used(http, projectId=project) == {
        "usage": [entry(prompt, completion, projectId=project, runs=2)],
        "total": amount(prompt, completion, runs=2),
    }


@pytest.mark.parametrize(
    ("answer", "last", "completion"),
    [
        (Answer(["Be", "cause"], end="cut"), "error", 2),
        (Answer(body=UNCOUNTED, content_type="text/event-stream"), "done", 1),
    ],
    ids=["broken off", "not counted"],
)
def test_what_the_provider_did_not_count_is_estimated(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    answer: Answer,
    last: str,
    completion: int,
) -> None:
    model.will(answer)
    end = ask(http, project)[-1]
    assert end.name == last
    prompt = guessed(model)
    if last == "done":
        assert (end.data["totalTokens"], end.data["usage"]) == told(prompt, completion)
    assert used(http, projectId=project) == {
        "usage": [entry(prompt, completion, projectId=project)],
        "total": amount(prompt, completion),
    }


def test_a_draft_is_told_the_estimate_that_it_is_charged(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(body=UNCOUNTED, content_type="text/event-stream"))
    drafting = {"conversation_id": str(uuid.uuid4()), "project_id": project, "message": "Why?"}
    done = read(http, "POST", "/api/v1/chat/stream", json=drafting)[-1].data
    prompt = guessed(model)
    assert done["metadata"]["usage"] == {
        "prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1
    }  # fmt: skip
    assert used(http, projectId=project)["usage"] == [entry(prompt, 1, projectId=project)]


def test_a_stopped_run_is_estimated(http: httpx.Client, project: str, model: OpenAIStandIn) -> None:
    model.will(Answer(["Be", "cause", " of"], end="hang", delay_s=0.01))
    with http.stream("POST", f"/chat/projects/{project}", json={"message": "Why?"}) as stream:
        next(line for line in stream.iter_lines() if " of" in line)
        run_id = stream.headers["X-Run-Id"]
        http.post(f"/runs/{run_id}/stop")
    done = read(http, "GET", f"/runs/{run_id}/stream")[-1].data
    assert (done["finishReason"], done["totalTokens"], done["usage"]) == (
        "stopped", *told(guessed(model), 3)
    )  # fmt: skip
    assert used(http, projectId=project)["usage"] == [entry(guessed(model), 3, projectId=project)]


def test_a_refused_prompt_costs_nothing(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(status=401))
    assert names(ask(http, project))[-1] == "error"
    assert used(http, projectId=project)["usage"] == [entry(0, 0, projectId=project)]


def test_a_run_that_asks_no_model(http: httpx.Client, project: str, model: OpenAIStandIn) -> None:
    terminal = Failed(ModelTimedOut("late"), events.Answer())
    assert spent_on(terminal, lambda *_: Price(Decimal(1), Decimal(1))) == Spent(
        None, None, Usage(), None
    )


def test_a_legacy_run_is_of_no_project(http: httpx.Client, model: OpenAIStandIn) -> None:
    def of_no_project() -> dict[str, int]:
        entries = used(http, **{"from": today().isoformat()})["usage"]
        found = [each for each in entries if each["projectId"] is None]
        assert len(found) <= 1
        keys = ("runs", "promptTokens", "completionTokens")
        return {key: sum(each[key] for each in found) for key in keys}

    before = of_no_project()
    model.will(Answer(["Be", "cause"]))
    body = {"message": "Why?", "doc_type": "UNSORTED"}
    assert names(read(http, "POST", "/api/v1/chat/generate", json=body))[-1] == "done"
    for _ in range(100):
        if (after := of_no_project()) != before:
            break
        time.sleep(0.02)
    assert after["runs"] - before["runs"] == 1
    assert after["completionTokens"] - before["completionTokens"] == 2
    assert after["promptTokens"] > before["promptTokens"]


def test_a_run_is_counted_once_however_often_its_end_is_written(
    service: Service, http: httpx.Client, project: str
) -> None:
    async def end(times: int, spent: Spent) -> None:
        assert service.settings.database_url is not None
        async with open_pool(service.settings.database_url.get_secret_value()) as pool:
            fair_use, lease = FairUse(pool, Limits()), Lease(pool)
            await lease.enter(alone=False)
            place = Place(
                uuid.uuid4(), uuid.UUID(project), uuid.uuid4(), "Why?", "Why?", may_create=True
            )
            new = NewRun(
                uuid.uuid4(), LOCAL_USER.id, "chat", Request({"messages": []}, None, ""), place
            )
            await Beginnings(pool, lease.process_id, fair_use).begin(new)
            row = RunRow(
                new.id, new.conversation_id, new.project_id, LOCAL_USER.id, "chat", "done", 1,
                datetime.now(UTC), question_id=new.question_id,
            )  # fmt: skip
            last = Batch(new.id, 1, [("done", "{}")])
            for _ in range(times):
                over = End(row, events.Answer(), [last], spent)
                assert await Endings(pool, fair_use).end(over, lease.process_id)
            await lease.leave()

    asyncio.run(end(3, SPENT))
    asyncio.run(end(2, Spent("default", "stand-in", Usage(1, 1), None)))
    assert used(http, projectId=project) == {
        "usage": [entry(4, 5, projectId=project, runs=2, cost=0.25)],
        "total": amount(4, 5, runs=2, cost=0.25),
    }


def test_accounts_outlive_their_project(http: httpx.Client, project: str) -> None:
    ask(http, project)
    before = used(http, projectId=project)
    assert http.delete(f"/projects/{project}").status_code == 204
    assert used(http, projectId=project) == before
    assert before["total"]["runs"] == 1


# --- money


PRICE = Price(Decimal("0.4"), Decimal("1.6"))


@pytest.mark.parametrize(
    ("usage", "price", "cost"),
    [
        (Usage(1_000_000, 500_000), PRICE, Decimal("1.2")),
        (Usage(1, 0), PRICE, Decimal("0.0000004")),
        (Usage(5, 5), None, None),
    ],
)
def test_what_tokens_cost(usage: Usage, price: Price | None, cost: Decimal | None) -> None:
    assert cost_of(usage, price) == cost


@pytest.mark.parametrize(
    ("terminal", "usage"),
    [
        (Finished("stop", events.Answer("So.", usage=Usage(2, 1))), Usage(2, 1)),
        (Finished("stopped", events.Answer("", estimate=Usage(9, 0))), Usage(9, 0)),
        (Failed(ModelTimedOut(""), events.Answer("So", estimate=Usage(9, 1))), Usage(9, 1)),
        (Failed(ModelTimedOut(""), events.Answer("", estimate=Usage(9, 0))), Usage()),
    ],
)
def test_the_price_is_that_of_the_model_which_answered(terminal: Terminal, usage: Usage) -> None:
    answer = replace(terminal.answer, provider="house", model="big")
    prices = {("house", "big"): PRICE}
    spent = spent_on(replace(terminal, answer=answer), lambda slug, name: prices.get((slug, name)))
    assert spent == Spent("house", "big", usage, cost_of(usage, PRICE))


# --- days


def test_a_day_is_one_of_utc_wherever_the_database_is(service: Service) -> None:
    async def add() -> list[dict[str, Any]]:
        assert service.settings.database_url is not None
        url = service.settings.database_url.get_secret_value()
        async with await psycopg.AsyncConnection.connect(url, row_factory=dict_row) as connection:
            user = uuid.uuid4()
            add = f"with ended as (select) {ADDED}"
            for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
                await connection.execute(f"set timezone to '{zone}'")
                about = {"owner": user, "project": None}
                await connection.execute(add, {**about, **columns_of(SPENT)})
            await fold(connection)
            await fold(connection)
            sql = "select day, project_id, runs, cost from usage where user_id = %s"
            return await (await connection.execute(sql, (user,))).fetchall()

    assert asyncio.run(add()) == [
        {"day": today(), "project_id": None, "runs": 2, "cost": Decimal("0.5")}
    ]


def put(service: Service, project: str, user: uuid.UUID, *ago: int) -> None:
    """One run of 1 + 2 tokens each, so many days ago."""
    with service.changing() as connection:
        for days in ago:
            connection.execute(
                "insert into usage values (%s, %s, %s, 'default', 'stand-in', 1, 1, 2, 0.5)",
                (today() - timedelta(days=days), project, user),
            )


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [
        (None, None, [0, 1, 29]),
        (1, None, [0, 1]),
        (30, 29, [29, 30]),
        (365, None, [0, 1, 29, 30, 365]),
        (None, 1, [1, 29, 30]),
        (-1, -2, []),
    ],
)
def test_days_newest_first(
    service: Service,
    http: httpx.Client,
    project: str,
    first: int | None,
    last: int | None,
    found: list[int],
) -> None:
    put(service, project, LOCAL_USER.id, 30, 0, 29, 365, 1, 366)
    asked = {"from": first, "to": last}
    days = {
        name: (today() - timedelta(days=ago)).isoformat()
        for name, ago in asked.items()
        if ago is not None
    }
    answer = used(http, projectId=project, **days)
    assert answer == {
        "usage": [
            entry(
                1, 2, projectId=project, cost=0.5, day=(today() - timedelta(days=ago)).isoformat()
            )
            for ago in found
        ],
        "total": amount(
            len(found), 2 * len(found), len(found), cost=0.5 * len(found) if found else None
        ),
    }


@pytest.mark.parametrize(
    ("days", "message"),
    [
        (("2026-01-02", "2026-01-01"), "The day `from` must not be after the day `to`."),
        (("2025-01-01", "2026-01-02"), "Ask for at most 366 days at once."),
        (("0001-01-01", "9999-12-31"), "Ask for at most 366 days at once."),
        (("yesterday", "2026-01-01"), None),
        (("2026-01-01", "2026-02-30"), None),
    ],
)
def test_days_that_are_none(http: httpx.Client, days: tuple[str, str], message: str | None) -> None:
    answer = http.get("/usage", params={"from": days[0], "to": days[1]})
    assert answer.status_code == 400
    if message:
        assert answer.json() == {"error": "bad_request", "message": message}
    else:
        assert answer.json()["success"] is False


def test_the_first_days_of_the_calendar(http: httpx.Client) -> None:
    assert used(http, to="0001-01-01")["usage"] == []


# --- who sees what


@pytest.fixture
def people(service: Service) -> Iterator[dict[str, httpx.Client]]:
    """An owner, a reader and a stranger, none of them an admin; and the admin."""
    known = {
        name: Principal(uuid.uuid4(), name, name, is_admin=False)
        for name in ("owner", "reader", "stranger")
    }
    known["admin"] = LOCAL_USER

    async def named(x_person: Annotated[str, Header()]) -> Principal:
        return known[x_person]

    with service.changing() as connection:
        for person in known.values():
            connection.execute(
                "insert into users (id, subject, name) values (%s, %s, %s) on conflict do nothing",
                (person.id, str(person.id), person.name),
            )
    service.app.dependency_overrides[signed_in] = named
    clients = {name: service.client(**{"X-Person": name}) for name in known}
    for name, client in clients.items():
        client.params = {"me": str(known[name].id)}
    yield clients
    del service.app.dependency_overrides[signed_in]
    for client in clients.values():
        client.close()


def test_who_sees_whose_usage(service: Service, people: dict[str, httpx.Client]) -> None:
    ids = {name: uuid.UUID(client.params["me"]) for name, client in people.items()}
    made = people["owner"].post("/projects", json={"name": "Harbour", "isPrivate": False})
    open_one = made.json()["project"]["id"]
    private = people["owner"].post("/projects", json={"name": "Den"}).json()["project"]["id"]
    for who in ("owner", "reader", "admin"):
        put(service, open_one, ids[who], 0)
    put(service, private, ids["owner"], 0)
    put(service, private, ids["reader"], 0)

    def seen(who: str, **of: Any) -> Any:
        answer = people[who].get("/usage", params={k: str(v) for k, v in of.items()})
        if answer.status_code != 200:
            return answer.status_code, answer.json()
        return {
            (who, entry["projectId"])
            for who, user in ids.items()
            for entry in answer.json()["usage"]
            if entry["userId"] == str(user) and entry["projectId"] in (open_one, private)
        }

    hidden = (404, {"error": "not_found", "message": "There is no such project."})
    unknown = uuid.uuid4()
    everybody = {(who, open_one) for who in ("owner", "reader", "admin")}
    of_owner = {("owner", open_one), ("owner", private)}
    of_reader = {("reader", open_one), ("reader", private)}
    assert [seen(who, projectId=open_one) for who in people] == [
        everybody, {("reader", open_one)}, set(), everybody,
    ]  # fmt: skip
    assert [seen(who, projectId=private) for who in people] == [
        {("owner", private), ("reader", private)}, hidden, hidden,
        {("owner", private), ("reader", private)},
    ]  # fmt: skip
    assert [seen(who, projectId=unknown) for who in people] == [hidden] * 4
    assert [seen(who) for who in people] == [
        of_owner, of_reader, set(), everybody | of_owner | of_reader,
    ]  # fmt: skip
    assert [seen(who, userId=ids["reader"]) for who in people] == [
        set(), of_reader, set(), of_reader,
    ]  # fmt: skip
    assert [seen(who, userId=unknown) for who in people] == [set()] * 4
    assert seen("owner", userId=ids["reader"], projectId=open_one) == {("reader", open_one)}
    assert seen("reader", userId=ids["owner"], projectId=open_one) == set()
