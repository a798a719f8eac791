"""Limits on requests, tokens and parallel runs, counted in Postgres for all processes."""

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from callers import new_key, new_user
from conftest import Service, ServiceFactory, migrated_database
from limits import parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from sse import names, read
from standins.openai import Answer, OpenAIStandIn

from api.access.principals import LOCAL_USER, know_principals
from api.counters import Counters, Window
from api.errors import Refusal
from api.fair_use import FairUse, Limits, _in_words
from api.runs.beginning import Beginnings, NewRun, Place, Request
from api.runs.leases import Lease
from api.settings import SettingsError, load_settings
from graph.postgres import open_pool

DAY = parse("3/day")
USER, PROJECT = uuid.UUID(int=1), uuid.UUID(int=2)
KEY = "a-long-enough-key"


# --- settings


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("max_user_requests", "many", "must be as 60/minute, or several as 60/minute;1000/hour"),
        ("max_user_requests", "60", "must be as 60/minute, or several as 60/minute;1000/hour"),
        ("max_project_requests", "9/parsec", "must be as 60/minute, or several as "
         "60/minute;1000/hour"),
        ("max_user_tokens", "0/day", "must allow at least 1 and at most 1000000000000000"),
        ("max_project_tokens", "9 per 3 years", "must be for at most a year"),
        ("max_user_parallel_runs", 0, "Input should be greater than or equal to 1"),
        ("max_project_parallel_runs", "x", "Input should be a valid integer, unable to parse "
         "string as an integer"),
    ],
)  # fmt: skip
def test_a_wrong_limit_stops_the_start_with_one_line(name: str, value: Any, message: str) -> None:
    with pytest.raises(SettingsError) as raised:
        load_settings(**{name: value})
    assert str(raised.value) == f"{name.upper()}: {message}"


# --- counting


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    """A database with its tables and nothing in them."""
    made = migrated_database(postgres_url)
    return made


