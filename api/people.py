"""Who one is, and the people and groups that a project can be shared with."""

import uuid
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import JsonValue, StringConstraints

from api.access.rules import Caller, GuardedRoute
from api.dependencies import Service
from api.lists import Limit
from api.schema import CLEAN, CamelModel, example
from graph.postgres import row_of, rows_of

router = APIRouter(tags=["people"], route_class=GuardedRoute)

_Email = Annotated[str, StringConstraints(max_length=320), CLEAN]
_GroupName = Annotated[str, StringConstraints(max_length=255), CLEAN]
_GROUP: JsonValue = {"id": "78932b53-c8ca-556b-9931-c14efaabb299", "name": "writers"}
_PERSON: dict[str, JsonValue] = {
    "id": "4b35fe2f-25df-5140-bf0a-23ac148aa190",
    "name": "Mira Example",
    "email": "mira@example.org",
}


class Group(CamelModel):
    """A group, as tokens name it."""

    id: uuid.UUID
    name: str


class Person(CamelModel):
    """Somebody who has been here."""

    id: uuid.UUID
    name: str
    email: str | None


class Me(Person):
    """The caller; `role` is null for everybody but admins."""

    role: Literal["admin"] | None
    groups: list[Group]


class MeAnswer(CamelModel):
    """The caller."""

    model_config = example(user={**_PERSON, "role": "admin", "groups": [_GROUP]})
    user: Me


class PersonList(CamelModel):
    """People, by name."""

    model_config = example(users=[_PERSON])
    users: list[Person]


class GroupList(CamelModel):
    """Groups, by name."""

    model_config = example(groups=[_GROUP])
    groups: list[Group]


@router.get("/me")
async def get_me(service: Service, caller: Caller) -> MeAnswer:
    """Who the caller is."""
    user = await row_of(service.pool, "select email from users where id = %s", (caller.id,))
    groups = await rows_of(service.pool, _MINE, (list(caller.groups),))
    me = Me(
        id=caller.id,
        name=caller.name,
        email=user["email"] if user else None,
        role="admin" if caller.is_admin else None,
        groups=[Group(**row) for row in groups],
    )
    return MeAnswer(user=me)


@router.get("/users")
async def list_users(
    service: Service,
    caller: Caller,
    email: Annotated[_Email | None, Query(description="The whole address.")] = None,
    limit: Limit = 50,
) -> PersonList:
    """The people with this address, to share a project with. Admins may leave it out."""
    values = {"all": caller.is_admin and email is None, "email": email, "limit": limit}
    rows = await rows_of(service.pool, _USERS, values)
    return PersonList(users=[Person(**row) for row in rows])


@router.get("/groups")
async def list_groups(
    service: Service,
    caller: Caller,
    name: Annotated[_GroupName | None, Query(description="The whole name.")] = None,
    limit: Limit = 50,
) -> GroupList:
    """The group of this name; without a name the caller's own, for admins all."""
    values = {
        "all": caller.is_admin and name is None,
        "mine": list(caller.groups) if name is None else [],
        "name": name,
        "limit": limit,
    }
    rows = await rows_of(service.pool, _GROUPS, values)
    return GroupList(groups=[Group(**row) for row in rows])


_MINE = "select id, name from groups where id = any(%s::uuid[]) order by name"
_USERS = """
select id, name, email from users
where %(all)s or lower(email) = lower(%(email)s)
order by name, id limit %(limit)s
"""
_GROUPS = """
select id, name from groups
where %(all)s or id = any(%(mine)s::uuid[]) or name = %(name)s
order by name, id limit %(limit)s
"""
