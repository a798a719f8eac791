"""From where a stream is read: after an event that the reader names, or from the start."""

import uuid
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from api.errors import Refusal

After = Annotated[int | None, Query(ge=0, description="The last event that you have.")]
LastEventId = Annotated[str | None, Header()]


def _names_event_streams(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


StopsAt204 = Annotated[bool, Depends(_names_event_streams)]
"""Whether the reader asks for event streams by name, as a browser's `EventSource` does.

It comes again after the end of each stream, unless it gets 204. Others get an empty stream.
"""


def place(stream_id: uuid.UUID, after: int | None, last_event_id: str | None) -> int:
    """The number of the last event that the reader has, 0 without one; the header counts first.

    A browser repeats the URL when it comes again, and says in the header what it has by then.

    Raises:
        Refusal: 400, `last_event_id` is no event of this stream.
    """
    if not last_event_id:
        return after or 0
    head, _, seq = last_event_id.rpartition(":")
    if head.lower() == str(stream_id) and seq.isascii() and seq.isdigit() and len(seq) < 10:
        return int(seq)
    raise Refusal(400, "bad_last_event_id", "Last-Event-ID is no event of this stream.")
