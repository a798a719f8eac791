"""The model, the floors and the peers, each in a process of its own."""

import contextlib
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]

from bench.streaming.candidates import Candidate, Protocol, completions
from bench.streaming.processes import process
from graph.settings import ROOT

JOBS = 50

# What would be asked far away finds nobody.
_ALONE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1",
    "LANGGRAPH_CLI_NO_ANALYTICS": "1",
    "LANGGRAPH_NO_VERSION_CHECK": "true",
    "LANGSMITH_TRACING": "false",
    "LOG_COLOR": "false",
    "LOG_LEVEL": "ERROR",
}


@contextmanager
def model(folder: Path, core: int | None) -> Iterator[Candidate]:
    """The model, asked directly."""
    command = [sys.executable, "-m", "bench.streaming.model"]
    with process(command, folder, {"PYTHONPATH": str(ROOT)}, core, r"(\d+)\n") as (child, found):
        yield Candidate("model", "the model itself", child, int(found[1]), completions("/v1"))


@contextmanager
def raw(folder: Path, core: int | None, model: int) -> Iterator[list[Candidate]]:
    """A relay that passes bytes on."""
    with app("raw_relay", folder, core, model) as (child, port):
        yield [Candidate("floor", "floor: raw relay", child, port, completions(""))]


@contextmanager
def parts(folder: Path, core: int | None, model: int) -> Iterator[list[Candidate]]:
    """The same relay, behind LangGraph with its saver in Postgres and MiniLM."""
    with app("parts", folder, core, model) as (child, port):
        yield [Candidate("floor", "floor: our parts alone", child, port, completions(""))]


@contextmanager
def sse(folder: Path, core: int | None, model: int) -> Iterator[list[Candidate]]:
    """FastAPI's own events over the openai SDK."""
    token, end = b'event: token\ndata: {"token": " ', b"event: done\n"
    stream = Protocol("/chat", lambda text: {"message": text}, token, end)
    with app("fastapi_sse", folder, core, model) as (child, port):
        yield [Candidate("floor", "floor: EventSourceResponse", child, port, stream)]


@contextmanager
def langserve(folder: Path, core: int | None, model: int) -> Iterator[list[Candidate]]:
    """LangServe, by two of its routes."""

    def body(text: str) -> object:
        return {"input": {"question": text}}

    event = b'{"event":"on_chat_model_stream","data":{"chunk":{"content":" '
    streams = {
        "stream_events": Protocol("/chat/stream_events", body, event, b"event: end"),
        "stream": Protocol("/chat/stream", body, b'data: {"content":" ', b"event: end"),
    }
    with app("langserve_app", folder, core, model) as (child, port):
        yield [
            Candidate("peer", f"LangServe {name}", child, port, protocol)
            for name, protocol in streams.items()
        ]


@contextmanager
def langgraph(folder: Path, core: int | None, model: int) -> Iterator[list[Candidate]]:
    """`langgraph dev`, each turn a run without a thread."""
    config = Path(__file__).parent / "peers" / "langgraph_dev" / "langgraph.json"
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("langgraph")), "dev", "--no-browser", "--no-reload"),
        *("--n-jobs-per-worker", str(JOBS), "--port", str(port), "--config", str(config)),
    ]
    stream = Protocol(
        "/runs/stream",
        lambda text: {
            "assistant_id": "chat",
            "input": {"messages": [{"role": "user", "content": text}]},
            "stream_mode": ["messages-tuple"],
        },
        b'event: messages\r\ndata: [{"content":" ',
        b'"chunk_position":"last"',
    )
    settings = {**_ALONE, **_model_at(model)}
    with process(command, folder, settings, core, "Welcome to") as (child, _):
        wait_for(f"http://127.0.0.1:{port}/ok")
        yield [Candidate("peer", f"langgraph dev, {JOBS} jobs", child, port, stream)]


@contextmanager
def app(
    module: str, folder: Path, core: int | None, model: int
) -> Iterator[tuple[psutil.Process, int]]:
    """The `app` of a module of `peers/`, with the loop and the parser that ours has."""
    command = [
        *(sys.executable, "-m", "uvicorn", f"bench.streaming.peers.{module}:app", "--port", "0"),
        *("--no-access-log", "--loop", "uvloop", "--http", "httptools"),
    ]
    address = r"running on http://127.0.0.1:(\d+)"
    settings = {**_ALONE, **_model_at(model)}
    with process(command, folder, settings, core, address) as (child, found):
        yield child, int(found[1])


def _model_at(port: int) -> Mapping[str, str]:
    return {"PYTHONPATH": str(ROOT), "MODEL_URL": f"http://127.0.0.1:{port}/v1"}


def wait_for(url: str) -> None:
    """Wait until a server answers there."""
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False).is_success:
                return
        time.sleep(0.1)
    raise SystemExit(f"Nothing answers at {url}.")


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
