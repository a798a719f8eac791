"""Asks the model and streams its answer, with citation markers checked on the way."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from langchain.messages import AIMessageChunk
from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from graph.budget import answer_share
from graph.citations import MarkerCheck
from graph.context import Context
from graph.errors import PromptTooLong
from graph.events import (
    AnswerGenerated,
    FinishReason,
    ModelChosen,
    PromptComposed,
    SourcesFound,
    TokensStreamed,
    Usage,
    Warned,
)
from graph.marking import Check, Marking
from graph.models import EMBEDDED, Models, Resolved
from graph.prompting import Prompt, Prompting
from graph.state import UNSORTED, Message, Source, State
from graph.streaming import tokens_of
from graph.support import Evidence
from graph.texts.paths import is_json
from graph.texts.wording import type_of
from graph.tokens import guessed_tokens

log = logging.getLogger(__name__)


class Generated(TypedDict):
    """What this step adds to the conversation."""

    messages: list[Message]


async def generate(
    state: State,
    runtime: Runtime[Context],
    *,
    models: Models,
    prompting: Prompting,
) -> Generated:
    """Compose the prompt, say what may be cited, then stream the answer.

    Raises:
        PromptTooLong: the message does not fit even alone; the model is not called.
        ModelError: the model failed; the tokens before that were streamed.
    """
    context, write = runtime.context, runtime.stream_writer
    resolved = models.resolve(context.model, context.preferred_model)
    write(ModelChosen(resolved.name, resolved.slug))
    window = await models.context_window(resolved)
    prompt = await _prompt(state, context, models, prompting, resolved, window)
    for warning in prompt.warnings:
        log.warning("run %s: %s", context.answer_id, warning.message)
    write(SourcesFound(tuple(prompt.sources)))
    write(_composed(state, prompt, resolved))

    answer = _Streamed() if _is_json(state) else _Cited(state, prompt.sources)
    # A small model may never come to an end by itself.
    max_tokens = answer_share(window) if resolved.slug == EMBEDDED else None
    chat = models.bound(resolved, temperature=context.temperature, max_tokens=max_tokens)
    stream = chat.astream([dict(message) for message in prompt.messages])
    async for batch in answer.read(stream):
        write(batch)

    write(AnswerGenerated(answer.finish_reason, answer.usage, answer.warnings))
    answer_id = context.answer_id or str(uuid.uuid4())
    return {"messages": [{"role": "assistant", "content": answer.text, "id": answer_id}]}


async def _prompt(
    state: State,
    context: Context,
    models: Models,
    prompting: Prompting,
    resolved: Resolved,
    window: int,
) -> Prompt:
    """The prompt; where an estimate would cut it, the model's own tokenizer has the last word."""
    # In a thread: `project_context` may be megabytes, which are scanned and measured.
    compose = partial(prompting.compose, state, context, window)
    try:
        prompt = await asyncio.to_thread(compose)
    except PromptTooLong:
        if (count := await models.tokenizer(resolved)) is None:
            raise
    else:
        if not prompt.is_cut or (count := await models.tokenizer(resolved)) is None:
            return prompt
    return await asyncio.to_thread(compose, count)


class _Streamed:
    """The answer as far as it came. Nothing is changed: a marker in JSON would be a number."""

    def __init__(self) -> None:
        self._tokens: list[str] = []
        self.finish_reason: FinishReason = "stop"
        self.usage = Usage()

    async def read(self, stream: AsyncIterator[Any]) -> AsyncIterator[TokensStreamed]:
        """The tokens of each batch; empty batches are passed over."""
        async for chunk in stream:
            self._note(chunk)
            if tokens := [token for token in tokens_of(chunk) if token]:
                yield self._streamed(tokens)

    def _streamed(self, tokens: Sequence[str], checks: tuple[Check, ...] = ()) -> TokensStreamed:
        self._tokens += tokens
        return TokensStreamed(tuple(tokens), checks)

    def _note(self, chunk: AIMessageChunk) -> None:
        if chunk.usage_metadata:
            self.usage = Usage(
                chunk.usage_metadata["input_tokens"], chunk.usage_metadata["output_tokens"]
            )
        reason = chunk.response_metadata.get("finish_reason")
        if reason in ("length", "content_filter"):
            self.finish_reason = reason

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self._tokens)

    @property
    def warnings(self) -> tuple[Warned, ...]:
        """What is odd about the finished answer."""
        if self.text.strip():
            return ()
        return (Warned("empty_answer", "The model came to its end without a word."),)


class _Cited(_Streamed):
    """An answer with markers that stand."""

    def __init__(self, state: State, sources: list[Source]) -> None:
        super().__init__()
        self._check = MarkerCheck(len(sources))
        # In a thread, and while the model reads its prompt: it takes some 20 ms.
        question = state["messages"][-1]["content"]
        self._evidence = asyncio.get_running_loop().run_in_executor(
            None, Evidence, sources, question
        )

    async def read(self, stream: AsyncIterator[Any]) -> AsyncIterator[TokensStreamed]:
        """The tokens of each batch, with markers that stand; empty batches are passed over."""
        marking: Marking | None = None
        async for chunk in stream:
            marking = marking or Marking(await self._evidence)
            self._note(chunk)
            if tokens := marking.feed(self._check.feed(tokens_of(chunk))):
                yield self._streamed(tokens, marking.checks())
        if marking and (tokens := [*marking.feed(self._check.close()), *marking.close()]):
            yield self._streamed(tokens, marking.checks())


def _is_json(state: State) -> bool:
    template = state.get("template")
    return template is not None and is_json(template["output_path"])


def _composed(state: State, prompt: Prompt, resolved: Resolved) -> PromptComposed:
    template = state.get("template")
    return PromptComposed(
        context_types=_context_types(state, prompt),
        template_version=template["version"] if template else None,
        prompt_version=prompt.version,
        prompt_tokens=sum(guessed_tokens(message["content"]) for message in prompt.messages),
        warnings=(*_model_warnings(resolved), *prompt.warnings),
    )


def _model_warnings(resolved: Resolved) -> list[Warned]:
    if resolved.fell_through is None:
        return []
    return [
        Warned(
            "model_not_found",
            f"No enabled model is named {resolved.fell_through!r}; {resolved.name} was used.",
        )
    ]


def _context_types(state: State, prompt: Prompt) -> tuple[str, ...]:
    shown = [*prompt.documents, *(source["document_name"] for source in prompt.sources)]
    found = (type_of(path, state["output_paths"]) for path in shown)
    asked = state.get("doc_type") or UNSORTED
    return tuple(dict.fromkeys([asked, *(kind for kind in found if kind)]))
