"""One streamed chat completion: the bytes of an OpenAI-style stream in, chunks out."""

import json
import logging
from typing import Any

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


class Completion:
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
            self.failure = ModelUnreachable(OTHER_PROTOCOL)
        except ModelError as error:
            self.failure = error
        if len(self._rest) > _MAX_EVENT_BYTES:
            self.failure = ModelUnreachable(OTHER_PROTOCOL)

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
            self.failure = ModelUnreachable(BROKE_OFF)

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
            self.begun = True
        if calls := delta.get("tool_calls"):
            self.begun = True
            for call in calls:
                _add_tool_call(self._tool_calls, call)

    def _finish(self, reason: str, model_name: str | None) -> None:
        if reason == "error":
            raise ModelReported(REPORTED)
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
