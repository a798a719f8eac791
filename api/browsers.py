"""What a browser may do with our answers: nothing, unless an answer says so itself.

Source: Content Security Policy Level 3 and the other headers' standards. An answer that brings its
own policy keeps it; all others can load and run nothing, whatever they hold.
"""

import base64
import hashlib
import re

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.wire import PLAIN_SEND

POLICY = "Content-Security-Policy"
_NOWHERE = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

HEADERS = {
    POLICY: f"default-src 'none'; {_NOWHERE}",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": (
        "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What each answer has that does not say otherwise."""

_INLINE_SCRIPT = re.compile(r"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)


class BrowserHeaders:
    """Pure ASGI middleware: adds HEADERS to each answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and its answer back with the headers."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        scope[PLAIN_SEND] = send
        await self._app(scope, receive, send_with_headers)


def policy(*sources: str) -> str:
    """A policy that allows `sources`, such as `script-src 'self'`, and nothing else."""
    return "; ".join(["default-src 'none'", *sources, _NOWHERE])


def scripts_of(html: str) -> str:
    """The `script-src` of a page of others: files of this origin, and its own scripts as they are.

    These are named by their hash, so that no other one runs.
    """
    scripts = (one.group(1) for one in _INLINE_SCRIPT.finditer(html))
    hashes = [base64.b64encode(hashlib.sha256(one.encode()).digest()).decode() for one in scripts]
    return " ".join(["script-src 'self'", *(f"'sha256-{one}'" for one in hashes)])
