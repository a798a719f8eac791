"""Document types: what a template's front matter says, the template's body, the example."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from rapidfuzz import process

from graph.errors import TemplateFailed
from graph.texts.front_matter import BrokenFrontMatter, Parts, split
from graph.texts.keeping import Kept

_MOST_ENTRIES = 100
_LARGEST_ORDER = 999_999

_Entries = Annotated[list[str], Field(max_length=_MOST_ENTRIES)]


class FrontMatter(BaseModel):
    """What a template says of itself; `good` is what a good document of this type does.

    `order` is the type's place in a project's course. Where documents are JSON,
    `required_headings` are the keys of their object.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    title: str
    phase: str
    order: Annotated[int, Field(ge=-_LARGEST_ORDER, le=_LARGEST_ORDER)]
    output_path: str
    depends_on: _Entries
    required_headings: _Entries
    good: _Entries


@dataclass(frozen=True, slots=True)
class WrongKey:
    """A key of the front matter that is missing, unknown, or has a wrong value."""

    code: Literal["missing_key", "unknown_key", "wrong_value"]
    line: int
    sentence: str


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


@Kept
def parsed(path: str, source: str) -> Template:
    """The template `source` taken apart; `path` is named in errors.

    Raises:
        TemplateFailed: the front matter is not in order.
    """
    try:
        parts = split(source)
        about = FrontMatter.model_validate(parts.keys)
    except ValidationError as error:
        first = wrong_keys(parts, error)[0]
        raise TemplateFailed(_wrong(path, first.line, first.sentence)) from error
    except BrokenFrontMatter as error:
        raise TemplateFailed(_wrong(path, error.line, str(error))) from error
    begin = len(parts.body) - len(parts.body.lstrip())
    line = parts.body_line + parts.body.count("\n", 0, begin)
    return Template(about, parts.body.strip(), line)


def wrong_keys(parts: Parts, error: ValidationError) -> list[WrongKey]:
    """What keeps the keys in `parts` from being a `FrontMatter`, with their lines."""
    return [_wrong_key(parts, one) for one in error.errors(include_input=False, include_url=False)]


def _wrong_key(parts: Parts, wrong: ErrorDetails) -> WrongKey:
    key, *entry = wrong["loc"]
    line = parts.line(*wrong["loc"])
    match wrong["type"]:
        case "missing":
            sentence = f"The key {key!r} is missing from the front matter."
            return WrongKey("missing_key", line, sentence)
        case "extra_forbidden":
            nearest = process.extractOne(str(key), _KEYS)[0]
            sentence = f"There is no key {str(key)[:60]!r}; the nearest is {nearest!r}."
            return WrongKey("unknown_key", line, sentence)
        case _:
            where = f"Entry {int(entry[0]) + 1} of {key!r}" if entry else f"The value of {key!r}"
            sentence = f"{where} must be {_KINDS.get(wrong['type'], 'something else')}."
            return WrongKey("wrong_value", line, sentence)


def _wrong(path: str, line: int, sentence: str) -> str:
    place = f"The front matter of {path} is wrong in line {line}"
    return f"{place}: {sentence[:1].lower()}{sentence[1:]}"


_KEYS = list(FrontMatter.model_fields)
_FEW_DIGITS = f"a number of up to {len(str(_LARGEST_ORDER))} digits"
_KINDS = {
    "string_type": "text; put it in quotes",
    "int_type": "a whole number",
    "greater_than_equal": _FEW_DIGITS,
    "less_than_equal": _FEW_DIGITS,
    "list_type": "a list, as in [ONE, TWO], or [] for none",
    "too_long": f"a list of at most {_MOST_ENTRIES} entries",
}
