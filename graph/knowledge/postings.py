"""The full-text index, in Postgres: for each term of a project, in which chunks it stands.

Postgres' own ranking does not know how rare a term is, which is most of what finds the right
passage. So chunks are ranked by BM25 (Robertson and Zaragoza, "The Probabilistic Relevance
Framework", 2009), over rows that hold a term's chunks in one document with their weights.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

import numpy as np
import numpy.typing as npt
from psycopg.rows import DictRow, tuple_row

from graph.knowledge.chunking import Chunk
from graph.knowledge.places import Place
from graph.knowledge.terms import terms
from graph.postgres import Connection

# How fast repetition stops to count, and how much a long chunk is discounted.
_K1, _B = 0.9, 0.4
# Terms of a usual chunk. A constant, so that weights don't change when documents come and go.
_USUAL_LENGTH = 110
_SCALE = 134
# Of the question's terms the rarest are looked up until so many entries are read.
_MOST_ENTRIES = 10_000
_MOST_TERMS = 64

_COPY = """
    copy postings (project_id, term, document_id, chunks, positions, weights)
    from stdin with (format binary)
"""
_COUNT = """
    select p.term, sum(p.chunks)::int as chunks,
           (select coalesce(sum(chunk_count), 0)::int from documents
             where project_id = %(project)s and status = 'indexed') as total
      from postings p join documents d on d.id = p.document_id and d.status = 'indexed'
     where p.project_id = %(project)s and p.term = any(%(terms)s)
     group by p.term
"""
# One row a term; the aggregates of a group see its rows in the same order.
_FETCH = """
    select p.term, array_agg(p.document_id::text) as documents, array_agg(p.chunks) as chunks,
           string_agg(p.positions, '') as positions, string_agg(p.weights, '') as weights
      from postings p join documents d on d.id = p.document_id and d.status = 'indexed'
     where p.project_id = %(project)s and p.term = any(%(terms)s)
     group by p.term
"""
_EVERYTHING = """
    select p.term, p.document_id::text, p.positions, p.weights
      from postings p join documents d on d.id = p.document_id and d.status = 'indexed'
     where p.project_id = %s order by p.term
"""


class Posting(NamedTuple):
    """A term in one document: positions as int32 and weights as uint8, little-endian."""

    term: str
    document_id: str
    positions: bytes
    weights: bytes


@dataclass(frozen=True)
class Matches:
    """Chunks that have terms of a question, each with a score from 0 to 1.

    1 would be a chunk that repeats every term of the question endlessly. `best` has the highest
    scores, in order.
    """

    best: tuple[Place, ...] = ()
    _starts: dict[str, tuple[int, int]] = field(default_factory=dict)
    _scores: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def score(self, place: Place) -> float:
        """The chunk's score, 0 where it has none of the terms."""
        start, size = self._starts.get(place[0], (0, 0))
        return float(self._scores[start + place[1]]) if place[1] < size else 0.0


async def store(
    connection: Connection,
    project_id: str,
    document_id: str,
    postings: Sequence[Posting],
) -> None:
    """Put `postings` in place of the document's; within the caller's transaction."""
    owner = (UUID(project_id), UUID(document_id))
    async with connection.cursor() as cursor:
        await cursor.execute("delete from postings where document_id = %s", owner[1:])
        async with cursor.copy(_COPY) as copy:
            copy.set_types(["uuid", "text", "uuid", "int4", "bytea", "bytea"])
            for one in postings:
                await copy.write_row(
                    (owner[0], one.term, owner[1], len(one.weights), one.positions, one.weights)
                )


def postings_of(document_id: str, chunks: Sequence[Chunk]) -> list[Posting]:
    """The postings of a document's chunks. Blocks for long documents."""
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for chunk in chunks:
        for term, weight in _weights(chunk):
            places[term].append((chunk.position, weight))
    return [_posting(term, document_id, entries) for term, entries in sorted(places.items())]


async def search(
    connection: Connection, project_id: str, asked: dict[str, float], limit: int
) -> Matches:
    """Rank the project's chunks for the terms of a question, each with its weight."""
    asked = looked_up(asked)
    given = {"project": UUID(project_id), "terms": list(asked)}
    counted = await (await connection.execute(_COUNT, given)).fetchall()
    if not counted:
        return Matches()
    counts = {row["term"]: row["chunks"] for row in counted}
    rarity = rarities(asked, counts, counted[0]["total"])
    given["terms"] = rarest(counts)
    rows = await (await connection.execute(_FETCH, given, binary=True)).fetchall()
    return _ranked(rows, rarity, limit)


