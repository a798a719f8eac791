"""Document types: what a template's front matter says, the template's body, the example."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graph.errors import TemplateFailed
from graph.texts.front_matter import BrokenFrontMatter, split

MOST_ENTRIES = 100
"""Entries that a list of the front matter may have."""

_Entries = Annotated[list[str], Field(max_length=MOST_ENTRIES)]


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
    depends_on: _Entries
    required_headings: _Entries
    good: _Entries


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
        parts = split(source)
        about = FrontMatter.model_validate(parts.keys)
    except ValidationError as error:
        raise TemplateFailed(f"The front matter of {path} is wrong: {_first(error)}.") from error
    except BrokenFrontMatter as error:
        place = f"The front matter of {path} is wrong in line {error.line}"
        raise TemplateFailed(f"{place}: {_lower(str(error))}") from error
    begin = len(parts.body) - len(parts.body.lstrip())
    line = parts.body_line + parts.body.count("\n", 0, begin)
    return Template(about, parts.body.strip(), line)


def _first(error: ValidationError) -> str:
    found = error.errors(include_input=False, include_url=False)[0]
    place = ".".join(map(str, found["loc"]))
    return f"{place}: {_lower(found['msg'])}"


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
