"""The audit log, as admins read it. No route changes it."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import JsonValue

from api.access.audit import Action
from api.access.rules import GuardedRoute, admin
from api.dependencies import Service
from api.lists import Before, Limit
from api.schema import CamelModel, example
from graph.postgres import rows_of

router = APIRouter(prefix="/audit", tags=["audit"], route_class=GuardedRoute)

_ENTRY: JsonValue = {
    "id": 5,
    "at": "2026-08-14T09:30:00Z",
    "actorId": "a61bf7f6-8c97-5247-b88b-4f198c524b42",
    "actor": "jwt:https://login.example:ada",
    "action": "grant.created",
    "targetType": "grant",
    "targetId": "1e5ce77c-05a7-4be0-9dd6-922cf0c2a1c4",
    "projectId": "36164b86-8725-4061-82bb-d30409c34c0f",
    "details": {
        "tier": "edit",
        "targetId": "4b35fe2f-25df-5140-bf0a-23ac148aa190",
        "targetType": "user",
    },
}


class AuditEntry(CamelModel):
    """Who did what to what; `actor` is their subject, and `details` depend on the action."""

    id: int
    at: datetime
    actor_id: uuid.UUID
    actor: str
    action: str
    target_type: str
    target_id: str
    project_id: uuid.UUID | None
    details: dict[str, Any]


class AuditList(CamelModel):
    """Entries, the newest first."""

    model_config = example(entries=[_ENTRY])
    entries: list[AuditEntry]


@router.get("", dependencies=[Depends(admin)])
async def list_entries(
    service: Service,
    limit: Limit = 50,
    before: Before = None,
    actor_id: Annotated[
        uuid.UUID | None, Query(alias="actorId", description="Only what this user did.")
    ] = None,
    project_id: Annotated[
        uuid.UUID | None, Query(alias="projectId", description="Only of this project.")
    ] = None,
    action: Annotated[Action | None, Query(description="Only this action.")] = None,
) -> AuditList:
    """What was granted, revoked, changed and deleted, and by whom."""
    values = {
        "before": before,
        "actor": actor_id,
        "project": project_id,
        "action": action,
        "limit": limit,
    }
    rows = await rows_of(service.pool, _SELECT, values)
    return AuditList(entries=[AuditEntry(**row) for row in rows])


_SELECT = """
select id, at, actor_id, actor, action, target_type, target_id, project_id, details from audit
where (%(before)s::timestamptz is null or at < %(before)s)
    and (%(actor)s::uuid is null or actor_id = %(actor)s)
    and (%(project)s::uuid is null or project_id = %(project)s)
    and (%(action)s::text is null or action = %(action)s)
order by at desc, id desc limit %(limit)s
"""
