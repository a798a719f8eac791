"""Checks one template: its front matter, its body, and the example beside it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from pydantic import ValidationError

from graph.checks.form import folded, form_findings
from graph.checks.outline import Heading, outline_of
from graph.texts.document_types import FrontMatter, wrong_keys
from graph.texts.findings import TextFinding, error, warning
from graph.texts.front_matter import BrokenFrontMatter, Parts, split
from graph.texts.language_checks import language_findings
from graph.texts.paths import Place, is_json

_SAFE_PATH = re.compile(r"(?:\w[\w.-]*/)*\w[\w.-]*\.(?:md|json)", re.ASCII)
_LONGEST_PATH = 200


@dataclass(frozen=True, slots=True)
class Template:
    """A template whose front matter could be read."""

    path: str
    place: Place
    about: FrontMatter
    parts: Parts

    @property
    def type(self) -> str:
        """The name of the document type."""
        return self.place.name

    def line(self, *key: str | int) -> int:
        """The line of a key of the front matter, or of an entry of its list."""
        return self.parts.line(*key)


def read_template(path: str, place: Place, text: str) -> Template | list[TextFinding]:
    """The template, or what keeps its front matter from being read."""
    try:
        parts = split(text)
        return Template(path, place, FrontMatter.model_validate(parts.keys), parts)
    except BrokenFrontMatter as broken:
        return [error(path, broken.line, "front_matter", str(broken))]
    except ValidationError as wrong:
        return [error(path, one.line, one.code, one.sentence) for one in wrong_keys(parts, wrong)]


def template_findings(template: Template) -> list[TextFinding]:
    """What is wrong with a template on its own."""
    path, parts = template.path, template.parts
    language = language_findings(path, template.place, parts.body, parts.body_line)
    return [*_about(template), *_required_headings(template), *language, *_body(template)]


def example_findings(
    path: str, output_path: str, required_headings: Sequence[str], text: str
) -> list[TextFinding]:
    """Where the example at `path` is not what its template asks for."""
    found = form_findings(text, output_path=output_path, required_headings=required_headings)
    return [warning(path, one.line or 1, one.code, one.message) for one in found]


def _about(template: Template) -> Iterator[TextFinding]:
    about, path = template.about, template.path
    if not about.title.strip():
        yield error(path, template.line("title"), "wrong_value", "The title must not be blank.")
    if about.phase != template.place.phase:
        sentence = f"The phase is {about.phase!r}, but the folder is {template.place.phase!r}."
        yield error(path, template.line("phase"), "wrong_phase", sentence)
    if not _SAFE_PATH.fullmatch(about.output_path) or len(about.output_path) > _LONGEST_PATH:
        sentence = (
            "The output path must be relative, of letters, digits and ._-/ without '..', "
            "and end in .md or .json."
        )
        yield error(path, template.line("output_path"), "unsafe_output_path", sentence)
    if not any(statement.strip() for statement in about.good):
        sentence = "Say in 'good' what a good document of this type does."
        yield warning(path, template.line("good"), "nothing_good", sentence)


def _required_headings(template: Template) -> Iterator[TextFinding]:
    headings = template.about.required_headings
    if not headings:
        line = template.line("required_headings")
        sentence = "Name at least one heading in required_headings."
        yield error(template.path, line, "no_required_headings", sentence)
    seen = set()
    for at, heading in enumerate(headings):
        line, name = template.line("required_headings", at), folded(heading)
        if not name:
            sentence = "A required heading must not be blank."
            yield error(template.path, line, "wrong_value", sentence)
        elif name in seen:
            sentence = f"The heading {heading!r} is in required_headings twice."
            yield error(template.path, line, "duplicate_heading", sentence)
        seen.add(name)


def _body(template: Template) -> Iterator[TextFinding]:
    about, parts = template.about, template.parts
    text = "\n" * (parts.body_line - 1) + _without_comments(parts.body)
    required = [heading for heading in about.required_headings if heading.strip()]
    for one in form_findings(text, output_path=about.output_path, required_headings=required):
        if one.code in _FAULTS:
            yield error(template.path, one.line or parts.body_line, one.code, one.message)
    if not is_json(about.output_path):
        yield from _sections(template, text)


def _sections(template: Template, text: str) -> Iterator[TextFinding]:
    """Headings that no document needs, and headings without a comment that guides."""
    outline = outline_of(text)
    required = {folded(heading) for heading in template.about.required_headings}
    guided = [comment.line for comment in outline.comments]
    end = Heading(2, "", text.count("\n") + 2)
    for heading, following in pairwise([*(h for h in outline.headings if h.level == 2), end]):
        if folded(heading.title) not in required:
            sentence = f"The heading {heading.title!r} is not in required_headings."
            yield warning(template.path, heading.line, "extra_heading", sentence)
        elif not any(heading.line < line < following.line for line in guided):
            sentence = f"Say in a comment, <!-- … -->, what belongs under {heading.title!r}."
            yield warning(template.path, heading.line, "no_guidance", sentence)


def _without_comments(body: str) -> str:
    """The body with nothing but line feeds where Jinja's comments are."""
    kept, at = [], 0
    while (start := body.find("{#", at)) >= 0 and (end := body.find("#}", start)) >= 0:
        kept += [body[at:start], "\n" * body.count("\n", start, end)]
        at = end + 2
    return "".join([*kept, body[at:]])


_FAULTS = {
    "missing_heading",
    "repeated_heading",
    "heading_out_of_order",
    "open_fence",
    "document_in_fence",
    "invalid_json",
    "missing_key",
    "repeated_key",
    "key_out_of_order",
}
