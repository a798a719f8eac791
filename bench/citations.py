"""Precision and recall of the citations that the service makes, and of its check of a model's.

The questions of `../shared/data/retrieval` (or of `--data`) are asked over HTTP for their
passages, and the passage with the answer is put among them where it was not found: this measures
marking, not retrieval. A stand-in answers: in its own words, in the document's, and wrongly.
`make bench-citations` runs it.
"""

import argparse
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from api.server import running
from api.settings import Settings
from bench.answers import GENERAL, plain, reworded, sentence_of, spoiled
from graph.marking import Marking
from graph.settings import ROOT
from graph.state import Source
from graph.support import Evidence

SHOWN = 8
RIGHT = ("own words", "the document's sentence", "that reworded")


@dataclass
class Asked:
    """A question with its passages; `gold` are the numbers of those that answer it."""

    question: dict[str, Any]
    sources: list[Source]
    gold: list[int]


@dataclass
class Tally:
    """What became of the sentences of one kind."""

    sentences: int = 0
    marked: int = 0
    right: int = 0
    borne_out: int = 0
    wrong: list[str] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/retrieval")
    parser.add_argument("--show", action="store_true", help="also print each wrong marker")
    options = parser.parse_args()
    asked = list(passages(options.data))
    tallies: dict[str, Tally] = defaultdict(Tally)
    spent = [count(tallies, one, asked) for one in asked]
    show(tallies, sum(spent) / len(spent))
    if options.show:
        for kind, tally in tallies.items():
            for sentence in tally.wrong:
                Console().print(f"{kind}: {sentence}", markup=False)


def passages(data: Path) -> Iterator[Asked]:
    """Take the documents in and ask each question."""
    questions = [json.loads(line) for line in (data / "questions.jsonl").read_text().splitlines()]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = Settings(
            _env_file=None,
            data_dir=Path(folder),
            port=0,
            # No model is asked.
            openai_base_url="http://127.0.0.1:9/v1",
            openai_model="none",
        )
        with running(settings) as url, httpx.Client(base_url=url, timeout=300) as http:
            project = take_in(http, sorted((data / "documents").iterdir()))
            for question in questions:
                yield with_gold(http, project, question)


def take_in(http: httpx.Client, paths: Sequence[Path]) -> str:
    """A project with the documents, all of them searchable."""
    project = str(http.post("/projects", json={"name": "bench"}).json()["project"]["id"])
    for path in paths:
        http.post(f"/documents/projects/{project}", files={"file": (path.name, path.read_bytes())})
    for _ in range(1500):
        documents = http.get(f"/documents/projects/{project}").json()["documents"]
        if all(document["status"] == "indexed" for document in documents):
            return project
        time.sleep(0.2)
    raise SystemExit("The documents were not indexed within 300 s.")


def with_gold(http: httpx.Client, project: str, question: dict[str, Any]) -> Asked:
    """The question's passages, the last of them replaced by what answers it if need be."""
    sources = search(http, project, question["question"], SHOWN)
    gold = []
    for answer in question["answers"]:
        found = search(http, project, answer["quote"], 50)
        gold += [source for source in found if holds(source, answer)][:1]
    missing = [source for source in gold if source["id"] not in {s["id"] for s in sources}]
    sources = [*sources[: SHOWN - len(missing)], *missing]
    places = [
        number
        for number, source in enumerate(sources, 1)
        if any(holds(source, answer) for answer in question["answers"])
    ]
    return Asked(question, sources, places)


def search(http: httpx.Client, project: str, text: str, limit: int) -> list[Source]:
    """The passages for `text`, as the service finds them."""
    query: dict[str, Any] = {"project_id": project, "q": text, "limit": limit}
    results = http.get("/api/v1/knowledge/search", params=query).json()["results"]
    return [
        {
            "id": result["id"],
            "document_id": result["metadata"]["document_id"],
            "document_name": result["metadata"]["document_name"],
            "page_number": result["metadata"]["page_number"],
            "text": result["content"],
            "url": None,
            "heading": "",
            "context": result["content"],
        }
        for result in results
    ]


