"""Checks the form of a document: its headings or keys, what was left open, and its JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import dropwhile

from rapidfuzz import fuzz, process

from graph.checks.findings import Finding, in_order
from graph.checks.json_form import Json, json_findings, parse_error, read_json
from graph.checks.order import misplaced
from graph.checks.outline import Fence, Heading, Outline, outline_of
from graph.checks.placeholders import placeholder_findings
from graph.texts.paths import is_json

_ALIKE = 80
_MOST_HEADINGS = 1000


def form_findings(
    text: str, *, output_path: str, required_headings: Sequence[str]
) -> list[Finding]:
    """What is wrong with the form of a document, by line.

    In Markdown the required headings are those of level 2; one of another level does not count,
    and the finding says where it stands. Case, spaces, leading numbers ("2.3 ") and a colon at
    the end make no difference. Where `output_path` ends in `.json`, they are the keys of the
    object.
    """
    return in_order(findings_of(read_document(text, output_path), required_headings))


@dataclass(frozen=True, slots=True)
class Document:
    """A document that was read once for all checks; `json` where it is due as JSON."""

    text: str
    outline: Outline
    json: Json | None


def read_document(text: str, output_path: str) -> Document:
    """Read a document, which is JSON where its path ends so."""
    if not is_json(output_path):
        return Document(text, outline_of(text), None)
    json = read_json(text)
    return Document(text, json.outline, json)


def findings_of(document: Document, required_headings: Sequence[str]) -> list[Finding]:
    """What `form_findings` gives, for a document that was read already; in no order."""
    left = placeholder_findings(document.text, document.outline)
    if document.json:
        return [*json_findings(document.json, required_headings), *left]
    outline = document.outline
    return [
        *_wrapped(outline),
        *_heading_findings(outline.headings, required_headings, _last_line(document.text)),
        *(finding for fence in outline.fences for finding in _fence_findings(fence)),
        *left,
    ]


def folded(title: str) -> str:
    """A heading as it is compared: without case, leading numbers and a colon at the end."""
    words = title.casefold().rstrip(" :").split()
    while len(words) > 1 and words[0].strip("().").replace(".", "").isdigit():
        words.pop(0)
    return " ".join(words)


def _wrapped(outline: Outline) -> Iterator[Finding]:
    if outline.wrapped:
        yield Finding(
            "document_in_fence",
            "The whole document stands in a code fence; take its first and last line away.",
            1,
        )


def _last_line(text: str) -> int:
    return text.rstrip().count("\n") + 1


def _heading_findings(
    headings: Sequence[Heading], required: Sequence[str], last_line: int
) -> Iterator[Finding]:
    wanted = {folded(title): title for title in required}
    places: dict[str, Heading] = {}
    for heading in headings:
        name = folded(heading.title)
        if heading.level != 2 or name not in wanted:
            continue
        if name in places:
            message = (
                f"The heading {heading.title!r} stands here again, after line {places[name].line};"
                " merge the two sections."
            )
            yield Finding("repeated_heading", message, heading.line)
        places.setdefault(name, heading)
    yield from _missing(headings, wanted, places, last_line)
    yield from _out_of_order(wanted, places)


def _missing(
    headings: Sequence[Heading],
    wanted: dict[str, str],
    places: dict[str, Heading],
    last_line: int,
) -> Iterator[Finding]:
    others = {folded(one.title): one for one in reversed(headings[:_MOST_HEADINGS])}
    others = {name: one for name, one in others.items() if name not in places}
    for name, title in wanted.items():
        if name in places:
            continue
        best = process.extractOne(name, list(others), scorer=fuzz.ratio, score_cutoff=_ALIKE)
        if best is None:
            line, where = _place_for(name, wanted, places, last_line)
            message = f"The heading '## {title}' is missing {where}; add it with its section."
            yield Finding("missing_heading", message, line)
            continue
        found = others[best[0]]
        shown = f"{'#' * found.level} {found.title}"
        message = f"The heading '## {title}' is missing; {shown!r} stands here instead."
        yield Finding("missing_heading", message, found.line)


def _place_for(
    name: str, wanted: dict[str, str], places: dict[str, Heading], last_line: int
) -> tuple[int, str]:
    """The line at which a heading is to be added, and what that line is."""
    after = dropwhile(lambda other: other != name, wanted)
    line = next((places[other].line for other in after if other in places), None)
    return (last_line, "at the end") if line is None else (line, "above this line")


def _out_of_order(wanted: dict[str, str], places: dict[str, Heading]) -> Iterator[Finding]:
    lines = {wanted[name]: heading.line for name, heading in places.items()}
    for title, where in misplaced(list(lines), list(wanted.values())):
        message = f"The heading {title!r} is out of order: {where}."
        yield Finding("heading_out_of_order", message, lines[title])


def _fence_findings(fence: Fence) -> Iterator[Finding]:
    if not fence.closed:
        message = "The code fence that begins here is never closed; all after it counts as code."
        yield Finding("open_fence", message, fence.line)
    elif fence.info.lower().split()[:1] == ["json"] and (error := parse_error(fence.text)):
        reason, line = error
        message = f"The JSON in this code block cannot be read: {reason}."
        yield Finding("invalid_json", message, fence.line + line)
