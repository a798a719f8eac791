"""Runs over HTTP: how one stands, its stream from any place, and its stop."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from api.access.resolver import access_to
from api.access.rules import Caller, GuardedRoute, rule
from api.dependencies import Service
from api.errors import not_found
from api.resuming import After, LastEventId, StopsAt204, place
from api.runs.rows import RunRow, Status
from api.schema import CamelModel
from api.streams import resumed_stream_docs
from api.wire import EventStream, NothingFollows

router = APIRouter(prefix="/runs", tags=["runs"], route_class=GuardedRoute)


class RunEntry(CamelModel):
    """A run; `error` is the data of its error event, `nextRunId` the run that asks it again."""

    id: uuid.UUID
    conversation_id: uuid.UUID | None
    status: Status
    seq: int
    started_at: datetime
    ended_at: datetime | None
    finish_reason: str | None
    error: dict[str, Any] | None
    next_run_id: uuid.UUID | None


class RunAnswer(CamelModel):
    """One run."""

    run: RunEntry


@rule("a run of one's own")
async def own_run(run_id: uuid.UUID, service: Service, caller: Caller) -> RunRow:
    """The run of the path, of a project that the caller can still see."""
    row = await service.runs.get(run_id, caller.id)
    if row.project_id and not await access_to(service.pool, caller, row.project_id):
        raise not_found("run")
    if row.project_id:
        await service.fair_use.count_project_request(row.project_id)
    return row


OwnRun = Annotated[RunRow, Depends(own_run)]


@router.get("/{run_id}")
async def get_run(run: OwnRun) -> RunAnswer:
    """How a run stands."""
    return _told(run)


@router.post("/{run_id}/stop")
async def stop_run(run: OwnRun, service: Service) -> RunAnswer:
    """End a run now and keep what it has; a run that has ended stays as it is."""
    return _told(await service.runs.stop(run.id, run.owner_id))


@router.get("/{run_id}/stream", response_class=EventStream, responses=resumed_stream_docs())
async def follow_run(
    run: OwnRun,
    service: Service,
    stops_at_204: StopsAt204,
    after: After = None,
    last_event_id: LastEventId = None,
) -> Response:
    """The run's stream from the start, or after `Last-Event-ID` or `after`; then live."""
    last = place(run.id, after, last_event_id)
    if stops_at_204 and run.status != "running" and last >= run.seq > 0:
        return NothingFollows(str(run.id))
    content = await service.runs.stream(run.id, run.owner_id, last)
    return EventStream(content, run_id=str(run.id))


def _told(row: RunRow) -> RunAnswer:
    return RunAnswer(run=RunEntry.model_validate(row, from_attributes=True))
