"""What the commands show in a terminal: answers and drafts as they stream, uploads as they go."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
)

from api.client import ASKED_AGAIN, TERMINAL, Client, ServiceError, Stream

T = TypeVar("T")

_UPLOADED_AHEAD = 4
_MOST_NOTES = 15
_CUT = {
    "stopped": "It was stopped before its end.",
    "length": "The model's limit was reached before the end.",
    "content_filter": "The provider's content filter ended it.",
}
_SUFFIXES = {".pdf", ".docx", ".pptx", ".xlsx", ".html", ".htm", ".md", ".markdown", ".txt"}


def out() -> Console:
    """Where answers go."""
    return Console(highlight=False, soft_wrap=True)


def err() -> Console:
    """Where everything goes that is no answer."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def show_answer(stream: Stream) -> int:
    """Print an answer as it streams, then its sources; gives the exit code."""
    sources: list[dict[str, Any]] = []
    for name, data in _shown(stream, {"text": "delta"}):
        if name == "sources":
            sources = data["chunks"]
        elif name == "error":
            return _say_error(data.get("detail"))
        elif name == "done":
            _say_sources(data["citations"], sources)
            _say_notes(data["finishReason"], data["warnings"])
    return 0


def show_draft(stream: Stream, file: Path | None) -> int:
    """Print a draft as it streams, or write it to `file` once it is whole; gives the exit code."""
    for name, data in _shown(stream, {} if file else {"message": "token"}):
        if name == "error":
            return _say_error(data.get("error"))
        if name == "done":
            if file:
                file.write_text(data["full_response"].rstrip() + "\n", encoding="utf-8")
                err().print(f"Written to {file}.", markup=False)
            about = data["metadata"]
            _say_sources(about["citations"], [])
            err().print(f"Drafted from: {', '.join(data['sources'])}", style="dim", markup=False)
            _say_notes(about["finish_reason"], about["warnings"])
    return 0


def _shown(stream: Stream, texts: dict[str, str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The events of `stream`; those in `texts` (event: key) are printed as they come.

    Whoever interrupts it stops the run too: nobody waits for it any more.
    """
    console, waiting = out(), err().status("Thinking…")
    written = ""
    waiting.start()
    try:
        for name, data in stream:
            if name in texts:
                waiting.stop()
                written = data[texts[name]]
                console.print(written, end="", markup=False)
            elif name in (*TERMINAL, ASKED_AGAIN):
                waiting.stop()
                console.print("" if not written or written.endswith("\n") else "\n", end="")
                written = ""
                if name == ASKED_AGAIN:
                    err().print("The service went down; the question is asked again.", style="dim")
                yield name, data
            else:
                yield name, data
    except KeyboardInterrupt:
        stream.stop()
        raise
    finally:
        waiting.stop()


def _say_error(sentence: str | None) -> int:
    err().print(sentence or "The run failed.", style="red", markup=False)
    return 1


def _say_sources(citations: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]]) -> None:
    """Print what was cited; where nothing was, what was found."""
    urls = {source["id"]: source.get("url") for source in found}
    lines = [_cited(c, urls.get(c["chunkId"])) for c in citations]
    title = "Sources"
    if not lines:
        title = "Found, but not cited"
        lines = [_source(at, source, source.get("url")) for at, source in enumerate(found, 1)]
    if lines:
        out().print(f"\n[bold]{title}[/]")
    for line in lines:
        out().print(line, markup=False)


def _cited(citation: dict[str, Any], url: str | None) -> str:
    line = _source(citation["index"], citation, url)
    return line if citation["supported"] else f"{line} (not borne out by the source)"


def _source(number: int, source: dict[str, Any], url: str | None) -> str:
    page = f", page {source['pageNumber']}" if source["pageNumber"] else ""
    link = f" <{url}>" if url else ""
    return f"[{number}] {source['documentName']}{page}{link}"


def _say_notes(finish_reason: str, warnings: Sequence[dict[str, Any]]) -> None:
    notes = [warning["message"] for warning in warnings]
    if finish_reason in _CUT:
        notes.insert(0, _CUT[finish_reason])
    more = len(notes) - _MOST_NOTES
    if more > 0:
        notes[_MOST_NOTES:] = [f"There are {more} more. Put these right, and draft again."]
    for note in notes:
        err().print(f"Note: {note}", style="yellow", markup=False)


def files_in(paths: Sequence[Path]) -> list[Path]:
    """The files named, and in folders those of the kinds that are read, hidden ones left out."""
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in _SUFFIXES)
        found += [p for p in inside if p.is_file() and not _is_hidden(p.relative_to(path))]
    return list(dict.fromkeys(found))


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def taken_in(
    client: Client, project_id: str, files: Sequence[Path]
) -> Iterator[tuple[Path, str | None]]:
    """Each file once it is searchable, with what went wrong, if anything did.

    Some are uploaded ahead: the service works on them while one is watched.
    """
    with progress_on(err(), MofNCompleteColumn()) as progress:
        whole = progress.add_task("documents", total=len(files))
        for path, document in _ahead(_uploaded(client, project_id, files), _UPLOADED_AHEAD):
            if isinstance(document, str):
                yield path, document
            else:
                yield path, _watched(client, document, progress)
            progress.advance(whole)


def _uploaded(
    client: Client, project_id: str, files: Sequence[Path]
) -> Iterator[tuple[Path, dict[str, Any] | str]]:
    """Each file with its document, or with what went wrong."""
    names: dict[str, Path] = {}
    for path in files:
        first = names.setdefault(path.name, path)
        if first is not path:
            yield path, f"left out: a project has one document of a name, and {first} has it."
            continue
        try:
            yield path, client.upload(project_id, path)
        except OSError as error:
            yield path, error.strerror or str(error)
        except ServiceError as error:
            yield path, str(error)


def _ahead(items: Iterator[T], count: int) -> Iterator[T]:
    """`items`, of which `count` are taken before the first one is handed on."""
    taken: deque[T] = deque()
    for item in items:
        taken.append(item)
        if len(taken) > count:
            yield taken.popleft()
    yield from taken


def _watched(client: Client, document: dict[str, Any], progress: Progress) -> str | None:
    """Show how far a document is until it is in; gives what went wrong, if anything did."""
    name = document["name"]
    bar = progress.add_task(name, total=None)
    try:
        for event, data in client.follow(document["id"]):
            if event == "error":
                return str(data["message"])
            if event == "progress":
                about = f"{name}: {data['stage']}"
                done, total = data["done"], data["total"]
                progress.update(bar, description=about, completed=done, total=total, refresh=True)
    except ServiceError as error:
        return str(error)
    finally:
        progress.remove_task(bar)
    return None


def progress_on(console: Console, *more: ProgressColumn) -> Progress:
    """Bars with their share in per cent, what `more` shows, and what they are; gone at the end."""
    name = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(), TaskProgressColumn(), *more, name)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
