"""Which texts there are, by their paths: `prompts/<name>.md`, `templates/<phase>/<TYPE>/…`."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal, get_args

PromptName = Literal["answer", "draft", "question"]
PROMPT_NAMES: tuple[PromptName, ...] = get_args(PromptName)

PHASE = re.compile(r"[a-z][a-z0-9-]{0,59}")
TYPE = re.compile(r"[A-Z][A-Z0-9_]{0,59}")
TEMPLATE = "template.md"
EXAMPLES = ("example.md", "example.json")

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


def place_of(path: str) -> Place | None:
    """What `path` stands for; null where no text can be there."""
    match path.split("/"):
        case ["prompts", file] if file.removesuffix(".md") in PROMPT_NAMES and file != path:
            name, suffix = PurePosixPath(file).stem, PurePosixPath(file).suffix
            return Place("prompt", name, None, suffix) if suffix == ".md" else None
        case ["templates", phase, name, file] if PHASE.fullmatch(phase) and TYPE.fullmatch(name):
            kind: Kind = "template" if file == TEMPLATE else "example"
            known = file == TEMPLATE or file in EXAMPLES
            return Place(kind, name, phase, PurePosixPath(file).suffix) if known else None
        case _:
            return None


def prompt_path(name: PromptName) -> str:
    """The path of the prompt `name`."""
    return f"prompts/{name}.md"


def template_path(phase: str, name: str) -> str:
    """The path of the template of the document type `name`."""
    return f"templates/{phase}/{name}/{TEMPLATE}"


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