@pytest.fixture
def counting(url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to that database, in which nothing is counted yet."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("truncate counters")
        yield connection


@asynccontextmanager
async def process(url: str, limits: Limits) -> AsyncIterator[FairUse]:
    """What a process of its own counts with."""
    async with open_pool(url, max_size=4) as pool:
        yield FairUse(pool, limits)


async def outcome(asked: Awaitable[object]) -> tuple[str, str] | None:
    """What is answered to one who is refused, and when they may come back."""
    try:
        await asked
    except Refusal as refusal:
        return f"{refusal.status} {refusal.message}", refusal.headers["Retry-After"]
    return None


def counted(connection: psycopg.Connection[Any]) -> list[int]:
    return [n for (n,) in connection.execute("select counted from counters order by key")]


def test_of_twenty_requests_to_two_processes_exactly_three_pass(
    url: str, counting: psycopg.Connection[Any]
) -> None:
    async def ask() -> list[Any]:
        limits = Limits(user_requests=(DAY,))
        async with process(url, limits) as one, process(url, limits) as other:
            both = [one, other] * 10
            return await asyncio.gather(*(outcome(p.count_request(LOCAL_USER)) for p in both))

    outcomes = asyncio.run(ask())
    assert outcomes.count(None) == 3
    assert counted(counting) == [3]


def test_a_refused_request_is_counted_under_no_limit(
    url: str, counting: psycopg.Connection[Any]
) -> None:
    async def ask() -> list[Any]:
        async with process(url, Limits(user_requests=(parse("5/day"), DAY))) as fair_use:
            return [await outcome(fair_use.count_request(LOCAL_USER)) for _ in range(6)]

    refused = asyncio.run(ask())[3:]
    assert [message.split(".")[0] for message, _ in refused] == [
        "429 Your limit of 3 requests per day is reached"
    ] * 3
    assert counted(counting) == [3, 3]


def test_requests_of_one_and_about_one_are_counted_apart(
    url: str, counting: psycopg.Connection[Any]
) -> None:
    async def ask() -> list[Any]:
        limits = Limits(user_requests=(DAY,), project_requests=(parse("1 per 2 hours"),))
        async with process(url, limits) as fair_use:
            return [
                await outcome(fair_use.count_request(LOCAL_USER)),
                await outcome(fair_use.count_project_request(PROJECT)),
                await outcome(fair_use.count_project_request(USER)),
                await outcome(fair_use.count_project_request(PROJECT)),
            ]

    *passed, (message, _) = asyncio.run(ask())
    assert passed == [None] * 3
    assert message.startswith("429 The project's limit of 1 request per 2 hours is reached. Try")


@pytest.mark.parametrize(
    ("ago", "passes"),
    [(1, "a part"), (2, "all")],
)
def test_the_window_before_weighs_as_much_as_is_left_of_it(
    url: str, counting: psycopg.Connection[Any], ago: int, passes: str
) -> None:
    async def ask() -> int:
        async with process(url, Limits(user_requests=(parse("1000/day"),))) as fair_use:
            await fair_use.count_request(LOCAL_USER)
            counting.execute(
                "update counters set counted = 1000, began_at = began_at - %s,"
                " expires_at = expires_at - %s",
                (timedelta(days=ago), timedelta(days=ago)),
            )
            await fair_use.count_request(LOCAL_USER)
            [allowance] = await fair_use.allowances(LOCAL_USER)
            return allowance.remaining

    remaining = asyncio.run(ask())
    gone = time.time() % 86_400 / 86_400
    assert remaining == pytest.approx(999 if passes == "all" else 1000 * gone - 1, abs=2)


def test_the_strategy_of_the_library_counts_as_in_memory(
    url: str, counting: psycopg.Connection[Any]
) -> None:
    async def ask() -> tuple[list[Any], list[Any]]:
        async with open_pool(url, max_size=2) as pool:
            return await strategy(Counters(pool)), await strategy(MemoryStorage())

    async def strategy(storage: Counters | MemoryStorage) -> list[Any]:
        limiter = SlidingWindowCounterRateLimiter(storage)
        item = parse("10/day")
        found: list[Any] = [await limiter.hit(item, "me", cost=cost) for cost in (4, 5, 2, 1, 1)]
        found.append((await limiter.get_window_stats(item, "me")).remaining)
        found.append(round((await limiter.get_window_stats(item, "me")).reset_time / 10))
        found += [await limiter.test(item, "me"), await limiter.test(item, "you")]
        await limiter.clear(item, "me")
        return [*found, await limiter.test(item, "me", cost=10), await storage.check()]

    ours, in_memory = asyncio.run(ask())
    assert ours == in_memory
    assert ours[:6] == [True, True, False, True, False, 0]


@pytest.mark.parametrize(
    ("window", "room", "wait_s"),
    [
        (Window(60, counted=3, counted_before=0, rest_s=20), 3, 20),
        (Window(60, counted=6, counted_before=9, rest_s=20), 3, 20 + 30),
        (Window(60, counted=1, counted_before=6, rest_s=50), 3, 30),
        (Window(60, counted=0, counted_before=0, rest_s=20), 3, 0),
    ],
)
def test_when_a_limit_allows_more_again(window: Window, room: int, wait_s: float) -> None:
    assert window.wait_s(room) == pytest.approx(wait_s)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1, "1 second"), (60, "60 seconds"), (600, "10 minutes"), (7201, "3 hours")],
)
def test_the_wait_in_words(seconds: int, words: str) -> None:
    assert _in_words(seconds) == words


