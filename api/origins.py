"""Where a request comes from: when it came, and of which trace of its caller it is a part."""

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass

from starlette.types import ASGIApp, Receive, Scope, Send

_OF_A_TRACE = (b"traceparent", b"tracestate")


@dataclass(frozen=True, slots=True)
class Origin:
    """A request: when it came (nanoseconds since 1970), and its headers that name a trace."""

    came_ns: int
    headers: Mapping[str, str]


ORIGIN: ContextVar[Origin | None] = ContextVar("origin", default=None)
"""The request that is being answered; null where nobody notes it, or none is."""


class Origins:
    """Pure ASGI middleware: notes where each request comes from."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, noted."""
        if scope["type"] == "http":
            named = {
                k.decode(): v.decode("latin-1") for k, v in scope["headers"] if k in _OF_A_TRACE
            }
            ORIGIN.set(Origin(time.time_ns(), named))
        await self._app(scope, receive, send)
