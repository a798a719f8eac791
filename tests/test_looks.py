"""Whoever asks gets a look that began after asking, and shares it with those who ask meanwhile."""

import asyncio

import pytest

from graph.looks import Looks


class Door:
    """Something to be looked at, which stays open until it is closed."""

    def __init__(self) -> None:
        self.looks = 0
        self.open = asyncio.Event()

    async def look(self) -> int:
        self.looks += 1
        seen = self.looks
        await self.open.wait()
        return seen


def test_those_who_ask_meanwhile_share_the_next_look() -> None:
    async def scenario() -> None:
        door = Door()
        looks = Looks(door.look)
        first = asyncio.create_task(looks.see())
        await asyncio.sleep(0.01)
        others = [asyncio.create_task(looks.see()) for _ in range(30)]
        await asyncio.sleep(0.01)
        assert door.looks == 1
        door.open.set()
        assert await first == 1
        assert await asyncio.gather(*others) == [2] * 30
        assert await looks.see() == 3

    asyncio.run(scenario())


def test_who_gives_up_takes_nothing_from_the_others() -> None:
    async def scenario() -> None:
        door = Door()
        looks = Looks(door.look)
        asking = [asyncio.create_task(looks.see()) for _ in range(4)]
        await asyncio.sleep(0.01)
        asking[0].cancel()
        asking[1].cancel()
        door.open.set()
        assert await asyncio.gather(*asking[2:]) == [2, 2]

    asyncio.run(scenario())


def test_a_look_that_fails_fails_for_all_who_share_it_and_for_nobody_after() -> None:
    async def scenario() -> None:
        faults = [OSError("first"), OSError("second")]

        async def look() -> str:
            await asyncio.sleep(0.01)
            if faults:
                raise faults.pop(0)
            return "seen"

        looks = Looks(look)
        told = await asyncio.gather(*(looks.see() for _ in range(3)), return_exceptions=True)
        assert [str(one) for one in told] == ["first", "second", "second"]
        assert await looks.see() == "seen"

    asyncio.run(scenario())


def test_a_loop_that_ended_leaves_nothing_behind() -> None:
    async def look() -> str:
        await asyncio.sleep(60 if stuck else 0)
        return "seen"

    stuck = True
    looks = Looks(look)
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(looks.see(), 0.01))
    stuck = False
    assert asyncio.run(looks.see()) == "seen"
