"""Fixes the words of a turn when it begins: what is edited later counts for the next one."""

import asyncio
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from typing_extensions import TypedDict

from graph.context import Context
from graph.sanitizing import clean
from graph.state import UNSORTED, Prompts, Template
from graph.texts.document_types import DocumentType, version_of
from graph.texts.paths import PromptName, prompt_path
from graph.texts.rendering import is_read, render
from graph.texts.wording import Text, TextSet, Wording, text_set


class Pinned(TypedDict):
    """All words of a turn, as plain JSON; `template` is null for UNSORTED, which has none.

    `output_paths` says where the document of each type is to lie.
    """

    template: Template | None
    prompts: Prompts
    output_paths: dict[str, str]


class Pinning:
    """Pins words; in the event loop what was pinned before, which takes some 10 µs."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[Wording, set[str]] = WeakKeyDictionary()

    async def pin(
        self, wording: Wording, doc_type: str, context: Context
    ) -> tuple[Pinned, list[TextSet]]:
        """As `pin`, without holding up the event loop."""
        known = self._known.setdefault(wording, set())
        if doc_type in known and not context.edits_prompts and _is_read(wording, doc_type):
            return pin(wording, doc_type, context)
        # In a thread: what is new is parsed and compiled first, which takes milliseconds.
        pinned = await asyncio.to_thread(pin, wording, doc_type, context)
        known.add(doc_type)
        return pinned


def _is_read(wording: Wording, doc_type: str) -> bool:
    return doc_type == UNSORTED or is_read(wording.document_type(doc_type).body)


def pin(wording: Wording, doc_type: str, context: Context) -> tuple[Pinned, list[TextSet]]:
    """The words of a turn, and the sets of texts that its versions name.

    Raises:
        TemplateFailed: the type is unknown, or one of its texts is not in order.
    """
    kind = None if doc_type == UNSORTED else wording.document_type(doc_type)
    system = _prompt(wording, "draft" if kind else "answer", context)
    layout = _prompt(wording, "question", context)
    prompts = text_set((system, layout))
    pinned: Pinned = {
        "template": _rendered(kind, context) if kind else None,
        "prompts": {
            "system": system.content,
            "system_path": system.path,
            "layout": layout.content,
            "version": prompts.version,
        },
        "output_paths": wording.output_paths(),
    }
    return pinned, [prompts, *([text_set(wording.texts_of(kind))] if kind else [])]


def _prompt(wording: Wording, name: PromptName, context: Context) -> Text:
    """The prompt `name`, or what somebody put in its place for this run."""
    edited = context.edited_prompt(name)
    if edited is None:
        return wording.prompt(name)
    text = clean(edited)
    return Text(prompt_path(name), text, version_of(text), "edit")


def _rendered(kind: DocumentType, context: Context) -> Template:
    body = render(
        kind.body,
        path=kind.path,
        first_line=kind.first_line,
        project_name=context.project_name,
        date=datetime.now(UTC).date().isoformat(),
    )
    return {
        "doc_type": kind.name,
        "title": kind.about.title,
        "output_path": kind.about.output_path,
        "depends_on": kind.about.depends_on,
        "required_headings": kind.about.required_headings,
        "good": kind.about.good,
        "body": body,
        "example": kind.example or "",
        "version": kind.version,
    }
