"""Traces for OpenTelemetry: a trace of each run, told once it has ended and sent in batches.

It holds ids, names, times and counts, and never a text of anybody. This module is imported only
where `OTEL_EXPORTER_OTLP_ENDPOINT` is set.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import NamedTuple

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.re import parse_env_headers
from opentelemetry.util.types import AttributeValue

from api.runs.course import Course, Ended, Watch
from api.settings import Settings

log = logging.getLogger(__name__)

_FLUSH_S = 2.0
_AWAY = (
    "Traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT; those of meanwhile are lost. This is "
    "said once, until it works again."
)


@asynccontextmanager
async def open_spans(settings: Settings) -> AsyncIterator[Watch]:
    """Sends a trace of each run that it is told of; at the end what is left, in bounded time.

    What the settings do not have, such as the sampler and the size of a batch, the SDK reads from
    the environment by itself.
    """
    named = {SERVICE_NAME: settings.otel_service_name, SERVICE_VERSION: version("archwright")}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    exporter = _exporter(settings)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    # Each retry of each batch would be a line.
    library = logging.getLogger(OTLPSpanExporter.__module__)
    library.addFilter(exporter.is_news)
    try:
        yield Spans(provider.get_tracer("archwright", version("archwright"))).run_ended
    finally:
        # It would wait for half a minute, and be waited for when the process ends.
        flushing = threading.Thread(target=provider.shutdown, daemon=True)
        flushing.start()
        await asyncio.to_thread(flushing.join, _FLUSH_S)
        library.removeFilter(exporter.is_news)


def _exporter(settings: Settings) -> "_Exporter":
    secret = settings.otel_exporter_otlp_headers
    headers = parse_env_headers(secret.get_secret_value(), liberal=True) if secret else None
    endpoint = str(settings.otel_exporter_otlp_endpoint).rstrip("/")
    return _Exporter(endpoint=f"{endpoint}/v1/traces", headers=headers)


class _Exporter(OTLPSpanExporter):
    """Says once that the collector is away."""

    _is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            log.warning(_AWAY)
        self._is_away = is_away
        return result

    def is_news(self, record: logging.LogRecord) -> bool:
        """Whether what the library has to say was not to be expected."""
        return not self._is_away


class Spans:
    """Makes the spans of runs, after the event: nothing is done while a run goes on."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._parents = TraceContextTextMapPropagator()

    def run_ended(self, ended: Ended) -> None:
        """Make the trace of a run, as a part of its caller's where that has one."""
        course, now = ended.course, time.time_ns()
        origin = course.origin
        root = self._tracer.start_span(
            f"run {ended.row.api}",
            context=self._parents.extract(origin.headers) if origin else None,
            kind=SpanKind.SERVER,
            attributes=_of_run(ended),
            start_time=origin.came_ns if origin else course.began_ns,
        )
        if not root.is_recording():
            return
        if ended.error_code:
            root.set_status(StatusCode.ERROR, ended.error_code)
        context = set_span_in_context(root)
        for part in _parts(course, now):
            self._make(part, ended, context)
        root.end(now)

    def _make(self, part: "_Part", ended: Ended, context: Context) -> None:
        is_model = part.name == "generate"
        span = self._tracer.start_span(
            part.name,
            context=context,
            kind=SpanKind.CLIENT if is_model else SpanKind.INTERNAL,
            attributes=_of_model(ended) if is_model else None,
            start_time=part.start_ns,
        )
        if is_model and ended.course.first_token_ns:
            span.add_event("first_token", timestamp=ended.course.first_token_ns)
        if ended.error_code and part.broke_off:
            span.set_status(StatusCode.ERROR, ended.error_code)
            span.set_attribute("error.type", ended.error_code)
        span.end(part.end_ns)


class _Part(NamedTuple):
    name: str
    start_ns: int
    end_ns: int
    broke_off: bool = False


def _parts(course: Course, now: int) -> Iterator[_Part]:
    """What a run was made of, from the request to the storing of its end."""
    if course.origin:
        yield _Part("begin", course.origin.came_ns, course.began_ns)
    for step in course.steps:
        yield _Part(step.step, step.ended_ns - round(step.ms * 1e6), step.ended_ns)
    if course.over_ns is None:
        return
    if course.wrote_ns and all(step.step != "generate" for step in course.steps):
        yield _Part("generate", course.wrote_ns, course.over_ns, broke_off=True)
    yield _Part("finish", course.over_ns, now)


def _of_run(ended: Ended) -> dict[str, AttributeValue]:
    row = ended.row
    found: dict[str, AttributeValue | None] = {
        "archwright.api": row.api,
        "archwright.doc_type": row.doc_type,
        "archwright.project.id": str(row.project_id) if row.project_id else None,
        "archwright.run.id": str(row.id),
        "archwright.run.status": row.status,
        "error.type": ended.error_code,
        "gen_ai.conversation.id": str(row.conversation_id) if row.conversation_id else None,
        "gen_ai.provider.name": ended.spent.provider,
        "gen_ai.response.model": ended.spent.model,
    }
    return {name: value for name, value in found.items() if value is not None}


def _of_model(ended: Ended) -> dict[str, AttributeValue]:
    """By OpenTelemetry's conventions for generative AI, `gen_ai.*`."""
    usage, reason = ended.spent.usage, ended.row.finish_reason
    found: dict[str, AttributeValue | None] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": ended.spent.provider,
        "gen_ai.request.model": ended.spent.model,
        "gen_ai.response.finish_reasons": (reason,) if reason else None,
        "gen_ai.usage.input_tokens": usage.prompt_tokens,
        "gen_ai.usage.output_tokens": usage.completion_tokens,
    }
    return {name: value for name, value in found.items() if value is not None}
