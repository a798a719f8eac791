"""Stand in for an OpenAI-compatible model provider over real HTTP, faults included."""

import asyncio
import base64
import hashlib
import json
import math
import re
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

from standins.loopback import (
    MAX_REQUEST_BYTES,
    Journal,
    Recorded,
    Script,
    forever,
    numbered,
    serving,
)

__all__ = ["Answer", "End", "OpenAIStandIn", "Recorded", "embed"]

CREATED = 1_700_000_000
EMBEDDING_DIMS = 64
_FLOATS = f"<{EMBEDDING_DIMS}f"
HTML_PAGE = "<!DOCTYPE html>\n<html><body><h1>502 Bad Gateway</h1></body></html>\n"

End = Literal[
    "finish", "no_finish", "cut", "hang", "broken_json", "bad_utf8", "html", "error_object"
]

_ERRORS = {
    400: ("Invalid request.", "invalid_request_error", None),
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    403: ("You do not have access to this model.", "permission_error", None),
    404: ("The model does not exist.", "invalid_request_error", "model_not_found"),
    429: ("Rate limit reached.", "requests", "rate_limit_exceeded"),
    503: ("The server is overloaded.", "server_error", "overloaded"),
}
_SERVER_ERROR = ("The server had an error.", "server_error", None)


@dataclass(frozen=True)
class Answer:
    """What one chat request gets. Times are seconds.

    tokens: one stream chunk each; `reply`, given the request's JSON body, makes them instead
        (it runs on the server's loop, so it must not block).
    delay_s: pause before each token; first_delay_s: pause between the headers and the first chunk,
        or before the error.
    one_write: all chunks leave in a single socket write, after the sum of the pauses.
    end: what follows the tokens. "no_finish", "broken_json", "bad_utf8", "html" and
        "error_object" then close the body politely; "cut" closes the connection inside a chunk;
        "hang" sends no more until the client leaves.
    status: other than 200 gives an OpenAI error JSON; `error` replaces its fields, and those of
        "error_object".
    headers: sent with any status.
    body: sent as it is, with `status` and `content_type`, in place of everything above.
    hang_before_headers: take the request and never answer it.
    """

    tokens: Sequence[str] = ()
    _: KW_ONLY
    delay_s: float = 0.0
    first_delay_s: float = 0.0
    finish_reason: str = "stop"
    one_write: bool = False
    end: End = "finish"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes | None = None
    content_type: str = "text/html"
    error: Mapping[str, str | None] = field(default_factory=dict)
    hang_before_headers: bool = False
    reply: Callable[[dict[str, Any]], Sequence[str]] | None = None


