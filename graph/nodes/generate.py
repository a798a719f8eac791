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

from graph.budget import answer_share
from graph.citations import MarkerCheck
from graph.completions import Batch
from graph.context import Context
from graph.errors import ModelError, PipelineError, PromptTooLong
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
from graph.prompting import Prompt, Prompting, is_json_template
from graph.state import UNSORTED, Message, Source, State
from graph.support import Evidence
from graph.texts.wording import type_of
from graph.tokens import guessed_tokens

log = logging.getLogger(__name__)

_CUT_SHORT: dict[str, FinishReason] = {"length": "length", "content_filter": "content_filter"}
MOST_TOKENS, MOST_CHARACTERS = 131_072, 1_000_000
"""Of one answer: as much as the largest models give. Some never come to an end by themselves."""
PORTION = 2_000
"""Characters that are looked at in one go: that takes some 20 ms, in which nobody else is served.

Some endpoints send a whole answer as one token.
"""
_READ_AT_ONCE = 15_000


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

    answer: "_Streamed"
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

        answer = _Streamed() if is_json_template(state) else _Cited(state, prompt.sources)
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


class _Streamed:
    """The answer as far as it came. Nothing is changed: a marker in JSON would be a number."""

    def __init__(self) -> None:
        self._tokens: list[str] = []
        self._token_count = self._character_count = 0
        self.is_full = False
        self.rest: list[Batch] = []
        self.finish_reason: FinishReason = "stop"
        self.usage = Usage()

    async def prepare(self) -> None:
        """Wait for what `feed` needs."""

    def feed(self, batch: Batch) -> TokensStreamed | None:
        """The tokens of `batch`; null for an empty one.

        Of one with much text the first portion; the others are then in `rest`, the last one first.
        """
        tokens = list(filter(None, self._note(batch)))
        return self._streamed(tokens) if tokens else None

    def close(self) -> TokensStreamed | None:
        """What waited for more, at the answer's end; null for nothing."""
        return None

    def _streamed(self, tokens: Sequence[str], checks: tuple[Check, ...] = ()) -> TokensStreamed:
        self._tokens += tokens
        return TokensStreamed(tuple(tokens), checks)

    def _note(self, batch: Batch) -> Sequence[str]:
        """Its tokens, or those of its first portion."""
        size = sum(map(len, batch.tokens))
        if size > PORTION:
            batch, *rest = _portions(batch)
            self.rest = rest[::-1]
            size = sum(map(len, batch.tokens))
        if batch.usage:
            self.usage = Usage(batch.usage["input_tokens"], batch.usage["output_tokens"])
        if batch.finish_reason:
            self.finish_reason = _CUT_SHORT.get(batch.finish_reason, self.finish_reason)
        self._token_count += len(batch.tokens)
        self._character_count += size
        # Not every model comes to an end.
        if self._token_count >= MOST_TOKENS or self._character_count >= MOST_CHARACTERS:
            self.is_full = True
            self.finish_reason = "length"
        return batch.tokens

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
        evidence = Evidence(sources, state["messages"][-1]["content"])
        self._marking = Marking(evidence)
        self._reading: asyncio.Future[None] | None = None
        # What takes more than some 6 ms is read in a thread, while the model reads its prompt.
        if sum(len(source["text"]) for source in sources) > _READ_AT_ONCE:
            self._reading = asyncio.get_running_loop().run_in_executor(None, evidence.read)

    async def prepare(self) -> None:
        """Wait until long sources are read."""
        if self._reading:
            await self._reading

    def feed(self, batch: Batch) -> TokensStreamed | None:
        """The tokens of `batch`, with markers that stand; null for none. As in the base."""
        return self._marked(self._marking.feed(self._check.feed(self._note(batch))))

    def close(self) -> TokensStreamed | None:
        """What waited for more, with markers that stand; null for nothing."""
        return self._marked([*self._marking.feed(self._check.close()), *self._marking.close()])

    def _marked(self, tokens: Sequence[str]) -> TokensStreamed | None:
        return self._streamed(tokens, self._marking.checks()) if tokens else None


def _portions(batch: Batch) -> list[Batch]:
    """`batch` in several of at most `PORTION` characters; the last one has what is not text."""
    portions: list[list[str]] = []
    room = 0
    for token in batch.tokens:
        for at in range(0, len(token), PORTION):
            piece = token[at : at + PORTION]
            if len(piece) > room:
                portions.append([])
                room = PORTION
            portions[-1].append(piece)
            room -= len(piece)
    *others, last = portions
    return [*map(Batch, others), batch._replace(tokens=last)]


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
