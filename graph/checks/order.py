"""Which names of a list stand at the wrong place."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence


def misplaced(found: Sequence[str], due: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The fewest of `found` whose move brings all into the order `due`, and where each belongs.

    Both hold each name once, and `found` holds names of `due` only.
    """
    places = {name: at for at, name in enumerate(due)}
    there = set(found)
    stay = _longest_rise([places[name] for name in found])
    for name in found:
        if places[name] not in stay:
            before = [one for one in due[: places[name]] if one in there]
            yield name, f"it comes after {before[-1]!r}" if before else "it comes first"


def _longest_rise(numbers: Sequence[int]) -> set[int]:
    """The longest rising sequence among `numbers`, which differ from each other."""
    ends: list[int] = []
    before: dict[int, int | None] = {}
    for number in numbers:
        at = bisect_left(ends, number)
        before[number] = ends[at - 1] if at else None
        ends[at : at + 1] = [number]
    found: set[int] = set()
    last = ends[-1] if ends else None
    while last is not None:
        found.add(last)
        last = before[last]
    return found
