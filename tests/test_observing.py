"""What operators see: metrics of all runs, and a trace of each."""

import json
import multiprocessing
import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

import httpx
import pytest
from conftest import Service, ServiceFactory
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as open_metrics_families,
)
from prometheus_client.parser import text_string_to_metric_families as families_of
from sse import live, read
from standins.collector import CollectorStandIn, Seen
from standins.openai import Answer, OpenAIStandIn
from test_server import drafting_body, wait_until

from api.access.principals import LOCAL_USER
from api.app import create_app
from api.settings import Settings, SettingsError, load_settings
from graph.settings import ROOT

CANARY = "canary of a question"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
STEPS = ("load_template", "retrieve", "search", "generate", "check")

Values = dict[str, float]


@pytest.fixture(scope="module")
def collector() -> Iterator[CollectorStandIn]:
    with CollectorStandIn() as running:
        yield running


@pytest.fixture(scope="module")
def observed(
    start_service: ServiceFactory, shared_model: OpenAIStandIn, collector: CollectorStandIn
) -> Iterator[Service]:
    """A service whose traces are sent at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        with start_service(
            openai_base_url=shared_model.base_url,
            openai_model="stand-in",
            otel_exporter_otlp_endpoint=f"{collector.url}/",
            otel_exporter_otlp_headers="api-key=canary-of-a-collector",
            otel_service_name="harbour",
        ) as service:
            yield service


class Known:
    """Runs of every kind, by name: their ids, and the data of their last events.

    `during` is what was scraped while one of them went on.
    """

    def __init__(self, http: httpx.Client, service: Service, model: OpenAIStandIn) -> None:
        self.ids: dict[str, str] = {}
        self.ends: dict[str, Any] = {}
        self._http = http
        self.project = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
        self.draft = drafting_body(CANARY)
        caller = {"traceparent": f"00-{TRACE}-{SPAN}-01"}

        model.will(Answer(["One", " two", " three."]))
        self.ask("chat", headers=caller)
        model.will(Answer(["# A\n", "b."], finish_reason="length"))
        body = {**self.draft, "doc_type": "PROJECT_MANIFESTO"}
        self.run("draft", "/api/v1/chat/stream", body)
        model.will(Answer(["One"]))
        self.run("legacy", "/api/v1/chat/generate", {"message": CANARY, "doc_type": "UNSORTED"})
        model.will(Answer(status=401))
        self.ask("refused")
        model.will(Answer(["One", " two"], end="cut"))
        self.run("cut", "/api/v1/chat/stream", drafting_body(CANARY))
        model.will(Answer(["One "], end="hang"))
        self.stopped()
        self.abandoned(service)
        assert http.get("/runs/none").status_code == 404

    def ask(self, name: str, **more: Any) -> None:
        self.run(name, f"/chat/projects/{self.project}", {"message": CANARY}, **more)

    def run(self, name: str, path: str, body: Mapping[str, str], **more: Any) -> None:
        *_, last = read(self._http, "POST", path, json=body, **more)
        self.ids[name], self.ends[name] = last.id.split(":")[0], last.data

    def stopped(self) -> None:
        body = {"message": CANARY}
        with self._http.stream("POST", f"/chat/projects/{self.project}", json=body) as response:
            self.ids["stopped"] = response.headers["x-run-id"]
            events = live(response.iter_lines())
            assert [next(events).name for _ in range(3)] == ["meta", "sources", "text"]
            self.during = scraped(self._http)
            self._http.post(f"/runs/{self.ids['stopped']}/stop").raise_for_status()
            [done] = events
            self.ends["stopped"] = done.data

    def abandoned(self, service: Service) -> None:
        """A run that its process has left behind."""
        self.ids["abandoned"] = run_id = str(uuid.uuid4())
        with service.changing() as connection:
            connection.execute(
                "insert into runs (id, owner_id, status, api, request) "
                "values (%s, %s, 'running', 'legacy', '{\"turn\": {}}')",
                (run_id, LOCAL_USER.id),
            )
        self._http.post(f"/runs/{run_id}/stop").raise_for_status()


@pytest.fixture(scope="module")
def known(observed: Service, shared_model: OpenAIStandIn) -> Known:
    shared_model.reset()
    with observed.client() as http:
        return Known(http, observed, shared_model)


@pytest.fixture
def http(observed: Service) -> Iterator[httpx.Client]:
    with observed.client() as client:
        yield client


# --- times


def test_each_done_tells_its_times(known: Known) -> None:
    camel = {"loadTemplate", "retrieve", "search", "generate", "check", "firstToken", "total"}
    draft = known.ends["draft"]["metadata"]["timings_ms"]
    assert set(known.ends["chat"]["timingsMs"]) == camel
    assert set(known.ends["stopped"]["timingsMs"]) == camel
    assert set(draft) == {*STEPS, "first_token", "total"}
    assert set(known.ends["legacy"]) == {"total_tokens", "duration_ms"}


# --- metrics


def scraped(http: httpx.Client) -> Values:
    """All values but those of buckets, sums and the event loop: they are times."""
    answer = http.get("/metrics")
    assert answer.status_code == 200, answer.text
    return {
        shown(sample.name, sample.labels): sample.value
        for family in families_of(answer.text)
        for sample in family.samples
        if not re.search("_bucket$|_sum$|_lag_", sample.name)
    }


def shown(name: str, labels: Mapping[str, str]) -> str:
    return " ".join([name.removeprefix("archwright_"), *labels.values()])


def test_each_metric_is_on_the_page_for_operators(known: Known, http: httpx.Client) -> None:
    page = (ROOT / "docs/observing.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(archwright_\w+)` \| (\w+) \| ([^|]*?) ?\| (.+?) \|$", page, re.M)
    found = [
        (
            family.name + ("_total" if family.type == "counter" else ""),
            family.type,
            ", ".join(f"`{name}`" for name in labels_of(family.samples)),
            family.documentation,
        )
        for family in families_of(http.get("/metrics").text)
    ]
    assert sorted(told) == sorted(found)


def labels_of(samples: list[Any]) -> list[str]:
    return [name for name in samples[0].labels if name != "le"]


def test_runs_are_counted_as_they_ended(known: Known, http: httpx.Client) -> None:
    usage = http.get("/usage").json()["usage"]
    counted = {k: v for k, v in scraped(http).items() if re.search("_total|_count", k)}
    assert counted == {
        "runs_total chat stop": 1,
        "runs_total chat failed": 1,
        "runs_total chat stopped": 1,
        "runs_total drafting length": 1,
        "runs_total drafting failed": 1,
        "runs_total legacy stop": 1,
        "runs_total legacy stopped": 1,
        "run_errors_total chat LLM_API_ERROR": 1,
        "run_errors_total drafting LLM_CONNECTION_ERROR": 1,
        "tokens_streamed_total chat": 4,
        "tokens_streamed_total drafting": 4,
        "tokens_streamed_total legacy": 1,
        "tokens_used_total prompt stand-in default": sum(one["promptTokens"] for one in usage),
        "tokens_used_total completion stand-in default": 9,
        "requests_refused_total 404": 1,
        "first_token_seconds_count chat": 2,
        "first_token_seconds_count drafting": 2,
        "first_token_seconds_count legacy": 1,
        "run_seconds_count chat": 3,
        "run_seconds_count drafting": 2,
        "run_seconds_count legacy": 1,
        "step_seconds_count load_template": 6,
        "step_seconds_count retrieve": 6,
        "step_seconds_count generate": 3,
        "step_seconds_count check": 1,
    }


def test_what_goes_on_is_shown_while_it_does(known: Known, http: httpx.Client) -> None:
    assert (known.during["runs_going_on"], known.during["streams_open"]) == (1, 1)
    # The service's own work takes a connection now and then.
    at_rest = {
        "runs_going_on": 0.0,
        "streams_open": 0.0,
        "database_connections used": 0.0,
        "database_requests_waiting": 0.0,
    }
    wait_until(lambda: at_rest.items() <= scraped(http).items(), 20)
    assert scraped(http)["database_connections idle"] >= 1


def test_the_event_loop_is_watched(http: httpx.Client) -> None:
    def seen() -> float:
        lines = re.findall(r"^archwright_event_loop_lag_seconds_count (\S+)$", text(), re.M)
        return float(lines[0])

    def text() -> str:
        return http.get("/metrics").text

    before = seen()
    wait_until(lambda: seen() > before, 20)


def test_who_asks_for_open_metrics_gets_them(http: httpx.Client) -> None:
    answer = http.get("/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "archwright_runs" in {one.name for one in open_metrics_families(answer.text)}
    plain = http.get("/metrics").headers["content-type"]
    assert plain == "text/plain; version=0.0.4; charset=utf-8"


# --- traces


def outline(spans: list[Seen]) -> list[tuple[str, str, dict[str, Any], tuple[str, ...], Any]]:
    return [(one.name, one.kind, one.attributes, one.events, one.error) for one in spans]


def inner(*names: str) -> list[tuple[str, str, dict[str, Any], tuple[str, ...], None]]:
    return [(name, "internal", {}, (), None) for name in names]


def of_model(prompt: int, completion: int, reason: str | None = None) -> dict[str, Any]:
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "default",
        "gen_ai.request.model": "stand-in",
        "gen_ai.usage.input_tokens": prompt,
        "gen_ai.usage.output_tokens": completion,
        **({"gen_ai.response.finish_reasons": [reason]} if reason else {}),
    }


def of_run(known: Known, name: str, api: str, status: str, **more: Any) -> dict[str, Any]:
    return {
        "archwright.api": api,
        "archwright.doc_type": "UNSORTED",
        "archwright.run.id": known.ids[name],
        "archwright.run.status": status,
        "gen_ai.provider.name": "default",
        "gen_ai.response.model": "stand-in",
        **more,
    }


def conversation_of(service: Service, run_id: str) -> dict[str, str]:
    [row] = service.query(
        "select c.id, c.project_id from runs r join conversations c on c.id = r.conversation_id "
        "where r.id = %s",
        run_id,
    )
    return {
        "archwright.project.id": str(row["project_id"]),
        "gen_ai.conversation.id": str(row["id"]),
    }


def test_a_chat_is_a_part_of_its_callers_trace(
    known: Known, collector: CollectorStandIn, observed: Service
) -> None:
    root, *below = spans = collector.trace_of(known.ids["chat"])
    prompt = below[3].attributes["gen_ai.usage.input_tokens"]
    in_conversation = conversation_of(observed, known.ids["chat"])
    assert outline(spans) == [
        ("run chat", "server", of_run(known, "chat", "chat", "done", **in_conversation), (), None),
        *inner("begin", "load_template", "retrieve"),
        ("generate", "client", of_model(prompt, 3, "stop"), ("first_token",), None),
        *inner("finish"),
    ]
    assert {one.trace for one in spans} == {TRACE}
    assert root.parent == SPAN
    assert all(root.start <= one.start <= one.end <= root.end for one in below)
    assert (root.start, root.end) == (below[0].start, below[-1].end)


def test_a_draft_has_a_trace_of_its_own(
    known: Known, collector: CollectorStandIn, observed: Service
) -> None:
    root, *below = spans = collector.trace_of(known.ids["draft"])
    prompt = below[3].attributes["gen_ai.usage.input_tokens"]
    of_draft = conversation_of(observed, known.ids["draft"])
    of_draft |= {"archwright.doc_type": "PROJECT_MANIFESTO"}
    assert outline(spans) == [
        (
            "run drafting",
            "server",
            of_run(known, "draft", "drafting", "done", **of_draft),
            (),
            None,
        ),
        *inner("begin", "load_template", "retrieve"),
        ("generate", "client", of_model(prompt, 2, "length"), ("first_token",), None),
        *inner("check", "finish"),
    ]
    assert (root.parent, root.trace == TRACE) == ("", False)


def test_a_model_that_refuses_is_an_error(
    known: Known, collector: CollectorStandIn, observed: Service
) -> None:
    spans = collector.trace_of(known.ids["refused"])
    in_conversation = conversation_of(observed, known.ids["refused"])
    code = {"error.type": "LLM_API_ERROR"}
    of_this = of_run(known, "refused", "chat", "failed", **in_conversation, **code)
    assert outline(spans) == [
        ("run chat", "server", of_this, (), "LLM_API_ERROR"),
        *inner("begin", "load_template", "retrieve"),
        ("generate", "client", {**of_model(0, 0), **code}, (), "LLM_API_ERROR"),
        *inner("finish"),
    ]


def test_a_model_that_breaks_off_is_an_error_after_its_first_token(
    known: Known, collector: CollectorStandIn
) -> None:
    root, *_, generate, _ = collector.trace_of(known.ids["cut"])
    assert (root.error, root.attributes["archwright.run.status"]) == (
        "LLM_CONNECTION_ERROR", "failed",
    )  # fmt: skip
    assert (generate.name, generate.error, generate.events) == (
        "generate", "LLM_CONNECTION_ERROR", ("first_token",),
    )  # fmt: skip


def test_a_run_that_was_stopped_is_no_error(known: Known, collector: CollectorStandIn) -> None:
    root, *below = spans = collector.trace_of(known.ids["stopped"])
    assert root.attributes["archwright.run.status"] == "stopped"
    assert [one.name for one in below] == [
        "begin", "load_template", "retrieve", "generate", "finish",
    ]  # fmt: skip
    assert below[3].attributes["gen_ai.response.finish_reasons"] == ["stopped"]
    assert {one.error for one in spans} == {None}


def test_a_run_without_a_conversation_has_a_trace(
    known: Known, collector: CollectorStandIn
) -> None:
    root, *below = collector.trace_of(known.ids["legacy"])
    assert root.attributes == of_run(known, "legacy", "legacy", "done")
    assert [one.name for one in below] == [
        "begin", "load_template", "retrieve", "generate", "finish",
    ]  # fmt: skip


def test_of_a_run_whose_process_is_gone_there_is_the_root(
    known: Known, collector: CollectorStandIn
) -> None:
    assert outline(collector.trace_of(known.ids["abandoned"])) == [
        (
            "run legacy",
            "server",
            {
                "archwright.api": "legacy",
                "archwright.doc_type": "UNSORTED",
                "archwright.run.id": known.ids["abandoned"],
                "archwright.run.status": "stopped",
            },
            (),
            None,
        )
    ]


def test_the_collector_is_told_whose_traces_they_are_and_nothing_that_was_said(
    known: Known, collector: CollectorStandIn
) -> None:
    for run_id in known.ids.values():
        collector.trace_of(run_id)
    resource = collector.spans[0].resource
    assert (resource["service.name"], resource["service.version"]) == ("harbour", "0.1.0")
    assert collector.headers["api-key"] == "canary-of-a-collector"
    sent = json.dumps([one.attributes for one in collector.spans])
    assert not re.search("canary|three|Local", sent)


def test_a_caller_that_is_not_sampled_has_no_trace(
    observed: Service, known: Known, collector: CollectorStandIn, shared_model: OpenAIStandIn
) -> None:
    shared_model.will(Answer(["One"]))
    with observed.client() as http:
        path, body = f"/chat/projects/{known.project}", {"message": "Why?"}
        unsampled = {"traceparent": f"00-{'1' * 32}-{SPAN}-00"}
        first = read(http, "POST", path, json=body, headers=unsampled)
        broken = read(http, "POST", path, json=body, headers={"traceparent": "00-what?-01"})
    assert collector.trace_of(broken[0].id.split(":")[0])[0].parent == ""
    assert first[0].id.split(":")[0] not in {
        one.attributes.get("archwright.run.id") for one in collector.spans
    }


def traced(
    start_service: ServiceFactory, model: OpenAIStandIn, collector: CollectorStandIn
) -> AbstractContextManager[Service]:
    return start_service(
        openai_base_url=model.base_url,
        openai_model="stand-in",
        otel_exporter_otlp_endpoint=collector.url,
    )


def test_a_collector_that_is_away_is_told_of_once(
    start_service: ServiceFactory,
    shared_model: OpenAIStandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    shared_model.will(Answer(["One"]))
    body = {"message": "Why?", "doc_type": "UNSORTED"}
    with CollectorStandIn() as collector:
        collector.status = 403
        with traced(start_service, shared_model, collector) as service, service.client() as http:
            for times in range(1, 4):
                read(http, "POST", "/api/v1/chat/generate", json=body)
                wait_until(lambda times=times: collector.requests >= times, 20)  # type: ignore[misc]
    said = [
        one.getMessage()
        for one in caplog.records
        if "Traces" in one.msg or "403" in one.getMessage()
    ]
    assert said == [
        "Failed to export spans batch code: 403, reason: Forbidden",
        "Traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT; those of meanwhile are lost. "
        "This is said once, until it works again.",
    ]


# After that, since it goes on to say that nobody answers.
def test_a_collector_that_hangs_holds_up_neither_a_run_nor_the_end(
    start_service: ServiceFactory,
    shared_model: OpenAIStandIn,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    shared_model.will(Answer(["One"]))
    body = {"message": "Why?", "doc_type": "UNSORTED"}
    with CollectorStandIn() as collector:
        collector.hangs = True
        with traced(start_service, shared_model, collector) as service:
            with service.client() as http:
                read(http, "POST", "/api/v1/chat/generate", json=body)
                collector.wait_for_request()
                said = [read(http, "POST", "/api/v1/chat/generate", json=body) for _ in range(3)]
                assert [events[-1].name for events in said] == ["done"] * 3
            began = time.monotonic()
        # Its own time limit is 10 s, and that of its batches 30 s.
        assert time.monotonic() - began < 8


@pytest.mark.parametrize(
    "wrong", ["canary of a key", "api-key=a,canary", "=canary", "a=canary;b", "a=canary%0Ab: c"]
)
def test_headers_that_are_none_are_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load_settings(_env_file=None, otel_exporter_otlp_headers=wrong)
    assert str(refused.value) == (
        "OTEL_EXPORTER_OTLP_HEADERS: must be as name=value or name=value,name=value, URL-encoded"
    )


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    here, there = Pipe()
    # Forked from a process that has imported the service and nothing else.
    child = multiprocessing.get_context("forkserver").Process(target=tell, args=(there,))
    child.start()
    assert here.poll(60)
    assert here.recv() == []
    child.join(30)


def tell(line: Connection) -> None:
    create_app(Settings(_env_file=None))
    spans = ("api.spans", "opentelemetry.exporter.otlp.proto.http")
    line.send([name for name in sys.modules if name.startswith(spans)])
