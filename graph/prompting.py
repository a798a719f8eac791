"""Puts a turn, its template and its sources together into the messages that the model reads."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b
from itertools import islice
from typing import Generic, TypeVar

from graph.budget import Budget, Part
from graph.context import Context
from graph.errors import PromptTooLong
from graph.events import Warned
from graph.fences import Fences
from graph.injections import injection_phrases
from graph.sanitizing import one_line
from graph.state import UNSORTED, Message, Prompts, Source, State, Template
from graph.texts.paths import is_json, prompt_path
from graph.texts.rendering import is_read, render
from graph.texts.wording import type_of
from graph.tokens import Count, byte_count, most_tokens

_SHORT = 50_000
# Characters that take as long as it takes to put delimiters around one document.
_OF_DELIMITERS = 100
_MOST_KEPT = 4_096
_WORTH_COUNTING_ONCE = 1_000
_MOST_INJECTIONS = 50

_Found = TypeVar("_Found")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked, and what of the material it was shown.

    `sources` are numbered from 1 in this order. `documents` are the paths or names of the
    project's documents that reached the prompt whole or in part, `is_cut` says that not all did.
    """

    messages: list[Message]
    sources: list[Source]
    documents: list[str]
    version: str
    is_cut: bool
    warnings: list[Warned]


class Prompting:
    """Composes prompts from the words that the turn began with."""

    def __init__(self) -> None:
        self._fences = Fences()
        self._estimate = _Remembered(most_tokens, _WORTH_COUNTING_ONCE)
        self._phrases = _Remembered(injection_phrases)

    def short(self, state: State, context: Context, window: int) -> Prompt | None:
        """The prompt for this turn if it is put together within 3 ms, else null.

        Raises:
            TemplateFailed: as `compose`.
        """
        prompts = state["prompts"]
        if _length(state) > _SHORT or not (
            is_read(prompts["system"]) and is_read(prompts["layout"])
        ):
            return None
        prompt = self._uncut(state, context, window)
        return self._warned(prompt, state) if prompt else None

    def compose(
        self, state: State, context: Context, window: int, count: Count | None = None
    ) -> Prompt:
        """The prompt for this turn, fitted to `window` tokens.

        System prompt, template and question are never cut. Then come, by weight: documents that
        the type depends on, sources, the example, other documents, older history. Without `count`
        tokens are estimated, and not even that where the bytes already fit.

        Raises:
            PromptTooLong: the message does not fit even alone.
            TemplateFailed: a prompt cannot be rendered.
        """
        prompt = None if count else self._uncut(state, context, window)
        if prompt is None:
            prompt = self._fitted(state, context, Budget(window, count or self._estimate))
        return self._warned(prompt, state)

    def _warned(self, prompt: Prompt, state: State) -> Prompt:
        found = self._injections(state, prompt.sources)
        return replace(prompt, warnings=[*prompt.warnings, *found]) if found else prompt

    def _uncut(self, state: State, context: Context, window: int) -> Prompt | None:
        """The prompt if it fits even where each byte is a token, which is quickly said."""
        with suppress(PromptTooLong):
            prompt = self._fitted(state, context, Budget(window, byte_count))
            return None if prompt.is_cut else prompt
        return None

    def _fitted(self, state: State, context: Context, budget: Budget) -> Prompt:
        template = state.get("template")
        prompts = state["prompts"]
        instructions = _render_system(prompts, state, context)
        asked = self._fences.wrap("question", state["messages"][-1]["content"])
        fixed = self._template(template)
        needed, others = _by_dependency(state)

        budget.take(instructions, asked, prompts["layout"], *fixed)
        documents = budget.fit_shortened(self._documents(needed))
        sources, cited = self._fitted_sources(budget, _found(state))
        example = budget.fit(self._example(template))
        documents += budget.fit_shortened(self._documents(others))
        history = self._fitted_history(budget, _spoken(state["messages"][:-1]))

        shown = [*fixed, *(part.block for part in (*example, *documents, *cited))]
        return Prompt(
            messages=[
                {"role": "system", "content": instructions},
                *history,
                {"role": "user", "content": _render_question(prompts, shown, asked)},
            ],
            sources=sources,
            documents=[part.name for part in documents],
            version=prompts["version"],
            is_cut=bool(budget.warnings),
            warnings=budget.warnings,
        )

    def _template(self, template: Template | None) -> list[str]:
        if not template:
            return []
        criteria = "\n".join(f"- {criterion}" for criterion in template["good"])
        return [
            self._fences.wrap("template", template["body"]),
            *([self._fences.wrap("criteria", criteria)] if criteria else []),
        ]

    def _example(self, template: Template | None) -> list[Part]:
        example = template["example"] if template else ""
        wrap = partial(self._fences.wrap, "example")
        return [Part("", "the example", example, wrap)] if example else []

    def _documents(self, documents: Mapping[str, str]) -> list[Part]:
        wrap = partial(self._fences.wrap, "document")
        return [
            Part(path, f"the document {path!r}", text, partial(wrap, path=path))
            for path, text in documents.items()
        ]

    def _fitted_sources(
        self, budget: Budget, found: list[Source]
    ) -> tuple[list[Source], list[Part]]:
        # A number takes room too; that of a source only falls when others are left out.
        parts = self._numbered(found)
        kept = set(map(id, budget.fit(parts)))
        if len(kept) == len(parts):
            return found, parts
        sources = [source for source, part in zip(found, parts, strict=True) if id(part) in kept]
        return sources, self._numbered(sources)

    def _numbered(self, sources: Sequence[Source]) -> list[Part]:
        return [self._source(number, source) for number, source in enumerate(sources, 1)]

    def _source(self, number: int, source: Source) -> Part:
        name, page = source["document_name"], source["page_number"]
        place = f"{name!r}" if page is None else f"{name!r}, page {page}"
        wrap = partial(self._fences.wrap, "source", number=number, name=name, page=page)
        return Part(source["id"], f"the source {place}", source["text"], wrap)

    def _fitted_history(self, budget: Budget, messages: Sequence[Message]) -> list[Message]:
        remembered = [self._remembered(message) for message in messages]
        parts = [Part("", "", message["content"]) for message in remembered]
        kept = budget.fit_newest(parts, "messages of the history")
        return remembered[len(remembered) - len(kept) :]

    def _remembered(self, message: Message) -> Message:
        if message["role"] == "assistant":
            return {"role": "assistant", "content": message["content"]}
        kind = "note" if message["role"] == "system" else "question"
        return {"role": "user", "content": self._fences.wrap(kind, message["content"])}

    def _injections(self, state: State, sources: Sequence[Source]) -> list[Warned]:
        *before, asked = state["messages"]
        places = [
            ("The message", asked["content"]),
            *(("The history", one["content"]) for one in before if one["role"] != "assistant"),
            *((f"The source {source['document_name']!r}", source["text"]) for source in sources),
            *((f"The document {path!r}", text) for path, text in _documents_of(state).items()),
        ]
        found = dict.fromkeys(
            (place, phrase) for place, text in places for phrase in self._phrases(text)
        )
        return [
            Warned("injection_attempt", f"{place} holds a known injection phrasing: {phrase}.")
            for place, phrase in islice(found, _MOST_INJECTIONS)
        ]


