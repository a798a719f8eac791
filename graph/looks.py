"""One look for all who ask at the same time."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Seen = TypeVar("Seen")


class Looks(Generic[Seen]):
    """Shows something as it stands at the moment of asking, or after.

    Who asks while a look goes on waits for the next one, together with all others who do.
    """

    def __init__(self, look: Callable[[], Coroutine[Any, Any, Seen]]) -> None:
        self._look = look
        self._now: asyncio.Task[Seen] | None = None
        self._next: asyncio.Task[Seen] | None = None

    async def see(self) -> Seen:
        """What a look finds that begins after this call; it goes on if this caller is cancelled.

        Raises what the look raises.
        """
        if self._now is None or self._now.done():
            looking = self._now = asyncio.create_task(self._look())
        else:
            looking = self._next = self._next or asyncio.create_task(self._after(self._now))
        return await asyncio.shield(looking)

    async def _after(self, before: asyncio.Task[Seen]) -> Seen:
        await asyncio.wait({before})
        self._now, self._next = self._next, None
        return await self._look()
