"""What the commands show in a terminal: answers and drafts as they stream, uploads as they go."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from api.client import Client, ServiceError, Stream

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
            elif name in ("done", "error"):
                waiting.stop()
                console.print("" if not written or written.endswith("\n") else "\n", end="")
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
    """Each file once it is searchable, with what went wrong, if anything did."""
    names: dict[str, Path] = {}
    with _progress() as progress:
        task = progress.add_task("", total=len(files))
        for path in files:
            progress.update(task, description=path.name)
            first = names.setdefault(path.name, path)
            if first is path:
                yield path, _take_in(client, project_id, path)
            else:
                yield path, f"left out: a project has one document of a name, and {first} has it."
            progress.advance(task)


def _take_in(client: Client, project_id: str, path: Path) -> str | None:
    try:
        document = client.wait_for(client.upload(project_id, path))
    except OSError as error:
        return error.strerror or str(error)
    except ServiceError as error:
        return str(error)
    return document["error"] if document["status"] == "failed" else None


def _progress() -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}", markup=False))
    console = err()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
