"""Refuses requests for a host that is not ours: where callers need no credentials."""

from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import Refusal, refusal_response

_REFUSAL = Refusal(
    400,
    "bad_host",
    "Without credentials only the names of this machine's loopback are served. Use "
    "127.0.0.1 or localhost, or set API_KEY.",
)


class KnownHosts:
    """Pure ASGI middleware: 400 for a `Host` that is none of `names`.

    A page elsewhere could point its own name at this address (DNS rebinding) and, since
    everybody is the local user, read everything.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "http" and not self._knows(Headers(scope=scope).get("host", "")):
            await refusal_response(scope["path"], _REFUSAL)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _knows(self, host: str) -> bool:
        try:
            return urlsplit(f"//{host}").hostname in self._names
        except ValueError:
            return False
