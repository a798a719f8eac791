"""A model that only streams: OpenAI's chat completions over raw asyncio, 500 000 tokens/s or more.

A prompt orders its answer with what `order` gives. The first token leaves at once; at a pace the
others follow one by one, each in a write of its own, else all leave in one write. `GET /began`
tells when the answers to the last orders began, by their numbers, in seconds of `time.monotonic`.
"""

import asyncio
import json
import re
import time
from functools import cache
from itertools import cycle, islice
from pathlib import Path

import httptools
import uvloop

WINDOW = 32_768
NAME = "stand-in"
SAMPLES = ("brief.md", "interview-notes.txt")
VARIANTS = 8

# Of private use: a retrieval looks for words and numbers, and an embedding reads every mark.
_MARKS = {ord(sign): 0xE000 + at for at, sign in enumerate("0123456789 ")}
_SIGNS = {mark: sign for sign, mark in _MARKS.items()}
_ORDER = re.compile(rb"(?:\\ue00[0-9a]|\xee\x80[\x80-\x8a])+")
_TICK_S = 0.002
_KEPT = 10_000


def order(number: int, tokens: int, pace: int) -> str:
    """What asks for so many tokens, so many a second (0: as fast as they are taken)."""
    return f"{number} {tokens} {pace}".translate(_MARKS)


def ordered(body: bytes) -> tuple[int, int, int]:
    """The last order in a request's JSON, however that spells it."""
    marks: str = json.loads(b'"%b"' % _ORDER.findall(body)[-1])
    number, tokens, pace = map(int, marks.translate(_SIGNS).split())
    return number, tokens, pace


@cache
def prose() -> tuple[str, ...]:
    """The words of what the sample documents say, every third sentence with a marker.

    Each begins with a space, so that those who count them can tell them from empty ones.
    """
    folder = Path(__file__).resolve().parents[2] / "samples"
    text = " ".join((folder / name).read_text() for name in SAMPLES)
    plain = " ".join(re.sub(r"[*#]|^\s*[-\d]+\.?\s", "", text, flags=re.MULTILINE).split())
    marked = re.sub(r"(?:[^.]+\. ){2}[^.]+(?=\. )", lambda found: f"{found[0]} [1]", plain)
    return tuple(f" {word}" for word in marked.split())


def event(delta: dict[str, str], finish: str | None = None) -> bytes:
    """An event of the stream."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    return _data({"choices": [choice]})


@cache
def token_event(token: str) -> bytes:
    """The event that brings a token."""
    return event({"content": token})


@cache
def pieces(variant: int, tokens: int, usage: bool) -> tuple[bytes, ...]:
    """The response's writes, one for each token; head and tail go with the first and last."""
    start = variant * len(prose()) // VARIANTS
    said = list(islice(cycle(prose()), start, start + tokens))
    events = [token_event(token) for token in said]
    events[0] = event({"role": "assistant", "content": ""}) + events[0]
    events[-1] += event({}, "stop")
    if usage:
        counts = {"prompt_tokens": 1000, "completion_tokens": tokens, "total_tokens": 1000 + tokens}
        events[-1] += _data({"choices": [], "usage": counts})
    events[-1] += b"data: [DONE]\n\n"
    chunks = [b"%x\r\n%b\r\n" % (len(each), each) for each in events]
    chunks[0] = _HEAD + chunks[0]
    chunks[-1] += b"0\r\n\r\n"
    return tuple(chunks)


@cache
def burst(variant: int, tokens: int, usage: bool) -> bytes:
    """The whole response."""
    return b"".join(pieces(variant, tokens, usage))


class Wheel:
    """One timer for all streams: each has its place in a turn, which takes as long as a token."""

    def __init__(self, pace: int) -> None:
        self._slots: list[set[Answer]] = [set() for _ in range(round(1 / pace / _TICK_S))]
        self._began = time.monotonic()
        self._done = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, answer: "Answer") -> None:
        """Give `answer` its next token one turn from now, and so on."""
        if self._timer is None:
            self._done = self._now()
            self._wait()
        self._slots[self._done % len(self._slots)].add(answer)

    def _now(self) -> int:
        return int((time.monotonic() - self._began) / _TICK_S)

    def _wait(self) -> None:
        at = self._began + (self._done + 1) * _TICK_S - time.monotonic()
        self._timer = asyncio.get_running_loop().call_later(max(at, 0), self._turn)

    def _turn(self) -> None:
        now = self._now()
        while self._done < now:
            self._done += 1
            slot = self._slots[self._done % len(self._slots)]
            slot -= {answer for answer in slot if not answer.go_on()}
        self._timer = None
        if any(self._slots):
            self._wait()


class Wheels(dict[int, Wheel]):
    """The wheel of each pace."""

    def __missing__(self, pace: int) -> Wheel:
        self[pace] = Wheel(pace)
        return self[pace]


class Answer:
    """An answer at a pace."""

    def __init__(self, transport: asyncio.Transport, writes: tuple[bytes, ...]) -> None:
        self._transport = transport
        self._writes = iter(writes)
        self.go_on()

    def go_on(self) -> bool:
        """Send the next token; tells whether there was one, and somebody to send it to."""
        if self._transport.is_closing():
            return False
        write = next(self._writes, None)
        if write is not None:
            self._transport.write(write)
        return write is not None


class Connection(asyncio.Protocol):
    """Answers the requests of one connection."""

    transport: asyncio.Transport

    def __init__(self, wheels: Wheels, began: dict[int, float]) -> None:
        self._wheels, self._began = wheels, began
        self._fresh()

    def _fresh(self) -> None:
        self._parser, self._url, self._body = httptools.HttpRequestParser(self), b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep whom to answer."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        """Keep the path."""
        self._url += url

    def on_body(self, body: bytes) -> None:
        """Keep the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer."""
        url, body = self._url, self._body
        self._url = self._body = b""
        if url.endswith(b"/chat/completions"):
            self._stream(body)
        elif url.endswith(b"/began"):
            self._json(self._began)
        elif url.endswith(b"/models"):
            entry = {"id": NAME, "object": "model", "created": 0, "owned_by": "bench"}
            self._json({"object": "list", "data": [{**entry, "context_length": WINDOW}]})
        else:
            self.transport.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")

    def _stream(self, body: bytes) -> None:
        number, tokens, pace = ordered(body)
        usage = b'"include_usage"' in body
        while len(self._began) > _KEPT:
            del self._began[next(iter(self._began))]
        self._began[number] = time.monotonic()
        if pace:
            answer = Answer(self.transport, pieces(number % VARIANTS, tokens, usage))
            self._wheels[pace].add(answer)
        else:
            self.transport.write(burst(number % VARIANTS, tokens, usage))

    def _json(self, content: object) -> None:
        body = json.dumps(content).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % len(body) + body)


async def serve() -> None:
    """Serve on a free port, which is printed, for good."""
    wheels = Wheels()
    began: dict[int, float] = {}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: Connection(wheels, began), "127.0.0.1", 0, backlog=4096
    )
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - read by who started it
    await server.serve_forever()


def _data(content: dict[str, object]) -> bytes:
    begun = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": NAME}
    return b"data: %b\n\n" % json.dumps({**begun, **content}).encode()


_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)

if __name__ == "__main__":
    uvloop.run(serve())
