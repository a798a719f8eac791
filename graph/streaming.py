"""A chat model whose stream yields, as one chunk, all tokens that one read brought."""

import asyncio
import inspect
import ipaddress
import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from aiohttp.http import HttpProcessingError
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr, SecretStr
from yarl import URL

from graph.errors import ModelError, ModelRefused, ModelReported, ModelTimedOut, ModelUnreachable
from graph.sanitizing import clean

log = logging.getLogger(__name__)

_FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls"})
_KEEPALIVE_S = 30.0
_AFTERWORD_S = 5.0
_LEFTOVERS_S = 0.25
_MAX_EVENT_BYTES = 4 * 1024 * 1024
_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_REFUSAL_BYTES = 4096

_AWAY = "The model cannot be reached. Check the provider's base URL, or try again later."
_BROKE_OFF = "The model's stream broke off before the answer was complete. Try again."
_OTHER_PROTOCOL = (
    "The model's endpoint does not speak the OpenAI protocol. Check the provider's base URL."
)
_REPORTED = "The model reported an error instead of an answer. Check the provider and the model."


def tokens_of(chunk: AIMessageChunk) -> tuple[str, ...]:
    """The tokens that `chunk` holds, as the model cut them; joined they are its text.

    A chunk of another model, which keeps no boundaries, counts as one token.
    """
    tokens = chunk.additional_kwargs.get("tokens")
    if tokens is None:
        return (str(chunk.text),) if chunk.text else ()
    return tuple(tokens)


