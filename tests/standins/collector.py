"""Stand in for an OpenTelemetry collector that takes traces over OTLP/HTTP, as protobuf."""

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from standins.loopback import forever, serving


@dataclass(frozen=True)
class Seen:
    """A span as it came; `parent` is the id of another, "" for none. Times are nanoseconds."""

    name: str
    id: str
    parent: str
    trace: str
    kind: str
    attributes: dict[str, Any]
    events: tuple[str, ...]
    error: str | None
    start: int
    end: int
    resource: dict[str, Any]


class CollectorStandIn:
    """A collector on loopback; use it as a context manager.

    `spans` are all that came, in that order, and `headers` those of the last request. While it
    `hangs` it takes requests and does not answer them; any other `status` than 200 refuses them.
    """

    def __init__(self) -> None:
        self.url = ""
        self.hangs = False
        self.status = 200
        self.requests = 0
        self.spans: list[Seen] = []
        self.headers: dict[str, str] = {}
        self._came = threading.Condition()
        self._open = ExitStack()

    def __enter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        self.url = self._open.enter_context(serving(app))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def trace_of(self, run_id: str, within_s: float = 20) -> list[Seen]:
        """The spans of a run's trace once its root has come, the root first, then by time."""
        until = time.monotonic() + within_s
        with self._came:
            while not (roots := [one for one in self.spans if _is_root(one, run_id)]):
                assert self._came.wait(until - time.monotonic()), f"no trace of run {run_id}"
            below = [one for one in self.spans if one.parent == roots[0].id]
            return [*roots, *sorted(below, key=lambda one: (one.start, one.end))]

    def wait_for_request(self, within_s: float = 20) -> None:
        """Wait until anything was sent here."""
        with self._came:
            assert self._came.wait_for(lambda: self.requests > 0, within_s)

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        with self._came:
            self.requests += 1
            self.headers = {name.lower(): value for name, value in request.headers.items()}
            self._came.notify_all()
        if self.hangs:
            await forever()
        if self.status != 200:
            return web.Response(status=self.status)
        with self._came:
            self.spans += _spans(ExportTraceServiceRequest.FromString(body))
            self._came.notify_all()
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(),
            content_type="application/x-protobuf",
        )


def _is_root(span: Seen, run_id: str) -> bool:
    return span.attributes.get("archwright.run.id") == run_id


def _spans(request: ExportTraceServiceRequest) -> list[Seen]:
    return [
        _seen(span, _values(of_resource.resource.attributes))
        for of_resource in request.resource_spans
        for scope in of_resource.scope_spans
        for span in scope.spans
    ]


def _seen(span: Span, resource: dict[str, Any]) -> Seen:
    failed = span.status.code == Status.STATUS_CODE_ERROR
    return Seen(
        name=span.name,
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        trace=span.trace_id.hex(),
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        attributes=_values(span.attributes),
        events=tuple(event.name for event in span.events),
        error=span.status.message if failed else None,
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        resource=resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in attributes}


def _value(value: AnyValue) -> Any:
    if value.WhichOneof("value") == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, value.WhichOneof("value") or "string_value")
