"""Runs over HTTP: how one stands, its stream from any place, and its stop."""

import uuid
from datetime import datetime
from typing import Any

from fastapi import APIRouter

from api.dependencies import Caller, Service
from api.resuming import After, LastEventId, place
from api.runs.rows import RunRow, Status
from api.schema import CamelModel
from api.streams import resumed_stream_docs
from api.wire import EventStream

router = APIRouter(prefix="/runs", tags=["runs"])


class RunEntry(CamelModel):
    """A run; `error` is the data of its error event."""

    id: uuid.UUID
    conversation_id: uuid.UUID | None
    status: Status
    seq: int
    started_at: datetime
    ended_at: datetime | None
    finish_reason: str | None
    error: dict[str, Any] | None
    next_run_id: uuid.UUID | None = None


class RunAnswer(CamelModel):
    """One run."""

    run: RunEntry


@router.get("/{run_id}")
async def get_run(run_id: uuid.UUID, service: Service, caller: Caller) -> RunAnswer:
    """How a run stands."""
    return _told(await service.runs.get(run_id, caller.id))


@router.post("/{run_id}/stop")
async def stop_run(run_id: uuid.UUID, service: Service, caller: Caller) -> RunAnswer:
    """End a run now and keep what it has; a run that has ended stays as it is."""
    return _told(await service.runs.stop(run_id, caller.id))


@router.get("/{run_id}/stream", response_class=EventStream, responses=resumed_stream_docs())
async def follow_run(
    run_id: uuid.UUID,
    service: Service,
    caller: Caller,
    after: After = None,
    last_event_id: LastEventId = None,
) -> EventStream:
    """The run's stream from the start, or after `Last-Event-ID` or `after`; then live."""
    content = await service.runs.stream(run_id, caller.id, place(run_id, after, last_event_id))
    return EventStream(content, run_id=str(run_id))


def _told(row: RunRow) -> RunAnswer:
    return RunAnswer(
        run=RunEntry(
            id=row.id,
            conversation_id=row.conversation_id,
            status=row.status,
            seq=row.seq,
            started_at=row.started_at,
            ended_at=row.ended_at,
            finish_reason=row.finish_reason,
            error=row.error,
        )
    )
