"""Time to the first token: the service with its embedded parts, beside the same model asked alone.

Both ask one llama.cpp process in turn, with prompts of the same length, so that the difference is
what the service costs: two databases, retrieval, pipeline, run, stream. `make bench` runs it.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse
from rich.console import Console
from rich.table import Table

from api.server import running
from api.settings import Settings
from graph.context import Context
from graph.local_model import CONTEXT_WINDOW, LocalModel
from graph.pinning import pin
from graph.prompting import Prompting
from graph.settings import ROOT
from graph.state import UNSORTED, Source
from graph.texts.texts import Texts

STEPS = {
    "loadTemplate": "load template",
    "retrieve": "retrieve",
    "firstToken": "until the first token",
    "generate": "generate, to its end",
    "total": "all of it",
}


def main() -> None:
    """Measure and print medians in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=10, help="counted rounds, after one warm-up")
    rounds = parser.parse_args().n
    rows = []
    # One for all rounds, as in the service: what two prompts share, the model reads once.
    prompting = Prompting()
    with LocalModel() as model, service(model) as http, httpx.Client(timeout=120) as direct:
        project = prepare(http)
        for number in range(rounds + 1):
            question = f"At which water level is the state Alarm reached? ({number})"
            first, timings, source = ask(http, project, question)
            alone = ask_model(direct, model, prompting, question, source)
            steps = {STEPS[name]: timings[name] for name in STEPS}
            rows.append({"service": first, "model": alone, **steps})
    show(rows[1:])


@contextmanager
def service(model: LocalModel) -> Iterator[httpx.Client]:
    """A service in a scratch folder that asks `model`; all else is embedded in it."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        settings = Settings(
            _env_file=None,
            data_dir=Path(folder),
            port=0,
            openai_base_url=model.base_url,
            openai_api_key=model.api_key,
            openai_model=model.name,
        )
        with running(settings) as url, httpx.Client(base_url=url, timeout=120) as http:
            yield http


def prepare(http: httpx.Client) -> str:
    """A project with the handbook in it, of which one passage is shown to the model."""
    body = {"name": "bench", "settings": {"topK": 1, "temperature": 0}}
    project = http.post("/projects", json=body).json()["project"]["id"]
    path = ROOT / "samples" / "sensor-handbook.pdf"
    http.post(f"/documents/projects/{project}", files={"file": (path.name, path.read_bytes())})
    while http.get(f"/documents/projects/{project}").json()["documents"][0]["status"] != "indexed":
        time.sleep(0.1)
    return str(project)


def ask(http: httpx.Client, project: str, question: str) -> tuple[float, dict[str, float], Source]:
    """Milliseconds to the first `text`, the service's own timings, and the passage shown."""
    chunk: dict[str, Any] = {}
    first, began = 0.0, time.perf_counter()
    path = f"/chat/projects/{project}"
    with connect_sse(http, "POST", path, json={"message": question}) as stream:
        for event in stream.iter_sse():
            if event.event == "sources":
                chunk = event.json()["chunks"][0]
            elif event.event == "text":
                first = first or (time.perf_counter() - began) * 1000
            elif event.event == "done":
                timings = event.json()["timingsMs"]
    passage = http.get(f"/chat/chunks/{chunk['id']}/source").json()["snippet"]
    source: Source = {
        "id": chunk["id"],
        "document_id": chunk["documentId"],
        "document_name": chunk["documentName"],
        "page_number": chunk["pageNumber"],
        "text": passage,
        "url": None,
        "heading": "",
        "context": passage,
    }
    return first, timings, source


def ask_model(
    http: httpx.Client, model: LocalModel, prompting: Prompting, question: str, source: Source
) -> float:
    """Milliseconds to the first token of the model itself, asked what the service asks it."""
    context = Context(project_name="bench")
    words, _ = pin(Texts(ROOT / "prompts", ROOT / "templates").files(), UNSORTED, context)
    prompt = prompting.compose(
        {"messages": [{"role": "user", "content": question}], "passages": [source], **words},
        context,
        CONTEXT_WINDOW,
    )
    body = {"model": model.name, "messages": prompt.messages, "stream": True, "temperature": 0}
    headers = {"Authorization": f"Bearer {model.api_key}"}
    first, began = 0.0, time.perf_counter()
    url = f"{model.base_url}/chat/completions"
    with connect_sse(http, "POST", url, json=body, headers=headers) as stream:
        for event in stream.iter_sse():
            if event.data == "[DONE]":
                break
            choices = event.json()["choices"]
            if choices and choices[0]["delta"].get("content"):
                first = first or (time.perf_counter() - began) * 1000
    return first


def show(rows: list[dict[str, float]]) -> None:
    """Print the medians."""
    median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    table = Table("median of", f"{len(rows)} rounds, ms", title="Time to the first token")
    table.add_row("through the service", f"{median['service']:.0f}")
    table.add_row("the same model alone", f"{median['model']:.0f}")
    table.add_row("ratio", f"{median['service'] / median['model']:.2f}")
    table.add_section()
    for name in STEPS.values():
        table.add_row(name, f"{median[name]:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
