"""Stand in for the service towards its clients: runs that are known before, and faults on order."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Self

from aiohttp import web

from api.wire import HEADERS, OPENED, encode, frame
from standins.loopback import serving

Event = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Refused:
    """A status in place of an answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Broken:
    """The connection breaks after so many events, inside of the next; without, before the head."""

    after: int | None = None


class Asked(NamedTuple):
    """A request as it came in."""

    method: str
    path: str
    key: str | None
    last_event_id: str | None


class ServiceStandIn:
    """The service on loopback; use it as a context manager.

    `runs` are whole runs by id, the first of them what a POST starts. `jump` is what a crash adds
    to the number of a run's last event, where that names another run. Each request uses up one of
    `faults`, None being none.
    """

    def __init__(
        self,
        runs: Mapping[str, Sequence[Event]],
        *faults: Refused | Broken | None,
        jump: int = 10_000,
    ) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self._runs = runs
        self._faults = list(faults)
        self._jump = jump
        self._open = ExitStack()

    def __enter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/chat/projects/{project}", self._answer)
        app.router.add_get("/runs/{run}/stream", self._answer)
        self.url = self._open.enter_context(serving(app))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        key, last = (request.headers.get(name) for name in ("Idempotency-Key", "Last-Event-ID"))
        self.asked.append(Asked(request.method, request.path_qs, key, last))
        fault = self._faults.pop(0) if self._faults else None
        run = request.match_info.get("run") or next(iter(self._runs))
        if isinstance(fault, Refused):
            body = {"error": "refused", "message": "Not now."}
            return web.json_response(body, status=fault.status, headers=fault.headers)
        response = web.StreamResponse(
            headers={**HEADERS, "Content-Type": "text/event-stream", "X-Run-Id": run}
        )
        if fault != Broken():
            await response.prepare(request)
            after = last.rpartition(":")[2] if last else request.query.get("after", "0")
            await response.write(self._bytes(run, int(after), fault))
        if fault and request.transport:
            request.transport.close()
        return response

    def _bytes(self, run: str, after: int, fault: Broken | None) -> bytes:
        follows = [one for one in self._numbered(run) if one[0] > after]
        events = [encode(run, number, [frame(*event)]) for number, event in follows]
        if fault is None:
            return OPENED + b"".join(events)
        assert fault.after is not None
        return OPENED + b"".join(events[: fault.after]) + events[fault.after][:-10]

    def _numbered(self, run: str) -> list[tuple[int, Event]]:
        *_, (_, last) = events = self._runs[run]
        jump = self._jump - 1 if "nextRunId" in last else 0
        return [
            (number + jump if number == len(events) else number, event)
            for number, event in enumerate(events, 1)
        ]