class StreamingChatModel(ChatOpenAI):
    """A ChatOpenAI (chat completions only) with an HTTP client of its own for `astream`.

    Each chunk holds what one read from the socket brought; `tokens_of` gives its tokens. The last
    chunk has `finish_reason` (stop, length, content_filter or tool_calls) and `model_name` in
    `response_metadata`, and `usage_metadata` if the endpoint counts. Nothing is ever retried.
    A `model_copy` shares the connections, and so their end in `aclose`. Times are in seconds.

    `astream` raises, with the tokens before it already yielded:
        ModelTimedOut: not connected, no first token, or no read after it in time.
        ModelUnreachable: not reached, broke off, or another protocol.
        ModelRefused: another status than 2xx.
        ModelReported: an `{"error"}` object in the stream or in its place.
    """

    max_retries: int | None = 0
    stream_usage: bool | None = True
    use_responses_api: bool | None = False
    connect_timeout_s: float = 10
    first_token_timeout_s: float = 60
    idle_timeout_s: float = 30
    _sessions: "_Sessions" = PrivateAttr(default_factory=lambda: _Sessions())

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._sessions.aclose()

    async def list_models(self, timeout_s: float) -> list[dict[str, Any]]:
        """The entries of the endpoint's `/models` as they are, within `timeout_s`.

        Raises:
            ModelError: as for `astream`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                response = await self._send("GET", "models")
                return _entries(await _json_body(response))
        except TimeoutError as error:
            raise ModelTimedOut(
                f"The model's endpoint did not answer within {timeout_s:g} seconds."
            ) from error

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        stream_usage: bool | None = None,
        **kwargs: Any,  # noqa: ANN401 - as in ChatOpenAI
    ) -> AsyncIterator[ChatGenerationChunk]:
        started = asyncio.get_running_loop().time()
        answer = _Answer(self.model_name)
        response = await self._ask(self._body(messages, stop, kwargs), started)
        try:
            while not answer.ended:
                await self._read(response, answer, started)
                if chunk := answer.take():
                    # astream and ainvoke announce chunks themselves and give no run_manager;
                    # stream_events v3 gives one and leaves it to us, as it does to ChatOpenAI.
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk
            if answer.failure:
                raise answer.failure
            await _read_leftovers(response)
        finally:
            # Not release(), which may wait: a cancelled run hangs up at once. A response that was
            # read to its end has given its connection back before this.
            response.close()

    def _get_request_payload(
        self,
        input_: Any,  # noqa: ANN401 - as in ChatOpenAI
        *,
        stop: list[str] | None = None,
        **kwargs: Any,  # noqa: ANN401 - as in ChatOpenAI
    ) -> dict[str, Any]:
        payload = super()._get_request_payload(input_, stop=stop, **kwargs)
        # OpenAI's newer models ask for the name that ChatOpenAI uses; Mistral and others refuse it.
        if "max_completion_tokens" in payload and not self._is_openai():
            payload["max_tokens"] = payload.pop("max_completion_tokens")
        return payload

    def _is_openai(self) -> bool:
        host = self.root_async_client.base_url.host
        return any(f".{host}".endswith(name) for name in (".openai.com", ".azure.com"))

    def _body(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> bytes:
        options = {**kwargs, "stream": True, "stream_options": {"include_usage": True}}
        payload = self._get_request_payload(messages, stop=stop, **options)
        more = payload.pop("extra_body", None) or {}
        return json.dumps({**payload, **more}).encode()

    async def _ask(self, body: bytes, started: float) -> aiohttp.ClientResponse:
        """The response to a chat request, known to be an event stream."""
        try:
            async with asyncio.timeout_at(started + self.first_token_timeout_s):
                response = await self._send("POST", "chat/completions", body)
                await _expect_events(response)
                return response
        except TimeoutError as error:
            raise self._no_first_token() from error

    async def _send(
        self, method: str, path: str, body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """The response to a request, known to be a success."""
        try:
            url = URL(str(self.root_async_client.base_url)) / path
            session = self._sessions.current(url, self.openai_proxy)
            url = url.update_query(_texts(self.default_query))
            limits = aiohttp.ClientTimeout(total=None, connect=self.connect_timeout_s)
            headers = await self._headers()
            response = await _request(session, method, url, headers, body, limits)
        except aiohttp.ConnectionTimeoutError as error:
            raise self._no_connection() from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ModelUnreachable(_AWAY) from error
        await _expect_success(response)
        return response

    async def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if key := await self._key():
            headers["Authorization"] = f"Bearer {key}"
        if self.openai_organization:
            headers["OpenAI-Organization"] = self.openai_organization
        return {**headers, **_texts(self.default_headers)}

    async def _key(self) -> str | None:
        key = self.openai_api_key
        if key is None or isinstance(key, SecretStr):
            return key.get_secret_value() if key else None
        given = key()
        return await given if inspect.isawaitable(given) else given

    async def _read(
        self, response: aiohttp.ClientResponse, answer: "_Answer", started: float
    ) -> None:
        """Wait for one read and hand it to `answer`, which keeps what is wrong with it."""
        try:
            async with asyncio.timeout_at(self._deadline(answer, started)):
                data = await response.content.readany()
        except TimeoutError as error:
            self._too_late(answer, error)
        except (aiohttp.ClientError, OSError, HttpProcessingError) as error:
            log.debug("the connection to the model was lost: %s", type(error).__name__)
            answer.feed(_unread(response.content))
            answer.close()
        else:
            answer.feed(data) if data else answer.end()

    def _deadline(self, answer: "_Answer", started: float) -> float:
        if not answer.begun:
            return started + self.first_token_timeout_s
        wait = min(self.idle_timeout_s, _AFTERWORD_S) if answer.finished else self.idle_timeout_s
        return asyncio.get_running_loop().time() + wait

    def _too_late(self, answer: "_Answer", error: TimeoutError) -> None:
        """A whole answer whose usage does not come is still whole; anything else has failed."""
        if answer.finished:
            answer.close()
        elif answer.begun:
            raise self._silence() from error
        else:
            raise self._no_first_token() from error

    def _no_connection(self) -> ModelTimedOut:
        return ModelTimedOut(
            f"The model could not be reached within {self.connect_timeout_s:g} seconds. "
            "Try again later."
        )

    def _no_first_token(self) -> ModelTimedOut:
        return ModelTimedOut(
            f"The model sent no first token within {self.first_token_timeout_s:g} seconds. "
            "Try again later."
        )

    def _silence(self) -> ModelTimedOut:
        return ModelTimedOut(
            f"The model fell silent for {self.idle_timeout_s:g} seconds in the middle of its "
            "answer. Try again."
        )


class _Answer:
    """One streamed answer: bytes in, chunks out; a failure waits until its tokens are taken."""

    def __init__(self, model_name: str) -> None:
        self.begun = False
        self.failure: ModelError | None = None
        self._closed = False
        self._rest = b""
        self._tokens: list[str] = []
        self._tool_calls: list[ToolCallChunk] = []
        self._finish_reason: str | None = None
        self._model_name = model_name
        self._usage: UsageMetadata | None = None

    @property
    def finished(self) -> bool:
        """Whether the model gave a finish reason."""
        return self._finish_reason is not None

    @property
    def ended(self) -> bool:
        """Whether nothing more is to be read."""
        return self._closed or self.failure is not None

    def feed(self, data: bytes) -> None:
        """Take in the bytes of one read, cut at any place."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            self._parse(lines)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            log.debug("the model sent something that is no chunk: %s", type(error).__name__)
            self.failure = ModelUnreachable(_OTHER_PROTOCOL)
        except ModelError as error:
            self.failure = error
        if len(self._rest) > _MAX_EVENT_BYTES:
            self.failure = ModelUnreachable(_OTHER_PROTOCOL)

    def end(self) -> None:
        """The body is over; its last line may lack a line end, or be cut short."""
        if self._rest and not self.finished:
            self.feed(b"\n")
            if isinstance(self.failure, ModelUnreachable):
                self.failure = None
        self.close()

    def close(self) -> None:
        """Nothing more will come; without a finish reason the answer is not whole."""
        self._closed = True
        if not self.finished and self.failure is None:
            self.failure = ModelUnreachable(_BROKE_OFF)

    def take(self) -> ChatGenerationChunk | None:
        """All that came since the last call as one chunk; null if that is nothing."""
        is_last = self._closed and self.failure is None
        if not (self._tokens or self._tool_calls or is_last):
            return None
        text, tokens = _cleaned(self._tokens)
        message = AIMessageChunk(
            content=text,
            additional_kwargs={"tokens": tokens} if tokens else {},
            tool_call_chunks=self._tool_calls,
        )
        self._tokens, self._tool_calls = [], []
        return self._as_last(message) if is_last else ChatGenerationChunk(message=message)

    def _as_last(self, message: AIMessageChunk) -> ChatGenerationChunk:
        ending = {"finish_reason": self._finish_reason, "model_name": self._model_name}
        message.response_metadata = {"model_provider": "openai", **ending}
        message.usage_metadata = self._usage
        message.chunk_position = "last"
        return ChatGenerationChunk(message=message, generation_info=ending)

    def _parse(self, lines: list[bytes]) -> None:
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data.startswith(b"{"):
                self._note(json.loads(data.decode()))
            elif data == b"[DONE]":
                self.close()
                return
            elif data:
                raise ValueError("neither an object nor [DONE]")

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("error"):
            raise ModelReported(_REPORTED)
        if usage := event.get("usage"):
            self._usage = _usage(usage)
        if choices := event["choices"]:
            choice = choices[0]
            if delta := choice.get("delta"):
                self._note_delta(delta)
            elif "text" in choice or "message" in choice:
                raise ValueError("not a chunk of a chat")
            if reason := choice.get("finish_reason"):
                self._finish(reason, event.get("model"))

    def _note_delta(self, delta: dict[str, Any]) -> None:
        text = delta.get("content")
        if text:
            if not isinstance(text, str):
                raise TypeError("text of another shape")
            self._tokens.append(text)
            self.begun = True
        elif delta.get("reasoning_content") or delta.get("reasoning"):
            self.begun = True
        if calls := delta.get("tool_calls"):
            self.begun = True
            for call in calls:
                _add_tool_call(self._tool_calls, call)

    def _finish(self, reason: str, model_name: str | None) -> None:
        if reason == "error":
            raise ModelReported(_REPORTED)
        self.begun = True
        self._finish_reason = reason if reason in _FINISH_REASONS else "stop"
        self._model_name = str(model_name or self._model_name)


