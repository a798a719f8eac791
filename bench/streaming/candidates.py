"""Who is asked: each server's process, and how a question is put to each of its streams."""

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import httpx
import jwt
import psutil  # type: ignore[import-untyped]

from bench.streaming.client import Question
from bench.streaming.model import NAME, order
from bench.streaming.processes import process
from graph.settings import ROOT

HERE = Path(__file__).parent
SECRET = "a-secret-of-the-bench-and-of-nobody"
DOCUMENTS = (*sorted((ROOT / "samples").iterdir()), *sorted((ROOT / "docs").glob("*.md")))

_SUBJECTS = (
    "tide gauges", "the duty officer", "false alarms", "berth holders", "the warning service",
    "buoys in the outer harbour", "the ferry's wake", "the receiving server", "storm season",
    "text messages", "the state Alarm", "civil protection", "radio equipment", "batteries",
)  # fmt: skip
_ASPECTS = (
    "must be known of", "is written about", "do the notes say of", "was agreed on", "fails with",
    "does the client expect of", "is measured at", "may change with", "is tested about",
)  # fmt: skip

numbers = itertools.count(1)
chance = random.Random(7)

Ask = Callable[[int, int], Question]
"""Makes a question, each another one, of so many tokens at so many a second."""


@dataclass(frozen=True)
class Candidate:
    """A stream of a server."""

    name: str
    port: int
    process: psutil.Process
    ask: Ask


@dataclass(frozen=True)
class Protocol:
    """How a stream is asked and read. `body` is given the words of the question."""

    path: str
    body: Callable[[str], object]
    token: bytes
    end: bytes
    headers: Mapping[str, str]

    def ask(self, tokens: int, pace: int) -> Question:
        """A question that was never asked before."""
        number = next(numbers)
        body = json.dumps(self.body(f"{words()} {order(number, tokens, pace)}")).encode()
        headers = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Content-Length": str(len(body)),
            **self.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        request = f"POST {self.path} HTTP/1.1\r\n{head}\r\n".encode() + body
        return Question(number, request, self.token, self.end, tokens)


def words() -> str:
    """A question to the documents."""
    return f"What {chance.choice(_ASPECTS)} {chance.choice(_SUBJECTS)}?"


@contextmanager
def model(folder: Path, core: int | None) -> Iterator[list[Candidate]]:
    """The model, asked directly."""
    command = [sys.executable, "-m", "bench.streaming.model"]
    with process(command, folder, {"PYTHONPATH": str(ROOT)}, core, r"(\d+)\n") as (child, found):
        yield [Candidate("the model itself", int(found[1]), child, completions("/v1").ask)]


def completions(prefix: str) -> Protocol:
    """OpenAI's own chat completions."""
    return Protocol(
        f"{prefix}/chat/completions",
        lambda text: {
            "model": NAME,
            "messages": [{"role": "user", "content": text}],
            "stream": True,
        },
        b'"delta": {"content"',
        b"data: [DONE]",
        {},
    )


@contextmanager
def ours(folder: Path, core: int | None, model: int) -> Iterator[list[Candidate]]:
    """Our service with documents, credentials and all that is embedded but the model."""
    settings = {
        "DATA_DIR": str(folder / "data"),
        "JWT_SECRET": SECRET,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{model}/v1",
        "OPENAI_MODEL": NAME,
        "LOG_LEVEL": "ERROR",
    }
    command = [sys.executable, "-m", "api.cli", "serve", "--port", "0"]
    address = r"Address +(http://\S+:(\d+))"
    with process(command, folder, settings, core, address) as (child, found):
        claims = {"sub": "bench", "name": "Bench", "exp": int(time.time()) + 24 * 3600}
        headers = {"Authorization": f"Bearer {jwt.encode(claims, SECRET, 'HS256')}"}
        with httpx.Client(base_url=found[1], headers=headers, timeout=120) as http:
            project = with_documents(http)
        yield [
            Candidate(f"ours, {name}", int(found[2]), child, protocol.ask)
            for name, protocol in our_streams(project, headers).items()
        ]


def our_streams(project: str, headers: Mapping[str, str]) -> dict[str, Protocol]:
    """Chat and drafting, each turn in a conversation of its own."""

    def draft(**more: str) -> Protocol:
        return Protocol(
            "/api/v1/chat/stream",
            lambda text: {
                "conversation_id": str(uuid4()),
                "project_id": project,
                "message": text,
                **more,
            },
            b"event: message\n",
            b"event: done\n",
            headers,
        )

    path = f"/chat/projects/{project}"
    chat = Protocol(
        path, lambda text: {"message": text}, b"event: text\n", b"event: done\n", headers
    )
    return {
        "chat": chat,
        "drafting": draft(),
        "drafting a type": draft(doc_type="DATA_MODEL_SCHEMA"),
    }


def with_documents(http: httpx.Client) -> str:
    """A new project in which all documents are indexed."""
    answer = http.post("/projects", json={"name": "Tidewatch"}).raise_for_status()
    project = str(answer.json()["project"]["id"])
    path = f"/documents/projects/{project}"
    files = [("file", (each.name, each.read_bytes())) for each in DOCUMENTS]
    http.post(path, files=files).raise_for_status()
    for _ in range(600):
        states = {each["status"] for each in http.get(path).json()["documents"]}
        if states == {"indexed"}:
            return project
        if "failed" in states:
            break
        time.sleep(0.1)
    raise SystemExit("The documents were not taken in.")


@contextmanager
def raw(folder: Path, core: int | None, model: int) -> Iterator[list[Candidate]]:
    """A relay that passes bytes on."""
    with peer("raw_relay", folder, core, model) as (child, port):
        yield [Candidate("floor: raw relay", port, child, completions("").ask)]


@contextmanager
def peer(
    module: str, folder: Path, core: int | None, model: int
) -> Iterator[tuple[psutil.Process, int]]:
    """A module of `peers/` with an `app`, served by uvicorn as ours is."""
    command = [
        *(sys.executable, "-m", "uvicorn", f"bench.streaming.peers.{module}:app", "--port", "0"),
        *("--no-access-log", "--loop", "uvloop", "--http", "httptools", "--backlog", "4096"),
    ]
    settings = {"PYTHONPATH": str(ROOT), "MODEL_URL": f"http://127.0.0.1:{model}/v1"}
    with process(command, folder, settings, core, r"running on http://127.0.0.1:(\d+)") as (
        child,
        found,
    ):
        yield child, int(found[1])
