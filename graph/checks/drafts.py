"""Checks a drafted document with everything there is to check."""

from graph.checks.domain_language import domain_language_findings
from graph.checks.findings import Finding, in_order
from graph.checks.form import findings_of, read_document
from graph.checks.project import Kind, Project
from graph.checks.references import reference_findings
from graph.checks.tech_stack import TECH_STACK, tech_stack_findings

_MOST = 50


def check_draft(text: str, kind: Kind, project: Project) -> list[Finding]:
    """What is wrong with a draft, by line; of more than 50 findings the rest is only counted.

    Takes any text, in time linear in its length and in that of the project's documents.
    """
    document = read_document(text, kind.output_path)
    outline = document.outline
    found = findings_of(document, kind.required_headings)
    if language := project.document_of("DOMAIN_LANGUAGE"):
        found += domain_language_findings(outline, kind.name, language)
    # A stack is checked against itself: its text and its versions must agree.
    stack = text if kind.name == TECH_STACK else project.document_of(TECH_STACK)
    if stack:
        found += tech_stack_findings(outline, kind.name, stack)
    found += reference_findings(text, outline, kind, project)
    return _shortened(in_order(found))


def _shortened(found: list[Finding]) -> list[Finding]:
    if len(found) <= _MOST:
        return found
    left = len(found) - _MOST + 1
    message = f"{left} more findings are not listed; see to those above first."
    return [*found[: _MOST - 1], Finding("more_findings", message, None)]
