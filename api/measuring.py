"""What is counted and timed for Prometheus: runs, their tokens, and how busy the service is.

A run is counted once, when it has ended. With several workers prometheus-client keeps the values
of each in files of a folder that they share, so that whichever of them is asked tells the sums.
"""

import asyncio
import os
from typing import NoReturn

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from api.runs.course import Ended
from api.runs.engine import Runs
from graph.postgres import Pool

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_LOOK_S = 0.5

_STEP_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_FIRST_TOKEN_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2.5, 5, 10, 30, 60)
_RUN_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
_LAG_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """The metrics of this process; those of other workers are added when they are read."""

    def __init__(self) -> None:
        # When a value was first counted, workers cannot tell; so nobody does.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        # Of its own: a process may have several services, as in tests.
        self._registry = CollectorRegistry()
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self._runs = counter("runs", "Runs that ended, by how.", "api", "outcome")
        self._errors = counter("run_errors", "Runs that failed, by why.", "api", "code")
        self._streamed = counter("tokens_streamed", "Tokens shown to readers.", "api")
        self._used = counter(
            "tokens_used", "Tokens that models read and wrote.", "provider", "model", "kind"
        )
        self._refused = counter("requests_refused", "Requests answered with an error.", "status")
        self._first_token = histogram(
            "first_token_seconds", "From a run's start to its first token.", _FIRST_TOKEN_S, "api"
        )
        self._run = histogram("run_seconds", "From a run's start to its end.", _RUN_S, "api")
        self._step = histogram("step_seconds", "What a finished step took.", _STEP_S, "step")
        self._lag = histogram(
            "event_loop_lag_seconds", "How late the event loop was, twice a second.", _LAG_S
        )
        self._going_on = gauge("runs_going_on", "Runs that are worked on.")
        self._streams = gauge("streams_open", "Readers of the streams of runs.")
        self._connections = gauge("database_connections", "Connections in the pool.", "state")
        self._waiting = gauge("database_requests_waiting", "Who waits for such a connection.")

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"archwright_{name}", meaning, labels, registry=self._registry)

    def _gauge(self, name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(
            f"archwright_{name}",
            meaning,
            labels,
            registry=self._registry,
            multiprocess_mode="livesum",
        )

    def _histogram(
        self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(
            f"archwright_{name}", meaning, labels, buckets=buckets, registry=self._registry
        )

    def run_ended(self, ended: Ended) -> None:
        """Count a run that has ended."""
        api, answer, spent = ended.row.api, ended.answer, ended.spent
        self._runs.labels(api, ended.row.finish_reason or "failed").inc()
        if ended.error_code:
            self._errors.labels(api, ended.error_code).inc()
        for step in ended.course.steps:
            self._step.labels(step.step).observe(step.ms / 1000)
        if total := answer.timings_ms.get("total"):
            self._run.labels(api).observe(total / 1000)
        if first_token := answer.timings_ms.get("first_token"):
            self._first_token.labels(api).observe(first_token / 1000)
        self._streamed.labels(api).inc(answer.estimate.completion_tokens)
        if spent.usage.total_tokens:
            model = (spent.provider or "unknown", spent.model or "unknown")
            self._used.labels(*model, "prompt").inc(spent.usage.prompt_tokens)
            self._used.labels(*model, "completion").inc(spent.usage.completion_tokens)

    def request_refused(self, status: int) -> None:
        """Count a request that was answered with an error."""
        self._refused.labels(str(status)).inc()

    async def work(self, runs: Runs, pool: Pool) -> NoReturn:
        """See every half second how late the event loop is, and how things stand; for ever."""
        now = asyncio.get_running_loop().time
        while True:
            due = now() + _LOOK_S
            await asyncio.sleep(_LOOK_S)
            self._lag.observe(max(0.0, now() - due))
            self.look(runs, pool)

    def look(self, runs: Runs, pool: Pool) -> None:
        """Take down how things stand now in this process."""
        going_on, readers = runs.load()
        self._going_on.set(going_on)
        self._streams.set(readers)
        stats = pool.get_stats()
        self._connections.labels("used").set(stats["pool_size"] - stats["pool_available"])
        self._connections.labels("idle").set(stats["pool_available"])
        self._waiting.set(stats["requests_waiting"])

    def told(self, accept: str) -> tuple[bytes, str]:
        """The metrics of all workers, and the content type; in a format that is accepted."""
        encode, content_type = choose_encoder(accept)
        return encode(self._of_all()), content_type

    def _of_all(self) -> CollectorRegistry:
        if _FOLDER not in os.environ:
            return self._registry
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return registry
