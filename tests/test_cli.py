"""The commands: against a running service, against servers that misbehave, and on their own."""

import asyncio
import gc
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest
from conftest import Service, ServiceFactory, make_database, migrated_database, upload
from forked import Done, ran
from pydantic import SecretStr
from rich.console import Console
from standins.identity import IdentityStandIn, SigningKey
from standins.loopback import serving
from standins.openai import Answer, OpenAIStandIn
from standins.tavily import TavilyStandIn
from test_reranking import RerankStandIn
from test_server import environment
from typer.testing import CliRunner, Result

from api import client as client_module
from api.cli import app
from api.client import Client, ServiceError, sentence_of
from api.doctor import Findings, examine
from api.settings import Settings
from graph.settings import ROOT
from graph.texts.texts import Texts

SENTENCE = "The state Alarm is reached at 4.90 m above chart datum."
RUN = "7d0c9c1e-6a52-4a3e-9a55-0c9a4b1f2d10"

Command = Callable[..., Result]


@pytest.fixture
def command(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in an empty folder, against the shared service."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "--url", service.url])

    return run


@pytest.fixture
def named(http: httpx.Client) -> tuple[str, str]:
    """Name and id of a project with one document."""
    name = "Tidewatch of Skelmouth"
    with Client(str(http.base_url)) as client:
        found = client.project(name)
    upload(http, found, "handbook.md", f"# Levels\n\n{SENTENCE}\n".encode())
    return name, found


def alone(folder: Path, *arguments: str, **settings: str) -> Done:
    """Run a command in a process of its own."""
    return ran(folder, environment(**settings), *arguments)


# --- ask


def test_ask_prints_the_answer_and_the_sources_that_it_cites(
    command: Command, named: tuple[str, str], model: OpenAIStandIn
) -> None:
    model.will(Answer(["At 4.90 m", " above chart datum", " [1]", "."]))
    done = command("ask", "When is it Alarm?", "--project", named[0])
    assert done.exit_code == 0, done.output
    assert done.stdout == "At 4.90 m above chart datum [1].\n\nSources\n[1] handbook.md\n"


def test_ask_shows_which_source_does_not_bear_out_what_is_said(
    command: Command, named: tuple[str, str], model: OpenAIStandIn
) -> None:
    model.will(Answer(["At 5.90 m above chart datum", " [1]", "."]))
    done = command("ask", "When is it Alarm?", "--project", named[0])
    assert done.stdout.endswith("[1] handbook.md (not borne out by the source)\n")
    assert "Note: Not all that [1] stands behind is borne out by its source." in done.stderr


def test_ask_names_the_page_and_the_address_of_a_source(
    command: Command, named: tuple[str, str], model: OpenAIStandIn, tavily: TavilyStandIn
) -> None:
    model.will(Answer(["See [1] [2] [3]."]))
    done = command("ask", "When is it Alarm?", "--project", named[0], "--mode", "web")
    assert done.exit_code == 0, done.output
    assert "<http" in done.stdout.partition("Sources")[2]


def test_ask_says_what_the_model_answered_wrong_and_exits_1(
    command: Command, named: tuple[str, str], model: OpenAIStandIn
) -> None:
    model.will(Answer(status=401))
    done = command("ask", "When is it Alarm?", "--project", named[0])
    assert done.exit_code == 1
    assert done.stderr == "401 Authentication Failed. Check the provider's API key.\n"


def test_ask_that_is_interrupted_stops_the_run(
    service: Service, named: tuple[str, str], model: OpenAIStandIn, tmp_path: Path
) -> None:
    model.will(Answer(["word "] * 1000, delay_s=0.1))
    line = [sys.executable, "-m", "api.cli", "ask", "Why?", "--project", named[0]]
    with subprocess.Popen(
        [*line, "--url", service.url], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE
    ) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(5) == b"word "
        asking.send_signal(signal.SIGINT)
        model.wait_for_hangup(model.chats[0])
        assert asking.wait(30) != 0


def test_ask_of_a_project_that_is_not_there_names_those_that_are(
    command: Command, named: tuple[str, str]
) -> None:
    done = command("ask", "When?", "--project", "Nowhere")
    assert done.exit_code == 1
    assert "There is no project 'Nowhere'" in done.stderr
    assert repr(named[0]) in done.stderr


def test_ask_says_in_words_which_argument_is_wrong(
    command: Command, named: tuple[str, str]
) -> None:
    done = command("ask", "When?", "--project", named[0], "--mode", "dreams")
    assert done.exit_code == 1
    assert done.stderr.startswith("mode: ")
    assert done.stderr.count("\n") == 1


# --- draft


def test_draft_prints_the_document_as_it_is_written(command: Command, model: OpenAIStandIn) -> None:
    model.will(Answer(["# Tidewatch", "\n\nIt warns."]))
    done = command("draft", "project_manifesto", "Tidewatch", "--project", "Drafts")
    assert done.exit_code == 0, done.output
    assert done.stdout == "# Tidewatch\n\nIt warns.\n"
    assert "Drafted from: PROJECT_MANIFESTO" in done.stderr


def test_draft_tells_what_the_check_found_but_not_without_end(
    command: Command, model: OpenAIStandIn
) -> None:
    template = (
        Texts(ROOT / "prompts", ROOT / "templates").files().document_type("PROJECT_MANIFESTO")
    )
    sections = "".join(f"\n## {title}\n" for title in template.about.required_headings)
    open_ones = [f"\n[TODO: number {number}]\n" for number in range(17)]
    model.will(Answer(["# Tidewatch\n", sections, *open_ones]))
    done = command("draft", "PROJECT_MANIFESTO", "Tidewatch", "--project", "Drafts")
    notes = [line for line in done.stderr.splitlines() if line.startswith("Note: ")]
    first = sections.count("\n") + 3
    assert notes == [
        *(
            f"Note: Line {first + 2 * at}: '[TODO: number {at}]' is left open; "
            "fill it in or take it out."
            for at in range(15)
        ),
        "Note: There are 2 more. Put these right, and draft again.",
    ]


def test_draft_writes_a_file(command: Command, model: OpenAIStandIn, tmp_path: Path) -> None:
    model.will(Answer(["# Tidewatch", "\n\nIt warns."]))
    done = command(
        "draft", "PROJECT_MANIFESTO", "Tidewatch", "--project", "Drafts", "--out", "it.md"
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "it.md").read_text() == "# Tidewatch\n\nIt warns.\n"
    assert done.stdout == ""


def test_a_draft_that_fails_writes_no_file(
    command: Command, model: OpenAIStandIn, tmp_path: Path
) -> None:
    model.will(Answer(["# Tide"], end="cut"))
    done = command("draft", "PROJECT_MANIFESTO", "It", "--project", "Drafts", "--out", "it.md")
    assert done.exit_code == 1
    assert "broke off" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_draft_of_an_unknown_type_names_the_nearest(command: Command) -> None:
    done = command("draft", "MANIFESTO", "It", "--project", "Drafts")
    assert done.exit_code == 1
    assert "PROJECT_MANIFESTO" in done.stderr


def test_draft_into_a_folder_that_is_not_there_asks_nobody(
    command: Command, model: OpenAIStandIn
) -> None:
    done = command("draft", "PROJECT_MANIFESTO", "It", "--project", "Drafts", "--out", "no/it.md")
    assert done.exit_code == 2
    assert done.stderr.startswith("--out: ")
    assert model.chats == []


def test_draft_over_a_folder_asks_nobody(
    command: Command, model: OpenAIStandIn, tmp_path: Path
) -> None:
    (tmp_path / "drafts").mkdir()
    done = command("draft", "PROJECT_MANIFESTO", "It", "--project", "Drafts", "--out", "drafts")
    said = "--out: 'drafts' is a folder. Name a file in it.\n"
    assert (done.exit_code, done.stderr, model.chats) == (2, said, [])


# --- ingest


def test_ingest_takes_files_and_folders_and_makes_the_project(
    command: Command, http: httpx.Client, tmp_path: Path
) -> None:
    folder = tmp_path / "papers"
    (folder / ".hidden").mkdir(parents=True)
    (folder / ".hidden" / "secret.md").write_text("not this")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "notes.txt").write_text(SENTENCE)
    (tmp_path / "one.md").write_text(SENTENCE)
    done = command("ingest", "papers", "one.md", "--project", "Papers")
    assert done.exit_code == 0, done.output
    assert done.stdout == "2 of 2 documents are in 'Papers'.\n"
    with Client(str(http.base_url)) as client:
        project = client.find_project("Papers")
    listed = http.get(f"/documents/projects/{project}").json()["documents"]
    assert sorted((d["name"], d["status"]) for d in listed) == [
        ("notes.txt", "indexed"),
        ("one.md", "indexed"),
    ]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["empty", "bare"], "There is nothing to read in empty, bare.\n"),
        (["gone.md"], "There is no file or folder gone.md.\n"),
        (["empty", "gone.md", "away"], "There is no file or folder gone.md, away.\n"),
    ],
)
def test_ingest_of_nothing_makes_no_project(
    command: Command, http: httpx.Client, tmp_path: Path, paths: Sequence[str], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    done = command("ingest", *paths, "--project", "Made for nothing")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", said)
    with Client(str(http.base_url)) as client:
        assert client.find_project("Made for nothing") is None


def test_ingest_says_of_each_document_that_failed_why(command: Command, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "one.md").write_text(SENTENCE)
    (tmp_path / "other" / "one.md").write_text("another of that name")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\0\0")
    (tmp_path / "empty.txt").write_text(" ")
    done = command(
        "ingest", "one.md", "other/one.md", "picture.png", "empty.txt", "gone.md", "--project", "P"
    )
    assert done.exit_code == 1
    assert done.stdout == "1 of 5 documents are in 'P'.\n"
    said = dict(line.split(": ", 1) for line in done.stderr.splitlines())
    assert list(said) == ["other/one.md", "picture.png", "empty.txt", "gone.md"]
    assert "one document of a name" in said["other/one.md"]
    assert "is not a" in said["picture.png"]
    assert said["gone.md"] == "No such file or directory"


def test_ingest_shows_in_a_terminal_how_far_each_document_is(
    service: Service, tmp_path: Path
) -> None:
    (tmp_path / "one.md").write_text(SENTENCE)
    (tmp_path / "two.md").write_text(SENTENCE)
    done = alone(
        tmp_path, "ingest", "one.md", "two.md", "--project", "Shown", "--url", service.url,
        FORCE_COLOR="1", COLUMNS="100",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "one.md: embedding" in done.stderr
    assert "two.md: embedding" in done.stderr
    assert "100%" in done.stderr
    assert "2/2" in done.stderr


# --- what goes wrong before an answer


@pytest.mark.parametrize(
    "arguments",
    [
        ("serve",),
        ("ask", "Why?", "--project", "P"),
        ("draft", "PROJECT_MANIFESTO", "It", "--project", "P"),
        ("ingest", "a.md", "--project", "P"),
        ("doctor",),
        ("reindex",),
        ("demo",),
    ],
)
def test_a_wrong_setting_stops_every_command_with_one_line_that_names_it(
    arguments: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [*arguments], env={"MAX_UPLOAD_MB": "many"})
    assert done.exit_code == 2
    assert done.stderr.startswith("MAX_UPLOAD_MB: ")
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("arguments", [("ask", "Why?", "--project", "P"), ("doctor",)])
@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "http://[", "http://a b"])
def test_a_service_that_is_not_there_is_one_line(arguments: Sequence[str], url: str) -> None:
    done = CliRunner().invoke(app, [*arguments, "--url", url])
    assert done.exit_code == 1
    assert "--url" in done.stderr
    assert done.output.count("\n") == 1


