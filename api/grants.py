"""Who may do what in a project, beside its owner: granted to people and groups by name."""

import uuid
from datetime import datetime
from typing import Literal

from fastapi import APIRouter, Response
from psycopg.errors import ForeignKeyViolation
from psycopg.rows import DictRow
from psycopg.sql import SQL, Identifier
from pydantic import JsonValue

from api.access.audit import Action, note
from api.access.principals import Principal
from api.access.resolver import Tier
from api.access.rules import Caller, GuardedRoute, OwnProject, UsableProject
from api.dependencies import Service
from api.errors import invalid, not_found
from api.lists import Before, Limit
from api.schema import CamelModel, example
from graph.postgres import Connection, rows_of

router = APIRouter(
    prefix="/projects/{project_id}/grants", tags=["projects"], route_class=GuardedRoute
)

TargetType = Literal["user", "group"]

_TARGET: dict[str, JsonValue] = {
    "targetType": "user",
    "targetId": "4b35fe2f-25df-5140-bf0a-23ac148aa190",
    "tier": "edit",
}
_GRANT: JsonValue = {
    "id": "1e5ce77c-05a7-4be0-9dd6-922cf0c2a1c4",
    "projectId": "36164b86-8725-4061-82bb-d30409c34c0f",
    **_TARGET,
    "targetName": "Mira Example",
    "createdAt": "2026-08-14T09:30:00Z",
    "updatedAt": "2026-08-14T09:30:00Z",
}


class NewGrant(CamelModel):
    """The body of `POST /projects/{id}/grants`."""

    model_config = example(**_TARGET)
    target_type: TargetType
    target_id: uuid.UUID
    tier: Tier


class Grant(CamelModel):
    """A tier of a project, held by a person or a group; `target_name` is theirs."""

    id: uuid.UUID
    project_id: uuid.UUID
    target_type: TargetType
    target_id: uuid.UUID
    target_name: str
    tier: Tier
    created_at: datetime
    updated_at: datetime


class GrantAnswer(CamelModel):
    """A grant, and whether it was made or had another tier before."""

    model_config = example(grant=_GRANT, action="created")
    grant: Grant
    action: Literal["created", "updated"]


class GrantList(CamelModel):
    """Grants, the newest first."""

    model_config = example(grants=[_GRANT])
    grants: list[Grant]


@router.get("")
async def list_grants(
    project_id: UsableProject, service: Service, limit: Limit = 50, before: Before = None
) -> GrantList:
    """Whom the project is shared with."""
    values = {"project": project_id, "before": before, "limit": limit}
    rows = await rows_of(service.pool, _SELECT + _PAGE, values)
    return GrantList(grants=[Grant(**row) for row in rows])


@router.post("", status_code=201, responses={200: {"model": GrantAnswer}})
async def grant(
    project_id: OwnProject, body: NewGrant, service: Service, caller: Caller, response: Response
) -> GrantAnswer:
    """Give a person or a group a tier; whoever has one already has this one from now on."""
    column = Identifier(f"{body.target_type}_id")
    values = {
        "id": uuid.uuid4(),
        "project": project_id,
        "target": body.target_id,
        "tier": body.tier,
    }
    try:
        async with service.pool.connection() as connection, connection.transaction():
            upserted = await connection.execute(SQL(_UPSERT).format(column=column), values)
            [made] = await upserted.fetchall()
            cursor = await connection.execute(_SELECT + "and g.id = %(id)s", {**values, **made})
            [row] = await cursor.fetchall()
            action: Action = "grant.created" if made["is_new"] else "grant.updated"
            await _note(connection, caller, action, row)
    except ForeignKeyViolation as error:
        sentence = f"is the id of no {body.target_type}. {_FIND[body.target_type]}"
        raise invalid("targetId", sentence) from error
    response.status_code = 201 if made["is_new"] else 200
    return GrantAnswer(grant=Grant(**row), action="created" if made["is_new"] else "updated")


@router.delete("/{grant_id}", status_code=204)
async def revoke(
    project_id: OwnProject, grant_id: uuid.UUID, service: Service, caller: Caller
) -> Response:
    """Take a grant back; it counts no more from the next request on."""
    async with service.pool.connection() as connection, connection.transaction():
        cursor = await connection.execute(_DELETE, (grant_id, project_id))
        row = await cursor.fetchone()
        if row is None:
            raise not_found("grant")
        await _note(connection, caller, "grant.revoked", row)
    return Response(status_code=204)


async def _note(connection: Connection, caller: Principal, action: Action, grant: DictRow) -> None:
    whose = {name: grant[name] for name in ("target_type", "target_id", "tier")}
    target = ("grant", grant["id"])
    await note(connection, caller, action, target=target, project_id=grant["project_id"], **whose)


_FIND: dict[TargetType, str] = {
    "user": "GET /users?email= finds one who has been here.",
    "group": "GET /groups?name= finds one that a token has named.",
}
_DELETE = """
delete from grants where id = %s and project_id = %s
returning id, project_id, tier, case when user_id is null then 'group' else 'user' end
    as target_type, coalesce(user_id, group_id) as target_id
"""
_SELECT = """
select g.id, g.project_id, g.tier, g.created_at, g.updated_at,
    case when g.user_id is null then 'group' else 'user' end as target_type,
    coalesce(g.user_id, g.group_id) as target_id,
    coalesce(u.name, o.name) as target_name
from grants g left join users u on u.id = g.user_id left join groups o on o.id = g.group_id
where g.project_id = %(project)s
"""
_PAGE = """
and (%(before)s::timestamptz is null or g.created_at < %(before)s)
order by g.created_at desc, g.id limit %(limit)s
"""
_UPSERT = """
insert into grants (id, project_id, {column}, tier)
values (%(id)s, %(project)s, %(target)s, %(tier)s)
on conflict (project_id, {column}) where {column} is not null
do update set tier = excluded.tier, updated_at = now()
returning id, xmax = 0 as is_new
"""
