"""The command `archwright`: serves, asks, drafts, takes documents in, says what is wrong."""

import asyncio
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from api.client import Client, ServiceError
from api.logs import set_up_logging
from api.settings import Settings, SettingsError, load_settings
from api.terminal import err, files_in, out, show_answer, show_draft, taken_in

# The service itself is imported where it is run: that takes seconds, and most commands only talk
# to one over HTTP.

app = typer.Typer(
    name="archwright",
    help="Answers questions about a project's documents, and drafts its next one.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

templates = typer.Typer(help="Looks after templates and prompts.", no_args_is_help=True)
app.add_typer(templates, name="templates")

Project = Annotated[str, typer.Option(help="The project's name.")]
Url = Annotated[str | None, typer.Option(help="Where the service is; by default HOST and PORT.")]
ApiKey = Annotated[
    str | None, typer.Option(help="The service's key or your own; by default API_KEY.")
]


def _version(wanted: bool) -> None:
    if wanted:
        out().print(f"archwright {version('archwright')}")
        raise typer.Exit


@app.callback()
def main(
    is_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Answers questions about a project's documents, and drafts its next one."""


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one (PORT).")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lies (DATA_DIR).")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that serve (WORKERS).")
    ] = None,
) -> None:
    """Start the service."""
    from api import server  # noqa: PLC0415

    settings = _settings(host=host, port=port, data_dir=data_dir, workers=workers)
    with _failing(SettingsError, 2), _failing(server.StartFailed, 1):
        if settings.workers == 1:
            server.serve(settings)
            return
        from api.workers import serve_with  # noqa: PLC0415

        serve_with(settings)


