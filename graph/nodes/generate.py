"""Asks the model, or its fallback, and streams the answer; markers are checked on the way."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from langgraph.runtime import Runtime
from typing_extensions import TypedDict

from graph.answering import Cited, Streamed
from graph.budget import answer_share
from graph.completions import Batch
from graph.context import Context
from graph.errors import ModelError, PipelineError, PromptTooLong
from graph.events import (
    AnswerGenerated,
    ModelChosen,
    PromptComposed,
    SourcesFound,
    Warned,
)
from graph.models import EMBEDDED, Models, Resolved
from graph.prompting import Prompt, Prompting, is_json_template
from graph.state import UNSORTED, Message, State
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
    """Compose the prompt, say what may be cited and which model answers, then stream the answer.

    A model that cannot be reached before its first token is replaced by its fallback, once.

    Raises:
        PromptTooLong: the message does not fit even alone; the model is not called.
        ModelError: the model failed; the tokens before that were streamed.
    """
    context, write = runtime.context, runtime.stream_writer
    await models.refresh()
    asking = _Asking(state, runtime, models, prompting)
    begun = await asking.first_that_answers(models.resolve(context.model, context.preferred_model))
    await _pass_on(begun, runtime)
    answer = begun.answer
    write(AnswerGenerated(answer.finish_reason, answer.usage, answer.warnings))
    answer_id = context.answer_id or str(uuid.uuid4())
    return {"messages": [{"role": "assistant", "content": answer.text, "id": answer_id}]}


@dataclass(frozen=True, slots=True)
class _Begun:
    """An answer whose first token has come, or its end; `stream` has the rest."""

    answer: Streamed
    first: Batch
    stream: AsyncGenerator[Batch, None]


@dataclass(frozen=True, slots=True)
class _Asking:
    """One turn, as any model is asked it."""

    state: State
    runtime: Runtime[Context]
    models: Models
    prompting: Prompting

    async def first_that_answers(self, chosen: Resolved) -> _Begun:
        """Ask `chosen`, and its fallback where that cannot be reached; say which one answers."""
        fallback = self.models.fallback(chosen)
        if fallback is None:
            self._choose(chosen)
            return await self._ask(chosen, self._fell_through(chosen, chosen))
        try:
            begun = await self._ask(chosen, self._fell_through(chosen, chosen))
            self._choose(chosen)
        except ModelError as error:
            # Another failure, such as a wrong key, stays until somebody sees to it.
            if not error.transient:
                raise
            begun = await self._ask_instead(fallback, chosen, error)
            self._choose(fallback)
        return begun

    async def _ask_instead(self, fallback: Resolved, chosen: Resolved, error: ModelError) -> _Begun:
        """Ask the fallback; if that fails too, what the chosen model failed with is told."""
        run_id = self.runtime.context.answer_id
        log.warning("run %s: %s failed, %s is asked: %s", run_id, chosen.id, fallback.id, error)
        replaced = Warned(
            "model_fallback", f"{chosen.id} could not be reached; {fallback.id} was used."
        )
        try:
            return await self._ask(fallback, [*self._fell_through(chosen, fallback), replaced])
        except PipelineError as second:
            log.warning("run %s: the fallback %s failed too: %s", run_id, fallback.id, second)
            raise error from second

    async def _ask(self, resolved: Resolved, warnings: Sequence[Warned]) -> _Begun:
        """Send the prompt that fits this model and wait for its first token."""
        state, context, models = self.state, self.runtime.context, self.models
        window = await models.context_window(resolved)
        prompt = await _prompt(state, context, models, self.prompting, resolved, window)
        for warning in prompt.warnings:
            log.warning("run %s: %s", context.answer_id, warning.message)
        self.runtime.stream_writer(SourcesFound(tuple(prompt.sources)))
        self.runtime.stream_writer(_composed(state, prompt, warnings))
        await context.keep_up()

        question = state["messages"][-1]["content"]
        answer = Streamed() if is_json_template(state) else Cited(prompt.sources, question)
        # A small model may never come to an end by itself.
        max_tokens = answer_share(window) if resolved.slug == EMBEDDED else None
        chat = models.bound(resolved, temperature=context.temperature, max_tokens=max_tokens)
        stream = chat.batches([dict(message) for message in prompt.messages])
        # A batch holds tokens, or is the last: each stream has one at least.
        return _Begun(answer, await anext(stream), stream)

    def _choose(self, resolved: Resolved) -> None:
        self.runtime.stream_writer(ModelChosen(resolved.name, resolved.slug))

    def _fell_through(self, chosen: Resolved, used: Resolved) -> list[Warned]:
        asked = chosen.fell_through or self.runtime.context.fell_through
        if asked is None:
            return []
        message = f"No enabled model is named {asked!r}; {used.name} was used."
        return [Warned("model_not_found", message)]


async def _pass_on(begun: _Begun, runtime: Runtime[Context]) -> None:
    """Write each batch of the answer up to its end, or to the most that an answer may have."""
    answer, write, listener = begun.answer, runtime.stream_writer, runtime.context.listener
    async with aclosing(begun.stream) as stream:
        await answer.prepare()
        batch = begun.first
        while True:
            if streamed := answer.feed(batch):
                write(streamed)
                if listener:
                    await listener.keep_up()
            if answer.is_full:
                break
            if answer.rest:
                await asyncio.sleep(0)
                batch = answer.rest.pop()
                continue
            # With a default, `anext` costs more, for each token.
            try:
                batch = await anext(stream)
            except StopAsyncIteration:
                break
    if streamed := answer.close():
        write(streamed)
        await runtime.context.keep_up()


async def _prompt(
    state: State,
    context: Context,
    models: Models,
    prompting: Prompting,
    resolved: Resolved,
    window: int,
) -> Prompt:
    """The prompt; where an estimate would cut it, the model's own tokenizer has the last word."""
    if (short := prompting.short(state, context, window)) is not None:
        return short
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


def _composed(state: State, prompt: Prompt, warnings: Sequence[Warned]) -> PromptComposed:
    template = state.get("template")
    return PromptComposed(
        context_types=_context_types(state, prompt),
        template_version=template["version"] if template else None,
        prompt_version=prompt.version,
        prompt_tokens=sum(guessed_tokens(message["content"]) for message in prompt.messages),
        warnings=(*warnings, *prompt.warnings),
    )


def _context_types(state: State, prompt: Prompt) -> tuple[str, ...]:
    shown = [*prompt.documents, *(source["document_name"] for source in prompt.sources)]
    found = (type_of(path, state["output_paths"]) for path in shown)
    asked = state.get("doc_type") or UNSORTED
    return tuple(dict.fromkeys([asked, *(kind for kind in found if kind)]))