def test_expired_counters_are_forgotten(url: str, counting: psycopg.Connection[Any]) -> None:
    async def ask() -> None:
        async with open_pool(url, max_size=2) as pool, pool.connection() as connection:
            fair_use = FairUse(pool, Limits(user_requests=(DAY,), project_requests=(DAY,)))
            await fair_use.count_request(LOCAL_USER)
            counting.execute("update counters set expires_at = now() - interval '1 second'")
            await fair_use.count_project_request(PROJECT)
            await fair_use.forget_expired(connection)

    asyncio.run(ask())
    [(key,)] = counting.execute("select key from counters")
    assert key == f"LIMITER/project/{PROJECT}/requests/3/1/day"


# --- over HTTP


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIStandIn]:
    with OpenAIStandIn() as stand_in:
        yield stand_in


@pytest.fixture(scope="module")
def limited(start_service: ServiceFactory, provider: OpenAIStandIn) -> Iterator[Service]:
    """A service with all limits."""
    with start_service(
        openai_base_url=provider.base_url,
        openai_model="stand-in",
        max_user_requests="100/day",
        max_project_requests="50/day",
        max_user_tokens="100000/day",
        max_project_tokens="50000/day",
        max_user_parallel_runs=3,
        max_project_parallel_runs=2,
    ) as service:
        yield service


@pytest.fixture
def caller(limited: Service, provider: OpenAIStandIn) -> Iterator[httpx.Client]:
    """A client whose caller has used nothing yet."""
    provider.reset()
    with limited.changing() as connection:
        connection.execute("truncate counters")
    with limited.client() as client:
        yield client


def new_project(caller: httpx.Client) -> str:
    return str(caller.post("/projects", json={"name": "Harbour"}).json()["project"]["id"])


def use_up(service: Service, of: str, but: int = 0) -> None:
    """Make a counter stand at its limit, or `but` below it."""
    with service.changing() as connection:
        connection.execute(
            "update counters set counted = split_part(key, '/', 5)::bigint - %s where key like %s",
            (but, f"LIMITER/{of}/%"),
        )


def until_midnight() -> int:
    now = datetime.now(UTC)
    return math.floor(86_400 - (now - now.replace(hour=0, minute=0, second=0)).total_seconds())


def refused(answer: httpx.Response, body: Callable[[str], Any], told: str) -> bool:
    """Whether an answer is the refusal for a limit that begins anew at midnight."""
    seconds = int(answer.headers["Retry-After"])
    message = answer.json().get("message") or answer.json()["detail"]
    assert answer.status_code == 429
    assert seconds == pytest.approx(until_midnight(), abs=3)
    assert message.startswith(f"{told} is reached. Try again in ")
    return bool(answer.json() == body(message))


def in_chat_api(message: str) -> dict[str, str]:
    return {"error": "rate_limited", "message": message}


def in_drafting_api(message: str) -> dict[str, str]:
    return {"detail": message}


def drafting(project: str) -> dict[str, str]:
    return {"conversation_id": str(uuid.uuid4()), "project_id": project, "message": "Why?"}


def test_too_many_requests_of_a_caller_in_both_apis(limited: Service, caller: httpx.Client) -> None:
    assert caller.get("/projects").status_code == 200
    use_up(limited, f"user/{LOCAL_USER.id}/requests", but=2)
    told = "Your limit of 100 requests per day"

    assert [caller.get("/projects").status_code for _ in range(2)] == [200, 200]
    assert refused(caller.get("/projects"), in_chat_api, told)
    assert refused(caller.get("/docs"), in_chat_api, told)
    stream = caller.post("/api/v1/chat/stream", json=drafting(str(PROJECT)))
    assert refused(stream, in_drafting_api, told)
    assert caller.get("/").status_code == 200
    assert caller.get("/api/v1/system/health").status_code == 200


def test_two_services_on_one_database_count_together(
    limited: Service, caller: httpx.Client, start_service: ServiceFactory, provider: OpenAIStandIn
) -> None:
    assert caller.get("/projects").status_code == 200
    use_up(limited, f"user/{LOCAL_USER.id}/requests", but=3)
    with (
        start_service(
            database_url=limited.settings.database_url,
            openai_base_url=provider.base_url,
            openai_model="stand-in",
            max_user_requests="100/day",
        ) as second,
        second.client() as there,
    ):
        answers = [client.get("/projects").status_code for client in (caller, there) * 3]
    assert answers == [200, 200, 200, 429, 429, 429]


