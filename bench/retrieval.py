"""How well the right passage is found: the service's own search, beside its parts and plain means.

Reads `../shared/data/retrieval`, or the folder that is named: documents, and questions with the
page and a quote of what answers them. `make bench-retrieval` runs it.
"""

import argparse
import asyncio
import json
import re
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from api.access.principals import LOCAL_USER
from api.dependencies import Parts
from api.opening import open_parts
from api.projects import NewProject, insert_project
from api.settings import Settings
from bench.plain import PlainBM25, PlainChroma, pieces_of
from graph.knowledge.library import Library
from graph.knowledge.minilm import MiniLM
from graph.knowledge.places import Place
from graph.knowledge.postings import Matches
from graph.knowledge.questions import Question, understood
from graph.knowledge.ranking import Hit, Passage, fuse, passages
from graph.knowledge.static_model import StaticModel
from graph.settings import ROOT

DATA = ROOT.parent / "shared" / "data" / "retrieval"
DEPTH = 20
_ENOUGH_WORDS = 0.6


@dataclass(frozen=True)
class Found:
    """A passage as it is judged."""

    document: str
    page: int | None
    text: str


Search = Callable[[str], Awaitable[list[Found]]]


def main() -> None:
    """Take the documents in, ask all questions of every search, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DATA)
    asyncio.run(measure(parser.parse_args().folder))


async def measure(folder: Path) -> None:
    """Print quality and speed of every search on the questions of `folder`."""
    lines = (folder / "questions.jsonl").read_text().splitlines()
    questions = [json.loads(line) for line in lines]
    paths = sorted((folder / "documents").iterdir())
    table = Table("", "hit@1", "hit@5", "hit@8", "MRR", "either@5", "nothing found", "ms")
    for name, search in plain_searches(paths).items():
        table.add_row(name, *await judged(search, questions))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        settings = Settings(_env_file=None, data_dir=Path(scratch), log_level="ERROR")
        async with open_parts(settings) as parts:
            bench = await Bench.prepared(parts, paths)
            for name, search in bench.searches().items():
                table.add_row(name, *await judged(search, questions))
            await bench.refine()
            table.add_section()
            for name, search in bench.searches().items():
                table.add_row(f"{name}, better vectors", *await judged(search, questions))
    Console(width=150).print(table)


def plain_searches(paths: Sequence[Path]) -> dict[str, Search]:
    """What everybody begins with."""
    pieces = pieces_of(paths)
    searches = {
        "plain BM25": PlainBM25(pieces),
        "plain vectors (WordLlama)": PlainChroma(pieces, StaticModel().embed),
        "Chroma by default (MiniLM)": PlainChroma(pieces, MiniLM().embed),
    }
    return {name: _plain_search(search) for name, search in searches.items()}


def _plain_search(search: PlainBM25 | PlainChroma) -> Search:
    async def run(question: str) -> list[Found]:
        found = await asyncio.to_thread(search.search, question, DEPTH)
        return [Found(piece.document, piece.page, piece.text) for piece in found]

    return run


async def insert_document(parts: Parts, project: uuid.UUID, name: str, chunks: int) -> str:
    """A row for a document that is indexed; gives its id."""
    document = uuid.uuid4()
    async with parts.pool.connection() as connection:
        await connection.execute(
            "insert into documents (id, project_id, name, mime_type, size_bytes, sha256, status,"
            " chunk_count) values (%s, %s, %s, 'text/plain', 1, '', 'indexed', %s)",
            (document, project, name, chunks),
        )
    return str(document)


class Bench:
    """A project with the documents in it, and the ways to search it."""

    def __init__(self, parts: Parts, project: uuid.UUID, documents: Sequence[str]) -> None:
        self._documents = documents
        self._library = parts.library
        self._project = str(project)

    @classmethod
    async def prepared(cls, parts: Parts, paths: Sequence[Path]) -> "Bench":
        """Take the documents in with their quick vectors, past the queue, which would go on."""
        project = uuid.uuid4()
        await insert_project(parts.pool, project, LOCAL_USER, NewProject(name="bench"))
        documents = []
        for path in paths:
            reading = await parts.library.read(await asyncio.to_thread(path.read_bytes), path.name)
            document = await insert_document(parts, project, path.name, len(reading.chunks))
            await parts.library.index(str(project), document, reading.chunks)
            documents.append(document)
        return cls(parts, project, documents)

    async def refine(self) -> None:
        """Make all vectors better now, and say how long it took."""
        started = time.perf_counter()
        for document in self._documents:
            await self._library.refine(self._project, document)
        chunks = await self._library.count(self._project)
        took = time.perf_counter() - started
        Console().print(
            f"{chunks} vectors made better in {took:.0f} s: {chunks / took:.0f} a second"
        )

    def searches(self) -> dict[str, Search]:
        """Each way to search by its name."""
        return {
            "terms alone": self._part(terms=True, grown=False),
            "vectors alone": self._part(vectors=True, grown=False),
            "terms and vectors": self._part(terms=True, vectors=True, grown=False),
            "with neighbours": self._part(terms=True, vectors=True),
            "with the floor: the service": self._whole,
        }

    async def _whole(self, question: str) -> list[Found]:
        found = await self._library.search(self._project, understood(question), limit=DEPTH)
        return [_found(passage) for passage in found]

    def _part(self, *, terms: bool = False, vectors: bool = False, grown: bool = True) -> Search:
        async def search(question: str) -> list[Found]:
            ranked = await self._ranked(understood(question), terms, vectors)
            best = ranked[:100]
            stored = await self._library._passages.fetch(self._project, [p for p, _ in best])
            shown = passages(best, stored, DEPTH) if grown else []
            if grown:
                return [_found(passage) for passage in shown]
            chunks = [stored[place] for place, _ in best[:DEPTH] if place in stored]
            return [Found(c.document_name, c.page_number, c.text) for c in chunks]

        return search

    async def _ranked(
        self, question: Question, terms: bool, vectors: bool
    ) -> list[tuple[Place, float]]:
        matches: Matches = Matches()
        hits: list[Hit] = []
        if terms:
            matches = await self._library._passages.match(self._project, question.terms, 200)
        if vectors:
            hits = await nearest(self._library, self._project, question)
        return fuse(matches, hits)


async def judged(search: Search, questions: Sequence[dict[str, Any]]) -> list[str]:
    """The row of one search: hits, mean reciprocal rank, refusals, median time."""
    ranks: list[tuple[int, int]] = []
    refused = {True: 0, False: 0}
    times: list[float] = []
    for question in questions:
        started = time.perf_counter()
        found = await search(question["question"])
        times.append(time.perf_counter() - started)
        answers = question["answers"]
        refused[bool(answers)] += not found
        if answers:
            each = [rank(answer, found) for answer in answers]
            ranks.append((max(each), min(each)))
    at = lambda n, which=0: f"{sum(r[which] <= n for r in ranks) / len(ranks):.2f}"  # noqa: E731
    reciprocal = sum(1 / worst for worst, _ in ranks if worst <= DEPTH) / len(ranks)
    unanswerable = sum(not question["answers"] for question in questions)
    return [
        *(at(1), at(5), at(8), f"{reciprocal:.3f}", at(5, 1)),
        f"{refused[False]} of {unanswerable} unanswerable, {refused[True]} of {len(ranks)} others",
        f"{sorted(times)[len(times) // 2] * 1000:.0f}",
    ]


def rank(answer: dict[str, Any], found: Sequence[Found]) -> int:
    """The place (from 1) of the first passage that holds the answer, 999 where none does."""
    places = (at for at, passage in enumerate(found, 1) if is_hit(answer, passage))
    return next(places, 999)


def is_hit(answer: dict[str, Any], passage: Found) -> bool:
    """The right document, and the quote in it; or the right page with most of the quote's words."""
    if passage.document != answer["document"]:
        return False
    if _plain(answer["quote"]) in _plain(passage.text):
        return True
    words = _words(answer["quote"])
    shared = sum(word in set(_words(passage.text)) for word in words)
    return passage.page in answer["pages"] and shared >= _ENOUGH_WORDS * len(words)


async def nearest(library: Library, project: str, question: Question) -> list[Hit]:
    """What the vectors alone find."""
    outline = await library._passages.outline(project)
    vector = await library._embedder.embed_query(question.whole)
    return await library._searching.nearest(project, vector, outline.quick)


def _found(passage: Passage) -> Found:
    chunk = passage.chunk
    return Found(chunk.document_name, chunk.page_number, passage.text)


def _plain(text: str) -> str:
    straight = text.lower().translate(str.maketrans("‘’“”", "''\"\""))
    return re.sub(r"[\s\-\u00ad\u2010]+", "", straight)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


if __name__ == "__main__":
    main()
