"""How the texts and documents of a project stand, in columns that any statement can have."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from graph.knowledge.passages import OUTLINE, Outline, outline_of
from graph.texts.edits import STAMPS, Stamps, stamps_of


class Standing(NamedTuple):
    """What tells whether what is kept of a project's texts and documents is still true."""

    stamps: Stamps
    outline: Outline


STANDING = f"({STAMPS}) as stamps cross join ({OUTLINE}) as outline"
"""What to select from; the statement's `project` is the project's id, null for none."""


def standing_of(row: Mapping[str, Any]) -> Standing:
    """Read it from a row of a statement that has selected all of `STANDING`."""
    return Standing(stamps_of(row), outline_of(row))
