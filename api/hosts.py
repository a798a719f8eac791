"""Refuses what pages elsewhere have a browser send: where callers need no credentials."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import Refusal, refusal_response

_BAD_HOST = Refusal(
    400,
    "bad_host",
    "Without credentials only the names of this machine's loopback are served. Use "
    "127.0.0.1 or localhost, or set API_KEY.",
)
_FOREIGN_ORIGIN = Refusal(
    403,
    "foreign_origin",
    "Pages of this origin may not call. Have CORS_ORIGIN_REGEX allow it.",
)


class KnownHosts:
    """Pure ASGI middleware: 400 for a `Host` that is none of `names`, 403 for a foreign `Origin`.

    Everybody is the local user. A page elsewhere could point its own name at this address (DNS
    rebinding) and read everything. And it can send forms and plain text here without a preflight;
    that it may not read the answer undoes nothing.
    """

    def __init__(self, app: ASGIApp, *, names: Collection[str], origins: str) -> None:
        self._app = app
        self._names = names
        self._origins = re.compile(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        refusal = self._refusal(Headers(scope=scope)) if scope["type"] == "http" else None
        if refusal is not None:
            await refusal_response(scope["path"], refusal)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> Refusal | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._knows(host):
            return _BAD_HOST
        is_own = origin in (None, f"http://{host}", f"https://{host}")
        return None if is_own or self._origins.fullmatch(str(origin)) else _FOREIGN_ORIGIN

    def _knows(self, host: str) -> bool:
        try:
            return urlsplit(f"//{host}").hostname in self._names
        except ValueError:
            return False
