"""Lets runs start in turn, so that the first of many need not wait for the last."""

import asyncio

_AT_ONCE = 4
_LONGEST_S = 0.05


class Starts:
    """Some runs at once get from their first statement to their question to the model.

    All of them together would share the time, and each be as late as the last. One that takes
    long, since it waits for others, makes room after `_LONGEST_S` seconds.
    """

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def enter(self) -> "Start":
        """Wait for one's turn; who came first is first."""
        await self._room.acquire()
        return Start(self._room)


class Start:
    """The room that a run takes while it starts."""

    def __init__(self, room: asyncio.Semaphore) -> None:
        self._room = room
        self._timer = asyncio.get_running_loop().call_later(_LONGEST_S, self.leave)
        self._has_left = False

    def leave(self) -> None:
        """Make room; a second call changes nothing."""
        if not self._has_left:
            self._has_left = True
            self._timer.cancel()
            self._room.release()