@app.command()
def ask(
    question: str,
    project: Project,
    mode: Annotated[str, typer.Option(help="docs, web or deep.")] = "docs",
    model: Annotated[str | None, typer.Option(help="Another model than the default.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Ask about a project's documents."""
    with _client(url, api_key) as client:
        project_id = client.find_project(project.strip())
        if project_id is None:
            raise ServiceError(f"There is no project {project!r}. {_known(client)}")
        raise typer.Exit(show_answer(client.ask(project_id, question, mode, model)))


@app.command()
def draft(
    doc_type: Annotated[str, typer.Argument(help="Such as PROJECT_MANIFESTO.")],
    about: Annotated[str, typer.Argument(help="What it is about.")],
    project: Project,
    file: Annotated[Path | None, typer.Option("--out", help="Write it to this file.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Draft a document from its template and the project's documents."""
    if file and not file.absolute().parent.is_dir():
        _stop(f"--out: there is no folder {str(file.absolute().parent)!r}.", 2)
    if file and file.is_dir():
        _stop(f"--out: {str(file)!r} is a folder. Name a file in it.", 2)
    with _client(url, api_key) as client:
        project_id = client.project(project.strip())
        raise typer.Exit(show_draft(client.draft(project_id, doc_type.upper(), about), file))


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders of them.")],
    project: Project,
    url: Url = None,
    api_key: ApiKey = None,
) -> None:
    """Take documents into a project, and show how far they are."""
    failures = 0
    with _client(url, api_key) as client, _left_to_the_service():
        files = files_in(paths)
        if not any(path.exists() for path in files):
            raise ServiceError(_nothing_in(paths))
        project_id = client.project(project.strip())
        for path, trouble in taken_in(client, project_id, files):
            if trouble:
                failures += 1
                err().print(f"{path}: {trouble}", style="red", markup=False)
    done = len(files) - failures
    out().print(f"{done} of {len(files)} documents are in {project.strip()!r}.", markup=False)
    if failures:
        raise typer.Exit(1)


@app.command()
def reindex(
    data_dir: Annotated[Path | None, typer.Option(help="Where the data lies (DATA_DIR).")] = None,
) -> None:
    """Make all vectors anew from Postgres, as after a change of the embedding model."""
    from api.reindex import ReindexFailed, rebuild_all  # noqa: PLC0415

    settings = _settings(data_dir=data_dir)
    set_up_logging("ERROR", settings.log_format)
    try:
        with _failing(ReindexFailed, 1):
            projects = rebuild_all(settings, err())
    except KeyboardInterrupt:
        _stop("Interrupted. Run `archwright reindex` again to finish.", 128 + signal.SIGINT)
    out().print(f"Made anew: the vectors of {projects} project{(projects != 1) * 's'}.")


@app.command()
def doctor(url: Url = None, api_key: ApiKey = None) -> None:
    """Ask every part, or with --url the service there, and say what is wrong."""
    from api.doctor import Findings, examine, examine_running  # noqa: PLC0415

    settings = _settings()
    set_up_logging("ERROR", settings.log_format)
    findings = Findings()
    owner = None if url else asyncio.run(examine(settings, findings))
    if owner:
        findings.good("In use", f"{owner.partition('. ')[0]}; asking the service there")
    if url or owner:
        with _client(url, api_key) as client:
            examine_running(client, findings)
    raise typer.Exit(1 if findings.wrong else 0)


@app.command()
def demo() -> None:
    """Ask and draft with the sample documents, on a service with a scratch data folder."""
    from api.demo import demonstrate  # noqa: PLC0415
    from api.server import StartFailed  # noqa: PLC0415

    settings = _settings()
    set_up_logging("ERROR", settings.log_format)
    # The scratch folder must be cleaned up then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with _failing(StartFailed, 1), _failing(ServiceError, 1):
        raise typer.Exit(demonstrate(settings))


@templates.command("check")
def check_templates(
    templates_dir: Annotated[
        Path | None, typer.Option("--templates", help="Where they are (TEMPLATES_DIR).")
    ] = None,
    prompts_dir: Annotated[
        Path | None, typer.Option("--prompts", help="Where prompts are (PROMPTS_DIR).")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
) -> None:
    """Check templates and prompts, and say on which line something is wrong."""
    from graph.texts.checking import check_folders  # noqa: PLC0415

    settings = _settings(templates_dir=templates_dir, prompts_dir=prompts_dir)
    findings = check_folders(settings.prompts_dir, settings.templates_dir)
    for one in findings:
        line = f"{one.path}:{one.line}: {one.severity} {one.code}: {one.message}"
        out().print(line, markup=False)
    errors = sum(one.severity == "error" for one in findings)
    warnings = len(findings) - errors
    out().print(f"Found {_counted(errors, 'error')} and {_counted(warnings, 'warning')}.")
    if errors or (strict and warnings):
        raise typer.Exit(1)


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'s' * (number != 1)}"


@contextmanager
def _left_to_the_service() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        sentence = "Interrupted. The service goes on with the documents that were uploaded."
        _stop(sentence, 128 + signal.SIGINT)


def _stop(sentence: str, code: int) -> NoReturn:
    err().print(sentence, style="red", markup=False)
    raise typer.Exit(code)


@contextmanager
def _failing(kind: type[Exception], code: int) -> Iterator[None]:
    try:
        yield
    except kind as error:
        _stop(str(error), code)


def _settings(**overrides: object) -> Settings:
    try:
        return load_settings(**overrides)
    except SettingsError as error:
        _stop(str(error), 2)


@contextmanager
def _client(url: str | None, api_key: str | None) -> Iterator[Client]:
    settings = _settings()
    key = settings.api_key.get_secret_value() if settings.api_key else None
    with _failing(ServiceError, 1), Client(url or _address(settings), api_key or key) as client:
        yield client


def _address(settings: Settings) -> str:
    """Where a service with these settings is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(settings.host, settings.host)
    return f"http://{host}:{settings.port or 8000}"


def _nothing_in(paths: Sequence[Path]) -> str:
    away = [str(path) for path in paths if not path.exists()]
    if away:
        return f"There is no file or folder {', '.join(away)}."
    return f"There is nothing to read in {', '.join(map(str, paths))}."


def _known(client: Client) -> str:
    names = list(dict.fromkeys(repr(project["name"]) for project in client.projects()))[:10]
    make = "`archwright ingest PATH --project NAME` makes one."
    return f"Those there are: {', '.join(names)}." if names else f"There are none yet; {make}"


if __name__ == "__main__":
    app()
