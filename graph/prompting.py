"""Puts a turn, its template and its sources together into the messages that the model reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from graph.budget import Budget, Part
from graph.context import Context
from graph.events import Warned
from graph.fences import Fences
from graph.injections import injection_phrases
from graph.sanitizing import one_line
from graph.state import UNSORTED, Message, Prompts, Source, State, Template
from graph.texts.paths import is_json, prompt_path
from graph.texts.rendering import render


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model is asked, and what of the material it was shown.

    `sources` are numbered from 1 in this order. `documents` are the paths of the project's
    documents, from `project_context`, that reached the prompt.
    """

    messages: list[Message]
    sources: list[Source]
    documents: list[str]
    version: str
    warnings: list[Warned]


class Prompting:
    """Composes prompts from the words that the turn began with."""

    def __init__(self) -> None:
        self._fences = Fences()

    def compose(self, state: State, context: Context, window: int) -> Prompt:
        """The prompt for this turn, fitted to `window` tokens.

        System prompt, template and question are never cut. Then come, by weight: documents that
        the type depends on, sources, the example, other documents, older history.

        Raises:
            PromptTooLong: the message does not fit even alone.
            TemplateFailed: a prompt cannot be rendered.
        """
        template = state.get("template")
        question = state["messages"][-1]["content"]
        prompts = state["prompts"]
        instructions = _render_system(prompts, state, context, template)
        asked = self._fences.wrap("question", question)
        fixed = self._template(template)

        budget = Budget(window)
        budget.take(instructions, asked, prompts["layout"], *fixed)
        needed, others = _by_dependency(state.get("project_context") or {}, template)
        found = [*state.get("passages", []), *state.get("web_results", [])]

        kept_needed = budget.fit(self._documents(needed))
        sources = _keep_sources(budget, found)
        example = budget.fit(self._example(template))
        kept_others = budget.fit(self._documents(others))
        history = self._history(budget, _spoken(state["messages"][:-1]))

        blocks = [
            *fixed,
            *(self._fences.wrap("example", part.text) for part in example),
            *(self._document(part) for part in (*kept_needed, *kept_others)),
            *(self._source(n, source) for n, source in enumerate(sources, 1)),
        ]
        asking = render(
            prompts["layout"],
            path=prompt_path("question"),
            material="\n\n".join(blocks),
            question=asked,
        )
        return Prompt(
            messages=[
                {"role": "system", "content": instructions},
                *history,
                {"role": "user", "content": asking.strip()},
            ],
            sources=sources,
            documents=[part.label for part in (*kept_needed, *kept_others)],
            version=prompts["version"],
            warnings=[*budget.warnings, *_injections(question, sources, {**needed, **others})],
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
        return [Part("The example", example)] if example else []

    def _documents(self, documents: dict[str, str]) -> list[Part]:
        return [Part(path, text, divisible=True) for path, text in documents.items()]

    def _document(self, part: Part) -> str:
        return self._fences.wrap("document", part.text, path=part.label)

    def _source(self, number: int, source: Source) -> str:
        return self._fences.wrap(
            "source",
            source["text"],
            number=number,
            name=source["document_name"],
            page=source["page_number"],
        )

    def _history(self, budget: Budget, messages: Sequence[Message]) -> list[Message]:
        """The newest messages that fit, oldest first; the first that does not ends them."""
        kept: list[Message] = []
        for message in reversed(messages):
            if not budget.fits(message["content"]):
                older = len(messages) - len(kept)
                budget.warn(f"The {older} oldest messages of the history were left out to fit.")
                break
            kept.append(self._remembered(message))
        return kept[::-1]

    def _remembered(self, message: Message) -> Message:
        if message["role"] == "assistant":
            return {"role": "assistant", "content": message["content"]}
        kind = "note" if message["role"] == "system" else "question"
        return {"role": "user", "content": self._fences.wrap(kind, message["content"])}


def _spoken(messages: Sequence[Message]) -> list[Message]:
    """Without the empty answers of runs that failed early, which some providers refuse."""
    return [message for message in messages if message["content"].strip()]


def _render_system(
    prompts: Prompts, state: State, context: Context, template: Template | None
) -> str:
    json = template is not None and is_json(template["output_path"])
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


def _by_dependency(
    documents: dict[str, str], template: Template | None
) -> tuple[dict[str, str], dict[str, str]]:
    """`documents` parted into those that the type depends on and the others."""
    depends_on = set(template["depends_on"]) if template else set()
    needed = {path: text for path, text in documents.items() if _stem(path) in depends_on}
    return needed, {path: text for path, text in documents.items() if path not in needed}


def _stem(path: str) -> str:
    return path.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _keep_sources(budget: Budget, found: Sequence[Source]) -> list[Source]:
    kept = [source for source in found if budget.fits(source["text"], source["document_name"])]
    if len(kept) < len(found):
        budget.warn(f"{len(found) - len(kept)} of {len(found)} sources were left out to fit.")
    return kept


def _injections(
    question: str, sources: Sequence[Source], documents: dict[str, str]
) -> list[Warned]:
    places = [
        ("The message", question),
        *((f"The source {source['document_name']!r}", source["text"]) for source in sources),
        *((f"The document {path!r}", text) for path, text in documents.items()),
    ]
    return [
        Warned("injection_attempt", f"{place} holds a known injection phrasing: {phrase}.")
        for place, phrase in dict.fromkeys(
            (place, phrase) for place, text in places for phrase in injection_phrases(text)
        )
    ]
