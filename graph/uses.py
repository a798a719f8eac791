"""Who uses a model's connections, so that they can be closed with the last use."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from weakref import WeakKeyDictionary


class Uses:
    """Counts the uses of something in each event loop, and ends it once it is given up.

    `end` ends it for the running loop; what is used again after that is ended again.
    """

    def __init__(self) -> None:
        self._counts: WeakKeyDictionary[asyncio.AbstractEventLoop, int] = WeakKeyDictionary()
        self._is_given_up = False

    @asynccontextmanager
    async def one(self, end: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """One use."""
        loop = asyncio.get_running_loop()
        self._counts[loop] = self._counts.get(loop, 0) + 1
        try:
            yield
        finally:
            self._counts[loop] -= 1
            await self._end_if_idle(end)

    def give_up(self, end: Callable[[], Awaitable[None]]) -> None:
        """End it in each loop: now, or with the last use that goes on there."""
        self._is_given_up = True
        for loop in list(self._counts):
            if not loop.is_closed():
                asyncio.run_coroutine_threadsafe(self._end_if_idle(end), loop)

    async def _end_if_idle(self, end: Callable[[], Awaitable[None]]) -> None:
        if self._is_given_up and not self._counts[asyncio.get_running_loop()]:
            await end()
