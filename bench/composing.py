"""What putting a prompt together costs, and how close the estimate of tokens comes.

`python -m bench.composing` measures a draft with much `project_context`, and compares the estimate
with the embedded model's own tokenizer. No model is asked for an answer.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

import httpx
from rich.console import Console
from rich.table import Table

from graph.context import Context
from graph.local_model import LocalModel
from graph.pinning import pin
from graph.prompting import Prompting
from graph.settings import ROOT
from graph.state import State
from graph.texts.texts import Texts
from graph.tokens import most_tokens

P = ParamSpec("P")
T = TypeVar("T")

WINDOWS = (8_192, 32_768, 131_072, 1_048_576)
SIZE = 20_000
TEXTS = {
    "samples": ("samples/*.md", "samples/*.txt"),
    "documentation": ("docs/*.md", "*.md"),
    "templates and examples": ("templates/*/*/*",),
    "source code": ("graph/*.py",),
}


def main() -> None:
    """Measure and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=float, default=1, help="of project_context")
    parser.add_argument("-n", type=int, default=5, help="rounds, of which the median counts")
    options = parser.parse_args()
    prose = of_files("docs/*.md", "templates/*/*/*")
    state = draft(prose, int(options.megabytes * 1_000_000 / SIZE))
    show_composing(state, options.n)
    show_estimates()


def draft(prose: str, documents: int) -> State:
    """A turn that drafts TECH_STACK beside that many documents of 20 kB each."""
    texts = Texts(ROOT / "prompts", ROOT / "templates")
    pinned, _ = pin(texts.files(), "TECH_STACK", Context())
    text = (prose * (SIZE // len(prose) + 2))[:SIZE]
    state: State = {"messages": [{"role": "user", "content": "Draft it."}], **pinned}
    state["project_context"] = {f"notes/{n}.md": f"{n}\n{text}" for n in range(documents)}
    return state


def show_composing(state: State, rounds: int) -> None:
    """Print how long a prompt takes for windows of several sizes."""
    columns = ("window, tokens", "documents that fit", "ms at first", "ms with the next turn")
    table = Table(*columns, title="putting a prompt together")
    most_tokens("Load the vocabularies.")
    for window in WINDOWS:
        first = [timed(Prompting().compose, state, Context(), window) for _ in range(rounds)]
        prompting = Prompting()
        again = [timed(prompting.compose, state, Context(), window) for _ in range(rounds + 1)]
        documents = again[0][0].documents
        table.add_row(f"{window:,}", str(len(documents)), median(first), median(again[1:]))
    Console().print(table)


def show_estimates() -> None:
    """Print the estimate over the real number of tokens, and how fast it is."""
    table = Table("text", "kB", "estimated / real", "MB/s", title="estimate of tokens")
    with LocalModel() as model, httpx.Client(timeout=60, trust_env=False) as http:
        url = f"{model.base_url.removesuffix('/v1')}/tokenize"
        http.headers["Authorization"] = f"Bearer {model.api_key}"
        for name, patterns in TEXTS.items():
            text = of_files(*patterns)
            real = len(http.post(url, json={"content": text}).json()["tokens"])
            estimate, ms = timed(most_tokens, text)
            speed = f"{len(text) / ms / 1000:.1f}"
            table.add_row(name, f"{len(text) / 1000:.0f}", f"{estimate / real:.2f}", speed)
    Console().print(table)


def timed(measured: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, float]:
    """What `measured` gives, and its milliseconds."""
    began = time.perf_counter()
    result = measured(*args, **kwargs)
    return result, (time.perf_counter() - began) * 1000


def median(timings: Sequence[tuple[object, float]]) -> str:
    """The median milliseconds."""
    return f"{statistics.median(ms for _, ms in timings):.0f}"


def of_files(*patterns: str) -> str:
    """The text of all files that match."""
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)


if __name__ == "__main__":
    main()