def test_too_many_requests_about_a_project(limited: Service, caller: httpx.Client) -> None:
    project = new_project(caller)
    other = new_project(caller)
    assert caller.get(f"/documents/projects/{project}").status_code == 200
    use_up(limited, f"project/{project}/requests")
    told = "The project's limit of 50 requests per day"

    assert refused(caller.get(f"/documents/projects/{project}"), in_chat_api, told)
    stream = caller.post("/api/v1/chat/stream", json=drafting(project))
    assert refused(stream, in_drafting_api, told)
    assert caller.get(f"/documents/projects/{other}").status_code == 200


def test_a_request_about_a_project_counts_once_and_only_for_who_may_make_it(
    start_service: ServiceFactory, provider: OpenAIStandIn
) -> None:
    with start_service(
        api_key=KEY,
        openai_base_url=provider.base_url,
        openai_model="stand-in",
        max_project_requests="50/day",
    ) as service:
        user = new_user(service, "Ada")
        with (
            service.client(**{"X-API-Key": KEY}) as root,
            service.client(**{"X-API-Key": new_key(service, user)}) as ada,
        ):
            closed, shared, new = new_project(root), new_project(root), str(uuid.uuid4())
            grant = {"targetType": "user", "targetId": str(user.id), "tier": "use"}
            assert root.post(f"/projects/{shared}/grants", json=grant).status_code == 201
            with service.changing() as connection:
                connection.execute("truncate counters")
            change = {"name": "Port"}
            answers = [
                ada.get(f"/projects/{closed}"),
                ada.patch(f"/projects/{shared}", json=change),
                # These ask for the caller's access twice.
                root.patch(f"/projects/{shared}", json=change),
                root.post(
                    f"/api/v1/projects/{new}/documents/ingest",
                    json={"doc_name": "ebb.md", "markdown_content": "The ebb begins at noon."},
                ),
            ]
            assert [answer.status_code for answer in answers] == [404, 403, 200, 200]
        counted = service.query("select split_part(key, '/', 3) as project, counted from counters")
    found = {row["project"]: row["counted"] for row in counted}
    assert found == {shared: 1, new: 1}


@pytest.mark.parametrize("of", ["user", "project"])
def test_with_either_limit_alone_a_run_uses_tokens(
    start_service: ServiceFactory, provider: OpenAIStandIn, of: str
) -> None:
    provider.reset()
    limit = {f"max_{of}_tokens": "100000/day"}
    with (
        start_service(
            openai_base_url=provider.base_url, openai_model="stand-in", **limit
        ) as service,
        service.client() as caller,
    ):
        project = new_project(caller)
        events = read(caller, "POST", f"/chat/projects/{project}", json={"message": "Why?"})
        rows = service.query("select key, counted from counters")
    owner = LOCAL_USER.id if of == "user" else project
    key = f"LIMITER/{of}/{owner}/tokens/100000/1/day"
    assert rows == [{"key": key, "counted": events[-1].data["totalTokens"]}]


