"""The client of web/client, in Node and in a browser, with the real service."""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from conftest import Service, ServiceFactory
from cuts import cut
from javascript import Run, in_browser, in_node, with_package
from playwright.sync_api import Browser
from relay import breaking
from sse import read
from standins.openai import Answer, OpenAIStandIn

CUTS = int(os.environ.get("CUTS", "12"))
SEED = int(os.environ.get("SEED", "8"))

_SECRET = "a secret of more than thirty-two bytes"
NO_CREDENTIALS = (
    "This service needs credentials. Send a key as X-API-Key, or a token as Authorization: Bearer."
)
NO_TYPE = (
    "doc_type: There is no document type 'PROJECT_MANIFEST'. The nearest known types are "
    "PROJECT_MANIFESTO, PROJECT_STRUCTURE_MAP, DEPLOYMENT_INFRASTRUCTURE."
)
NOBODY = "00000000-0000-0000-0000-000000000000"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Node finds the package."""
    return with_package(tmp_path_factory.mktemp("client"))


@pytest.fixture(params=["node", "browser"])
def run(request: pytest.FixtureRequest, folder: Path) -> Iterator[Run]:
    if request.param == "node":
        yield in_node(folder)
        return
    with request.getfixturevalue("chromium").new_context() as context:
        yield in_browser(context.new_page())


# --- streams

ASK = """
const api = client.createClient({ address: given.address, patience: { pauseMs: 5 } });
const stream = given.isDraft
  ? api.draftStream({ project_id: given.project, conversation_id: client.newId(), message: "?" })
  : api.chatStream(given.project, "What is it?");
