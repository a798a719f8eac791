"""Which variables a text may ask for, each with a value to try it with."""

from collections.abc import Mapping

from graph.texts.paths import Place

_SYSTEM = {
    "user_name": "Ada Example",
    "today": "2026-08-14",
    "instructions": "Write British English.",
    "doc_type": "TECH_STACK",
    "title": "Technology stack",
    "format": "Markdown",
    "is_json": "",
}
_PROMPT_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "answer": _SYSTEM,
    "draft": _SYSTEM,
    "question": {
        "material": "(template, example, documents and sources, each between delimiters)",
        "question": "(the question, between delimiters)",
    },
}
_TEMPLATE_VARIABLES: Mapping[str, str] = {"project_name": "Shelfway", "date": "2026-08-14"}
_NONE: Mapping[str, str] = {}


def variables_of(place: Place) -> Mapping[str, str]:
    """The variables of the text at `place`; none in an example, which is not rendered."""
    if place.kind == "prompt":
        return _PROMPT_VARIABLES[place.name]
    return _TEMPLATE_VARIABLES if place.kind == "template" else _NONE
