"""What a turn costs in a project of 100 000 chunks, beside one of a thousand.

One service is asked the same in both projects, in turn. The chunks are rows in Postgres and vectors
in Chroma, made of the sentences of this repository's own documents, shuffled, so that words are as
frequent as in real text. Their vectors are means of the sentences' quick ones, with noise in the
place of the better ones, which would take an hour to compute. Their index is built less thoroughly
than the service does it, in a third of the time, and searched as thoroughly. `make bench` runs it,
for some minutes.
"""

import argparse
import asyncio
import random
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from chromadb.api.collection_configuration import CreateHNSWConfiguration

from api.access.principals import LOCAL_USER
from api.dependencies import Parts
from api.opening import open_parts
from api.projects import NewProject, insert_project
from api.settings import Settings
from bench.growth import Measured, asked, show_ratios
from bench.retrieval import insert_document
from bench.search_time import sentences_of
from graph.knowledge import vectors
from graph.knowledge.chunking import Chunk
from graph.knowledge.minilm import DIMENSIONS
from graph.knowledge.places import record_of
from graph.knowledge.static_model import StaticModel, unit
from graph.settings import ROOT

FEW = 1_000
AROUND = 30
WARM_UP = 5
DOCUMENT = 250
SENTENCES = 8
TEXTS = ("docs", "prompts", "samples", "templates")


@dataclass(frozen=True)
class Corpus:
    """Sentences, and a unit vector of each."""

    sentences: Sequence[str]
    vectors: npt.NDArray[np.float32]

    def chunks(self, chosen: Sequence[Sequence[int]]) -> Iterator[Chunk]:
        """The chunks of a document, of the sentences with these numbers."""
        for position, numbers in enumerate(chosen):
            text = " ".join(f"{self.sentences[number]}." for number in numbers)
            yield Chunk(position, position // 4 + 1, "", text[:1000])

    def vectors_of(self, chosen: Sequence[Sequence[int]]) -> list[list[float]]:
        """The vectors of these chunks."""
        means = unit(self.vectors[np.array(chosen)].mean(axis=1))
        noise = np.random.default_rng(chosen[0][0]).standard_normal((len(chosen), DIMENSIONS))
        joined: list[list[float]] = (np.hstack([means, unit(noise)]) / 2**0.5).tolist()
        return joined


def main() -> None:
    """Fill two projects, ask the same in both, print the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100_000, help="chunks of the large project")
    sizes = (FEW, parser.parse_args().n)
    corpus = asyncio.run(read())
    projects: list[str] = []
    found: dict[int, list[Measured]] = defaultdict(list)
    with asked(partial(prepare, projects, corpus, sizes)) as (service, _):
        for _ in range(WARM_UP + AROUND):
            question = f"What is said of this: {random.choice(corpus.sentences)[:200]}?"
            for size, project in zip(sizes, projects, strict=True):
                found[size].append(asdict(service.turn(None, question, project)[1]))
    show_ratios({f"{size:,} chunks": each[WARM_UP:] for size, each in found.items()})


async def read() -> Corpus:
    """The repository's own documents."""
    texts = [path for folder in TEXTS for path in sorted((ROOT / folder).rglob("*.md"))]
    sentences = await sentences_of(texts)
    return Corpus(sentences, StaticModel().embed(sentences))


def prepare(projects: list[str], corpus: Corpus, sizes: Sequence[int], settings: Settings) -> None:
    """Add the projects to what will be the data of a service that does not run yet."""
    vectors._INDEX = CreateHNSWConfiguration(**{**vectors._INDEX, "ef_construction": 50})

    async def fill() -> None:
        async with open_parts(settings) as parts:
            for size in sizes:
                projects.append(await filled(parts, corpus, size))

    asyncio.run(fill())


async def filled(parts: Parts, corpus: Corpus, size: int) -> str:
    """A project with `size` chunks in documents of 250."""
    project = uuid.uuid4()
    await insert_project(parts.pool, project, LOCAL_USER, NewProject(name="bench"))
    names = [str(uuid.uuid4()) for _ in range(size // DOCUMENT)]
    documents = {
        await insert_document(parts, project, name, DOCUMENT): [
            random.choices(range(len(corpus.sentences)), k=SENTENCES) for _ in range(DOCUMENT)
        ]
        for name in names
    }

    async def store_passages() -> None:
        for document, chosen in documents.items():
            chunks = [(str(uuid.uuid4()), chunk) for chunk in corpus.chunks(chosen)]
            await parts.library._passages.store(str(project), document, chunks)
            await parts.library._passages.mark_refined(document)

    async def store_vectors() -> None:
        for document, chosen in documents.items():
            records = [record_of((document, position)) for position in range(len(chosen))]
            made = corpus.vectors_of(chosen)
            await parts.library._vectors.add(str(project), document, records, made)

    await asyncio.gather(store_passages(), store_vectors())
    return str(project)


if __name__ == "__main__":
    main()