def test_no_run_begins_once_the_tokens_are_used_up(
    limited: Service, caller: httpx.Client, provider: OpenAIStandIn
) -> None:
    project = new_project(caller)
    body = {"message": "Why?"}
    (_, done) = read(caller, "POST", f"/chat/projects/{project}", json=body)[-2:]
    total = done.data["totalTokens"]
    tokens = "select key, counted from counters where key like '%%/tokens/%%' order by key"
    assert [row["counted"] for row in limited.query(tokens)] == [total, total]
    # Over the limit by what the last run used.
    use_up(limited, f"project/{project}/tokens", but=1)
    assert names(read(caller, "POST", f"/chat/projects/{project}", json=body))[-1] == "done"

    asked = len(provider.chats)
    answer = caller.post(f"/chat/projects/{project}", json=body)
    assert answer.status_code == 429
    assert answer.json()["message"].startswith("The project's limit of 50000 tokens per day is")
    waits = int(answer.headers["Retry-After"]) - until_midnight()
    assert waits == pytest.approx(86_400 * (1 - 50_000 / (50_000 + total - 1)), abs=3)
    rows = limited.query("select count(*) from messages where content = 'Why?'")
    assert (len(provider.chats), rows) == (asked, [{"count": 2}])

    use_up(limited, f"user/{LOCAL_USER.id}/tokens")
    legacy = caller.post("/api/v1/chat/generate", json={"message": "Why?", "doc_type": "UNSORTED"})
    assert refused(legacy, in_drafting_api, "Your limit of 100000 tokens per day")


def test_a_legacy_run_uses_tokens_too(limited: Service, caller: httpx.Client) -> None:
    body = {"message": "Why?", "doc_type": "UNSORTED"}
    assert names(read(caller, "POST", "/api/v1/chat/generate", json=body))[-1] == "done"
    for _ in range(100):
        if rows := limited.query("select key from counters where key like '%%/tokens/%%'"):
            break
        time.sleep(0.02)
    assert [row["key"] for row in rows] == [f"LIMITER/user/{LOCAL_USER.id}/tokens/100000/1/day"]


