"""Which variables a text may ask for, each with a value to try it with."""

from collections.abc import Mapping

from graph.texts.paths import Place, place_of

_SYSTEM = {
    "user_name": "Ada Example",
    "today": "2026-08-14",
    "instructions": "Write British English.",
    "doc_type": "TECH_STACK",
    "title": "Technology stack",
    "format": "Markdown",
    "is_json": "",
}
_QUESTION = {
    "material": "(template, example, documents and sources, each between delimiters)",
    "question": "(the question, between delimiters)",
}
_TEMPLATE = {"project_name": "Shelfway", "date": "2026-08-14"}
_NONE: Mapping[str, str] = {}


def variables_at(path: str) -> Mapping[str, str]:
    """The variables of the text at `path`, name to a value to try it with; examples have none."""
    match place_of(path):
        case Place(kind="prompt", name="question"):
            return _QUESTION
        case Place(kind="prompt"):
            return _SYSTEM
        case Place(kind="template"):
            return _TEMPLATE
        case _:
            return _NONE