def is_json_template(state: State) -> bool:
    """Whether the turn drafts a document that is JSON."""
    template = state.get("template")
    return template is not None and is_json(template["output_path"])


def _spoken(messages: Sequence[Message]) -> list[Message]:
    """Without the empty answers of runs that failed early, which some providers refuse."""
    return [message for message in messages if message["content"].strip()]


def _render_system(prompts: Prompts, state: State, context: Context) -> str:
    template, json = state.get("template"), is_json_template(state)
    return render(
        prompts["system"],
        path=prompts["system_path"],
        user_name=one_line(state.get("user_name") or "", 100) or "Developer",
        today=datetime.now(UTC).date().isoformat(),
        instructions=context.instructions,
        doc_type=template["doc_type"] if template else UNSORTED,
        title=template["title"] if template else "",
        format="JSON" if json else "Markdown",
        is_json="yes" if json else "",
    ).strip()


def _render_question(prompts: Prompts, material: Sequence[str], question: str) -> str:
    return render(
        prompts["layout"],
        path=prompt_path("question"),
        material="\n\n".join(material),
        question=question,
    ).strip()


def _documents_of(state: State) -> dict[str, str]:
    return {**state.get("documents", {}), **(state.get("project_context") or {})}


def _by_dependency(state: State) -> tuple[dict[str, str], dict[str, str]]:
    """The project's documents: those that the type depends on, in that order, and the others."""
    template, output_paths = state.get("template"), state["output_paths"]
    documents = _documents_of(state)
    types = {path: type_of(path, output_paths) for path in documents}
    needed = {
        path: documents[path]
        for kind in (template["depends_on"] if template else [])
        for path in documents
        if types[path] == kind
    }
    return needed, {path: text for path, text in documents.items() if path not in needed}


def _length(state: State) -> int:
    """The characters of what a turn brought and found; its words come from the operator."""
    documents = _documents_of(state)
    return (
        sum(len(message["content"]) for message in state["messages"])
        + sum(len(path) + len(text) + _OF_DELIMITERS for path, text in documents.items())
        + sum(len(source["text"]) for source in _found(state))
    )


def _found(state: State) -> list[Source]:
    return [*state.get("passages", []), *state.get("web_results", [])]


class _Remembered(Generic[_Found]):
    """What `find` finds in texts, of which the same come with many turns.

    It is kept under the digests of a few thousand texts that have at least `shortest` characters.
    """

    def __init__(self, find: Callable[[str], _Found], shortest: int = 0) -> None:
        self._find = find
        self._shortest = shortest
        self._known: dict[bytes, _Found] = {}

    def __call__(self, text: str) -> _Found:
        if len(text) < self._shortest:
            return self._find(text)
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if (found := self._known.get(digest)) is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            found = self._known[digest] = self._find(text)
        return found
