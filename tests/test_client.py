"""The client of web/client, in Node and in a browser, with the real service."""

import os
import random
from typing import Any

import httpx
import pytest
from conftest import Service
from cuts import cut
from javascript import Run, in_browser
from playwright.sync_api import Browser
from relay import breaking
from sse import read
from standins.openai import Answer, OpenAIStandIn
from timed import timed

pytestmark = pytest.mark.slow

CUTS = int(os.environ.get("CUTS", "12"))
SEED = int(os.environ.get("SEED", "8"))


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
    run_script: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
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
        elif rounds == 2:
            # More than are borne with in a row; but each brings something.
            cuts = [900] * 12
        how = {"isDraft": rng.random() < 0.5, "inBatches": rng.random() < 0.5}
        with breaking(service.url, cuts) as (address, left):
            events = run_script(ASK, address, project=project, **how)
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
    run_script: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["It is", " blue"], end="hang"), Answer(["It", " is", " red."], delay_s=0.1))
    stopped, status, left, reason = run_script(
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
    run_script: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer([" word"] * 30, delay_s=0.02))
    runs, before, whole, rest, nothing = run_script(
        """
        const api = client.createClient({ address: given.address });
        const runs = [], before = [], whole = [], rest = [], nothing = [];
        const onRun = (id) => runs.push(id);
        const stream = api.chatStream(given.project, "What?", null, null, "docs", { onRun });
        for await (const event of stream) if (before.push(event) === 5) break;
        for await (const event of api.followRun(runs[0])) whole.push(event);
        for await (const event of api.followRun(runs[0], before.at(-1).seq)) rest.push(event);
        for await (const event of api.followRun(runs[0], whole.at(-1).seq)) nothing.push(event);
        return [runs, before, whole, rest, nothing];
        """,
        service.url,
        project=project,
    )
    assert whole == told(http, runs[0]) == before + rest
    assert nothing == []


@timed
def test_a_silent_connection_is_given_up(
    run_script: Run, service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["It is"], first_delay_s=1.2))
    events, heard = run_script(
        """
        const patience = { silenceMs: 500, pauseMs: 1 };
        const api = client.createClient({ address: given.address, patience });
        const events = [], heard = [];
        const onRun = () => heard.push("run");
        const onOpen = () => heard.push("open");
        const onWait = ({ error }) => heard.push(error.code);
        const options = { onRun, onOpen, onWait };
        const stream = api.chatStream(given.project, "What?", null, null, null, options);
        for await (const event of stream) events.push(event);
        return [events, heard];
        """,
        service.url,
        project=project,
    )
    assert events == told(http, events[0]["runId"])
    assert heard[:4] == ["run", "open", "unreachable", "open"]
    assert set(heard[4:]) <= {"unreachable", "open"}
    assert len(model.chats) == 1
