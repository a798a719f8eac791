"""How long a search takes in a project of 1 000, 10 000 and 100 000 chunks.

The chunks are made of sentences of the documents of `bench/retrieval.py`, shuffled, so that words
are as frequent as in real text. Their vectors are the service's quick ones with noise in the place
of the better ones, which would take an hour to compute here. `make bench-retrieval` runs it.
"""

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from api.access.principals import LOCAL_USER
from api.dependencies import Parts
from api.opening import open_parts
from api.projects import NewProject, insert_project
from api.settings import Settings
from bench.retrieval import DATA, insert_document, nearest
from graph.knowledge.chunking import Chunk
from graph.knowledge.questions import understood
from graph.knowledge.reading import read

SIZES = (1_000, 10_000, 100_000)
DOCUMENT = 250
LIMIT = 8


def main() -> None:
    """Fill projects of each size, ask all questions of each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DATA)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    given = parser.parse_args()
    asyncio.run(measure(given.folder, given.sizes))


async def measure(folder: Path, sizes: Sequence[int]) -> None:
    """Print medians and 95th percentiles in milliseconds."""
    lines = (folder / "questions.jsonl").read_text().splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    table = Table("chunks", "search, median ms", "p95 ms", "terms alone", "vectors alone")
    sentences = await sentences_of(sorted((folder / "documents").iterdir()))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        settings = Settings(_env_file=None, data_dir=Path(scratch), log_level="ERROR")
        async with open_parts(settings) as parts:
            for size in sizes:
                project = await filled(parts, sentences, size)
                table.add_row(f"{size:,}", *await timed(parts, project, questions))
    Console().print(table)


async def sentences_of(paths: Sequence[Path]) -> list[str]:
    """All sentences of the documents, near enough."""
    readings = [await read(path.read_bytes(), path.name) for path in paths]
    texts = [chunk.text for reading in readings for chunk in reading.chunks]
    return [part for text in texts for part in text.replace("\n", ". ").split(". ") if part]


async def filled(parts: Parts, sentences: Sequence[str], size: int) -> str:
    """A project with `size` chunks in documents of 250."""
    project = uuid.uuid4()
    await insert_project(parts.pool, project, LOCAL_USER, NewProject(name="bench"))
    chance = random.Random(size)
    for _ in range(size // DOCUMENT):
        chunks = list(made(sentences, chance))
        document = await insert_document(parts, project, str(uuid.uuid4()), len(chunks))
        await store(parts, str(project), document, chunks)
    return str(project)


def made(sentences: Sequence[str], chance: random.Random) -> Iterator[Chunk]:
    """The chunks of one document, of some 700 characters."""
    for position in range(DOCUMENT):
        text = ""
        while len(text) < 700:
            text += chance.choice(sentences) + ". "
        yield Chunk(position, position // 4 + 1, "", text[:1000])


async def store(parts: Parts, project: str, document: str, chunks: Sequence[Chunk]) -> None:
    """Make the chunks searchable, the second half of their vectors noise."""
    library = parts.library
    texts = [chunk.searchable for chunk in chunks]
    vectors = np.array(await library._embedder.embed_documents(texts, quick=True))
    noise = np.random.default_rng(uuid.UUID(document).int % 2**32).standard_normal(
        (len(chunks), 384)
    )
    vectors[:, 256:] = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    records = [f"{document}/{chunk.position}" for chunk in chunks]
    ids = [str(uuid.uuid4()) for _ in chunks]
    await library._passages.store(project, document, list(zip(ids, chunks, strict=True)))
    await library._vectors.add(project, document, records, (vectors / 2**0.5).tolist())


async def timed(parts: Parts, project: str, questions: Sequence[str]) -> list[str]:
    """Median and 95th percentile of whole searches, and the medians of their halves."""
    library = parts.library
    whole: list[float] = []
    terms: list[float] = []
    vectors: list[float] = []
    for question in [*questions[:10], *questions]:
        asked = understood(question)
        whole.append(await took(library.search(project, asked, limit=LIMIT)))
        terms.append(await took(library._passages.match(project, asked.terms, 200)))
        vectors.append(await took(nearest(library, project, asked)))
    whole, terms, vectors = whole[10:], terms[10:], vectors[10:]
    p95 = statistics.quantiles(whole, n=20)[-1]
    medians = [statistics.median(times) for times in (whole, terms, vectors)]
    return [f"{value:.1f}" for value in (medians[0], p95, *medians[1:])]


async def took(work: object) -> float:
    """Milliseconds until `work` is done."""
    started = time.perf_counter()
    await work  # type: ignore[misc]
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
