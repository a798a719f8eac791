"""Holds a model back while what it has said waits to be passed on.

LangGraph's own queue between a node and whoever reads its stream has no bound.
"""

import asyncio
from contextvars import ContextVar

_OPEN: ContextVar[asyncio.Event | None] = ContextVar("open", default=None)


def gate() -> asyncio.Event:
    """The gate of the run that begins in this context: who closes it holds its model back."""
    gate = asyncio.Event()
    gate.set()
    _OPEN.set(gate)
    return gate


async def may_go_on() -> None:
    """Wait while the gate of this run is closed; without one, as in LangGraph Studio, it is not."""
    if gate := _OPEN.get():
        await gate.wait()
