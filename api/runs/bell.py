"""Hears at once what other processes tell of runs: LISTEN, on a connection of its own.

Behind pgbouncer in transaction mode nothing is heard, so everything is looked for as well.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Mapping

from psycopg.sql import SQL, Identifier

from graph.postgres import SleepingConnection, failures_logged

log = logging.getLogger(__name__)

_PAUSE_S = 0.5

Heard = Callable[[list[uuid.UUID]], None]


async def listen(url: str, channels: Mapping[str, Heard]) -> None:
    """Call for each notification what stands behind its channel, with the runs; for ever."""
    while True:
        with failures_logged(log, "nothing is heard of runs", level=logging.DEBUG):
            async with await SleepingConnection.connect(
                url, autocommit=True, prepare_threshold=None, connect_timeout=5
            ) as connection:
                for channel in channels:
                    await connection.execute(SQL("listen {}").format(Identifier(channel)))
                async for notify in connection.notifies():
                    channels[notify.channel]([uuid.UUID(one) for one in notify.payload.split()])
        await asyncio.sleep(_PAUSE_S)
