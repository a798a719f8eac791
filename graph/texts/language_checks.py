"""Checks that prompts and template bodies keep to their language, and prompts to their purpose."""

from collections.abc import Iterator
from typing import Any

from graph.texts.findings import TextFinding, error
from graph.texts.paths import Place
from graph.texts.rendering import examine, render, unknown
from graph.texts.variables import variables_of


def language_findings(
    path: str, place: Place, text: str, first_line: int = 1
) -> Iterator[TextFinding]:
    """What keeps `text`, which begins on `first_line` of the file, from being rendered."""
    examined = examine(text)
    for line, sentence in examined.problems:
        yield error(path, line + first_line - 1, "template_language", sentence)
    for line, sentence in unknown(examined, variables_of(place)):
        yield error(path, line + first_line - 1, "unknown_variable", sentence)


def prompt_findings(path: str, place: Place, text: str) -> list[TextFinding]:
    """What is wrong with a prompt."""
    found = list(language_findings(path, place, text))
    if not found and place.name == "question":
        found += _left_out(path, place, text)
    return found


def _left_out(path: str, place: Place, text: str) -> Iterator[TextFinding]:
    """An error for each variable whose value does not reach the model."""
    values: dict[str, Any] = {name: f"\ue000{name}\ue000" for name in variables_of(place)}
    rendered = render(text, **values)
    for name, value in values.items():
        if value not in rendered:
            sentence = f"The model would not be shown the {name}. Write {{{{ {name} }}}}."
            yield error(path, 1, "missing_variable", sentence)