async def everything(connection: Connection, project_id: str) -> list[Posting]:
    """Give the whole index of the project's indexed documents, by term."""
    async with connection.cursor(binary=True, row_factory=tuple_row) as cursor:
        await cursor.execute(_EVERYTHING, (UUID(project_id),))
        return [Posting(*row) for row in await cursor.fetchall()]


def looked_up(asked: dict[str, float]) -> dict[str, float]:
    """Of a question's terms those with the most weight, where there are many."""
    return dict(Counter(asked).most_common(_MOST_TERMS)) if len(asked) > _MOST_TERMS else asked


def rarities(asked: dict[str, float], counts: dict[str, int], total: int) -> dict[str, float]:
    """The share of each term in a perfect match: its weight by its inverse document frequency."""
    idf = {term: weight * _idf(counts.get(term, 0), total) for term, weight in asked.items()}
    whole = sum(idf.values()) * (_K1 + 1) * _SCALE
    return {term: value / whole for term, value in idf.items()}


def rarest(counts: dict[str, int]) -> list[str]:
    """The terms that are looked up: the rarest, as many as have not too many entries."""
    chosen: list[str] = []
    left = _MOST_ENTRIES
    for term, chunks in sorted(counts.items(), key=lambda entry: entry[1]):
        if chosen and chunks > left:
            break
        chosen.append(term)
        left -= chunks
    return chosen


def _weights(chunk: Chunk) -> Iterator[tuple[str, int]]:
    counts = Counter(terms(chunk.text))
    for term in set(terms(chunk.heading)):
        counts[term] = max(counts[term], 1)
    length = counts.total() / _USUAL_LENGTH
    for term, count in counts.items():
        weight = count * (_K1 + 1) / (count + _K1 * (1 - _B + _B * length))
        yield term, max(1, min(255, round(weight * _SCALE)))


def _posting(term: str, document_id: str, entries: Sequence[tuple[int, int]]) -> Posting:
    positions = np.array([position for position, _ in entries], dtype="<i4")
    weights = np.array([weight for _, weight in entries], dtype="u1")
    return Posting(term, document_id, positions.tobytes(), weights.tobytes())


def _idf(chunks: int, total: int) -> float:
    return math.log(1 + (max(total - chunks, 0) + 0.5) / (chunks + 0.5))


def _ranked(rows: Sequence[DictRow], rarity: dict[str, float], limit: int) -> Matches:
    """Add the terms' scores up, in one array in which each document has a stretch of its own."""
    if not rows:
        return Matches()
    names = list(dict.fromkeys(name for row in rows for name in row["documents"]))
    number = {name: at for at, name in enumerate(names)}
    documents = np.concatenate([_documents(row, number) for row in rows])
    positions = np.concatenate([np.frombuffer(row["positions"], dtype="<i4") for row in rows])
    weights = np.concatenate(
        [np.frombuffer(row["weights"], dtype="u1") * rarity[row["term"]] for row in rows]
    )
    sizes = np.zeros(len(names), dtype=np.int64)
    np.maximum.at(sizes, documents, positions + 1)
    ends = np.cumsum(sizes)
    starts = ends - sizes
    scores = np.bincount(starts[documents] + positions, weights, ends[-1]).astype(np.float64)
    best = highest(scores, limit)
    where = np.searchsorted(ends, best, side="right")
    return Matches(
        tuple((names[at], int(one - starts[at])) for at, one in zip(where, best, strict=True)),
        {name: (int(starts[at]), int(sizes[at])) for name, at in number.items()},
        scores,
    )


def _documents(row: DictRow, number: dict[str, int]) -> npt.NDArray[np.int64]:
    """The number of the document of each of the row's entries."""
    return np.repeat([number[name] for name in row["documents"]], row["chunks"])


def highest(scores: npt.NDArray[np.float64], limit: int) -> npt.NDArray[np.int64]:
    """The places of the highest scores above 0, the highest first."""
    some = np.flatnonzero(scores)
    if len(some) > limit:
        some = some[np.argpartition(-scores[some], limit)[:limit]]
    highest: npt.NDArray[np.int64] = some[np.argsort(-scores[some], kind="stable")]
    return highest
