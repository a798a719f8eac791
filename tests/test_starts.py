"""Runs start in turn: a few at once, who came first is first, and nobody is waited for too long."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from conftest import Service
from test_erasure import WAITING, eventually

from api.runs import starts
from api.runs.starts import Start, Starts


def run(scenario: Coroutine[Any, Any, list[Any]]) -> list[Any]:
    async def bounded() -> list[Any]:
        async with asyncio.timeout(30):
            return await scenario

    return asyncio.run(bounded())


@pytest.fixture(autouse=True)
def _two_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_AT_ONCE", 2)
    monkeypatch.setattr(starts, "_LONGEST_S", 60.0)


async def entering(room: Starts, numbers: range, entered: list[int]) -> list[asyncio.Task[Start]]:
    """Have so many ask to start, and look who could."""

    async def enter(number: int) -> Start:
        start = await room.enter()
        entered.append(number)
        return start

    tasks = [asyncio.create_task(enter(number)) for number in numbers]
    await asyncio.sleep(0.01)
    return tasks


def test_they_start_in_the_order_in_which_they_came() -> None:
    async def scenario() -> list[list[int]]:
        entered: list[int] = []
        seen = []
        tasks = await entering(Starts(), range(5), entered)
        for task in tasks:
            seen.append(list(entered))
            start = await task
            start.leave()
            # Who leaves twice makes room once.
            start.leave()
            await asyncio.sleep(0.01)
        return seen

    assert run(scenario()) == [[0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_one_that_takes_long_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starts, "_LONGEST_S", 0.05)

    async def scenario() -> list[int]:
        entered: list[int] = []
        tasks = await entering(Starts(), range(3), entered)
        await asyncio.gather(*tasks)
        for task in tasks:
            task.result().leave()
        return entered

    assert run(scenario()) == [0, 1, 2]


def test_one_that_no_longer_waits_takes_no_room() -> None:
    async def scenario() -> list[int]:
        entered: list[int] = []
        first, _, third, fourth = await entering(Starts(), range(4), entered)
        third.cancel()
        first.result().leave()
        await fourth
        return entered

    assert run(scenario()) == [0, 1, 3]


def test_who_waits_for_its_start_while_the_service_goes_down_is_refused(
    service: Service, http: httpx.Client, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = service.app.state.parts.runs
    monkeypatch.setattr(runs, "_starts", Starts())

    def ask(message: str) -> httpx.Response:
        return http.post(f"/chat/projects/{project}", json={"message": message})

    with ThreadPoolExecutor() as callers, service.changing() as database:
        database.execute("select from projects where id = %s for update", (project,))
        name = database.info.dbname
        begun = [callers.submit(ask, "ebb?") for _ in range(2)]
        eventually(lambda: len(service.query(WAITING, name)) == 2, 10)
        waiting = callers.submit(ask, "flood?")
        eventually(lambda: len(runs._beginning) == 3, 10)
        monkeypatch.setattr(runs, "is_closing", True)
        database.rollback()
        refused = waiting.result()
        assert [one.result().status_code for one in begun] == [200, 200]
    assert (refused.status_code, refused.headers["Retry-After"], refused.json()) == (
        503,
        "10",
        {
            "error": "shutting_down",
            "message": "The service is going down. Try again in a few seconds.",
        },
    )
    asked = service.query(
        "select m.content from messages m join conversations c on c.id = m.conversation_id"
        " where c.project_id = %s and m.role = 'user'",
        project,
    )
    assert asked == [{"content": "ebb?"}] * 2