class OpenAIStandIn:
    """An OpenAI server on loopback; use it as a context manager.

    `base_url` ends in /v1. Ids count up and `created` is constant, so that answers compare equal.
    Any model name and any API key are accepted. Embeddings wait while `embeddings_may_pass` is
    not set, and are then refused unless `embeddings_status` is 200. `tokenize` gives the tokens
    that a text is at `/tokenize`, or the status of a refusal: OpenAI has no such address. It
    remembers the newest `most` requests, or all.
    """

    def __init__(self, models: Sequence[str] = ("stand-in",), *, most: int | None = None) -> None:
        self.base_url = ""
        self.embeddings_status = 200
        self.tokenize: Callable[[str], list[int] | int] = _no_tokenizer
        self.embeddings_may_pass = threading.Event()
        self.embeddings_may_pass.set()
        self._models = list(models)
        self._journal = Journal(most)
        self._answers = Script(Answer(["The", " answer", "."]))
        self._ids = numbered("chatcmpl")
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self.base_url = self._open.enter_context(serving(self._app())) + "/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        self._open.close()

    def will(self, *answers: Answer) -> None:
        """Queue answers for the next chat requests; the last one stays in force."""
        self._answers.add(*answers)

    def reset(self) -> None:
        """Forget the requests so far, and all answers but the default."""
        self._journal.reset()
        self._answers.reset()
        self.embeddings_status = 200
        self.tokenize = _no_tokenizer
        self.embeddings_may_pass.set()

    @property
    def requests(self) -> list[Recorded]:
        """All requests so far, oldest first."""
        return self._journal.requests

    @property
    def chats(self) -> list[Recorded]:
        """The chat requests so far, oldest first."""
        return [request for request in self.requests if request.path == "/v1/chat/completions"]

    def wait_for_request(self, number: int = 0, timeout_s: float = 20.0) -> Recorded:
        """Return request `number` of `requests` once it came; TimeoutError otherwise."""
        return self._journal.wait_for_request(number, timeout_s)

    def wait_for_hangup(self, request: Recorded, timeout_s: float = 20.0) -> float:
        """Return the monotonic second at which the client hung up; TimeoutError if it did not."""
        return self._journal.wait_for_hangup(request, timeout_s)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_REQUEST_BYTES)
        app.router.add_get("/v1/models", self._journal.recorded(self._list_models))
        app.router.add_post("/v1/chat/completions", self._journal.recorded(self._chat))
        app.router.add_post("/v1/embeddings", self._journal.recorded(self._embed))
        app.router.add_post("/tokenize", self._journal.recorded(self._tokenize))
        return app

    async def _list_models(self, _request: web.Request, _recorded: Recorded) -> web.Response:
        entries = [
            {"id": model, "object": "model", "created": CREATED, "owned_by": "stand-in"}
            for model in self._models
        ]
        return _json({"object": "list", "data": entries})

    async def _embed(self, request: web.Request, recorded: Recorded) -> web.Response:
        await asyncio.to_thread(self.embeddings_may_pass.wait, 30)
        if self.embeddings_status != 200:
            return _refusal(Answer(status=self.embeddings_status))
        return await _embeddings(request, recorded)

    async def _tokenize(self, _request: web.Request, recorded: Recorded) -> web.Response:
        found = self.tokenize(recorded.body["content"])
        if isinstance(found, int):
            return _refusal(Answer(status=found))
        return _json({"tokens": found, "count": len(found), "max_model_len": 32_768})

    async def _chat(self, request: web.Request, recorded: Recorded) -> web.StreamResponse:
        answer = self._answers.next()
        if answer.hang_before_headers:
            await forever()
        if answer.status != 200 or answer.body is not None:
            await asyncio.sleep(answer.first_delay_s)
            return _refusal(answer)
        if not isinstance(recorded.body.get("messages"), list):
            return _refusal(Answer(status=400, error={"message": "'messages' must be an array."}))
        completion = _Completion(next(self._ids), answer, recorded.body)
        return await self._play(request, recorded, completion)

    async def _play(
        self, request: web.Request, recorded: Recorded, completion: "_Completion"
    ) -> web.StreamResponse:
        end = completion.answer.end
        response = web.StreamResponse(headers=completion.headers())
        await response.prepare(request)
        *writes, (last_pause_s, last) = completion.writes()
        for pause_s, piece in writes:
            await asyncio.sleep(pause_s)
            await response.write(piece)
        await asyncio.sleep(last_pause_s)
        if end == "hang":
            await response.write(last)
            await forever()
        self._journal.finish(recorded)
        if end == "cut":
            _cut(request, last)
        else:
            await response.write_eof(last)
        return response


class _Completion:
    """One chat completion: its JSON, and when which bytes of it are written."""

    def __init__(self, name: str, answer: Answer, asked: dict[str, Any]) -> None:
        self.answer = answer
        self._tokens = list(answer.reply(asked) if answer.reply else answer.tokens)
        self._name = name
        self._model = asked.get("model")
        self._streams = bool(asked.get("stream"))
        self._counts_usage = bool((asked.get("stream_options") or {}).get("include_usage"))
        self._prompt_words = _words(asked["messages"])

    def headers(self) -> dict[str, str]:
        kind = "text/event-stream; charset=utf-8" if self._streams else "application/json"
        if self.answer.end == "html" and not self._streams:
            kind = "text/html; charset=utf-8"
        return {"Content-Type": kind, **self.answer.headers}

    def writes(self) -> list[tuple[float, bytes]]:
        """The socket writes in order, each with the pause in seconds before it; never empty."""
        answer = self.answer
        if not self._streams:
            pause_s = answer.first_delay_s + answer.delay_s * len(self._tokens)
            return [(pause_s, self._whole_body())]
        writes = [(answer.first_delay_s, self._chunk({"role": "assistant", "content": ""}))]
        writes += [(answer.delay_s, self._chunk({"content": token})) for token in self._tokens]
        writes += [(0.0, piece) for piece in self._stream_tail()]
        if answer.one_write:
            return [(sum(pause for pause, _ in writes), b"".join(piece for _, piece in writes))]
        return writes

    def _stream_tail(self) -> list[bytes]:
        match self.answer.end:
            case "finish":
                last = self._chunk({}, finish_reason=self.answer.finish_reason)
                return [last, *self._usage_chunk(), b"data: [DONE]\n\n"]
            case "cut":
                return [self._chunk({"content": "cut"})[:40]]
            case "broken_json":
                return [self._chunk({"content": "broken"})[:40] + b"\n\n"]
            case "bad_utf8":
                return [self._chunk({"content": "BAD"}).replace(b"BAD", b"\xff\xfe\xc3")]
            case "html":
                return [HTML_PAGE.encode()]
            case "error_object":
                return [_event(_error(self.answer))]
            case "no_finish" | "hang":
                return []

    def _whole_body(self) -> bytes:
        whole = _bytes(self._whole())
        match self.answer.end:
            case "finish" | "no_finish":
                return whole
            case "cut" | "hang" | "broken_json":
                return whole[: len(whole) // 2]
            case "bad_utf8":
                return whole.replace(b'"content":"', b'"content":"\xff\xfe\xc3', 1)
            case "html":
                return HTML_PAGE.encode()
            case "error_object":
                return _bytes(_error(self.answer))

    def _whole(self) -> dict[str, Any]:
        message = {"role": "assistant", "content": "".join(self._tokens), "refusal": None}
        reason = None if self.answer.end == "no_finish" else self.answer.finish_reason
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": self._usage()}

    def _chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        # OpenAI sends a null usage with each chunk once usage was asked for.
        usage = {"usage": None} if self._counts_usage else {}
        return _event({**self._head("chat.completion.chunk"), "choices": [choice], **usage})

    def _usage_chunk(self) -> list[bytes]:
        if not self._counts_usage:
            return []
        head = self._head("chat.completion.chunk")
        return [_event({**head, "choices": [], "usage": self._usage()})]

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._name, "object": kind, "created": CREATED, "model": self._model}

    def _usage(self) -> dict[str, int]:
        prompt, sent = self._prompt_words, len(self._tokens)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": sent,
            "total_tokens": prompt + sent,
        }