const events = [];
if (given.inBatches) for await (const batch of stream.batches()) events.push(...batch);
else for await (const event of stream) events.push(event);
return events;
"""


def told(http: httpx.Client, run_id: str) -> list[dict[str, Any]]:
    """What a run tells a reader whom nothing disturbs, as the client gives it."""
    return [
        {"type": name, "data": data, "runId": run_id, "seq": int(id_.rpartition(":")[2])}
        for name, data, id_ in read(http, "GET", f"/runs/{run_id}/stream")
    ]


def an_answer(rng: random.Random) -> Answer:
    words = " ".join(
        rng.choice(["harbour", "Größe", "水位", "𝄞", "4.90 m", "\n\n"]) for _ in range(90)
    )
    return Answer(cut(words, rng, 6), one_write=rng.random() < 0.3)


def test_nothing_is_lost_or_comes_twice_over_connections_that_break(
    run: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    rng = random.Random(SEED)
    rounds = 0
    while rounds * 6 < CUTS:
        rounds += 1
        answer = an_answer(rng)
        model.will(answer)
        cuts = [rng.choice([rng.randrange(400), rng.randrange(2500)]) for _ in range(6)]
        if rounds == 1:
            # In the status, in a name, in the id of the run, in the type, and behind them.
            cuts = [10, 25, 190, 230, 500, 900]
        with breaking(service.url, cuts) as (address, left):
            is_draft, in_batches = rng.random() < 0.5, rng.random() < 0.5
            events = run(ASK, address, project=project, isDraft=is_draft, inBatches=in_batches)
        assert left == [], "not all connections were broken"
        assert events == told(http, events[0]["runId"]), f"with SEED={SEED}, round {rounds}"
        tokens = [e["data"].get("delta", e["data"].get("token")) for e in events]
        assert [token for token in tokens if token] == list(answer.tokens)
    assert len(model.chats) == rounds


def test_a_network_that_comes_back_ends_the_pause(
    chromium: Browser, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer([" word"] * 40))
    body = """
        const patience = { pauseMs: 3600000 };
        const api = client.createClient({ address: given.address, patience });
        globalThis.seen = [];
        globalThis.waits = 0;
        const onWait = () => waits++;
        globalThis.asked = (async () => {
          const stream = api.chatStream(given.project, "?", null, null, null, { onWait });
          for await (const event of stream) seen.push(event);
          return seen;
        })();
    """
    with breaking(service.url, [1500]) as (address, _), chromium.new_context() as context:
        page = context.new_page()
        in_browser(page)(body, address, project=project)
        page.wait_for_function("waits === 1")
        context.set_offline(True)
        context.set_offline(False)
        events = page.evaluate("asked")
    assert events == told(http, events[0]["runId"])


# --- what ends them


def test_stop_ends_a_run_and_leaving_does_not(
    run: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["It is", " blue"], end="hang"), Answer(["It", " is", " red."], delay_s=0.1))
    stopped, status, left, reason = run(
        """
        const api = client.createClient({ address: given.address });
        const stopped = [];
        let status;
        for await (const event of api.chatStream(given.project, "Which colour?")) {
          stopped.push(event);
          if (event.data.delta === " blue") status = (await api.stop(event.runId)).status;
        }
        let left;
        for await (const event of api.chatStream(given.project, "Which colour?")) {
          left = event.runId;
          break;
        }
        const leaving = new AbortController();
        const following = api.followRun(left, 0, { signal: leaving.signal });
        await following.next();
        leaving.abort(new Error("Left."));
        const reason = await (async () => { for await (const _ of following); })().catch(String);
        return [stopped, status, left, reason];
        """,
        service.url,
        project=project,
    )  # fmt: skip
    assert (status, stopped[-1]["data"]["finishReason"]) == ("stopped", "stopped")
    assert stopped == told(http, stopped[0]["runId"])
    assert reason == "Error: Left."
    deltas = [event["data"]["delta"] for event in told(http, left) if event["type"] == "text"]
    assert deltas == ["It", " is", " red."]


def test_a_page_that_is_loaded_again_reads_on_from_the_run(
    run: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer([" word"] * 30, delay_s=0.02))
    runs, before, whole, rest = run(
        """
        const api = client.createClient({ address: given.address });
        const runs = [], before = [], whole = [], rest = [];
        const onRun = (id) => runs.push(id);
        const stream = api.chatStream(given.project, "What?", null, null, "docs", { onRun });
        for await (const event of stream) if (before.push(event) === 5) break;
        for await (const event of api.followRun(runs[0])) whole.push(event);
        for await (const event of api.followRun(runs[0], before.at(-1).seq)) rest.push(event);
        return [runs, before, whole, rest];
        """,
        service.url,
        project=project,
    )
    assert whole == told(http, runs[0]) == before + rest


def test_a_silent_connection_is_given_up(
    run: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["It is"], first_delay_s=0.6))
    events, waits = run(
        """
        const patience = { silenceMs: 250, pauseMs: 1 };
        const api = client.createClient({ address: given.address, patience });
        const events = [], waits = [];
        const onWait = ({ error }) => waits.push(error.code);
        const stream = api.chatStream(given.project, "What?", null, null, null, { onWait });
        for await (const event of stream) events.push(event);
        return [events, waits];
        """,
        service.url,
        project=project,
    )
    assert events == told(http, events[0]["runId"])
    assert set(waits) == {"unreachable"}
    assert len(model.chats) == 1


# --- errors

CATCH = """
const caught = async (doing) => {
  try {
    return await doing();
  } catch (error) {
    return [error.status, error.code, error.message];
  }
};
"""


def test_the_refusals_of_the_service_can_be_read(
    run: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["It"], end="hang"), Answer(status=401))
    refusals, going_on, failed = run(
        CATCH
        + """
        const { address, project, nobody } = given;
        const api = client.createClient({ address });
        const read = async (stream) => { for await (const _ of stream); };
        const draft = { project_id: project, conversation_id: client.newId(), message: "?" };
        const refusals = [
          await caught(() => api.projects.get(nobody)),
          await caught(() => api.projects.create({ name: "" })),
          await caught(() => api.drafting.ingest(project, "", "x")),
          await caught(() => api.drafting.ingest(project, "a", " ")),
          await caught(() => api.texts().put("prompts/answer.md", "x", "other")),
          await caught(() => read(api.followRun(nobody))),
          await caught(() => read(api.draftStream({ ...draft, doc_type: "PROJECT_MANIFEST" }))),
        ];
        let meta;
        for await (const event of api.chatStream(project, "What?")) {
          if (event.type === "meta") meta = event;
          if (event.type === "text") break;
        }
        const again = api.chatStream(project, "And?", meta.data.conversationId);
        const error = await read(again).catch((thrown) => thrown);
        await api.stop(error.runId);
        let failed;
        for await (const event of api.draftStream(draft)) failed = client.failure(event);
        const goingOn = [error.status, error.code, error.runId === meta.runId];
        return [refusals, goingOn, [failed.code, client.readable(failed)]];
        """,
        service.url,
        project=project,
        nobody=NOBODY,
    )  # fmt: skip
    version = http.get("/api/v1/texts/prompts/answer.md").json()["text"]["version"]
    assert refusals == [
        [404, "not_found", "There is no such project."],
        [400, "bad_request", "name: must not be blank."],
        [422, "invalid", "doc_name: String should have at least 1 character."],
        [400, "bad_request", "markdown_content must not be blank."],
        [
            412,
            "changed",
            f"The text has changed: its version is {version} now. Read it, and edit that.",
        ],
        [404, "not_found", "There is no such run."],
        [422, "invalid", NO_TYPE],
    ]
    assert going_on == [409, "run_in_progress", True]
    assert failed == ["STREAM_ERROR", "401 Authentication Failed. Check the provider's API key."]


def test_credentials_are_read_anew_for_each_request(
    run: Run, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    def token(seconds: float) -> str:
        return jwt.encode({"sub": "ada", "exp": time.time() + seconds}, _SECRET, "HS256")

    with start_service(
        api_key="canary-service-key",
        jwt_secret=_SECRET,
        openai_base_url=model.base_url,
        openai_model="stand-in",
    ) as service:
        told = run(
            CATCH
            + """
            const { address, key, old, young } = given;
            const nobody = client.createClient({ address });
            const admin = client.createClient({ address, credentials: { apiKey: ` ${key}\\n` } });
            const tokens = [old, young];
            const credentials = async () => ({ token: tokens.shift() ?? young });
            const ada = client.createClient({ address, credentials });
            const project = await admin.projects.create({ name: "Harbour", isPrivate: false });
            const refused = [
              await caught(() => nobody.me()),
              await caught(() => nobody.drafting.workflow(project.id)),
              await caught(() => ada.me()),
            ];
            const text = [];
            for await (const { type, data } of ada.chatStream(project.id, "What?")) {
              if (type === "text") text.push(data.delta);
            }
            return [refused, (await ada.me()).role, (await admin.me()).role, text];
            """,
            service.url,
            key="canary-service-key",
            old=token(-3600),
            young=token(3600),
        )
    assert told == [
        [
            [401, "unauthorized", NO_CREDENTIALS],
            [403, "forbidden", NO_CREDENTIALS],
            [401, "unauthorized", "The token has expired. Sign in again."],
        ],
        None,
        "admin",
        ["The", " answer", "."],
    ]


# --- documents


def test_an_upload_tells_how_far_it_is(run: Run, service: Service, project: str) -> None:
    document, events, sent, refused = run(
        CATCH
        + """
        const api = client.createClient({ address: given.address });
        const sent = [];
        const onProgress = (done, total) => sent.push([done, total]);
        const file = new File(["The state Alarm is reached at 4.90 m.\\n"], "Größe & more.txt");
        const [document] = await api.documents.upload(given.project, [file], { onProgress });
        const events = [];
        for await (const event of api.documents.events(document.id)) events.push(event);
        const data = new Blob([new Uint8Array(3_000_000)]);
        const refused = await caught(() =>
          api.documents.upload(given.project, [{ name: "zeros.bin", data }], { onProgress }),
        );
        const content = await api.documents.content(document.id);
        if ((await content.text()) !== (await file.text())) throw new Error("not the same file");
        return [await api.documents.get(document.id), events, sent, refused];
        """,
        service.url,
        project=project,
    )
    assert refused[:2] == [415, "unsupported_document"]
    # What was refused was sent before; Node tells only of what was taken.
    assert sent == sorted(sent, key=lambda pair: (pair[1], pair[0]))
    assert sent[-1][0] == sent[-1][1]
    assert events[-1]["data"] == {"document": document}
    assert document["name"] == "Größe & more.txt"