def test_the_version_is_said() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert done.exit_code == 0
    assert done.output.startswith("archwright 0.")


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, {"error": "not_found", "message": "There is none."}, "There is none."),
        (403, {"detail": "Not yours."}, "Not yours."),
        (
            401,
            {"error": "unauthorized", "message": "It is wrong."},
            "It is wrong. These commands take a key: --api-key, or the setting API_KEY.",
        ),
        (
            422,
            {"detail": [{"loc": ["body", "doc_type"], "msg": "is unknown", "type": "x"}]},
            "doc_type: is unknown",
        ),
        (422, {"detail": [{"loc": ["body"], "msg": "is no JSON"}, "odd"]}, "is no JSON; odd"),
        (
            400,
            {
                "success": False,
                "error": {
                    "name": "ZodError",
                    "issues": [
                        {"path": ["history", 0, "role"], "message": "is wrong", "code": "x"},
                        {"path": [], "message": "is empty", "code": "x"},
                    ],
                },
            },
            "history.0.role: is wrong; is empty",
        ),
        (500, {"error": {"message": "Overloaded."}}, "Overloaded."),
        (500, {"error": "odd"}, "odd"),
    ],
)
def test_each_shape_of_an_error_becomes_a_sentence(
    status: int, body: dict[str, Any], sentence: str
) -> None:
    assert sentence_of(httpx.Response(status, json=body)) == sentence


