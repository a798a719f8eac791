"""How fast documents become searchable: the service beside a plain script.

The script loads, splits, embeds and puts into Chroma.

Both read the PDFs of `../shared/data/retrieval`, or of the folder that is named, in turn.
`make bench-retrieval` runs it.
"""

import argparse
import asyncio
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import pypdfium2
from rich.console import Console
from rich.table import Table

from api.access.principals import LOCAL_USER
from api.dependencies import Parts
from api.opening import open_parts
from api.projects import NewProject, insert_project
from api.settings import Settings
from bench.plain import Embed, PlainChroma, pieces_of
from bench.retrieval import DATA
from graph.knowledge.minilm import MiniLM
from graph.knowledge.parsing import recognise
from graph.knowledge.static_model import StaticModel


def main() -> None:
    """Take each PDF in by each way, print pages a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=DATA)
    parser.add_argument("-n", type=int, default=3, help="rounds, of which the median counts")
    given = parser.parse_args()
    asyncio.run(measure(given.folder, given.n))


async def measure(folder: Path, rounds: int) -> None:
    """Print the medians in pages a second, and the ratios to the plain script."""
    table = Table(
        "document", "pages", "service", "plain, WordLlama", "ratio", "plain, MiniLM", "ratio"
    )
    static, minilm = StaticModel(), MiniLM()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        settings = Settings(_env_file=None, data_dir=Path(scratch), log_level="ERROR")
        async with open_parts(settings) as parts:
            for path in sorted((folder / "documents").glob("*.pdf")):
                pages = len(pypdfium2.PdfDocument(path.read_bytes()))
                service = [await with_service(parts, path) for _ in range(rounds)]
                quick = [plainly(path, static.embed) for _ in range(rounds)]
                slow = [plainly(path, minilm.embed)]
                table.add_row(path.name, str(pages), *row(pages, service, quick, slow))
    Console().print(table)


def row(pages: int, service: list[float], quick: list[float], slow: list[float]) -> list[str]:
    """Pages a second of each, and how many times as fast the service is."""
    mine, theirs, better = (pages / statistics.median(times) for times in (service, quick, slow))
    return [
        f"{mine:.0f}", f"{theirs:.0f}", f"{mine / theirs:.2f}",
        f"{better:.1f}", f"{mine / better:.1f}",
    ]  # fmt: skip


async def with_service(parts: Parts, path: Path) -> float:
    """Seconds until an uploaded file is `indexed`."""
    project = uuid.uuid4()
    await insert_project(parts.pool, project, LOCAL_USER, NewProject(name="bench"))
    data = await asyncio.to_thread(path.read_bytes)
    started = time.perf_counter()
    kind = await asyncio.to_thread(recognise, data, path.name)
    row = await parts.ingestion.accept(project, path.name, data, kind)
    settled = await parts.ingestion.progress.settled(row["id"], 600)
    assert settled is not None
    assert settled["status"] == "indexed", settled
    took = time.perf_counter() - started
    # What the queue would do next takes a core from the rounds that follow.
    await parts.erasure.document(project, row["id"], path.name, by=LOCAL_USER)
    return took


def plainly(path: Path, embed: Embed) -> float:
    """Seconds that the plain script takes."""
    started = time.perf_counter()
    PlainChroma(pieces_of([path]), embed)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
