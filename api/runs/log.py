"""The log of a run in memory: what its readers were and will be sent."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from api.waiting import Silence
from api.wire import Frame

JUMP = 10_000
"""By how much the numbers go on where it is not known what the readers were shown.

Nothing may be shown that is so far ahead of what is stored.
"""

_MOST_AT_ONCE = 1000
_MOST_CHARACTERS = 64 * 1024


class RunLog:
    """The frames of one run, numbered from 1. Readers keep their own place in it.

    A reader that is slow costs nothing but its place; all of them share the frames. `saved` is
    the number of the last frame that is stored.
    """

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        # Where the numbers have jumped: what stands from this place on has so much more.
        self._jumped_at: int | None = None
        self._jump = 0
        self._is_closed = False
        self._waiting: list[asyncio.Future[bool]] = []
        self._room = asyncio.Event()
        self._room.set()
        self.has_ended = False
        self.saved = 0

    @property
    def frames(self) -> Sequence[Frame]:
        """All frames so far."""
        return tuple(self._frames)

    @property
    def seq(self) -> int:
        """The number of the last frame, 0 before the first."""
        return self._number(len(self._frames))

    def append(self, frames: Sequence[Frame], *, last: bool = False, first: int = 0) -> None:
        """Add `frames` and wake all readers; after the `last` ones nothing may follow.

        `first` is the number of the first of them, where it is not the next one.
        """
        if self._is_closed:
            raise RuntimeError("the log of this run is closed")
        if first > self.seq + 1:
            self._jumped_at, self._jump = len(self._frames), first - len(self._frames) - 1
        self._frames += frames
        self.has_ended = self._is_closed = last
        if self.seq - self.saved >= JUMP // 2:
            self._room.clear()
        self._wake()

    def abandon(self) -> None:
        """Let readers go: somebody else says how the run ended."""
        self._is_closed = True
        self._room.set()
        self._wake()

    def unsaved(self) -> tuple[int, Sequence[Frame]]:
        """The number of the first frame that is not stored, and all from it on."""
        return self.saved + 1, self._frames[self._place(self.saved) :]

    def note_saved(self, seq: int) -> None:
        """All frames up to number `seq` are stored."""
        self.saved = max(self.saved, seq)
        self._room.set()

    @property
    def is_ahead(self) -> bool:
        """Whether more is not stored than may be shown ahead of it."""
        return not (self._room.is_set() or self._is_closed)

    async def room(self) -> None:
        """Wait until it is not ahead any more."""
        await self._room.wait()

    async def follow(
        self, after: int, *, silence_s: float
    ) -> AsyncIterator[tuple[int, Sequence[Frame]]]:
        """Batches `(number of the first frame, frames)` of what stands after `after`, then live.

        An empty batch comes after `silence_s` seconds without news. Ends with the run, or when it
        is abandoned.
        """
        silence = Silence(silence_s)
        # Once: Python 3.11 asks the system for the process id to find it.
        loop = asyncio.get_running_loop()
        try:
            while True:
                if self.seq > after:
                    place = self._place(after)
                    end = self._up_to(place)
                    is_cut = end < len(self._frames)
                    yield self._number(place + 1), self._frames[place:end]
                    after = self._number(end)
                    if is_cut:
                        # A connection that takes all at once lets nobody else have a turn.
                        await asyncio.sleep(0)
                elif self._is_closed:
                    return
                elif not await silence.broken_by(self._news(loop)):
                    yield after + 1, ()
        finally:
            silence.close()

    def _up_to(self, place: int) -> int:
        """Where the batch ends that begins at `place`: its numbers follow each other.

        A reader that does not read holds one batch, so that it must not be large.
        """
        end = place
        left = _MOST_CHARACTERS
        for _, data in self._frames[place : place + _MOST_AT_ONCE]:
            end += 1
            left -= len(data)
            if left <= 0:
                break
        if self._jumped_at is None or place >= self._jumped_at:
            return end
        return min(end, self._jumped_at)

    def _number(self, count: int) -> int:
        """The number of the frame that is the `count`th."""
        has_jumped = self._jumped_at is not None and count > self._jumped_at
        return count + self._jump if has_jumped else count

    def _place(self, after: int) -> int:
        """How many frames have a number of at most `after`."""
        if self._jumped_at is None or after <= self._jumped_at:
            return min(after, len(self._frames))
        return max(self._jumped_at, min(after - self._jump, len(self._frames)))

    def _news(self, loop: asyncio.AbstractEventLoop) -> asyncio.Future[bool]:
        """True once there is more."""
        news: asyncio.Future[bool] = loop.create_future()
        self._waiting.append(news)
        return news

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for news in waiting:
            if not news.done():
                news.set_result(True)