@pytest.mark.parametrize("body", [b"<html>Bad Gateway</html>", b"", b"[1]", b"\xff", b'"text"'])
def test_an_answer_of_something_else_says_so(body: bytes) -> None:
    said = sentence_of(httpx.Response(502, content=body))
    assert said == (
        "The service answered 502 Bad Gateway. That is no answer of Archwright's: check --url."
    )


# --- streams that break


class Wire:
    """A server that sends given bytes for each request in turn, and then closes; notes it all."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, str | None]] = []
        self.keys: list[str | None] = []


@contextmanager
def speaking(wire: Wire) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            wire.asked.append((self.command, self.path, self.headers.get("Last-Event-ID")))
            wire.keys.append(self.headers.get("Idempotency-Key"))
            self.wfile.write(wire.answers.pop(0) if wire.answers else b"")
            self.close_connection = True

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def events(*pieces: tuple[int, str, dict[str, Any]], whole: bool = False) -> bytes:
    """A response with these events, broken off in the middle of a chunk unless it is `whole`."""
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        f"X-Run-Id: {RUN}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    said = [": open\n\n"]
    for seq, name, data in pieces:
        said.append(f"id: {RUN}:{seq}\nevent: {name}\ndata: {json.dumps(data)}\n\n")
        said.append(": keep-alive\n\n")
    body = "".join(said)
    tail = "0\r\n\r\n" if whole else "ff\r\nid: "
    return f"{head}{len(body):x}\r\n{body}\r\n{tail}".encode()


@pytest.fixture
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_S", 0)


@pytest.mark.usefixtures("_no_waits")
def test_a_stream_that_breaks_goes_on_where_it_was() -> None:
    wire = Wire(
        events((1, "text", {"delta": "a"}), (2, "text", {"delta": "b"})),
        b"",
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
        events((3, "text", {"delta": "c"})),
        events((4, "done", {"messageId": RUN}), whole=True),
    )
    with speaking(wire) as url, Client(url) as client:
        assert list(client.ask("P", "Why?")) == [
            ("text", {"delta": "a"}),
            ("text", {"delta": "b"}),
            ("text", {"delta": "c"}),
            ("done", {"messageId": RUN}),
        ]
    again = ("GET", f"/runs/{RUN}/stream")
    assert wire.asked == [
        ("POST", "/chat/projects/P", None),
        (*again, f"{RUN}:2"),
        (*again, f"{RUN}:2"),
        (*again, f"{RUN}:2"),
        (*again, f"{RUN}:3"),
    ]


@pytest.mark.usefixtures("_no_waits")
def test_a_stream_that_breaks_again_and_again_is_given_up() -> None:
    wire = Wire(events((1, "text", {"delta": "a"})))
    with speaking(wire) as url, Client(url) as client, pytest.raises(ServiceError) as refused:
        list(client.ask("P", "Why?"))
    assert "broke off" in str(refused.value)
    assert len(wire.asked) < 10


@pytest.mark.usefixtures("_no_waits")
def test_a_stream_that_ends_without_a_terminal_event_is_not_taken_for_whole() -> None:
    wire = Wire(*[events((1, "text", {"delta": "a"}), whole=True)], *[events(whole=True)] * 20)
    with speaking(wire) as url, Client(url) as client, pytest.raises(ServiceError, match="broke"):
        list(client.ask("P", "Why?"))


@pytest.mark.usefixtures("_no_waits")
def test_a_question_whose_answer_did_not_come_is_sent_again_with_its_key() -> None:
    wire = Wire(b"", b"", events((1, "done", {"messageId": RUN}), whole=True))
    with speaking(wire) as url, Client(url) as client:
        assert list(client.ask("P", "Why?")) == [("done", {"messageId": RUN})]
    assert wire.asked == [("POST", "/chat/projects/P", None)] * 3
    assert len(set(wire.keys)) == 1
    assert wire.keys[0]


@pytest.mark.usefixtures("_no_waits")
@pytest.mark.parametrize("key", ["nextRunId", "next_run_id"])
def test_the_run_that_asks_a_turn_again_is_followed(key: str) -> None:
    error = {"message": "LLM_CONNECTION_ERROR", key: "another"}
    wire = Wire(
        events((1, "text", {"delta": "a"}), (10_001, "error", error), whole=True),
        events((1, "text", {"delta": "b"}), (2, "done", {"messageId": "another"}), whole=True),
    )
    with speaking(wire) as url, Client(url) as client:
        assert list(client.ask("P", "Why?")) == [
            ("text", {"delta": "a"}),
            ("asked_again", {}),
            ("text", {"delta": "b"}),
            ("done", {"messageId": "another"}),
        ]
    assert wire.asked[1:] == [("GET", "/runs/another/stream", None)]


# --- templates check


def test_templates_check_finds_nothing_wrong_with_what_is_shipped(tmp_path: Path) -> None:
    done = alone(tmp_path, "templates", "check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("Found no errors and ")


def test_templates_check_names_file_line_and_code_and_exits_1(tmp_path: Path) -> None:
    prompts, templates = shipped(tmp_path)
    (prompts / "answer.md").write_text("Hello {{ user_name }}.\n\n{{ 7*7 }} [bold]\n")
    done = check(prompts, templates)
    assert (done.exit_code, done.stdout) == (
        1,
        "prompts/answer.md:3: error template_language: Arithmetic is not allowed; only "
        "{{ variable }} and {% if variable %} with elif, else, not, and, or are.\n"
        "Found 1 error and no warnings.\n",
    )


def test_templates_check_exits_1_on_warnings_only_where_it_is_strict(tmp_path: Path) -> None:
    prompts, templates = shipped(tmp_path)
    (templates / "notes.txt").write_text("Notes")
    said = (
        "templates/notes.txt:1: warning unknown_file: This file is not read. "
        "Templates are templates/<phase>/<TYPE>/template.md.\n"
        "Found no errors and 1 warning.\n"
    )
    for strict, code in (((), 0), (("--strict",), 1)):
        done = check(prompts, templates, *strict)
        assert (done.exit_code, done.stdout) == (code, said)


def test_templates_check_of_a_folder_that_is_not_there_says_which(tmp_path: Path) -> None:
    done = check(tmp_path / "prompts", tmp_path)
    assert done.exit_code == 2
    assert done.stderr.startswith("PROMPTS_DIR: ")


def shipped(folder: Path) -> tuple[Path, Path]:
    """The prompts and no templates."""
    shutil.copytree(ROOT / "prompts", folder / "prompts")
    (folder / "templates").mkdir()
    return folder / "prompts", folder / "templates"


def check(prompts: Path, templates: Path, *options: str) -> Result:
    where = "--prompts", str(prompts), "--templates", str(templates)
    return CliRunner().invoke(app, ["templates", "check", *where, *options])


# --- doctor and demo


def test_doctor_finds_everything_in_order(
    model: OpenAIStandIn, postgres_url: str, tmp_path: Path
) -> None:
    reranker = RerankStandIn()
    reranker.script.add({"results": []})
    with serving(reranker.app) as address:
        done = alone(
            tmp_path,
            "doctor",
            DATABASE_URL=make_database(postgres_url),
            OPENAI_BASE_URL=model.base_url,
            OPENAI_MODEL="stand-in",
            RERANK_BASE_URL=f"{address}/v1",
            RERANK_MODEL="rerank-1",
        )
    assert done.returncode == 0, done.stdout + done.stderr
    parts = "Settings", "Data folder", "Vectors", "Postgres", "Embeddings", "Re-ranking"
    said = [line[:23].strip() for line in done.stdout.splitlines()]
    assert said == [f"OK     {part}" for part in (*parts, "Language model", "Web search", "Texts")]
    assert len(model.chats) == 1


def test_doctor_says_of_each_part_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("")
    done = alone(
        tmp_path,
        "doctor",
        DATA_DIR=str(tmp_path / "a-file"),
        DATABASE_URL="postgresql://127.0.0.1:1/away",
        CHROMA_URL="http://127.0.0.1:1",
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
        OPENAI_MODEL="any",
        EMBEDDING_BASE_URL="http://127.0.0.1:1/v1",
        EMBEDDING_MODEL="any",
        RERANK_BASE_URL="http://127.0.0.1:1",
        RERANK_MODEL="any",
        TAVILY_API_KEY="canary-of-a-key",
        TEMPLATES_DIR=str(tmp_path),
        HOST="0.0.0.0",
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["WRONG"] * 9
    for named in (
        "API_KEY", "DATA_DIR", "DATABASE_URL", "CHROMA_URL", "EMBEDDING_BASE_URL",
        "RERANK_BASE_URL", "base URL", "TAVILY_API_KEY",
    ):  # fmt: skip
        assert named in done.stdout
    assert "canary" not in done.stdout + done.stderr
    assert done.stderr == ""


def test_doctor_asks_for_the_keys_of_tokens_the_embeddings_and_the_fallback(
    model: OpenAIStandIn, start_service: ServiceFactory, postgres_url: str
) -> None:
    with OpenAIStandIn() as backup, IdentityStandIn() as identity:
        with start_service(
            database_url=migrated_database(postgres_url),
            openai_base_url=model.base_url,
            openai_model="stand-in",
            allow_private_providers=True,
        ) as service:
            body = {"name": "Backup", "slug": "backup", "models": ["small"], "isFallback": True}
            with service.client() as http:
                entered = http.post("/providers", json={**body, "baseUrl": backup.base_url})
            assert entered.status_code == 201, entered.text
        others = {
            "jwt_jwks_url": identity.jwks_url,
            "embedding_base_url": model.base_url,
            "embedding_model": "embed-1",
        }
        settings = service.settings.model_copy(update=others)
        identity.publish(SigningKey.made("one"))
        good = findings(settings)
        backup.will(Answer(status=503))
        identity.publish()
        bad = findings(settings)
    # An open connection would be told as a warning, which fails the test.
    gc.collect()
    assert good["Token keys"] == f"OK     1 key at {urlsplit(identity.url).netloc}"
    where = urlsplit(model.base_url).netloc
    assert good["Embeddings"] == f"OK     embed-1 gives 64 dimensions at {where}"
    assert "; the fallback small answered in " in good["Language model"]
    assert {part: words for part, words in bad.items() if words.startswith("WRONG")} == {
        "Token keys": "WRONG  JWT_JWKS_URL: there is no key that can sign tokens: RSA from 2048 "
        "bits on, or P-256.",
        "Language model": "WRONG  The fallback backup/small: 503 Service Unavailable. Check "
        "the provider.",
    }


def test_doctor_says_of_a_database_with_which_no_service_starts_why(
    model: OpenAIStandIn, postgres_url: str, tmp_path: Path
) -> None:
    url = migrated_database(postgres_url)

    def said(options: str = "") -> str:
        settings = Settings(
            _env_file=None,
            data_dir=tmp_path,
            database_url=SecretStr(url + options),
            openai_base_url=model.base_url,
            openai_model="stand-in",
        )
        return findings(settings)["Postgres"]

    whole = said()
    cannot_write = [said(f"&options=-c%20{option}") for option in (READ_ONLY, WITHOUT_RIGHTS)]
    with psycopg.connect(url) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    assert whole.endswith("; the tables are up to date")
    assert [*cannot_write, said()] == [
        "WRONG  DATABASE_URL: no tables can be made there. Let its user own its schema, and name "
        "a server that can be written to.",
        "WRONG  DATABASE_URL: no tables can be made there. Let its user own its schema, and name "
        "a server that can be written to.",
        "WRONG  The database was brought up to date by a newer version of Archwright. Start that "
        "version, or go back to a dump that was made before.",
    ]


READ_ONLY = "default_transaction_read_only%3Don"
WITHOUT_RIGHTS = "role%3Dpg_read_all_data"


def findings(settings: Settings) -> dict[str, str]:
    """What the doctor says, by part."""
    found = Findings(out=Console(file=StringIO(), soft_wrap=True))
    assert asyncio.run(examine(settings, found)) is None
    assert isinstance(found.out.file, StringIO)
    lines = found.out.file.getvalue().splitlines()
    return {line[7:23].strip(): line[:7] + line[23:] for line in lines}


def test_doctor_asks_the_service_that_owns_the_data_folder(
    service: Service, tmp_path: Path
) -> None:
    done = alone(
        tmp_path,
        "doctor",
        DATA_DIR=str(service.settings.data_dir),
        PORT=str(urlsplit(service.url).port),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"says the service at {service.url}") == 3


def test_doctor_asks_the_service_at_an_address_and_nothing_here(
    command: Command, service: Service, tmp_path: Path
) -> None:
    done = command("doctor")
    parts = [("Postgres", "OK"), ("Vectors", "OK"), ("Language model", "OK")]
    said = [
        f"OK     {part:<16}{state}, says the service at {service.url}\n" for part, state in parts
    ]
    assert (done.exit_code, done.stdout, done.stderr) == (0, "".join(said), "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            b"200 OK\r\n\r\n<html>Mail</html>",
            "What answers at {url} is no Archwright: check --url.",
        ),
        (b'200 OK\r\n\r\n{"services": []}', "What answers at {url} is no Archwright: check --url."),
        (
            b'404 Not Found\r\n\r\n{"detail": "Not Found"}',
            "What answers at {url} is no Archwright: check --url.",
        ),
        (
            b"502 Bad Gateway\r\n\r\n",
            "The service answered 502 Bad Gateway. That is no answer of Archwright's: check --url.",
        ),
    ],
)
def test_doctor_says_of_something_else_that_it_is_no_archwright(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with speaking(Wire(b"HTTP/1.1 " + answer)) as url:
        done = CliRunner().invoke(app, ["doctor", "--url", url])
    said = sentence.format(url=url) + "\n"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", said)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_demo_asks_drafts_and_leaves_nothing_behind(model: OpenAIStandIn) -> None:
    model.will(Answer(["At 4.90 m", " [1]", "."]), Answer(["# Tidewatch", "\n\nIt warns."]))
    # Not in pytest's folder: see `postgres_url`.
    with TemporaryDirectory() as name:
        folder = Path(name)
        asked = {"OPENAI_BASE_URL": model.base_url, "OPENAI_MODEL": "any", "TMPDIR": name}
        # Which the user's own service asks for, and not the scratch one.
        asked["JWT_SECRET"] = "a secret of more than thirty-two bytes"
        done = alone(folder, "demo", **asked)
        left = [entry.name for entry in folder.iterdir() if entry.is_dir()]
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": indexed\n") == 3
    assert "At 4.90 m [1].\n\nSources\n[1] sensor-handbook.pdf, page 3\n" in done.stdout
    assert "# Tidewatch\n\nIt warns.\n" in done.stdout
    assert "README.md" not in done.stdout
    assert left == []
    assert [p for p in psutil.process_iter() if name in _command_line(p)] == []


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
