"""Checks templates and prompts: what keeps them from being used, and what is unwise."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

from graph.sanitizing import clean
from graph.state import UNSORTED
from graph.texts.files import Files
from graph.texts.findings import TextFinding, error, first_of, in_order, warning
from graph.texts.keeping import Kept
from graph.texts.language_checks import prompt_findings
from graph.texts.paths import (
    PROMPT_NAMES,
    Place,
    example_path,
    place_of,
    prompt_path,
    template_path,
)
from graph.texts.template_checks import (
    Template,
    example_findings,
    read_template,
    template_findings,
)
from graph.texts.workflow_checks import BETWEEN_TYPES, workflow_findings

LONGEST_TEXT = 100_000
"""Characters that a text may have."""


def check_texts(texts: Mapping[str, str], problems: Mapping[str, str]) -> list[TextFinding]:
    """What is wrong with `texts`, path to content, by path and line.

    `problems` says of further paths why they cannot be read.
    """
    there = sorted({*texts, *problems})
    unfit = {path: found for path, text in texts.items() if (found := _unfit(path, text))}
    fit = {path: text for path, text in texts.items() if path not in unfit and place_of(path)}
    read = {path: _template(path, text) for path, text in fit.items() if _is_template(path)}
    templates = [template for template, _ in read.values() if template]
    return in_order(
        chain(
            (error(path, 1, "unreadable", f"{path} {words}.") for path, words in problems.items()),
            *unfit.values(),
            *map(_misplaced, there),
            _missing_prompts(there),
            *(_prompt(path, text) for path, text in fit.items() if path.startswith("prompts/")),
            *(found for _, found in read.values()),
            *(_beside(template, fit, there) for template in templates),
            _left_over(there, templates),
            workflow_findings(templates, _paths_of_types(there)),
        )
    )


def check_folders(prompts_dir: Path, templates_dir: Path) -> list[TextFinding]:
    """What is wrong with the files of the two folders, also with those that are no texts. Blocks.

    Names that begin with a full stop are left alone.
    """
    files = Files(prompts_dir, templates_dir).read()
    others = {
        path: ""
        for name, folder in (("prompts", prompts_dir), ("templates", templates_dir))
        for path in _files_in(name, folder)
        if place_of(path) is None
    }
    return check_texts({**files.contents, **others}, files.problems)


def new_errors(
    before: Sequence[TextFinding], after: Sequence[TextFinding], path: str
) -> list[TextFinding]:
    """The errors that an edit of `path` brings: in its own words, and elsewhere."""
    known = {(one.path, one.code, one.message) for one in before}
    return [
        one
        for one in after
        if one.severity == "error"
        and (
            (one.path, one.code, one.message) not in known
            or (one.path == path and one.code not in BETWEEN_TYPES)
        )
    ]


def _unfit(path: str, text: str) -> list[TextFinding]:
    """What keeps a text from being looked at."""
    if len(text) > LONGEST_TEXT:
        sentence = f"The text has {len(text)} characters; it may have {LONGEST_TEXT}."
        return [error(path, 1, "too_long", sentence)]
    plain = text.replace("\r\n", "\n")
    if clean(plain) != plain:
        at = next(at for at, character in enumerate(plain) if not clean(character))
        line = plain.count("\n", 0, at) + 1
        sentence = f"There is a control character, U+{ord(plain[at]):04X}. Take it out."
        return [error(path, line, "control_character", sentence)]
    return []


def _misplaced(path: str) -> Iterator[TextFinding]:
    match path.split("/"):
        case _ if (place := place_of(path)) and place.name != UNSORTED:
            return
        case ["prompts", *_]:
            names = ", ".join(map(prompt_path, PROMPT_NAMES))
            yield error(path, 1, "unknown_file", f"This is no prompt. There are: {names}.")
        case ["templates", phase, name, "template.md"]:
            yield from _misnamed(path, phase, name)
        case _:
            sentence = "This file is not read. Templates are templates/<phase>/<TYPE>/template.md."
            yield warning(path, 1, "unknown_file", sentence)


def _misnamed(path: str, phase: str, name: str) -> Iterator[TextFinding]:
    if place_of(template_path(phase, "ANY")) is None:
        sentence = f"The phase {phase!r} must be small letters, digits and -, as in architecture."
        yield error(path, 1, "bad_phase_name", sentence)
    if name == UNSORTED:
        yield error(path, 1, "bad_type_name", f"{UNSORTED} means no type. Name the folder else.")
    elif place_of(template_path("any", name)) is None:
        sentence = f"The type {name!r} must be capital letters, digits and _, as in TECH_STACK."
        yield error(path, 1, "bad_type_name", sentence)


def _missing_prompts(there: Sequence[str]) -> Iterator[TextFinding]:
    for path in map(prompt_path, PROMPT_NAMES):
        if path not in there:
            yield error(path, 1, "missing_prompt", "This prompt is missing. Write it.")


def _beside(
    template: Template, texts: Mapping[str, str], there: Sequence[str]
) -> list[TextFinding]:
    """What is to be said of the example beside a template."""
    path, about = _example_path(template), template.about
    if path in texts:
        headings = tuple(heading for heading in about.required_headings if heading.strip())
        return _example(path, about.output_path, headings, texts[path])
    if path in there:
        return []
    name = path.rpartition("/")[2]
    sentence = f"The type has no example. Write {name} beside the template."
    return [warning(template.path, 1, "no_example", sentence)]


def _left_over(there: Sequence[str], templates: Sequence[Template]) -> Iterator[TextFinding]:
    """A warning for each example without a template, or not of the template's suffix."""
    due = {_folder(template.path): _example_path(template) for template in templates}
    for path in there:
        if not place_of(path) or "/example." not in path:
            continue
        if f"{_folder(path)}/template.md" not in there:
            sentence = "This example is not read: there is no template.md beside it."
            yield warning(path, 1, "unknown_file", sentence)
        elif (right := due.get(_folder(path), path)) != path:
            sentence = f"This example is not read: by the output path it is {right}."
            yield warning(path, 1, "unknown_file", sentence)


def _paths_of_types(there: Sequence[str]) -> dict[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    for path in filter(_is_template, there):
        found[path.split("/")[2]].append(path)
    return found


def _is_template(path: str) -> bool:
    place = place_of(path)
    return place is not None and place.kind == "template" and place.name != UNSORTED


def _place(path: str) -> Place:
    place = place_of(path)
    assert place is not None
    return place


def _example_path(template: Template) -> str:
    return example_path(str(template.place.phase), template.type, template.about.output_path)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _files_in(name: str, folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        inner = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in inner.parts):
            yield f"{name}/{inner.as_posix()}".encode(errors="replace").decode()


# An edit is checked together with all texts around it, of which none has changed.


@Kept
def _template(path: str, text: str) -> tuple[Template | None, list[TextFinding]]:
    read = read_template(path, _place(path), text)
    if isinstance(read, Template):
        return read, first_of(template_findings(read))
    return None, first_of(read)


@Kept
def _example(
    path: str, output_path: str, headings: tuple[str, ...], text: str
) -> list[TextFinding]:
    return first_of(example_findings(path, output_path, headings, text))


@Kept
def _prompt(path: str, text: str) -> list[TextFinding]:
    return first_of(prompt_findings(path, _place(path), text))
