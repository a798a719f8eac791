"""What a check found."""

from collections.abc import Iterable
from dataclasses import dataclass

_MOST_LINES = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong in a document; `line` counts from 1, null for the whole of it.

    `message` is a sentence that says what is wrong and what to do; it does not name the line.
    """

    code: str
    message: str
    line: int | None = None


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """By line, those of the whole document first."""
    return sorted(findings, key=lambda finding: finding.line or 0)


def gathered(findings: Iterable[Finding]) -> list[Finding]:
    """Findings that say the same as one, at the first line, which names the other lines."""
    lines: dict[tuple[str, str], list[int]] = {}
    for finding in findings:
        found = lines.setdefault((finding.code, finding.message), [])
        if finding.line and finding.line not in found[-1:]:
            found.append(finding.line)
    return [
        Finding(code, message + _others(found[1:]), found[0] if found else None)
        for (code, message), found in lines.items()
    ]


def _others(lines: list[int]) -> str:
    if not lines:
        return ""
    shown = [str(line) for line in lines[:_MOST_LINES]]
    if len(lines) > _MOST_LINES:
        shown.append(f"{len(lines) - _MOST_LINES} more")
    listed = " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
    return f" The same in line{'s' if len(lines) > 1 else ''} {listed}."
