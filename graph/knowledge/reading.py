"""Files into chunks, in a process of their own: a file may be made to do harm."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from graph.errors import DocumentTooLarge, UnreadableDocument, UnsupportedDocument
from graph.knowledge.chunking import Chunk, cut
from graph.knowledge.confinement import (
    Crashed,
    LimitReached,
    Limits,
    OutOfMemory,
    OutOfRoom,
    OutOfTime,
    confined,
    end_without_memory,
    taken,
)
from graph.knowledge.parsing import parse

log = logging.getLogger(__name__)

# What most documents get by with, two at a time, and what a large one may have alone.
LIMITS = Limits(seconds=25, memory=120_000_000, output=120_000_000)
LIMITS_ALONE = replace(LIMITS, memory=200_000_000)

_REFUSALS = {error.__name__: error for error in (UnsupportedDocument, UnreadableDocument)}
_REASONS: dict[type[LimitReached], str] = {
    OutOfTime: "takes longer to read than a document may. Split it.",
    OutOfMemory: "needs more memory than a document may have. Split it.",
    OutOfRoom: "has more text than a document may have. Split it.",
    Crashed: "is damaged and cannot be read.",
}


@dataclass(frozen=True)
class Reading:
    """A document as it was read: `page_count` is None for formats without pages."""

    mime_type: str
    page_count: int | None
    chunks: list[Chunk]


async def read(data: bytes, name: str, limits: Limits = LIMITS) -> Reading:
    """Read a document in a new process, which ends when the caller is cancelled.

    Starts in some 0.2 s. Raises UnsupportedDocument and UnreadableDocument, also for a file that
    takes too much time or text, or on which the process dies; DocumentTooLarge for too much memory.
    """
    try:
        async with confined(__name__, name, data, limits) as lines:
            head = _understood(await anext(lines, b"{}"))
            chunks = [Chunk(**json.loads(line)) async for line in lines]
    except LimitReached as error:
        log.warning("a document was not read: %s, %s", type(error).__name__, error)
        refusal = DocumentTooLarge if isinstance(error, OutOfMemory) else UnreadableDocument
        raise refusal(f"{name!r} {_REASONS[type(error)]}") from error
    return Reading(head["mime_type"], head["page_count"], chunks)


def _understood(line: bytes) -> dict[str, Any]:
    head: dict[str, Any] = json.loads(line)
    refusal = _REFUSALS.get(head.get("refusal", ""))
    if refusal:
        raise refusal(head["message"])
    if "mime_type" not in head:
        raise Crashed("no output")
    return head


def main() -> None:
    """Read one document, in the child."""
    name, data, output = taken()
    try:
        for line in _read(data, name):
            output.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
        output.flush()
    except MemoryError:
        end_without_memory()


def _read(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    try:
        parsed = parse(data, name)
        chunks = cut(parsed)
    except (UnsupportedDocument, UnreadableDocument) as error:
        yield {"refusal": type(error).__name__, "message": str(error)}
        return
    numbers = [page.number for page in parsed.pages if page.number is not None]
    yield {"mime_type": parsed.mime_type, "page_count": len(numbers) or None}
    yield from map(asdict, chunks)


if __name__ == "__main__":
    main()
