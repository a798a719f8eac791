"""The demonstration: a scratch service, the sample documents, a question and a draft."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from api.client import Client, Stream
from api.server import running
from api.settings import Settings
from api.terminal import out, show_answer, show_draft, taken_in
from graph.settings import ROOT

_LONGEST_S = 150
_SAMPLES = ROOT / "samples"


def demonstrate(settings: Settings) -> int:
    """Ask and draft, printing both as they stream; gives the exit code.

    Raises:
        StartFailed: the service cannot be started.
        ServiceError: it does not do what is asked.
    """
    began, console = time.monotonic(), out()
    with (
        tempfile.TemporaryDirectory(prefix="archwright-", ignore_cleanup_errors=True) as folder,
        ExitStack() as service,
    ):
        with console.status("Starting a service in a scratch data folder…"):
            url = service.enter_context(running(_scratch(settings, Path(folder))))
        code = _ask_and_draft(url, console, began)
    console.print(f"\nThat took {time.monotonic() - began:.0f} s, and nothing of it is left.")
    return code


def _scratch(settings: Settings, folder: Path) -> Settings:
    """The settings with the same models, but with other data than the user's own."""
    own = {"data_dir": folder, "database_url": None, "chroma_url": None}
    open_to_us = dict.fromkeys(("api_key", "jwt_secret", "jwt_jwks_url"))
    return settings.model_copy(update={**own, **open_to_us, "host": "127.0.0.1", "port": 0})


def _ask_and_draft(url: str, console: Console, began: float) -> int:
    question, answer, place = _sample_question()
    with Client(url) as client:
        console.print(f"A service runs at {url}. Uploading the documents of {_SAMPLES}:\n")
        # The small model does best with one passage to read.
        project_id = client.project("Tidewatch", {"topK": 1, "temperature": 0})
        samples = sorted(p for p in _SAMPLES.iterdir() if p.name != "README.md")
        for path, trouble in taken_in(client, project_id, samples):
            console.print(f"  {path.name}: {trouble or 'indexed'}", markup=False)

        _headline(console, f"Question: {question}")
        with _bounded(client.ask(project_id, question), began) as stream:
            failed = show_answer(stream)
        console.print(f"\n(What stands there: {answer}. {place}.)", style="dim", markup=False)

        _headline(console, "Draft: PROJECT_MANIFESTO")
        about = "Draft the project manifesto of Tidewatch from the project's documents."
        with _bounded(client.draft(project_id, "PROJECT_MANIFESTO", about), began) as stream:
            failed |= show_draft(stream, None)
    return failed


def _sample_question() -> tuple[str, str, str]:
    """The first row of the table in the samples' README: question, answer, where it stands."""
    lines = (_SAMPLES / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
    question, answer, place = (cell.strip().replace("`", "") for cell in rows[2])
    return question, answer, place


@contextmanager
def _bounded(stream: Stream, began: float) -> Iterator[Stream]:
    """`stream`, stopped where it is when the demonstration has taken its time."""
    timer = threading.Timer(began + _LONGEST_S - time.monotonic(), stream.stop)
    timer.daemon = True
    timer.start()
    try:
        yield stream
    finally:
        timer.cancel()


def _headline(console: Console, words: str) -> None:
    console.print(f"\n{words}\n", style="bold", markup=False)
