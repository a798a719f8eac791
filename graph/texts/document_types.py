"""Document types: what a template's front matter says, the template's body, the example."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import yaml
from frontmatter.default_handlers import YAMLHandler
from pydantic import BaseModel, ConfigDict, ValidationError

from graph.errors import TemplateFailed
from graph.texts.paths import is_json

_HANDLER = YAMLHandler()


class FrontMatter(BaseModel):
    """What a template says of itself; `good` is what a good document of this type does.

    `order` is the type's place in a project's course. Where documents are JSON,
    `required_headings` are the keys of their object.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str
    phase: str
    order: int
    output_path: str
    depends_on: list[str]
    required_headings: list[str]
    good: list[str]


@dataclass(frozen=True, slots=True)
class Template:
    """A template taken apart. `first_line` is where the body begins in the file, from 1."""

    about: FrontMatter
    body: str
    first_line: int


@dataclass(frozen=True, slots=True)
class DocumentType:
    """A document type: its front matter, the template's body, the example, and their version.

    `path` is the template's. `example` is null where there is none.
    """

    name: str
    path: str
    about: FrontMatter
    body: str
    first_line: int
    example: str | None
    version: str

    @property
    def is_json(self) -> bool:
        """Whether documents of this type are JSON."""
        return is_json(self.about.output_path)


def version_of(*texts: str) -> str:
    """The content hash that names exactly these texts: 16 hex digits."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


@lru_cache(maxsize=256)
def document_type(name: str, path: str, source: str, example: str | None) -> DocumentType:
    """The type `name` from the template `source` at `path`.

    Raises:
        TemplateFailed: the front matter is not in order.
    """
    template = parsed(path, source)
    version = version_of(source) if example is None else version_of(source, example)
    return DocumentType(
        name, path, template.about, template.body, template.first_line, example, version
    )


@lru_cache(maxsize=256)
def parsed(path: str, source: str) -> Template:
    """The template `source` taken apart; `path` is named in errors.

    Raises:
        TemplateFailed: the front matter is not in order.
    """
    try:
        meta, body, line = split(source)
        about = FrontMatter.model_validate(meta)
    except ValidationError as error:
        raise TemplateFailed(f"The front matter of {path} is wrong: {_first(error)}.") from error
    except ValueError as error:
        raise TemplateFailed(f"The front matter of {path} is wrong: {error}.") from error
    return Template(about, body, line)


def split(source: str) -> tuple[Mapping[str, Any], str, int]:
    """Front matter and body of a template, and the line at which the body begins.

    Raises:
        ValueError: there is no front matter, or it is no YAML mapping.
    """
    text = source.replace("\r\n", "\n")
    if not _HANDLER.detect(text):
        raise ValueError("the file must begin with a line ---")
    try:
        front, rest = _HANDLER.split(text)
    except ValueError as error:
        raise ValueError("a second line --- must close it") from error
    body = rest.lstrip()
    line = text[: len(text) - len(body)].count("\n") + 1
    return _mapping(front), body.rstrip(), line


def _mapping(front: str) -> Mapping[str, Any]:
    try:
        meta = yaml.load(front, Loader=_PlainLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" near line {mark.line + 1}" if mark else ""
        raise ValueError(f"it is no YAML{place}") from error
    except Exception as error:  # PyYAML lets more out, as for `!!bool x`
        raise ValueError("it is no YAML") from error
    if not isinstance(meta, dict):
        raise ValueError("it must be keys with values")
    return {str(key): value for key, value in meta.items()}


class _PlainLoader(yaml.SafeLoader):
    """YAML without references, by which a few lines can mean a billion values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references are not allowed")
        return super().compose_node(parent, index)


def _first(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {found['msg'][:1].lower()}{found['msg'][1:]}"
