"""All texts of one project at one moment: what counts of files, edits and overrides."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

from rapidfuzz import process

from graph.errors import TemplateFailed, UnknownType
from graph.state import UNSORTED
from graph.texts.document_types import (
    DocumentType,
    FrontMatter,
    document_type,
    parsed,
    version_of,
)
from graph.texts.files import Snapshot
from graph.texts.paths import PROMPT_NAMES, PromptName, example_path, place_of, prompt_path

Layer = Literal["file", "edit", "override"]


@dataclass(frozen=True, slots=True)
class Text:
    """A text as it counts. `source` says whether that is the file, an edit of it for the whole
    service, or a project's own."""

    path: str
    content: str
    version: str
    source: Layer


@dataclass(frozen=True, slots=True)
class Replacement:
    """What somebody wrote in place of a file, whose version was `base`, null where none was."""

    content: str
    version: str
    base: str | None


Replacements = Mapping[str, Replacement]
"""By path."""

NOTHING: Replacements = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class TextSet:
    """Texts that were used together, path to content, under the version that names them.

    `is_own`: one of them is a project's own, which other projects do not see.
    """

    version: str
    parts: Mapping[str, str]
    is_own: bool


def counting(
    path: str, file: str | None, edit: Replacement | None, override: Replacement | None
) -> Text | None:
    """What counts at `path`: the project's own, else an edit of this very file, else the file."""
    if override is not None:
        return Text(path, override.content, override.version, "override")
    version = None if file is None else version_of(file)
    if edit is not None and edit.base == version:
        return Text(path, edit.content, edit.version, "edit")
    return None if file is None or version is None else Text(path, file, version, "file")


class Wording:
    """An immutable view. Every reading of it gives the same, whatever is edited meanwhile."""

    def __init__(
        self, files: Snapshot, edits: Replacements = NOTHING, own: Replacements = NOTHING
    ) -> None:
        found = {
            path: counting(path, files.contents.get(path), edits.get(path), own.get(path))
            for path in sorted({*files.contents, *edits, *own})
        }
        self.texts: Mapping[str, Text] = MappingProxyType(
            {path: text for path, text in found.items() if text}
        )
        self.problems: Mapping[str, str] = MappingProxyType(
            {path: words for path, words in files.problems.items() if path not in self.texts}
        )
        self._types: dict[str, DocumentType] = {}

    def text(self, path: str) -> Text:
        """The text at `path`.

        Raises:
            TemplateFailed: it is missing, or its file cannot be used.
        """
        if path in self.texts:
            return self.texts[path]
        raise TemplateFailed(f"{path} {self.problems.get(path, 'is missing')}.")

    def prompt(self, name: PromptName) -> Text:
        """The prompt `name`.

        Raises:
            TemplateFailed: it is missing, or its file cannot be used.
        """
        return self.text(prompt_path(name))

    def prompts(self) -> dict[PromptName, Text]:
        """The prompts that can be used."""
        return {name: self.prompt(name) for name in PROMPT_NAMES if prompt_path(name) in self.texts}

    def document_type(self, name: str) -> DocumentType:
        """The document type `name`, read once.

        Raises:
            TemplateFailed: there is no such type, or its template or example is not in order.
        """
        if name not in self._types:
            self._types[name] = self._read(name)
        return self._types[name]

    def texts_of(self, kind: DocumentType) -> list[Text]:
        """What `kind` was read from: its template, and the example where it has one."""
        example = self._example(kind.path, kind.about)
        return [self.text(kind.path), *([example] if example else [])]

    def document_types(self) -> list[DocumentType]:
        """The types in a project's course. UNSORTED has no template; faulty ones are left out."""
        return list(self._sorted_out[0])

    def faulty(self) -> dict[str, str]:
        """What is wrong with the types that `document_types` leaves out."""
        return dict(self._sorted_out[1])

    def output_paths(self) -> dict[str, str]:
        """Where the document of each type is to lie, in a project's course."""
        return {kind.name: kind.about.output_path for kind in self._sorted_out[0]}

    def knows(self, name: str) -> bool:
        """Whether `name` is UNSORTED or a type with a template."""
        return name == UNSORTED or name in self._paths

    def nearest(self, name: str) -> str:
        """A sentence that names the known types most like `name`."""
        best = process.extract(name.upper(), [UNSORTED, *self._paths], limit=3)
        return f"The nearest known types are {', '.join(match for match, _, _ in best)}."

    def _read(self, name: str) -> DocumentType:
        if name not in self._paths:
            raise UnknownType(f"There is no document type {name!r}. {self.nearest(name)}")
        path = self._paths[name]
        source = self.text(path).content
        example = self._example(path, parsed(path, source).about)
        return document_type(name, path, source, example.content if example else None)

    def _example(self, path: str, about: FrontMatter) -> Text | None:
        """The example beside the template at `path`, null where there is none.

        Raises:
            TemplateFailed: its file cannot be used.
        """
        place = place_of(path)
        assert place is not None
        assert place.phase is not None
        beside = example_path(place.phase, place.name, about.output_path)
        return self.text(beside) if beside in self.texts or beside in self.problems else None

    @cached_property
    def _paths(self) -> dict[str, str]:
        """Each type's template; the first where two folders have one name."""
        found: dict[str, str] = {}
        for path in sorted({*self.texts, *self.problems}):
            place = place_of(path)
            if place and place.kind == "template" and place.name != UNSORTED:
                found.setdefault(place.name, path)
        return found

    @cached_property
    def _sorted_out(self) -> tuple[list[DocumentType], dict[str, str]]:
        """The types in a project's course, and what is wrong with the others."""
        good: list[DocumentType] = []
        faulty: dict[str, str] = {}
        for name in self._paths:
            try:
                good.append(self.document_type(name))
            except TemplateFailed as error:
                faulty[name] = str(error)
        return sorted(good, key=lambda kind: (kind.about.order, kind.name)), faulty


def text_set(texts: Iterable[Text]) -> TextSet:
    """`texts` under the version that names them together."""
    parts = list(texts)
    return TextSet(
        version_of(*(text.content for text in parts)),
        {text.path: text.content for text in parts},
        any(text.source == "override" for text in parts),
    )


def type_of(path: str, output_paths: Mapping[str, str]) -> str | None:
    """The type whose document lies at `path`, or that `path` is named for."""
    stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    for name, output_path in output_paths.items():
        if path == output_path or stem == name:
            return name
    return None
