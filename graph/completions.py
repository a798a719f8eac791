"""One streamed chat completion: the bytes of an OpenAI-style stream in, batches out."""

import json
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import ToolCallChunk, tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk

from graph.errors import ModelError, ModelReported, ModelUnreachable
from graph.sanitizing import clean

log = logging.getLogger(__name__)

BROKE_OFF = "The model's stream broke off before the answer was complete. Try again."
OTHER_PROTOCOL = (
    "The model's endpoint does not speak the OpenAI protocol. Check the provider's base URL."
)
REPORTED = "The model reported an error instead of an answer. Check the provider and the model."

_FINISH_REASONS = frozenset({"stop", "length", "content_filter", "tool_calls"})
_MAX_EVENT_BYTES = 4 * 1024 * 1024
# Pieces of reasoning and of calls, which are no tokens of an answer. Not every model comes to an
# end.
_MOST_UNSEEN = 131_072
_MOST_COUNTED = 2**30


class Batch(NamedTuple):
    """What one read brought: tokens as the model cut them; joined they are the text.

    The last one of an answer has `finish_reason` (stop, length, content_filter or tool_calls) and
    `model_name`, and `usage` if the endpoint counts.
    """

    tokens: Sequence[str]
    tool_calls: Sequence[ToolCallChunk] = ()
    finish_reason: str | None = None
    model_name: str | None = None
    usage: UsageMetadata | None = None

    @property
    def text(self) -> str:
        """The tokens, joined."""
        return "".join(self.tokens)


class Completion:
    """One streamed answer: bytes in, batches out; a failure waits until its tokens are taken."""

    def __init__(self, model_name: str) -> None:
        self.begun = False
        self.failure: ModelError | None = None
        self._closed = False
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._unseen = 0
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
        try:
            if b"\n" in data:
                self._parse(self._lines(data))
            else:
                self._keep(data)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            log.debug("the model sent something that is no chunk: %s", type(error).__name__)
            self.failure = ModelUnreachable(OTHER_PROTOCOL)
        except ModelError as error:
            self.failure = error
        if self._rest_size > _MAX_EVENT_BYTES:
            self.failure = ModelUnreachable(OTHER_PROTOCOL)

    def end(self) -> None:
        """The body is over; its last line may lack a line end, or be cut short."""
        if self._rest_size and not self.finished:
            self.feed(b"\n")
            if isinstance(self.failure, ModelUnreachable):
                self.failure = None
        self.close()

    def close(self) -> None:
        """Nothing more will come; without a finish reason the answer is not whole."""
        self._closed = True
        if not self.finished and self.failure is None:
            self.failure = ModelUnreachable(BROKE_OFF)

    def take(self) -> Batch | None:
        """All that came since the last call; null if that is nothing."""
        is_last = self._closed and self.failure is None
        tokens, self._tokens = _cleaned(self._tokens)
        calls, self._tool_calls = self._tool_calls, []
        if not (tokens or calls or is_last):
            return None
        if not is_last:
            return Batch(tokens, calls)
        return Batch(tokens, calls, self._finish_reason, self._model_name, self._usage)

    def _lines(self, data: bytes) -> list[bytes]:
        """The lines that are whole with `data`."""
        if self._rest:
            data = b"".join([*self._rest, data])
            self._rest, self._rest_size = [], 0
        lines = data.split(b"\n")
        if rest := lines.pop():
            self._keep(rest)
        return lines

    def _keep(self, data: bytes) -> None:
        self._rest.append(data)
        self._rest_size += len(data)

    def _parse(self, lines: list[bytes]) -> None:
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data.startswith(b"{"):
                self._note(_loaded(data))
                if self._closed:
                    return
            elif data == b"[DONE]":
                self.close()
                return
            elif data:
                raise ValueError("neither an object nor [DONE]")

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("error"):
            raise ModelReported(REPORTED)
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
            self._count_unseen()
        if calls := delta.get("tool_calls"):
            self._count_unseen()
            for call in calls:
                _add_tool_call(self._tool_calls, call)

    def _count_unseen(self) -> None:
        self.begun = True
        self._unseen += 1
        if self._unseen > _MOST_UNSEEN:
            self._finish("length", None)
            self.close()

    def _finish(self, reason: str, model_name: str | None) -> None:
        if reason == "error":
            raise ModelReported(REPORTED)
        self.begun = True
        self._finish_reason = reason if reason in _FINISH_REASONS else "stop"
        self._model_name = str(model_name or self._model_name)


def chunk_of(batch: Batch) -> ChatGenerationChunk:
    """`batch` as LangChain knows it."""
    message = AIMessageChunk(
        content=batch.text,
        additional_kwargs={"tokens": batch.tokens} if batch.tokens else {},
        tool_call_chunks=list(batch.tool_calls),
    )
    if batch.finish_reason is None:
        return ChatGenerationChunk(message=message)
    ending = {"finish_reason": batch.finish_reason, "model_name": batch.model_name}
    message.response_metadata = {"model_provider": "openai", **ending}
    message.usage_metadata = batch.usage
    message.chunk_position = "last"
    return ChatGenerationChunk(message=message, generation_info=ending)


def batch_of(chunk: AIMessageChunk) -> Batch:
    """The batch that `chunk` was made of; another model's chunk counts as one token."""
    ending = chunk.response_metadata
    return Batch(
        tokens_of(chunk),
        chunk.tool_call_chunks,
        ending.get("finish_reason"),
        ending.get("model_name"),
        chunk.usage_metadata,
    )


def tokens_of(chunk: AIMessageChunk) -> tuple[str, ...]:
    """The tokens that `chunk` holds, as the model cut them; joined they are its text.

    A chunk of another model, which keeps no boundaries, counts as one token.
    """
    tokens = chunk.additional_kwargs.get("tokens")
    if tokens is None:
        return (str(chunk.text),) if chunk.text else ()
    return tuple(tokens)


def _loaded(data: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # Stricter than the standard library's, which takes NaN and half of a surrogate pair.
        return json.loads(data.decode())


def _cleaned(tokens: list[str]) -> tuple[list[str], list[str]]:
    """`tokens` without characters that must not be stored; and what waits for the next token."""
    text = tokens[0] if len(tokens) == 1 else "".join(tokens)
    # What can be printed is clean: this is the most of what models say, and found soonest.
    if text.isprintable() or clean(text) == text:
        return tokens, []
    cleaned, half = [], ""
    for token in tokens:
        # Some gateways cut a character into its surrogates.
        token = half + token
        half = token[-1] if "\ud800" <= token[-1] <= "\udbff" else ""
        cleaned.append(clean(_paired(token)))
    return list(filter(None, cleaned)), [half] if half else []


def _paired(text: str) -> str:
    """`text` with each pair of surrogates as the character that it is, and none left alone."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "ignore")


def _usage(counted: dict[str, Any]) -> UsageMetadata:
    prompt = _counted(counted.get("prompt_tokens"))
    completion = _counted(counted.get("completion_tokens"))
    total = _counted(counted.get("total_tokens")) or prompt + completion
    return UsageMetadata(input_tokens=prompt, output_tokens=completion, total_tokens=total)


def _counted(number: Any) -> int:  # noqa: ANN401 - any JSON
    """As an account can hold it, whatever the endpoint says: a wrong count loses no answer."""
    return int(min(max(0.0, float(number or 0)), _MOST_COUNTED))


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
