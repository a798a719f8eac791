"""A chat model whose stream yields, as one batch, all tokens that one read brought."""

import asyncio
import inspect
import json
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import closing
from typing import Any

import aiohttp
from langchain_core.callbacks import AsyncCallbackManager, AsyncCallbackManagerForLLMRun
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import ensure_config
from langchain_openai import ChatOpenAI
from pydantic import PrivateAttr, SecretStr
from yarl import URL

from graph.addresses import Reach
from graph.completions import Batch, Completion, batch_of, chunk_of
from graph.connections import (
    AWAY,
    LOST,
    Sessions,
    entries,
    expect_events,
    expect_success,
    json_body,
    read_leftovers,
    request,
    token_count,
    unread,
)
from graph.errors import ModelTimedOut, ModelUnreachable
from graph.pacing import Reading
from graph.uses import Uses

log = logging.getLogger(__name__)

_TOKENIZE = "tokenize"
_NO_ANSWER = "The model's endpoint did not answer within {:g} seconds."


class StreamingChatModel(ChatOpenAI):
    """A ChatOpenAI (chat completions only) with an HTTP client of its own for its streams.

    Each batch holds what one read from the socket brought, each chunk of `astream` a batch;
    `tokens_of` gives its tokens. The last chunk has `finish_reason` (stop, length, content_filter
    or tool_calls) and `model_name` in `response_metadata`, and `usage_metadata` if the endpoint
    counts. Nothing is ever retried.
    A `model_copy` shares the connections, and so their end in `aclose`. Times are in seconds.

    `batches` and `astream` raise, with the tokens before it already yielded:
        ModelTimedOut: not connected, no first token, or no read after it in time.
        ModelUnreachable: not reached, broke off, or another protocol.
        ModelRefused: another status than 2xx.
        ModelReported: an `{"error"}` object in the stream or in its place.
        ModelForbidden: the base URL leads out of `reach`; nothing was connected to.
    """

    max_retries: int | None = 0
    stream_usage: bool | None = True
    use_responses_api: bool | None = False
    connect_timeout_s: float = 10
    first_token_timeout_s: float = 60
    idle_timeout_s: float = 30
    reach: Reach | None = None
    """Where the base URL may lead; null for anywhere, as for the operator's own endpoints."""
    _sessions: Sessions = PrivateAttr(default_factory=lambda: Sessions())
    _uses: Uses = PrivateAttr(default_factory=lambda: Uses())

    def give_up(self) -> None:
        """Close the connections of all event loops, once the answers that go on have ended."""
        self._uses.give_up(self.aclose)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; the next call opens new ones."""
        await self._sessions.aclose()

    async def list_models(self, timeout_s: float) -> list[dict[str, Any]]:
        """The entries of the endpoint's `/models` as they are, within `timeout_s`.

        Raises:
            ModelError: as for `astream`.
        """
        try:
            async with self._uses.one(self.aclose), asyncio.timeout(timeout_s):
                response = await self._send("GET", "models")
                return entries(await json_body(response))
        except TimeoutError as error:
            raise ModelTimedOut(_NO_ANSWER.format(timeout_s)) from error

    async def count_tokens(self, text: str, timeout_s: float) -> int:
        """How many tokens `text` is, as llama.cpp and vLLM tell it at `/tokenize`, beside `/v1`.

        Raises:
            ModelError: as for `astream`.
        """
        # The one asks for `content`, the other for `prompt` and the model.
        asked = {"content": text, "prompt": text, "model": self.model_name}
        body = json.dumps({**asked, "add_special_tokens": False}).encode()
        try:
            async with self._uses.one(self.aclose), asyncio.timeout(timeout_s):
                response = await self._send("POST", _TOKENIZE, body)
                return token_count(await json_body(response))
        except TimeoutError as error:
            raise ModelTimedOut(_NO_ANSWER.format(timeout_s)) from error

    def batches(self, asked: LanguageModelInput) -> AsyncGenerator[Batch, None]:
        """What `astream` gives, without LangChain's work on each chunk where nobody hears it."""
        return self._heard(asked) if self._is_heard() else self._answer(asked, None, {})

    async def _heard(self, asked: LanguageModelInput) -> AsyncGenerator[Batch, None]:
        async for chunk in self.astream(asked):
            yield batch_of(chunk)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        *,
        stream_usage: bool | None = None,
        **kwargs: Any,  # noqa: ANN401 - as in ChatOpenAI
    ) -> AsyncIterator[ChatGenerationChunk]:
        async for batch in self._answer(messages, stop, kwargs):
            chunk = chunk_of(batch)
            # astream and ainvoke announce chunks themselves and give no run_manager;
            # stream_events v3 gives one and leaves it to us, as it does to ChatOpenAI.
            if run_manager:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    async def _answer(
        self, asked: LanguageModelInput, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> AsyncGenerator[Batch, None]:
        started = asyncio.get_running_loop().time()
        answer = Completion(self.model_name)
        async with self._uses.one(self.aclose):
            response = await self._ask(self._body(asked, stop, kwargs), started)
            first_token_by = started + self.first_token_timeout_s
            reading = Reading(response.content, first_token_by, self.idle_timeout_s)
            try:
                with closing(reading):
                    while not answer.ended:
                        await self._read(reading, answer)
                        if batch := answer.take():
                            yield batch
                if answer.failure:
                    raise answer.failure
                await read_leftovers(response)
            finally:
                # Not release(), which may wait: a cancelled run hangs up at once. A response that
                # was read to its end has given its connection back before this.
                response.close()

    def _is_heard(self) -> bool:
        """Whether anybody is told what is asked: a tracer, LangGraph's `messages`, a callback."""
        callbacks = ensure_config().get("callbacks")
        return bool(
            AsyncCallbackManager.configure(callbacks, self.callbacks, self.verbose).handlers
        )

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:  # noqa: ANN401 - as in ChatOpenAI
        self._must_be_free()
        return super()._generate(*args, **kwargs)

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:  # noqa: ANN401
        self._must_be_free()
        return super()._stream(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:  # noqa: ANN401
        self._must_be_free()
        return await super()._agenerate(*args, **kwargs)

    def _must_be_free(self) -> None:
        # ChatOpenAI's own clients know of no reach, and follow redirects.
        if self.reach is not None:
            raise NotImplementedError("a model with a reach answers through astream only")

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
        self, asked: LanguageModelInput, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> bytes:
        options = {**kwargs, "stream": True, "stream_options": {"include_usage": True}}
        payload = self._get_request_payload(asked, stop=stop, **options)
        more = payload.pop("extra_body", None) or {}
        return json.dumps({**payload, **more}).encode()

    async def _ask(self, body: bytes, started: float) -> aiohttp.ClientResponse:
        """The response to a chat request, known to be an event stream."""
        try:
            async with asyncio.timeout_at(started + self.first_token_timeout_s):
                response = await self._send("POST", "chat/completions", body)
                await expect_events(response)
                return response
        except TimeoutError as error:
            raise self._no_first_token() from error

    def _url(self, path: str) -> URL:
        base = URL(str(self.root_async_client.base_url).rstrip("/"))
        return (base.parent if path == _TOKENIZE and base.name == "v1" else base) / path

    async def _send(
        self, method: str, path: str, body: bytes | None = None
    ) -> aiohttp.ClientResponse:
        """The response to a request, known to be a success."""
        try:
            url = self._url(path)
            session = self._sessions.current(url, self.openai_proxy, self.reach)
            url = url.update_query(_texts(self.default_query))
            limits = aiohttp.ClientTimeout(total=None, connect=self.connect_timeout_s)
            headers = await self._headers()
            response = await request(session, method, url, headers, body, limits)
        except aiohttp.ConnectionTimeoutError as error:
            raise self._no_connection() from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ModelUnreachable(AWAY) from error
        await expect_success(response)
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

    async def _read(self, reading: Reading, answer: Completion) -> None:
        """Wait for one read and hand it to `answer`, which keeps what is wrong with it."""
        try:
            data = await reading.next(answer)
        except TimeoutError as error:
            self._too_late(answer, error)
        except LOST as error:
            log.debug("the connection to the model was lost: %s", type(error).__name__)
            answer.feed(unread(reading.content))
            answer.close()
        else:
            answer.feed(data) if data else answer.end()

    def _too_late(self, answer: Completion, error: TimeoutError) -> None:
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


def _texts(given: Mapping[str, object] | None) -> dict[str, str]:
    return {name: str(value) for name, value in (given or {}).items()}
