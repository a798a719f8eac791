"""Reads a model's answer: each read in time, and more at once while the event loop is busy."""

import asyncio
import math
import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import aiohttp

from graph.completions import Completion
from graph.connections import is_awaited

_AFTERWORD_S = 5.0
# Some 80 tokens: what one stream may take of a burst before the others have their turn.
_SLICE_BYTES = 16 * 1024
# Some 20 tokens. What brings more than that in one read is a burst, which is not to wait.
_TRICKLE_BYTES = 4 * 1024
_LOOK_S = 0.1
_BUSY = 0.15
_MORE_S, _LESS_S, _MOST_S = 0.03, 0.01, 0.06


class Reading:
    """Reads one answer; a single timer watches all reads, as asyncio.timeout costs more than one.

    Tokens that come alone are read at once, or with all other answers' when `Pace` says.
    """

    def __init__(self, content: aiohttp.StreamReader, first_token_by: float, idle_s: float) -> None:
        self.content = content
        self._loop = asyncio.get_running_loop()
        self._pace = _pace_of(self._loop)
        self._trickles = False
        self._first_token_by = first_token_by
        self._idle_s = idle_s
        self._afterword_s = min(idle_s, _AFTERWORD_S)
        self._due = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = math.inf

    async def next(self, answer: Completion) -> bytes:
        """The bytes of one read, none at the end; raises TimeoutError where they come too late."""
        if data := self.content.read_nowait(_SLICE_BYTES):
            await asyncio.sleep(0)
            return data
        now = self._loop.time()
        if self._trickles and answer.begun and (pause_s := self._pace.pause_s(now)):
            # To the same moments for all: one wake for thirty answers costs less than thirty.
            await _pause(self.content, pause_s - now % pause_s)
            now = self._loop.time()
        wait_s = self._afterword_s if answer.finished else self._idle_s
        self._due = now + wait_s if answer.begun else self._first_token_by
        if self._due < self._fires_at:
            self._set_timer()
        data = await self.content.read(_SLICE_BYTES)
        self._trickles = len(data) < _TRICKLE_BYTES
        return data

    def close(self) -> None:
        """Let no timer go on."""
        if self._timer:
            self._timer.cancel()

    def _set_timer(self) -> None:
        self.close()
        self._fires_at = self._due
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        """End the read that waits, or look again when its own time is over."""
        self._fires_at = math.inf
        if not is_awaited(self.content):
            return
        if self._loop.time() < self._due:
            self._set_timer()
        else:
            self.content.set_exception(TimeoutError())


class Pace:
    """How long the answers of one event loop pause between two reads.

    Not at all at rest. While the loop's thread computes for more than 15 % of the time, the pauses
    grow to 60 ms, which nobody sees: tokens that come together cost less, and what they do not take
    is left to what has just begun.
    """

    def __init__(self, worked_s: Callable[[], float] = time.thread_time) -> None:
        """`worked_s`: the seconds for which the thread has computed."""
        self._worked_s = worked_s
        self._looked: tuple[float, float] | None = None
        self._pause_s = 0.0

    def pause_s(self, now: float) -> float:
        """The pause at this moment of the loop's clock, in seconds."""
        if self._looked is None or now - self._looked[0] >= _LOOK_S:
            self._look(now)
        return self._pause_s

    def _look(self, now: float) -> None:
        worked = self._worked_s()
        if self._looked:
            took, computed = now - self._looked[0], worked - self._looked[1]
            # It was a long time ago where there was nothing to read.
            step = _MORE_S if computed > _BUSY * took else -_LESS_S * took / _LOOK_S
            self._pause_s = min(max(self._pause_s + step, 0.0), _MOST_S)
        self._looked = now, worked


async def _pause(content: aiohttp.StreamReader, seconds: float) -> None:
    """Leave for so long to the kernel what comes for `content`, which costs nothing there."""
    transport = content._protocol.transport
    # At the end of an answer the connection may be another one's by now.
    if content.is_eof() or transport is None or transport.is_closing():
        return
    transport.pause_reading()
    try:
        await asyncio.sleep(seconds)
    finally:
        if not transport.is_closing():
            transport.resume_reading()


def _pace_of(loop: asyncio.AbstractEventLoop) -> Pace:
    """The pace of an event loop."""
    if (pace := _paces.get(loop)) is None:
        pace = _paces[loop] = Pace()
    return pace


_paces: WeakKeyDictionary[asyncio.AbstractEventLoop, Pace] = WeakKeyDictionary()
