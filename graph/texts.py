"""The words in `prompts/` and `templates/`: loaded, read again when they change, rendered."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar

import frontmatter
from jinja2 import StrictUndefined, TemplateError
from jinja2 import Template as JinjaTemplate
from jinja2.sandbox import ImmutableSandboxedEnvironment
from pydantic import BaseModel, ConfigDict, ValidationError
from rapidfuzz import process

from graph.context import PROMPT_NAMES, PromptName
from graph.errors import TemplateFailed
from graph.state import UNSORTED

T = TypeVar("T")


class FrontMatter(BaseModel):
    """What a template says of itself; `good` is what a good document of this type does."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    phase: str
    output_path: str
    depends_on: list[str]
    required_headings: list[str]
    good: list[str]


@dataclass(frozen=True, slots=True)
class Text:
    """A text as it stands in its file, and the first 12 hex digits of its SHA-256."""

    text: str
    version: str


@dataclass(frozen=True, slots=True)
class DocumentType:
    """A document type: its front matter, the template's body, the example, and their version."""

    name: str
    about: FrontMatter
    body: str
    example: str
    version: str


class Texts:
    """Reads the two folders. A file is read again only when its time or size has changed."""

    def __init__(self, prompts_dir: Path, templates_dir: Path) -> None:
        self._prompts_dir = prompts_dir
        self._templates_dir = templates_dir
        self._prompts = _Cache(_read_prompt)
        self._types = _Cache(_read_document_type)

    def prompt(self, name: PromptName) -> Text:
        """The prompt in `prompts/<name>.md`.

        Raises:
            TemplateFailed: the file is missing or cannot be read.
        """
        path = self._prompts_dir / f"{name}.md"
        return self._prompts.get(path.stem, (path,))

    def prompts(self) -> dict[PromptName, Text]:
        """Every prompt that the pipeline uses."""
        return {name: self.prompt(name) for name in PROMPT_NAMES}

    def document_type(self, name: str) -> DocumentType:
        """The document type `name`.

        Raises:
            TemplateFailed: there is no such type, or its template or example is not in order.
        """
        folder = self._folders().get(name)
        if folder is None:
            raise TemplateFailed(f"There is no document type {name!r}. {self.nearest(name)}")
        return self._types.get(name, (folder / "template.md", folder / "example.md"))

    def document_types(self) -> list[DocumentType]:
        """All document types but UNSORTED, which has no template, by phase and name."""
        return [self.document_type(name) for name in self._folders()]

    def knows(self, name: str) -> bool:
        """Whether `name` is UNSORTED or a type with a template."""
        return name == UNSORTED or name in self._folders()

    def nearest(self, name: str) -> str:
        """A sentence that names the known types most like `name`."""
        known = [UNSORTED, *self._folders()]
        best = process.extract(name.upper(), known, limit=3)
        return f"The nearest known types are {', '.join(match for match, _, _ in best)}."

    def _folders(self) -> dict[str, Path]:
        found = sorted(self._templates_dir.glob("*/*/template.md"))
        return {path.parent.name: path.parent for path in found}


class _Cache(Generic[T]):
    """Results of reading files, kept until one of the files changes."""

    def __init__(self, read: Callable[[str, tuple[Path, ...]], T]) -> None:
        self._read = read
        self._known: dict[str, tuple[object, T]] = {}

    def get(self, name: str, paths: tuple[Path, ...]) -> T:
        try:
            stamp = tuple((s.st_mtime_ns, s.st_size, s.st_ino) for s in map(Path.stat, paths))
            known = self._known.get(name)
            if known is None or known[0] != stamp:
                known = self._known[name] = (stamp, self._read(name, paths))
        except (OSError, UnicodeDecodeError) as error:
            raise TemplateFailed(f"The text {name!r} is missing or cannot be read.") from error
        return known[1]


def _read_prompt(name: str, paths: tuple[Path, ...]) -> Text:
    text = paths[0].read_text(encoding="utf-8")
    return Text(text, version_of(text))


def _read_document_type(name: str, paths: tuple[Path, ...]) -> DocumentType:
    source, example = (path.read_text(encoding="utf-8") for path in paths)
    try:
        meta, body = frontmatter.parse(source)
        about = FrontMatter.model_validate(meta)
    except (ValidationError, ValueError) as error:
        raise TemplateFailed(f"The front matter of the template {name!r} is wrong.") from error
    return DocumentType(name, about, body, example, version_of(source, example))


def version_of(*texts: str) -> str:
    """The content hash that names exactly these texts: 12 hex digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def render(text: str, **values: object) -> str:
    """Fill a prompt or template in a sandbox; values are inserted, never evaluated.

    Raises:
        TemplateFailed: a variable is missing, or the text is no valid template.
    """
    try:
        return _compiled(text).render(values)
    except TemplateError as error:
        reason = error.message or "unknown reason"
        raise TemplateFailed(f"A prompt or template cannot be rendered: {reason}.") from error


@lru_cache(maxsize=256)
def _compiled(text: str) -> JinjaTemplate:
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)
