"""Tokens leave at once while there is time for each of them, and gather where there is not."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from pydantic import SecretStr
from standins.openai import Answer, OpenAIStandIn
from timed import timed

from graph import pacing
from graph.completions import Batch, Completion
from graph.pacing import Pace, Reading
from graph.streaming import StreamingChatModel

WORDS = [f"word{at} " for at in range(60)]


def pauses(shares: Sequence[float], each_s: float = 0.125) -> list[float]:
    """The pauses, in ms, of a loop that computes for such shares of its time."""
    now = worked = 0.0
    pace = Pace(worked_s=lambda: worked)
    found = [pace.pause_s(now)]
    for share in shares:
        now, worked = now + each_s, worked + share * each_s
        found.append(pace.pause_s(now))
    return [round(pause * 1000, 1) for pause in found]


def test_pauses_grow_while_the_loop_is_busy_and_end_when_it_is_not() -> None:
    assert pauses([0.125] * 3) == [0] * 4
    assert pauses([0.25] * 4) == [0, 30, 60, 60, 60]
    assert pauses([0.25] + [0.125] * 3) == [0, 30, 17.5, 5, 0]
    assert pauses([0.25] * 4, each_s=0.0625) == [0, 0, 30, 30, 60]


def test_after_a_silence_nothing_is_left_of_a_pause() -> None:
    now = worked = 0.0
    pace = Pace(worked_s=lambda: worked)
    pace.pause_s(now)
    for _ in range(6):
        now, worked = now + 0.125, worked + 0.125
        pace.pause_s(now)
    assert (pace.pause_s(now), pace.pause_s(now + 1)) == (0.06, 0)


@dataclass(frozen=True)
class Heard:
    """The batches of an answer with tokens, and when each of them came."""

    batches: list[list[str]]
    times: list[float]

    @property
    def longest_s(self) -> float:
        """The longest time between two batches, in seconds."""
        return max(later - earlier for earlier, later in pairwise(self.times))

    @property
    def tokens(self) -> list[str]:
        """All tokens, in order."""
        return [token for batch in self.batches for token in batch]


async def heard_of(batches: AsyncGenerator[Batch, None]) -> Heard:
    """All of an answer."""
    found, times = [], []
    async with aclosing(batches):
        async for batch in batches:
            if batch.tokens:
                found.append(list(batch.tokens))
                times.append(time.monotonic())
    return Heard(found, times)


def pausing(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """From the second look on, pause for so long, as if there was always much to do."""
    values = {"_BUSY": -1, "_LOOK_S": 0, "_MORE_S": seconds, "_MOST_S": seconds}
    for name, value in values.items():
        monkeypatch.setattr(pacing, name, value)


def ask(answer: Answer) -> Heard:
    """What is heard of one answer."""

    async def once(chat: StreamingChatModel) -> Heard:
        heard = await heard_of(chat.batches("x"))
        await chat.aclose()
        return heard

    with OpenAIStandIn() as model:
        model.will(answer)
        return asyncio.run(once(chat_with(model)))


def chat_with(model: OpenAIStandIn) -> StreamingChatModel:
    return StreamingChatModel(model="x", base_url=model.base_url, api_key=SecretStr("sk-secret"))


@pytest.mark.parametrize(("pause_s", "least"), [(0.0, 1), (0.05, 2)])
@timed
def test_tokens_gather_in_pauses_and_none_is_lost(
    monkeypatch: pytest.MonkeyPatch, pause_s: float, least: int
) -> None:
    pausing(monkeypatch, pause_s)

    heard = ask(Answer(WORDS, delay_s=0.01))
    assert heard.tokens == WORDS
    # The first goes out at once, whatever comes after it.
    assert len(heard.batches[0]) == 1
    assert sorted(map(len, heard.batches))[len(heard.batches) // 2] >= least
    assert heard.longest_s < pause_s + 0.1


@timed
def test_answers_pause_to_the_same_moments(monkeypatch: pytest.MonkeyPatch) -> None:
    pausing(monkeypatch, 0.1)

    async def both(chat: StreamingChatModel) -> tuple[Heard, Heard]:
        one = asyncio.create_task(heard_of(chat.batches("x")))
        await asyncio.sleep(0.05)
        other = await heard_of(chat.batches("x"))
        await chat.aclose()
        return await one, other

    with OpenAIStandIn() as model:
        model.will(Answer(WORDS, delay_s=0.01), Answer(WORDS, delay_s=0.01))
        one, other = asyncio.run(both(chat_with(model)))
    # The first two do not pause, and the last one comes as soon as the answer has ended.
    apart = [min(abs(at - of) for of in other.times) for at in one.times[2:-1]]
    assert len(apart) > 3
    assert median(apart) < 0.01


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[asyncio.Transport, StreamReader, Reading]]:
    """A connection on which nothing comes, its content, and who reads that."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    with theirs:
        transport, protocol = await loop.create_connection(lambda: BaseProtocol(loop), sock=ours)
        content = StreamReader(protocol, 2**16, loop=loop)
        reading = Reading(content, loop.time() + 10, 10)
        yield transport, content, reading
        reading.close()
        transport.close()


