"""The log of each run: what its readers were and will be sent. In the memory of one process."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from api.wire import Frame

_MOST_AT_ONCE = 1000


class RunLog:
    """The frames of one run, numbered from 1. Readers keep their own place in it.

    A reader that is slow costs nothing but its place; all of them share the frames.
    """

    def __init__(self) -> None:
        self._frames: list[Frame] = []
        self._closed = False
        self._news = asyncio.Event()

    @property
    def seq(self) -> int:
        """The number of the last frame, 0 before the first."""
        return len(self._frames)

    def append(self, frames: Sequence[Frame], *, last: bool = False) -> None:
        """Add `frames` and wake all readers; after the `last` ones nothing may follow."""
        if self._closed:
            raise RuntimeError("the log of this run is closed")
        self._frames += frames
        self._closed = last
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def follow(
        self, after: int, *, silence_s: float
    ) -> AsyncIterator[tuple[int, Sequence[Frame]]]:
        """Batches `(number of the first frame, frames)` of what stands after `after`, then live.

        An empty batch comes after `silence_s` seconds without news. Ends with the run.
        """
        while True:
            news = self._news
            if frames := self._frames[after : after + _MOST_AT_ONCE]:
                yield after + 1, frames
                after += len(frames)
            elif self._closed:
                return
            elif not await _within(news, silence_s):
                yield after + 1, ()


async def _within(news: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    return True
