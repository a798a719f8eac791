"""What a check found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in a document; `line` counts from 1, null for the whole of it.

    `message` is a sentence that says what is wrong and what to do; it does not name the line.
    """

    code: str
    message: str
    line: int | None = None


def in_order(findings: list[Finding]) -> list[Finding]:
    """By line, those of the whole document first."""
    return sorted(findings, key=lambda finding: finding.line or 0)