# Before the second read is the first look.
@pytest.mark.parametrize(("has_begun", "paused"), [(True, [2, 5]), (False, [])])
def test_only_what_trickles_pauses_and_nothing_before_the_first_token(
    monkeypatch: pytest.MonkeyPatch, has_begun: bool, paused: list[int]
) -> None:
    sizes = [100, 100, 8000, 8000, 100, 100]

    async def read_all() -> list[tuple[int, bool]]:
        found = []
        async with connected() as (transport, content, reading):
            answer = Completion("x")
            answer.begun = has_begun
            for size in sizes:
                waiting = asyncio.create_task(reading.next(answer))
                await asyncio.sleep(0)
                has_paused = not transport.is_reading()
                content.feed_data(b" " * size)
                found.append((len(await waiting), has_paused))
            assert transport.is_reading()
            return found

    pausing(monkeypatch, 0.1)
    assert asyncio.run(read_all()) == [(size, at in paused) for at, size in enumerate(sizes)]


@pytest.mark.parametrize("at_end", [False, True])
def test_a_pause_leaves_the_connection_as_it_was_which_may_be_anothers_by_now(
    monkeypatch: pytest.MonkeyPatch, at_end: bool
) -> None:
    async def cancelled() -> list[bool]:
        async with connected() as (transport, content, reading):
            answer = Completion("x")
            answer.begun = True
            for _ in range(2):
                waiting = asyncio.create_task(reading.next(answer))
                await asyncio.sleep(0.01)
                content.feed_data(b"x")
                await waiting
            if at_end:
                content.feed_eof()
            waiting = asyncio.create_task(reading.next(answer))
            await asyncio.sleep(0.01)
            was_reading = transport.is_reading()
            waiting.cancel()
            await asyncio.wait({waiting})
            return [was_reading, transport.is_reading()]

    pausing(monkeypatch, 1000)
    assert asyncio.run(cancelled()) == [at_end, True]


@timed
def test_who_hangs_up_in_a_pause_hangs_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pausing(monkeypatch, 1000)

    async def once(model: OpenAIStandIn) -> float:
        chat = chat_with(model)
        batches = chat.batches("x")
        assert list((await anext(batches)).tokens) == WORDS[:1]
        # Before this one is the first look.
        assert (await anext(batches)).tokens
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.1)
        cancelled_at = time.monotonic()
        waiting.cancel()
        await asyncio.wait({waiting})
        hung_up_at = await asyncio.to_thread(model.wait_for_hangup, model.requests[0])
        await chat.aclose()
        return hung_up_at - cancelled_at

    with OpenAIStandIn() as model:
        model.will(Answer(WORDS * 100, delay_s=0.01))
        assert asyncio.run(once(model)) < 0.2
