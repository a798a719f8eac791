"""The one place where an event becomes bytes: Server-Sent Events as every stream sends them.

Source: the HTML standard, section 9.2 (server-sent events). One `data:` line an event, JSON in
ASCII, `\\n` line ends: no client breaks a line at U+2028 or a vertical tab.
"""

import json
from collections.abc import AsyncIterable, Sequence
from typing import Any

from starlette.responses import StreamingResponse

Frame = tuple[str, str]
"""An event's name and its data, which is JSON in ASCII."""

OPENED = b": open\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_S = 10.0
"""Seconds of silence after which a comment is sent."""

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
        f"id: {run_id}:{seq}\nevent: {name}\ndata: {data}\n\n"
        for seq, (name, data) in enumerate(frames, first_seq)
    ).encode("ascii")


class EventStream(StreamingResponse):
    """A response of Server-Sent Events that names the run it follows."""

    media_type = "text/event-stream"

    # FastAPI reads the status that it documents from this signature.
    def __init__(
        self, content: AsyncIterable[bytes], *, run_id: str, status_code: int = 200
    ) -> None:
        super().__init__(content, status_code, headers={**HEADERS, "X-Run-Id": run_id})