async def _posts(url: str, requests: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """All requests at once: the id of each run that begins, the answer of each that does not."""
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:

        async def post(path: str, body: dict[str, Any]) -> Any:
            async with client.stream("POST", path, json=body) as answer:
                if answer.status_code == 200:
                    return answer.headers["X-Run-Id"]
                await answer.aread()
                return answer.status_code, answer.headers.get("Retry-After"), answer.json()

        return await asyncio.gather(*(post(*request) for request in requests))


def test_of_twenty_parallel_runs_exactly_as_many_begin_as_may(
    limited: Service, caller: httpx.Client, provider: OpenAIStandIn
) -> None:
    provider.will(Answer(hang_before_headers=True))
    one, other = new_project(caller), new_project(caller)
    asking = [(f"/chat/projects/{p}", {"message": "Why?"}) for p in (one, other)] * 10
    found = asyncio.run(_posts(limited.url, asking))
    begun = [each for each in found if isinstance(each, str)]
    try:
        assert len(begun) == 3
        sentence = " is reached. Wait until one of them has ended, or stop one, then try again."
        mine = f"Your limit of 3 runs at the same time{sentence}"
        its = f"The project's limit of 2 runs at the same time{sentence}"
        turned_away = [each for each in found if not isinstance(each, str)]
        assert all(each[:2] == (429, "5") for each in turned_away)
        bodies = [each[2] for each in turned_away]
        assert {str(body) for body in bodies} <= {str(in_chat_api(m)) for m in (mine, its)}
        # Only what began is stored.
        rows = limited.query(
            "select count(*) from conversations where project_id = any(%s::uuid[])", [one, other]
        )
        assert rows == [{"count": 3}]
        legacy = caller.post(
            "/api/v1/chat/generate", json={"message": "Why?", "doc_type": "UNSORTED"}
        )
        assert (legacy.status_code, legacy.json()) == (429, in_drafting_api(mine))
        body = drafting(str(uuid.uuid4()))
        draft = caller.post("/api/v1/chat/stream", json=body)
        assert (draft.status_code, draft.json()) == (429, in_drafting_api(mine))
        assert caller.get(f"/projects/{body['project_id']}").status_code == 404
        assert caller.get("/usage/limits").json()["limits"][-1] == {
            "name": "parallel runs", "limit": 3, "remaining": 0, "resetAt": None,
        }  # fmt: skip
        # One of a process that died is not waited for.
        with limited.changing() as connection:
            connection.execute(
                "update runs set process_id = gen_random_uuid() where id = %s", begun[:1]
            )
        project = new_project(caller)
        begun += asyncio.run(
            _posts(limited.url, [(f"/chat/projects/{project}", {"message": "Why?"})])
        )
        assert isinstance(begun[-1], str)
    finally:
        for run in begun:
            assert caller.post(f"/runs/{run}/stop").status_code == 200


def test_legacy_runs_count_among_the_parallel_ones(
    limited: Service, caller: httpx.Client, provider: OpenAIStandIn
) -> None:
    provider.will(Answer(hang_before_headers=True))
    body = {"message": "Why?", "doc_type": "UNSORTED"}
    found = asyncio.run(_posts(limited.url, [("/api/v1/chat/generate", body)] * 8))
    begun = [each for each in found if isinstance(each, str)]
    project = new_project(caller)
    try:
        assert len(begun) == 3
        answer = caller.post(f"/chat/projects/{project}", json={"message": "Why?"})
        assert answer.status_code == 429
    finally:
        for run in begun:
            assert caller.post(f"/runs/{run}/stop").status_code == 200
    provider.reset()
    events = read(caller, "POST", f"/chat/projects/{project}", json={"message": "Why?"})
    assert names(events)[-1] == "done"


@pytest.mark.parametrize("limits", [Limits(user_runs=1), Limits(project_runs=1)])
def test_with_either_limit_one_that_waits_counts_and_nothing_is_stored_of_one_too_many(
    postgres_url: str, limits: Limits
) -> None:
    project, run_ids = uuid.uuid4(), [uuid.uuid4(), uuid.uuid4()]

    async def scenario() -> tuple[list[Any], list[Any]]:
        async with open_pool(migrated_database(postgres_url)) as pool:
            await know_principals(pool)
            lease = Lease(pool)
            await lease.enter(alone=True)
            beginnings = Beginnings(pool, lease.process_id, FairUse(pool, limits))
            async with pool.connection() as connection:
                insert = "insert into projects (id, owner_id, name) values (%s, %s, 'Harbour')"
                await connection.execute(insert, (project, LOCAL_USER.id))
            refused = []
            for run_id in run_ids:
                place = Place(uuid.uuid4(), project, uuid.uuid4(), "Why?", "", may_create=True)
                request = Request({"messages": []}, None, "")
                new = NewRun(run_id, LOCAL_USER.id, "chat", request, place)
                refused.append(await outcome(beginnings.begin(new)))
                async with pool.connection() as connection:
                    await connection.execute("update runs set process_id = null")
            async with pool.connection() as connection:
                rows = await (await connection.execute("select id from runs")).fetchall()
        return refused, rows

    whose = "Your" if limits.user_runs else "The project's"
    sentence = (
        f"429 {whose} limit of 1 run at the same time is reached. "
        "Wait until one of them has ended, or stop one, then try again."
    )
    assert asyncio.run(scenario()) == ([None, (sentence, "5")], [{"id": run_ids[0]}])


def test_a_caller_sees_how_the_limits_stand(limited: Service, caller: httpx.Client) -> None:
    assert caller.get("/projects").status_code == 200
    limits = caller.get("/usage/limits").json()["limits"]
    assert (
        datetime.fromisoformat(limits[0].pop("resetAt")).date()
        == (datetime.now(UTC) + timedelta(days=1)).date()
    )
    assert limits == [
        {"name": "requests per day", "limit": 100, "remaining": 98},
        {"name": "tokens per day", "limit": 100_000, "remaining": 100_000, "resetAt": None},
        {"name": "parallel runs", "limit": 3, "remaining": 3, "resetAt": None},
    ]


def test_without_limits_nothing_is_counted(service: Service, http: httpx.Client) -> None:
    assert http.get("/usage/limits").json() == {"limits": []}
    assert service.query("select * from counters") == []
