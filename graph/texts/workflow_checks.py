"""Checks the document types together: their names, output paths, dependencies and order."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import groupby

from rapidfuzz import process

from graph.texts.findings import TextFinding, error, warning
from graph.texts.template_checks import Template

BETWEEN_TYPES = {
    "duplicate_type",
    "duplicate_output_path",
    "unknown_dependency",
    "dependency_cycle",
}
"""Codes of errors that one text may have because of another one."""


_MOST_CIRCLES = 20


def workflow_findings(
    templates: Collection[Template], types: Mapping[str, Collection[str]]
) -> Iterator[TextFinding]:
    """What is wrong between the types.

    `templates` are those whose front matter could be read; `types` has the paths of the templates
    of each type, those that could not be read too.
    """
    yield from _in_two_phases(types)
    yield from _same_output_path(templates)
    yield from _same_order(templates)
    for template in templates:
        yield from _dependencies(template, types.keys())
    by_type = {template.type: template for template in templates}
    yield from _cycles(by_type)
    yield from _order(by_type)


def _in_two_phases(types: Mapping[str, Collection[str]]) -> Iterator[TextFinding]:
    for name, paths in types.items():
        first, *others = sorted(paths)
        for path in others:
            yield error(path, 1, "duplicate_type", f"The type {name} is there already: {first}.")


def _same_output_path(templates: Collection[Template]) -> Iterator[TextFinding]:
    for first, other in _pairs(templates, lambda one: one.about.output_path.casefold()):
        sentence = f"The output path {other.about.output_path} is that of {first.type} already."
        yield error(other.path, other.line("output_path"), "duplicate_output_path", sentence)


def _same_order(templates: Collection[Template]) -> Iterator[TextFinding]:
    for first, other in _pairs(templates, lambda one: one.about.order):
        sentence = f"The order {other.about.order} is that of {first.type} already."
        yield warning(other.path, other.line("order"), "duplicate_order", sentence)


def _pairs(
    templates: Collection[Template], key: Callable[[Template], str | int]
) -> Iterator[tuple[Template, Template]]:
    """Each template whose key another one has, after that one."""
    ranked = sorted(templates, key=lambda one: (str(key(one)), one.path))
    for _, same in groupby(ranked, key):
        first, *others = same
        yield from ((first, other) for other in others if other.type != first.type)


def _dependencies(template: Template, known: Collection[str]) -> Iterator[TextFinding]:
    for at, name in enumerate(template.about.depends_on):
        line = template.line("depends_on", at)
        if name == template.type:
            sentence = f"{name} depends on itself. Take it out of depends_on."
            yield error(template.path, line, "self_dependency", sentence)
        elif name not in known:
            sentence = f"There is no document type {name[:60]!r}.{_nearest(name, known)}"
            yield error(template.path, line, "unknown_dependency", sentence)
        elif name in template.about.depends_on[:at]:
            sentence = f"{name} is in depends_on twice."
            yield warning(template.path, line, "duplicate_dependency", sentence)


def _nearest(name: str, known: Iterable[str]) -> str:
    best = process.extractOne(name[:60].upper(), sorted(known))
    return f" The nearest is {best[0]}." if best else ""


def _cycles(by_type: Mapping[str, Template]) -> Iterator[TextFinding]:
    needs = {
        name: {need for need in template.about.depends_on if need in by_type and need != name}
        for name, template in by_type.items()
    }
    for _ in range(_MOST_CIRCLES):
        if not (cycle := _cycle(needs)):
            return
        first, second = cycle[:2]
        template = by_type[first]
        line = template.line("depends_on", template.about.depends_on.index(second))
        way = " -> ".join(cycle)
        sentence = f"The types depend on each other in a circle: {way}. Break it somewhere."
        yield error(template.path, line, "dependency_cycle", sentence)
        needs[first].remove(second)


def _cycle(needs: Mapping[str, set[str]]) -> list[str]:
    """A circle of types in which each depends on the next, the first of them again at its end."""
    try:
        TopologicalSorter({name: sorted(needs[name]) for name in sorted(needs)}).prepare()
    except CycleError as found:
        circle = found.args[1][:0:-1]
        start = circle.index(min(circle))
        return [*circle[start:], *circle[: start + 1]]
    return []


def _order(by_type: Mapping[str, Template]) -> Iterator[TextFinding]:
    for template in by_type.values():
        late = [
            by_type[name]
            for name in dict.fromkeys(template.about.depends_on)
            if name in by_type and by_type[name].about.order > template.about.order
        ]
        for need in late:
            sentence = (
                f"The order {template.about.order} is before that of {need.type}, "
                f"{need.about.order}, on which {template.type} depends."
            )
            yield warning(
                template.path, template.line("order"), "order_before_dependency", sentence
            )
