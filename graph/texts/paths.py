"""Which texts there are, by their paths: `prompts/<name>.md`, `templates/<phase>/<TYPE>/…`."""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args

PromptName = Literal["answer", "draft", "question"]
PROMPT_NAMES: tuple[PromptName, ...] = get_args(PromptName)

_PROMPT = re.compile(rf"prompts/({'|'.join(PROMPT_NAMES)})\.md")
_OF_TYPE = re.compile(
    r"templates/(?P<phase>[a-z][a-z0-9-]{0,59})/(?P<name>[A-Z][A-Z0-9_]{0,59})"
    r"/(?:template\.md|example(?P<example>\.md|\.json))"
)

Kind = Literal["prompt", "template", "example"]


@dataclass(frozen=True, slots=True)
class Place:
    """What a path stands for: `name` is a prompt's name or a document type; prompts have no phase.

    `suffix` is the file's, as in ".json".
    """

    kind: Kind
    name: str
    phase: str | None
    suffix: str


@lru_cache(maxsize=4096)
def place_of(path: str) -> Place | None:
    """What `path` stands for; null where no text can be there."""
    if match := _PROMPT.fullmatch(path):
        return Place("prompt", match[1], None, ".md")
    if match := _OF_TYPE.fullmatch(path):
        suffix = match["example"]
        return Place(
            "example" if suffix else "template", match["name"], match["phase"], suffix or ".md"
        )
    return None


def prompt_path(name: PromptName) -> str:
    """The path of the prompt `name`."""
    return f"prompts/{name}.md"


def template_path(phase: str, name: str) -> str:
    """The path of the template of the document type `name`."""
    return f"templates/{phase}/{name}/template.md"


def example_path(phase: str, name: str, output_path: str) -> str:
    """The path of the example of a type: JSON where its documents are JSON, else Markdown."""
    return f"templates/{phase}/{name}/example{'.json' if is_json(output_path) else '.md'}"


def document_names(name: str, output_path: str) -> tuple[str, ...]:
    """The names under which a project has its document of the type `name`."""
    names = (output_path, f"{name}.md", *([f"{name}.json"] if is_json(output_path) else []))
    return tuple(dict.fromkeys(names))


def is_json(output_path: str) -> bool:
    """Whether documents at `output_path` are JSON."""
    return output_path.endswith(".json")
