"""The one place where an event becomes bytes: Server-Sent Events as every stream sends them.

Source: the HTML standard, section 9.2 (server-sent events). One `data:` line an event, JSON in
ASCII, `\\n` line ends: no client breaks a line at U+2028 or a vertical tab.
"""

import json
from collections.abc import AsyncIterable, Sequence
from typing import Any

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

Frame = tuple[str, str]
"""An event's name and its data, which is JSON in ASCII."""

OPENED = b": open\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_S = 10.0
"""Seconds of silence after which a comment is sent."""

PLAIN_SEND = "archwright.send"
"""Where a request's scope has the `send` that leads past all who have a say in the head alone."""

HEADERS = {
    "Cache-Control": "no-cache, no-transform",
    "Connection": "keep-alive",
    "X-Accel-Buffering": "no",
}

as_json = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode
as_json_string = json.encoder.encode_basestring_ascii


def frame(name: str, data: dict[str, Any]) -> Frame:
    """The event `name` with `data`."""
    return name, as_json(data)


def encode(run_id: str, first_seq: int, frames: Sequence[Frame]) -> bytes:
    """`frames` as bytes, with the ids `<run_id>:<first_seq>`, counting up."""
    return "".join(
        [
            f"id: {run_id}:{seq}\nevent: {name}\ndata: {data}\n\n"
            for seq, (name, data) in enumerate(frames, first_seq)
        ]
    ).encode("ascii")


class NothingFollows(Response):
    """Instead of a stream whose last event the reader has: a browser's `EventSource` stops at 204.

    Source: the HTML standard, section 9.2.3 (reconnecting).
    """

    def __init__(self, run_id: str) -> None:
        super().__init__(status_code=204, headers={"X-Run-Id": run_id})


class EventStream(StreamingResponse):
    """A response of Server-Sent Events that names the run it follows."""

    media_type = "text/event-stream"

    # FastAPI reads the status that it documents from this signature.
    def __init__(
        self, content: AsyncIterable[bytes], *, run_id: str, status_code: int = 200
    ) -> None:
        super().__init__(content, status_code, headers={**HEADERS, "X-Run-Id": run_id})
        self._plain_send: Send | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes, as it comes."""
        self._plain_send = scope.get(PLAIN_SEND)
        await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        """Send head and end by way of all middlewares, and the rest past them: it is much."""
        head = {"status": self.status_code, "headers": self.raw_headers}
        await send({"type": "http.response.start", **head})
        plain_send = self._plain_send or send
        async for chunk in self.body_iterator:
            await plain_send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
