"""Refuses bodies that are too large, before they are read to the end."""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import Refusal, refusal_response

_UPLOADS = "/documents/projects/"


class BodyLimit:
    """Pure ASGI middleware: 413 once a body has more bytes than its path may take.

    Uploads may take `upload_mb` for a file and have a limit of their own for each file.
    """

    def __init__(self, app: ASGIApp, *, body_mb: int, upload_mb: int) -> None:
        self._app = app
        self._body_mb = body_mb
        self._upload_mb = upload_mb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, counting its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most_mb = self._most_mb(scope["path"])
        if _announced(scope) > most_mb * 1_000_000:
            await refusal_response(scope["path"], _too_large(most_mb))(scope, receive, send)
            return
        await self._app(scope, _counting(receive, most_mb), send)

    def _most_mb(self, path: str) -> int:
        # Several files may come in one upload; each is checked by its route.
        return self._upload_mb * 4 if path.startswith(_UPLOADS) else self._body_mb


def _announced(scope: Scope) -> int:
    length = dict(scope["headers"]).get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


def _counting(receive: Receive, most_mb: int) -> Receive:
    left = most_mb * 1_000_000

    async def counted() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            # An HTTPException passes through FastAPI's reading of the body, a Refusal would not.
            raise HTTPException(413, _too_large(most_mb).message)
        return message

    return counted


def _too_large(most_mb: int) -> Refusal:
    return Refusal(413, "too_large", f"The request may have at most {most_mb} MB.")
