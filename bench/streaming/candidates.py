"""Who is asked: the streams of servers, and how a question is put to each."""

import itertools
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import psutil  # type: ignore[import-untyped]

from bench.streaming.client import Question
from bench.streaming.model import NAME, order

Kind = Literal["ours", "peer", "floor", "model"]

_SUBJECTS = (
    "tide gauges", "the duty officer", "false alarms", "berth holders", "the warning service",
    "buoys in the outer harbour", "the ferry's wake", "the receiving server", "storm season",
    "text messages", "the state Alarm", "civil protection", "radio equipment", "batteries",
)  # fmt: skip
_ASPECTS = (
    "must be known of", "is written about", "do the notes say of", "was agreed on", "fails with",
    "does the client expect of", "is measured at", "may change with", "is tested about",
)  # fmt: skip

numbers = itertools.count(1)
chance = random.Random(7)


@dataclass(frozen=True)
class Protocol:
    """How a stream is asked and read. `body` is given the words of the question.

    token: what stands once in each event that brings a token; end: what stands at the end alone.
    """

    path: str
    body: Callable[[str], object]
    token: bytes
    end: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, tokens: int, pace: int) -> Question:
        """A question that was never asked before."""
        number = next(numbers)
        body = json.dumps(self.body(f"{words()} {order(number, tokens, pace)}")).encode()
        headers = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Content-Length": str(len(body)),
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body
        return Question(number, request, self.token, self.end, tokens)


@dataclass(frozen=True)
class Candidate:
    """A stream of a server: `process` and its children serve it at `port`."""

    kind: Kind
    name: str
    process: psutil.Process
    port: int
    protocol: Protocol


def words() -> str:
    """A question to the documents."""
    return f"What {chance.choice(_ASPECTS)} {chance.choice(_SUBJECTS)}?"


def completions(prefix: str) -> Protocol:
    """OpenAI's own chat completions."""
    return Protocol(
        f"{prefix}/chat/completions",
        lambda text: {
            "model": NAME,
            "messages": [{"role": "user", "content": text}],
            "stream": True,
        },
        b'"delta": {"content": " ',
        b"data: [DONE]",
    )
