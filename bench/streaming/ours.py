"""Our service, with everything on."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import httpx
import jwt

from bench.streaming.candidates import Candidate, Protocol
from bench.streaming.model import NAME
from bench.streaming.processes import at_rest, process
from graph.settings import ROOT

SECRET = "a-secret-of-the-bench-and-of-nobody"
# Without the list of the docs: the samples have a README.md too.
DOCUMENTS = (
    *sorted((ROOT / "samples").iterdir()),
    *sorted((ROOT / "docs").glob("[a-z]*.md")),
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
        # Documents that can be searched already get better vectors.
        at_rest(child)
        yield [
            Candidate("ours", f"ours, {name}", child, int(found[2]), protocol)
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
