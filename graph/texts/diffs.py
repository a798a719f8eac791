"""What changed between two versions of a text, as a unified diff."""

import re
from collections.abc import Sequence
from difflib import unified_diff
from os.path import commonprefix

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
# difflib's time grows with the cube of the lines: this many take a second at most.
_MOST_LINES = 3000


def unified(before: str, after: str, *, names: tuple[str, str]) -> str:
    """The diff that makes `after` out of `before`, named `names`; empty where they are equal.

    Blocks, for a second at most. Where too many lines differ, all between the first and the last
    of them are shown as replaced.
    """
    old, new = _LINE.findall(before), _LINE.findall(after)
    head = len(commonprefix([old, new]))
    tail = len(commonprefix([old[head:][::-1], new[head:][::-1]]))
    changed = max(len(old), len(new)) - head - tail
    if changed > _MOST_LINES:
        return "".join(map(_ended, _replaced(old, new, head, tail, names)))
    return "".join(map(_ended, unified_diff(old, new, *names)))


def _replaced(
    old: Sequence[str], new: Sequence[str], head: int, tail: int, names: tuple[str, str]
) -> list[str]:
    gone, come = old[head : len(old) - tail], new[head : len(new) - tail]
    places = f"-{_place(head, len(gone))} +{_place(head, len(come))}"
    return [
        f"--- {names[0]}\n",
        f"+++ {names[1]}\n",
        f"@@ {places} @@\n",
        *(f"-{line}" for line in gone),
        *(f"+{line}" for line in come),
    ]


def _place(head: int, length: int) -> str:
    return f"{head + 1 if length else head},{length}"


def _ended(line: str) -> str:
    return line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
