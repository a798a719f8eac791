"""What the checks of a draft cost, beside reading its Markdown or JSON alone.

Each example of `templates/` is checked as a draft in the project that all of them are. `make bench`
runs it. What is read of a project's documents is kept while they do not change, so that the first
check costs more. The checks run after the last token, so that no figure here is part of the time to
the first one (tests/test_run.py holds that).
"""

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from markdown_it import MarkdownIt
from rich.console import Console
from rich.table import Table

from graph.checks.domain_language import domain_language_findings
from graph.checks.drafts import check_draft
from graph.checks.form import form_findings, read_document
from graph.checks.project import Kind, Project
from graph.checks.references import reference_findings
from graph.checks.tech_stack import tech_stack_findings
from graph.settings import ROOT
from graph.texts.document_types import parsed

LONG = 100_000


def main() -> None:
    """Measure and print medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="counted rounds, after one warm-up")
    rounds = parser.parse_args().n
    kinds, project = examples()
    drafts = {kind: project.documents[kind.output_path] for kind in kinds}
    figures = [costs(text, kind, project, rounds) for kind, text in drafts.items()]
    usual = {name: statistics.median(one[name] for one in figures) for name in figures[0]}
    kind, text = next((kind, drafts[kind]) for kind in kinds if kind.name == "ARCHITECTURE_SPEC")
    long = text * (LONG // len(text) + 1)
    show(usual, costs(long[:LONG], kind, project, rounds), len(figures), rounds)


def examples() -> tuple[list[Kind], Project]:
    """The document types, and the project whose documents are their examples."""
    kinds, documents = [], {}
    for path in sorted((ROOT / "templates").glob("*/*/template.md")):
        about = parsed(path.name, path.read_text(encoding="utf-8")).about
        output_path = about.output_path
        example = path.with_name(f"example.{output_path.rpartition('.')[2]}")
        kinds.append(Kind(path.parent.name, output_path, tuple(about.required_headings)))
        documents[output_path] = example.read_text(encoding="utf-8")
    return kinds, Project(documents, {kind.name: kind.output_path for kind in kinds})


def costs(text: str, kind: Kind, project: Project, rounds: int) -> dict[str, float]:
    """Median milliseconds of the floor, of each check with its reading, and of all together."""
    document = read_document(text, kind.output_path)
    language = project.document_of("DOMAIN_LANGUAGE") or ""
    stack = project.document_of("TECH_STACK") or ""
    steps: dict[str, Callable[[], object]] = {
        "floor": partial(floor, text, kind.output_path),
        "form": partial(
            form_findings,
            text,
            output_path=kind.output_path,
            required_headings=kind.required_headings,
        ),
        "domain language": partial(domain_language_findings, document.outline, kind.name, language),
        "technologies": partial(tech_stack_findings, document.outline, kind.name, stack),
        "references": partial(reference_findings, text, document.outline, kind, project),
        "all": partial(check_draft, text, kind, project),
        "first": partial(check_first, text, kind, project, itertools.count(1)),
    }
    return {name: median_ms(step, rounds) for name, step in steps.items()}


def check_first(text: str, kind: Kind, project: Project, changes: Iterator[int]) -> object:
    """Check a draft in a project of which every document has changed, and so is read anew."""
    end = " " * next(changes)
    documents = {name: document + end for name, document in project.documents.items()}
    return check_draft(text, kind, replace(project, documents=documents))


def floor(text: str, output_path: str) -> object:
    """What nobody can go below who wants to know the parts of the document."""
    if output_path.endswith(".json"):
        return json.loads(text)
    return MarkdownIt("commonmark").enable("table").parse(text)


def median_ms(step: Callable[[], object], rounds: int) -> float:
    """The median time of a call, after one that is not counted."""
    spent = []
    for _ in range(rounds + 1):
        began = time.perf_counter()
        step()
        spent.append((time.perf_counter() - began) * 1000)
    return statistics.median(spent[1:])


def show(usual: dict[str, float], long: dict[str, float], number: int, rounds: int) -> None:
    """Print the table."""
    names = {
        "floor": "reading it, no check",
        "form": "form, and reading it",
        "domain language": "domain language",
        "technologies": "technologies",
        "references": "references and numbers",
        "all": "all checks",
        "first": "all, documents changed",
    }
    title = f"Checks of a draft: ms, medians of {rounds} rounds"
    table = Table("", f"{number} examples", "times floor", "100 kB", "times floor")
    table.title = title
    for name, told in names.items():
        ratios = [f"{one[name] / one['floor']:.1f}" for one in (usual, long)]
        table.add_row(told, f"{usual[name]:.1f}", ratios[0], f"{long[name]:.1f}", ratios[1])
    Console().print(table)


if __name__ == "__main__":
    main()
