"""Tries whether a model answers: a few words, in bounded time."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import cast

from langchain_core.messages import AIMessageChunk

from graph.errors import ModelError, ModelRefused
from graph.sanitizing import one_line
from graph.streaming import StreamingChatModel

_QUESTION = "Say hello."
_PATIENCE_S = 15.0
_FEW_TOKENS = 16
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Trial:
    """How a model answered.

    `status` is the HTTP status, null where none came. `sample` is at most 100 characters of the
    answer, or, where it is not `ok`, a sentence that says what failed.
    """

    ok: bool
    latency_ms: int
    status: int | None
    sample: str


async def try_model(chat: StreamingChatModel, name: str) -> Trial:
    """Ask the model `name` over the connections of `chat` for a few words, within 15 s."""
    few = chat.model_copy(update={"model_name": name, "max_tokens": _FEW_TOKENS})
    began = time.monotonic()
    try:
        async with asyncio.timeout(_PATIENCE_S):
            ok, status, sample = True, 200, await _sample(few)
    except TimeoutError:
        ok, status = False, None
        sample = f"The model did not answer within {_PATIENCE_S:g} seconds."
    except ModelError as error:
        ok, sample = False, str(error)
        status = error.status if isinstance(error, ModelRefused) else None
    return Trial(ok, round((time.monotonic() - began) * 1000), status, sample)


async def _sample(chat: StreamingChatModel) -> str:
    """The beginning of what the model says."""
    text = ""
    answer = cast("AsyncGenerator[AIMessageChunk]", chat.astream(_QUESTION))
    async with aclosing(answer) as stream:
        async for chunk in stream:
            text += str(chunk.text)
            if len(text) >= _SAMPLE:
                break
    return one_line(text, _SAMPLE)
