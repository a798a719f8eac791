"""Which variables a text may ask for."""

from collections.abc import Mapping

from graph.texts.paths import Place

_SYSTEM = ("user_name", "today", "instructions", "doc_type", "title", "format", "is_json")

PROMPT_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "answer": _SYSTEM,
    "draft": _SYSTEM,
    "question": ("material", "question"),
}
TEMPLATE_VARIABLES = ("project_name", "date")


def variables_of(place: Place) -> tuple[str, ...]:
    """The variables of the text at `place`; none in an example, which is not rendered."""
    if place.kind == "prompt":
        return PROMPT_VARIABLES[place.name]
    return TEMPLATE_VARIABLES if place.kind == "template" else ()