def _cleaned(tokens: list[str]) -> tuple[str, list[str]]:
    """The text of `tokens` and the tokens, without characters that must not be stored."""
    text = "".join(tokens)
    if clean(text) == text:
        return text, tokens
    tokens = [cleaned for cleaned in map(clean, tokens) if cleaned]
    return "".join(tokens), tokens


def _usage(counted: dict[str, Any]) -> UsageMetadata:
    prompt = int(counted.get("prompt_tokens") or 0)
    completion = int(counted.get("completion_tokens") or 0)
    total = int(counted.get("total_tokens") or prompt + completion)
    return UsageMetadata(input_tokens=prompt, output_tokens=completion, total_tokens=total)


def _add_tool_call(calls: list[ToolCallChunk], piece: dict[str, Any]) -> None:
    """Join `piece` to the call that it continues; LangChain joins between chunks, not in one."""
    function = piece.get("function") or {}
    name, args, call_id = function.get("name"), function.get("arguments"), piece.get("id")
    index = piece.get("index", 0)
    for call in reversed(calls):
        if call["index"] == index and (not call_id or call["id"] in (None, call_id)):
            call["name"] = (call["name"] or "") + (name or "") or None
            call["args"] = (call["args"] or "") + (args or "")
            call["id"] = call["id"] or call_id
            return
    calls.append(tool_call_chunk(name=name, args=args, id=call_id, index=index))


