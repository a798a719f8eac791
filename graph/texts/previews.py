"""What a prompt or template becomes with given values, without a model."""

from collections.abc import Mapping
from typing import Any

from graph.errors import TemplateFailed
from graph.texts.front_matter import BrokenFrontMatter, split
from graph.texts.paths import Place
from graph.texts.rendering import render

_LONGEST = 1_000_000


def preview(place: Place, content: str, values: Mapping[str, Any]) -> str | None:
    """`content` filled with `values`, which are texts; null where it cannot be rendered.

    A template is shown as its body, an example as it is.
    """
    if place.kind == "example":
        return content
    try:
        text = split(content).body.strip() if place.kind == "template" else content
        rendered = render(text, **values)
    except (BrokenFrontMatter, TemplateFailed):
        return None
    return rendered if len(rendered) <= _LONGEST else None