def holds(source: Source, answer: dict[str, Any]) -> bool:
    """Whether the quote stands in the passage, or 60 % of its words on one of its pages."""
    if source["document_name"] != answer["document"]:
        return False
    if plain(answer["quote"]) in plain(source["text"]):
        return True
    words, found = set(answer["quote"].lower().split()), set(source["text"].lower().split())
    on_page = source["page_number"] in answer["pages"]
    return on_page and len(words & found) >= 0.6 * len(words)


def count(tallies: dict[str, Tally], one: Asked, all_asked: Sequence[Asked]) -> float:
    """Let the stand-in answer in every way; gives the ms that a sentence took on average."""
    evidence = Evidence(one.sources, one.question["question"])
    began, number = time.perf_counter(), 0
    for kind, sentence in answers(one, all_asked):
        number += 1
        tally = tallies[kind]
        tally.sentences += 1
        marked = markers(evidence, sentence)
        tally.marked += bool(marked)
        if kind in RIGHT and marked and all(index in one.gold for index in marked):
            tally.right += 1
        elif marked:
            tally.wrong.append(f"{sentence} {marked}")
        judged = [evidence.judge(sentence, index).supported for index in one.gold]
        tally.borne_out += any(judged)
    return (time.perf_counter() - began) * 1000 / max(number, 1)


def markers(evidence: Evidence, sentence: str) -> list[int]:
    """The numbers of the markers that the service puts into an answer of one sentence."""
    marking = Marking(evidence)
    marking.feed([sentence])
    marking.close()
    return [check.finding.index for check in marking.checks()]


def answers(one: Asked, all_asked: Sequence[Asked]) -> Iterator[tuple[str, str]]:
    """(kind, sentence): what the stand-in says to a question."""
    if not one.question["answers"]:
        yield from (("general knowledge", sentence) for sentence in GENERAL)
    own = [sentence for sentence in said(one)]
    if own:
        yield "own words", one.question["answer"]
    for sentence in own:
        yield "the document's sentence", sentence
        yield "that reworded", reworded(sentence)
    for sentence in [one.question["answer"], *own] if own else ():
        yield from spoiled(sentence)
    yield from (("of another question", sentence) for sentence in foreign(one, all_asked))


def said(one: Asked) -> list[str]:
    """The sentences of the passages in which the quotes stand."""
    texts = [source["text"] for source in one.sources]
    found = (
        next(filter(None, (sentence_of(text, answer["quote"]) for text in texts)), None)
        for answer in one.question["answers"]
    )
    return [sentence for sentence in found if sentence]


def foreign(one: Asked, all_asked: Sequence[Asked]) -> Iterator[str]:
    """What is said to the next three questions, if no passage of this one says it too."""
    at = all_asked.index(one)
    held = plain(" ".join(source["text"] for source in one.sources))
    for other in [*all_asked, *all_asked][at + 1 : at + 4]:
        quotes = [answer["quote"] for answer in other.question["answers"]]
        if quotes and not any(plain(quote) in held for quote in quotes):
            yield from [other.question["answer"], *said(other)]


def show(tallies: dict[str, Tally], ms: float) -> None:
    """Print the tables."""
    table = Table("answer", "sentences", "marked", "rightly", "recall", "borne out where cited")
    for kind, tally in sorted(tallies.items(), key=lambda item: item[0] not in RIGHT):
        recall = f"{tally.right / tally.sentences:.2f}" if kind in RIGHT else ""
        borne = f"{tally.borne_out / tally.sentences:.2f}"
        right = str(tally.right) if kind in RIGHT else ""
        row = (kind, str(tally.sentences), str(tally.marked), right, recall, borne)
        table.add_row(*row, end_section=kind == RIGHT[-1])
    console = Console()
    console.print(table)
    right = sum(tally.right for tally in tallies.values())
    marked = sum(tally.marked for tally in tallies.values())
    console.print(f"Precision {right / max(marked, 1):.3f} ({right} of {marked} markers)")
    console.print(f"{ms:.2f} ms for a sentence and {SHOWN} passages, all its checks together")


if __name__ == "__main__":
    main()