class _Sessions:
    """One client session for each event loop, since its connections belong to the loop."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
        # Not on first use: it reads files, which LangGraph's server forbids in an event loop.
        self._authorities = _trusted_authorities()

    def current(self, url: URL, proxy: str | None) -> aiohttp.ClientSession:
        """The running loop's session; opened on first use, with the environment's proxy if null."""
        loop = asyncio.get_running_loop()
        session = self._by_loop.get(loop)
        if session is None or session.closed:
            self._forget_closed_loops()
            session = _open_session(proxy or _proxy_for(url), self._authorities)
            self._by_loop[loop] = session
        return session

    async def aclose(self) -> None:
        """Close the session of the running loop."""
        if session := self._by_loop.pop(asyncio.get_running_loop(), None):
            await session.close()

    def _forget_closed_loops(self) -> None:
        for loop in list(self._by_loop):
            if loop.is_closed():
                self._by_loop.pop(loop).detach()


class _Sent:
    """What aiohttp did with one request."""

    on_used_connection = False


def _open_session(proxy: str | None, authorities: ssl.SSLContext) -> aiohttp.ClientSession:
    trace = aiohttp.TraceConfig()
    trace.on_connection_reuseconn.append(_note_reuse)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEPALIVE_S, ssl=authorities)
    # trust_env would also read ~/.netrc, and refuse to send our key where that has an entry.
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        trace_configs=[trace],
        proxy=proxy,
        trust_env=False,
    )


@cache
def _trusted_authorities() -> ssl.SSLContext:
    # The system's, for a company's own authority, and certifi's, as in the OpenAI client: Python
    # from python.org knows none on macOS.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


async def _note_reuse(_session: object, context: Any, _params: object) -> None:  # noqa: ANN401
    context.trace_request_ctx.on_used_connection = True


def _proxy_for(url: URL) -> str | None:
    """The environment's proxy for `url`; loopback needs none."""
    host = url.host or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxy = getproxies().get(url.scheme)
    return proxy if proxy and proxy.startswith(("http://", "https://")) else None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def _request(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: dict[str, str],
    body: bytes | None,
    limits: aiohttp.ClientTimeout,
) -> aiohttp.ClientResponse:
    async def send(sent: _Sent) -> aiohttp.ClientResponse:
        return await session.request(
            method,
            url,
            headers=headers,
            data=body,
            timeout=limits,
            allow_redirects=False,
            trace_request_ctx=sent,
        )

    sent = _Sent()
    try:
        return await send(sent)
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        if not sent.on_used_connection:
            raise
    # A kept connection that breaks before a byte of the answer was most likely closed while idle,
    # just as we wrote: the request was not seen. aiohttp repeats no POST, so this does, once.
    return await send(_Sent())


async def _expect_success(response: aiohttp.ClientResponse) -> None:
    if 200 <= response.status < 300:
        return
    log.debug("the model's endpoint answered %d", response.status)
    try:
        with suppress(aiohttp.ClientError, OSError, HttpProcessingError):
            async with asyncio.timeout(1):
                await response.content.read(_MAX_REFUSAL_BYTES)
    finally:
        response.close()
    raise ModelRefused(response.status)


async def _expect_events(response: aiohttp.ClientResponse) -> None:
    if response.content_type == "text/event-stream":
        return
    log.debug("the model's endpoint answered with %r", response.content_type)
    if not response.content_type.endswith("json"):
        response.close()
        raise ModelUnreachable(_OTHER_PROTOCOL)
    body = await _json_body(response)
    if isinstance(body, dict) and body.get("error"):
        raise ModelReported(_REPORTED)
    raise ModelUnreachable(_OTHER_PROTOCOL)


async def _json_body(response: aiohttp.ClientResponse) -> Any:  # noqa: ANN401 - any JSON
    body = bytearray()
    try:
        while data := await response.content.readany():
            body += data
            if len(body) > _MAX_BODY_BYTES:
                raise ModelUnreachable(_OTHER_PROTOCOL)
        return json.loads(body)
    except (aiohttp.ClientError, OSError, HttpProcessingError) as error:
        raise ModelUnreachable(_AWAY) from error
    except (ValueError, RecursionError) as error:
        raise ModelUnreachable(_OTHER_PROTOCOL) from error
    finally:
        response.close()


def _entries(body: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    """The models in a `/models` body: OpenAI's object, or the bare list that some send."""
    found = body.get("data") if isinstance(body, dict) else body
    if not isinstance(found, list):
        raise ModelUnreachable(_OTHER_PROTOCOL)
    return [entry for entry in found if isinstance(entry, dict)]


async def _read_leftovers(response: aiohttp.ClientResponse) -> None:
    """Read what follows `[DONE]`, so that the connection can be used again."""
    with suppress(aiohttp.ClientError, OSError, HttpProcessingError):
        async with asyncio.timeout(_LEFTOVERS_S):
            while await response.content.readany():
                pass


def _unread(content: aiohttp.StreamReader) -> bytes:
    # aiohttp raises what broke a stream before it hands out the bytes that came ahead of it.
    return b"".join(content._buffer)


def _texts(given: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (given or {}).items()}
