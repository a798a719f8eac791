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

from api.access import LOCAL_USER
from api.app import open_parts
from api.dependencies import Parts
from api.projects import NewProject, insert_project
from api.settings import Settings
from graph.knowledge.places import Place
from graph.knowledge.postings import Matches
from graph.knowledge.questions import Question, understood
from graph.knowledge.ranking import Passage, fuse, passages
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
    table = Table("", "hit@1", "hit@5", "hit@8", "MRR", "either@5", "nothing found", "ms")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        settings = Settings(_env_file=None, data_dir=Path(scratch), log_level="ERROR")
        async with open_parts(settings) as parts:
            bench = await Bench.prepared(parts, sorted((folder / "documents").iterdir()))
            for name, search in bench.searches().items():
                table.add_row(name, *await judged(search, questions))
    Console().print(table)


class Bench:
    """A project with the documents in it, and the ways to search it."""

    def __init__(self, parts: Parts, project: uuid.UUID) -> None:
        self._parts = parts
        self._library = parts.library
        self._project = str(project)

    @classmethod
    async def prepared(cls, parts: Parts, paths: Sequence[Path]) -> "Bench":
        """Take the documents in, and wait until their vectors are the better ones."""
        project = uuid.uuid4()
        await insert_project(parts.pool, project, LOCAL_USER, NewProject(name="bench"))
        console = Console()
        for path in paths:
            started = time.perf_counter()
            row = await parts.ingestion.accept(project, path.name, path.read_bytes())
            chunks = await parts.ingestion.work_on(row["id"])
            indexed = time.perf_counter()
            await parts.library.refine(str(project), str(row["id"]))
            console.print(
                f"{path.name}: {chunks} chunks, searchable after {indexed - started:.1f} s, "
                f"better vectors after {time.perf_counter() - indexed:.1f} s more"
            )
        return cls(parts, project)

    def searches(self) -> dict[str, Search]:
        """Each way to search by its name."""
        return {
            "terms alone, no neighbours": self._part(terms=True, grown=False),
            "vectors alone, no neighbours": self._part(vectors=True, grown=False),
            "terms alone": self._part(terms=True),
            "vectors alone": self._part(vectors=True),
            "both, no neighbours": self._part(terms=True, vectors=True, grown=False),
            "both": self._part(terms=True, vectors=True),
            "Archwright": self._whole,
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
        matches, hits = Matches(), []
        if terms:
            matches = await self._library._passages.match(self._project, question.terms, 200)
        if vectors:
            hits = await self._library._nearest(self._project, question)
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
