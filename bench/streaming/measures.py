"""What is measured of a candidate: each gives samples under the names of its rows."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from bench.streaming.candidates import Candidate
from bench.streaming.client import Heard, ask_all
from bench.streaming.processes import cpu_s, memory

log = logging.getLogger(__name__)

CLIENTS = 32
PACE = 50
MOST = 1024

_FIRST = 16
_AFTERWARDS_S = 0.3
_MOST_GAP_S, _MOST_BEHIND_S = 0.1, 0.5

Samples = dict[str, list[float]]


class NotWhole(Exception):
    """An answer had tokens missing, or ended in another way."""


@dataclass(frozen=True)
class Bench:
    """How much is measured. `model`: the port of the model that all ask."""

    model: int
    tokens: int = 500
    alone: int = 10
    open_streams: int = 64
    turns: int = 64
    window_s: float = 3
    held_s: float = 10
    held_within_s: float = 8

    async def warm_up(self, candidate: Candidate) -> Samples:
        """Ask a little, and tell nothing."""
        for _ in range(3):
            await self._asked(candidate, 8, 20, 0)
        return {}

    async def burst(self, candidate: Candidate) -> Samples:
        """Tokens a second from the first request to the last token, of answers all at once."""
        heard = await self._asked(candidate, CLIENTS, self.tokens, 0)
        took = max(each.reads[-1][0] for each in heard) - min(each.sent for each in heard)
        return {"burst": [CLIENTS * self.tokens / took]}

    async def first_alone(self, candidate: Candidate) -> Samples:
        """Milliseconds to the first token, of one after the other."""
        heard = [(await self._asked(candidate, 1, 5, PACE))[0] for _ in range(self.alone)]
        return {"alone": [each.first_s * 1000 for each in heard]}

    async def first_together(self, candidate: Candidate) -> Samples:
        """Milliseconds to the first tokens of answers that begin all at once."""
        heard = await self._asked(candidate, CLIENTS, PACE // 2, PACE)
        return {"together": [each.first_s * 1000 for each in heard]}

    async def turn(self, candidate: Candidate) -> Samples:
        """Milliseconds of a CPU that a turn takes whose answer is one token."""
        before = cpu_s(candidate.process)
        for _ in range(self.turns // 8):
            await self._asked(candidate, 8, 1, 0)
        await asyncio.sleep(_AFTERWARDS_S)
        return {"turn": [(cpu_s(candidate.process) - before) * 1000 / self.turns]}

    async def cpu(self, candidate: Candidate) -> Samples:
        """Milliseconds of a CPU for 1 000 tokens: with the turns, and while streams just go on."""
        tokens = round((2 + self.window_s) * PACE * 1.1)
        before = cpu_s(candidate.process)
        asking = asyncio.create_task(self._asked(candidate, CLIENTS, tokens, PACE))
        await asyncio.sleep(2)
        began, at_begin = time.monotonic(), cpu_s(candidate.process)
        await asyncio.sleep(self.window_s)
        ended, at_end = time.monotonic(), cpu_s(candidate.process)
        heard = await asking
        await asyncio.sleep(_AFTERWARDS_S)
        reads = [read for each in heard for read in each.reads]
        steady = sum(count for at, count in reads if began <= at < ended)
        all_in = (cpu_s(candidate.process) - before) * 1e6 / (CLIENTS * tokens)
        return {"steady": [(at_end - at_begin) * 1e6 / steady], "all in": [all_in]}

    async def per_stream(self, candidate: Candidate) -> Samples:
        """Kilobytes that an open stream takes."""
        before = memory(candidate.process)
        asking = asyncio.create_task(self._asked(candidate, self.open_streams, 4 * PACE, PACE))
        await asyncio.sleep(3)
        during = memory(candidate.process)
        await asking
        return {"memory": [(during - before) / 1024 / self.open_streams]}

    async def held(self, candidate: Candidate) -> Samples:
        """The most streams that are held, to an eighth."""
        few, most = 0, MOST if candidate.kind == "model" else _FIRST
        while most <= MOST and await self._holds_at_last(candidate, most):
            few, most = most, most * 2
        while most <= MOST and most - few > max(few // 8, 1):
            middle = (few + most) // 2
            if await self._holds_at_last(candidate, middle):
                few = middle
            else:
                most = middle
        return {"held": [few]}

    async def _holds_at_last(self, candidate: Candidate, streams: int) -> bool:
        """Whether so many are held the first or the second time: a machine has other work too."""
        return await self.holds(candidate, streams) or await self.holds(candidate, streams)

    async def holds(self, candidate: Candidate, streams: int) -> bool:
        """Whether so many are whole, and neither stutter nor fall behind the model."""
        tokens = round(self.held_s * PACE)
        questions = [candidate.protocol.ask(tokens, PACE) for _ in range(streams)]
        late_s = self.held_s + _MOST_BEHIND_S + 1
        heard = await ask_all(candidate.port, questions, ramp_s=self.held_within_s, limit_s=late_s)
        wrong = [each.wrong for each in heard if not each.is_whole]
        if wrong:
            log.debug("%s, %d: %d not whole: %s", candidate.name, streams, len(wrong), wrong[0])
            await self._settled(candidate)
            return False
        began = await self._began()
        behind = p99(
            [each.reads[-1][0] - began[each.number] - (tokens - 1) / PACE for each in heard]
        )
        gap = p99([gap for each in heard for gap in each.gaps()])
        log.debug("%s, %d: gap %.3f s, behind %.3f s", candidate.name, streams, gap, behind)
        return gap <= _MOST_GAP_S and behind <= _MOST_BEHIND_S

    async def _settled(self, candidate: Candidate) -> None:
        """Wait until the server has done with what was broken off, or 20 seconds."""
        for _ in range(40):
            before = cpu_s(candidate.process)
            await asyncio.sleep(0.5)
            if cpu_s(candidate.process) - before < 0.05:
                return

    async def _began(self) -> dict[int, float]:
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{self.model}/began")
        return {int(number): at for number, at in answer.json().items()}

    async def _asked(
        self, candidate: Candidate, streams: int, tokens: int, pace: int
    ) -> list[Heard]:
        questions = [candidate.protocol.ask(tokens, pace) for _ in range(streams)]
        return whole(await ask_all(candidate.port, questions))

    @property
    def measures(self) -> dict[str, Callable[[Candidate], Coroutine[Any, Any, Samples]]]:
        """All that can be measured, by name."""
        return {
            "memory": self.per_stream,
            "alone": self.first_alone,
            "together": self.first_together,
            "burst": self.burst,
            "turn": self.turn,
            "cpu": self.cpu,
            "held": self.held,
        }


def whole(heard: list[Heard]) -> list[Heard]:
    """The answers, if all are whole.

    Raises:
        NotWhole: one is not.
    """
    for each in heard:
        if not each.is_whole:
            raise NotWhole(each.wrong)
    return heard


def p99(values: Sequence[float]) -> float:
    """What 99 of 100 do not exceed."""
    return sorted(values)[math.ceil(len(values) * 0.99) - 1]
