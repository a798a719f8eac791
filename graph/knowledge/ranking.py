"""From places that match a question to the passages that are shown, best first."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rapidfuzz import fuzz

from graph.knowledge.places import Place
from graph.knowledge.postings import Matches

Numbers = npt.NDArray[np.float64]

PASSAGE_SIZE = 1800
"""Characters up to which a chunk is grown by its neighbours."""

REACH = 2
"""How many chunks before and after one are read with it."""

# Measured with bench/retrieval.py: from 0.45 to 0.7, and from 0.2 to 0.3, it changes little.
_MEANING, _QUICK_MEANING = 0.6, 0.25
_PERFECT = 1 + _MEANING
_SAME = 98.0
_FIGURE = re.compile(r"(?<!\w)[^\W\d]*+\d[\w.,]*")


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it is in the database."""

    id: str
    place: Place
    document_name: str
    page_number: int | None
    heading: str
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A chunk with its neighbours on the same page (`text`), and what stands around (`context`).

    `score` is from 0 to 1.
    """

    chunk: StoredChunk
    text: str
    context: str
    places: frozenset[Place]
    score: float


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk near to the question: its cosine similarity, and whether its vector is quick."""

    place: Place
    cosine: float
    is_quick: bool = False


def fuse(matches: Matches, hits: Sequence[Hit]) -> list[tuple[Place, float]]:
    """Join both searches, best first: by the terms in a chunk, and by the nearness of its vector.

    Nearness counts by its place between the nearest and the farthest of the hits, since each
    embedding model has its own scale; that of a quick vector counts less.
    """
    near = _nearness(hits)
    places = dict.fromkeys([*matches.best, *near])
    scored = ((place, matches.score(place) + near.get(place, 0.0)) for place in places)
    best = ((place, score / _PERFECT) for place, score in scored)
    return sorted(best, key=lambda entry: -entry[1])


def nearness(cosines: Numbers, is_quick: npt.NDArray[np.bool_]) -> Numbers:
    """How much each of these hits counts, of which there is at least one."""
    lowest, width = cosines.min(), np.ptp(cosines)
    place = (cosines - lowest) / width if width else np.ones(len(cosines))
    counts: Numbers = np.where(is_quick, _QUICK_MEANING, _MEANING) * place
    return counts


def fused(scores: Numbers) -> Numbers:
    """Sums of what terms and nearness count, as scores from 0 to 1."""
    return scores / _PERFECT


def passages(
    ranked: Sequence[tuple[Place, float]], stored: Mapping[Place, StoredChunk], limit: int
) -> list[Passage]:
    """The best passages, `limit` at most.

    A chunk that stands in a better passage is not shown again, nor is a copy of one.
    """
    shown: list[Passage] = []
    seen: set[Place] = set()
    for place, score in ranked:
        if len(shown) == limit:
            break
        if place in seen or place not in stored:
            continue
        passage = _grown(stored[place], stored, score)
        if not any(_same(passage, other) for other in shown):
            shown.append(passage)
        seen |= passage.places
    return shown


def _nearness(hits: Sequence[Hit]) -> dict[Place, float]:
    """How much the nearness of each hit counts."""
    if not hits:
        return {}
    cosines = np.array([hit.cosine for hit in hits])
    counts = nearness(cosines, np.array([hit.is_quick for hit in hits]))
    return dict(zip([hit.place for hit in hits], counts.tolist(), strict=True))


def _grown(chunk: StoredChunk, stored: Mapping[Place, StoredChunk], score: float) -> Passage:
    """Take neighbours of the same page, after and before in turn, until there is no room."""
    document, position = chunk.place
    members = {position: chunk}
    sides = {1: position, -1: position}
    while sides:
        for step, at in list(sides.items()):
            neighbour = stored.get((document, at + step))
            if neighbour is None or not _fits(neighbour, chunk, members.values()):
                del sides[step]
            else:
                sides[step] = at + step
                members[at + step] = neighbour
    around = {at: stored.get((document, at)) for at in range(position - 2, position + 3)}
    return Passage(
        chunk,
        _joined(members),
        _joined({at: near for at, near in around.items() if near is not None}),
        frozenset((document, at) for at in members),
        score,
    )


def _joined(chunks: Mapping[int, StoredChunk]) -> str:
    return "\n\n".join(chunks[at].text for at in sorted(chunks))


def _fits(neighbour: StoredChunk, chunk: StoredChunk, members: Collection[StoredChunk]) -> bool:
    size = len(neighbour.text) + sum(len(member.text) for member in members)
    return neighbour.page_number == chunk.page_number and size <= PASSAGE_SIZE


def _same(passage: Passage, other: Passage) -> bool:
    """Whether one is a copy of the other. Rows that differ in their figures are none."""
    if passage.text == other.text:
        return True
    alike = fuzz.ratio(passage.text, other.text, score_cutoff=_SAME) > 0
    return alike and _FIGURE.findall(passage.text) == _FIGURE.findall(other.text)