def _no_tokenizer(_text: str) -> int:
    return 404


def embed(text: str) -> list[float]:
    """Hash the words of `text` into a vector of EMBEDDING_DIMS floats of length 1 (float32).

    Texts that share words are near each other; word order and case do not count.
    """
    counts = [0.0] * EMBEDDING_DIMS
    for word in re.findall(r"\w+", text.lower()) or [""]:
        digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
        counts[int.from_bytes(digest) % EMBEDDING_DIMS] += 1.0
    length = math.sqrt(sum(count * count for count in counts))
    # Rounded to float32, so that the float and the base64 encoding say the same numbers.
    return list(struct.unpack(_FLOATS, struct.pack(_FLOATS, *(n / length for n in counts))))


async def _embeddings(_request: web.Request, recorded: Recorded) -> web.Response:
    given = recorded.body.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return _refusal(Answer(status=400, error={"message": "'input' must be text."}))
    encode = _base64 if recorded.body.get("encoding_format") == "base64" else list
    entries = [
        {"object": "embedding", "index": index, "embedding": encode(embed(text))}
        for index, text in enumerate(texts)
    ]
    words = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": words, "total_tokens": words}
    model = recorded.body.get("model")
    return _json({"object": "list", "data": entries, "model": model, "usage": usage})


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(_FLOATS, *vector)).decode()


def _refusal(answer: Answer) -> web.Response:
    if answer.body is None:
        return _json(_error(answer), answer.status, answer.headers)
    body = answer.body.encode() if isinstance(answer.body, str) else answer.body
    headers = {"Content-Type": answer.content_type, **answer.headers}
    return web.Response(status=answer.status, body=body, headers=headers)


def _error(answer: Answer) -> dict[str, Any]:
    message, kind, code = _ERRORS.get(answer.status, _SERVER_ERROR)
    return {"error": {"message": message, "type": kind, "code": code, **answer.error}}


def _cut(request: web.Request, piece: bytes) -> None:
    """Close the connection inside an HTTP chunk: one more byte is announced than is sent."""
    if request.transport is None:
        raise ConnectionResetError("the client left before the cut")
    request.transport.write(f"{len(piece) + 1:x}\r\n".encode() + piece)
    # close() flushes where abort() may drop the tokens; the client sees the same broken chunk.
    request.transport.close()


def _words(messages: list[dict[str, Any]]) -> int:
    return sum(len(_text(message.get("content")).split()) for message in messages)


def _text(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, list):
        return " ".join(part.get("text", "") for part in content)
    return content or ""


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + _bytes(data) + b"\n\n"


def _bytes(data: dict[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode()


def _json(
    data: dict[str, Any], status: int = 200, headers: Mapping[str, str] | None = None
) -> web.Response:
    headers = {"Content-Type": "application/json", **(headers or {})}
    return web.Response(status=status, body=_bytes(data), headers=headers)
