"""A client that costs little: it counts the tokens of each read, and when that came."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import httptools

LIMIT_S = 120.0


@dataclass(frozen=True)
class Question:
    """A request as bytes, and how its answer is to be read.

    token: what stands once in each event that brings a token, and nowhere else.
    end: what stands in a whole stream alone, at its end.
    at_least: the tokens that a whole answer has.
    """

    number: int
    request: bytes
    token: bytes
    end: bytes
    at_least: int


@dataclass
class Heard:
    """How an answer came. `reads`: seconds of `time.monotonic`, and the tokens of each read."""

    number: int
    sent: float = 0.0
    reads: list[tuple[float, int]] = field(default_factory=list)
    is_whole: bool = False
    wrong: str = ""

    @property
    def first_s(self) -> float:
        """Seconds from the request to the first token."""
        return self.reads[0][0] - self.sent

    @property
    def tokens(self) -> int:
        """How many came."""
        return sum(count for _, count in self.reads)

    def gaps(self) -> list[float]:
        """Seconds between the reads that brought tokens."""
        times = [at for at, _ in self.reads]
        return [late - early for early, late in zip(times, times[1:], strict=False)]


class Reader(asyncio.Protocol):
    """Asks one question on a connection of its own."""

    def __init__(self, question: Question) -> None:
        self.heard = Heard(question.number)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._question = question
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._tail = b""
        self._keep = max(len(question.token), len(question.end)) - 1
        self._has_end = False
        self._came = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep whom to ask."""
        self._transport = cast("asyncio.Transport", transport)

    def ask(self) -> None:
        """Send the question."""
        assert self._transport
        self.heard.sent = time.monotonic()
        self._transport.write(self._question.request)

    def close(self) -> None:
        """Hang up; what has not ended is late."""
        if not self.ended.done():
            self.heard.wrong = "late"
        self._end()
        if self._transport:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Count what came."""
        self._came = 0
        self._parser.feed_data(data)
        if self._came:
            self.heard.reads.append((time.monotonic(), self._came))

    def on_body(self, body: bytes) -> None:
        """Count the tokens of a part of the answer; one may begin in the part before."""
        text = self._tail + body
        self._came += text.count(self._question.token) - self._tail.count(self._question.token)
        self._has_end = self._has_end or self._question.end in text
        self._tail = text[-self._keep :]

    def on_message_complete(self) -> None:
        """Judge the answer."""
        status = self._parser.get_status_code()
        if status != 200:
            self.heard.wrong = f"status {status}: {self._tail.decode(errors='replace')}"
        elif not self._has_end:
            self.heard.wrong = f"no end: …{self._tail.decode(errors='replace')}"
        elif self.heard.tokens + self._came < self._question.at_least:
            self.heard.wrong = f"{self.heard.tokens + self._came} tokens"
        self.heard.is_whole = not self.heard.wrong
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """An answer that has not ended is not whole."""
        if not self.ended.done():
            self.heard.wrong = "cut"
        self._end()

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)


async def ask_all(
    port: int, questions: Sequence[Question], *, ramp_s: float = 0, limit_s: float = LIMIT_S
) -> list[Heard]:
    """Ask all at once, or one after the other within `ramp_s`; connected before, each.

    What has not ended `limit_s` after the last was asked is not whole.
    """
    readers = [Reader(question) for question in questions]
    loop = asyncio.get_running_loop()
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)  # type: ignore[misc]
    began = loop.time()
    try:
        for at, reader in enumerate(readers):
            if (wait := began + at * ramp_s / len(readers) - loop.time()) > 0:
                await asyncio.sleep(wait)
            reader.ask()
        await asyncio.wait([reader.ended for reader in readers], timeout=limit_s)
    finally:
        for reader in readers:
            reader.close()
    return [reader.heard for reader in readers]
