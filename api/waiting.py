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
