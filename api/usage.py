"""What was used and what it cost: by day, project, user and model; and a caller's own limits."""

import uuid
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import JsonValue

from api.access.principals import Principal
from api.access.resolver import access_to
from api.access.rules import Caller, GuardedRoute
from api.dependencies import Parts, Service
from api.errors import Refusal, not_found
from api.schema import CamelModel, example
from graph.postgres import rows_of

router = APIRouter(prefix="/usage", tags=["usage"], route_class=GuardedRoute)

_BACK = timedelta(days=29)
_MOST_DAYS = 366

From = Annotated[date | None, Query(alias="from", description="The first day, in UTC.")]
To = Annotated[date | None, Query(alias="to", description="The last day, in UTC.")]
ProjectId = Annotated[uuid.UUID | None, Query(alias="projectId", description="Of this project.")]
UserId = Annotated[uuid.UUID | None, Query(alias="userId", description="Of this user.")]

_USED: dict[str, JsonValue] = {
    "runs": 2,
    "promptTokens": 910,
    "completionTokens": 48,
    "totalTokens": 958,
    "cost": 0.000441,
}
_ENTRY: JsonValue = {
    **_USED,
    "day": "2026-08-14",
    "projectId": "36164b86-8725-4061-82bb-d30409c34c0f",
    "userId": "a61bf7f6-8c97-5247-b88b-4f198c524b42",
    "provider": "acme",
    "model": "acme-small",
}
_LIMIT: JsonValue = {
    "name": "requests per minute",
    "limit": 60,
    "remaining": 57,
    "resetAt": "2026-08-14T09:31:00Z",
}


class Used(CamelModel):
    """Runs, their tokens and their cost; null where no price is known."""

    runs: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost: float | None


class UsageEntry(Used):
    """What one user used of one model in one project on one day.

    Without a project are the runs of `/chat/generate`; without a model those that asked none.
    """

    day: date
    project_id: uuid.UUID | None
    user_id: uuid.UUID
    provider: str | None
    model: str | None


class UsageAnswer(CamelModel):
    """The newest day first; `total` adds up the entries, their known costs too."""

    model_config = example(usage=[_ENTRY], total=_USED)
    usage: list[UsageEntry]
    total: Used


class LimitEntry(CamelModel):
    """One limit: what is left of it, and when that grows next, null if nothing is used."""

    name: str
    limit: int
    remaining: int
    reset_at: datetime | None


class LimitsAnswer(CamelModel):
    """The limits that hold for the caller in all projects together."""

    model_config = example(limits=[_LIMIT])
    limits: list[LimitEntry]


@router.get("")
async def get_usage(
    service: Service,
    caller: Caller,
    first: From = None,
    last: To = None,
    project_id: ProjectId = None,
    user_id: UserId = None,
) -> UsageAnswer:
    """The caller's own usage; with tier `full` that of a project, and for admins all."""
    last = last or datetime.now(UTC).date()
    first = first or last - min(_BACK, last - date.min)
    _check_days(first, last)
    only = await _whose(service, caller, project_id)
    if only is not None and user_id not in (None, only):
        return _answer([])
    of = {"first": first, "last": last, "project": project_id, "user": only or user_id}
    return _answer(await rows_of(service.pool, _SELECT, of))


@router.get("/limits")
async def get_limits(service: Service, caller: Caller) -> LimitsAnswer:
    """The caller's own limits as they stand now; none where the operator set none."""
    allowances = await service.fair_use.allowances(caller)
    return LimitsAnswer(limits=[LimitEntry(**asdict(each)) for each in allowances])


def _check_days(first: date, last: date) -> None:
    if first > last:
        raise Refusal(400, "bad_request", "The day `from` must not be after the day `to`.")
    if (last - first).days >= _MOST_DAYS:
        raise Refusal(400, "bad_request", f"Ask for at most {_MOST_DAYS} days at once.")


async def _whose(
    service: Parts, caller: Principal, project_id: uuid.UUID | None
) -> uuid.UUID | None:
    """The only user whose usage the caller may see, null for everybody's.

    Raises:
        Refusal: 404, the caller may see nothing of the project.
    """
    if project_id is None:
        return None if caller.is_admin else caller.id
    access = await access_to(service.pool, caller, project_id)
    if access is not None:
        return None if access.allows("full") else caller.id
    if caller.is_admin and await _was_used(service, project_id):
        return None
    raise not_found("project")


async def _was_used(service: Parts, project_id: uuid.UUID) -> bool:
    """Whether there are accounts of a project, which may be erased."""
    found = "select 1 from usage where project_id = %s limit 1"
    return bool(await rows_of(service.pool, found, (project_id,)))


def _answer(rows: Sequence[dict[str, Any]]) -> UsageAnswer:
    usage = [UsageEntry(**row) for row in rows]
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    total = Used(
        runs=sum(entry.runs for entry in usage),
        prompt_tokens=sum(entry.prompt_tokens for entry in usage),
        completion_tokens=sum(entry.completion_tokens for entry in usage),
        total_tokens=sum(entry.total_tokens for entry in usage),
        cost=float(sum(costs, Decimal())) if costs else None,
    )
    return UsageAnswer(usage=usage, total=total)


_SELECT = """
select day, project_id, user_id, provider, model, sum(runs) as runs,
    sum(prompt_tokens) as prompt_tokens, sum(completion_tokens) as completion_tokens,
    sum(prompt_tokens + completion_tokens) as total_tokens, sum(cost) as cost
from usage
where day between %(first)s and %(last)s
    and (%(project)s::uuid is null or project_id = %(project)s)
    and (%(user)s::uuid is null or user_id = %(user)s)
group by day, project_id, user_id, provider, model
order by day desc, project_id, user_id, provider, model
"""
