"""Waits for news, but not for ever."""

import asyncio


async def within(news: asyncio.Event, seconds: float) -> bool:
    """Whether `news` came within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    return True


class Silence:
    """Tells one reader that nothing has come for `seconds`, again and again, until it is closed.

    It has one timer, which is not touched when something comes.
    """

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._since = self._loop.time()
        self._news: asyncio.Future[bool] | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    def broken_by(self, news: "asyncio.Future[bool]") -> "asyncio.Future[bool]":
        """Watch over `news`, which becomes false if it does not come in time."""
        self._since, self._news = self._loop.time(), news
        return news

    def close(self) -> None:
        """Tell nothing any more."""
        self._timer.cancel()

    def _look(self) -> None:
        rest_s = self._since + self._seconds - self._loop.time()
        if rest_s <= 0 and self._news and not self._news.done():
            self._news.set_result(False)
        self._timer = self._loop.call_later(rest_s if rest_s > 0 else self._seconds, self._look)
