"""Projects: made, listed, read, changed and erased."""

import uuid
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from psycopg.errors import ForeignKeyViolation
from psycopg.types.json import Jsonb
from pydantic import Field, StringConstraints
from pydantic.alias_generators import to_camel

from api.access.audit import Detail, note
from api.access.principals import Principal
from api.access.resolver import ACCESS, VISIBLE, Access, AccessSource, Tier, about
from api.access.rules import (
    Caller,
    EditableProject,
    GuardedRoute,
    OwnProject,
    UsableProject,
    require,
)
from api.active_html import stripped
from api.dependencies import Service
from api.errors import invalid, not_found
from api.lists import Before, Limit
from api.schema import CLEAN, NOT_BLANK, ONE_LINE, ONE_WAY, SAFE, CamelModel, example
from graph.postgres import Connection, Pool, row_of, rows_of

router = APIRouter(prefix="/projects", tags=["projects"], route_class=GuardedRoute)

Name = Annotated[str, StringConstraints(max_length=200), CLEAN, ONE_WAY, SAFE, ONE_LINE, NOT_BLANK]
Description = Annotated[str, StringConstraints(max_length=2000), CLEAN]
Color = Annotated[str, StringConstraints(pattern=r"^#[0-9a-fA-F]{6}$")]
Instructions = Annotated[str, StringConstraints(max_length=20_000), CLEAN]


class ProjectSettings(CamelModel):
    """How questions of this project are answered; null means the service's default."""

    model: Annotated[str, StringConstraints(max_length=200), CLEAN] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_k: int | None = Field(None, ge=1, le=50)


class NewProject(CamelModel):
    """The body of `POST /projects`."""

    model_config = example(name="Tidewatch", settings={"topK": 4, "temperature": 0})
    name: Name
    description: Description = ""
    color: Color | None = None
    is_private: bool = True
    instructions: Instructions = ""
    settings: ProjectSettings = Field(default_factory=ProjectSettings)


class ProjectChange(CamelModel):
    """The body of `PATCH /projects/{id}`: what is left out stays as it is."""

    model_config = example(instructions="Answer in two sentences.")
    name: Name | None = None
    description: Description | None = None
    color: Color | None = None
    is_private: bool | None = None
    instructions: Instructions | None = None
    settings: ProjectSettings | None = None
    owner_id: uuid.UUID | None = None

    def needs(self) -> Tier:
        """The tier that this change needs."""
        reserved = {"settings", "is_private", "owner_id"}
        return "full" if reserved & self.model_fields_set else "edit"


class ProjectCount(CamelModel):
    """How much is in a project."""

    documents: int
    conversations: int


class Project(CamelModel):
    """A project as the caller sees it."""

    id: uuid.UUID
    name: str
    description: str
    color: str | None
    is_private: bool
    instructions: str
    settings: ProjectSettings
    owner_id: uuid.UUID
    created_at: datetime
    updated_at: datetime
    access_tier: Tier
    access_source: AccessSource
    count: ProjectCount = Field(alias="_count")


class ProjectAnswer(CamelModel):
    """One project."""

    project: Project


class ProjectList(CamelModel):
    """Projects, the newest first."""

    projects: list[Project]


@router.get("")
async def list_projects(
    service: Service, caller: Caller, limit: Limit = 50, before: Before = None
) -> ProjectList:
    """The projects that the caller can see."""
    values = {**about(caller), "before": before, "limit": limit}
    rows = await rows_of(service.pool, _SELECT + _PAGE, values)
    return ProjectList(projects=[_project(row) for row in rows])


@router.post("", status_code=201)
async def create_project(body: NewProject, service: Service, caller: Caller) -> ProjectAnswer:
    """Make a project, owned by the caller."""
    project_id = uuid.uuid4()
    [body.description] = await stripped(body.description)
    await insert_project(service.pool, project_id, caller, body)
    return ProjectAnswer(project=await _read(service.pool, project_id, caller))


@router.get("/{project_id}")
async def get_project(project_id: UsableProject, service: Service, caller: Caller) -> ProjectAnswer:
    """One project."""
    return ProjectAnswer(project=await _read(service.pool, project_id, caller))


@router.patch("/{project_id}")
async def change_project(
    project_id: EditableProject,
    body: ProjectChange,
    request: Request,
    service: Service,
    caller: Caller,
) -> ProjectAnswer:
    """Change what the body names.

    Who hands a project over and sees nothing of it from then on is told the access that they had.
    """
    access = await require(request, service.pool, caller, project_id, body.needs())
    changed = {name: getattr(body, name) for name in body.model_fields_set}
    if nulls := sorted(n for n, value in changed.items() if value is None and n != "color"):
        raise invalid(to_camel(nulls[0]), "must not be null")
    if body.description is not None:
        [changed["description"]] = await stripped(body.description)
    if "settings" in changed:
        named = body.settings.model_dump(exclude_unset=True) if body.settings else {}
        changed["settings"] = Jsonb(named)
    await _update(service.pool, project_id, changed, caller)
    return ProjectAnswer(project=await _read(service.pool, project_id, caller, access))


@router.delete("/{project_id}", status_code=204)
async def delete_project(project_id: OwnProject, service: Service, caller: Caller) -> Response:
    """Erase the project with its documents, vectors and conversations."""
    await service.erasure.project(project_id, by=caller)
    return Response(status_code=204)


async def insert_project(
    pool: Pool, project_id: uuid.UUID, owner: Principal, project: NewProject
) -> None:
    """Make a project."""
    async with pool.connection() as connection:
        await connection.execute(
            _INSERT,
            {
                **project.model_dump(exclude={"settings"}),
                "settings": Jsonb(project.settings.model_dump()),
                "id": project_id,
                "owner_id": owner.id,
            },
        )


async def _read(
    pool: Pool, project_id: uuid.UUID, caller: Principal, past: Access | None = None
) -> Project:
    """The project with the caller's access, or where they have none, with that of the past."""
    row = await row_of(pool, _SELECT_ONE, {**about(caller), "id": project_id})
    if row and past and row["access_tier"] is None:
        row |= {"access_tier": past.tier, "access_source": past.source}
    if row is None or row["access_tier"] is None:
        raise not_found("project")
    return _project(row)


async def _update(
    pool: Pool, project_id: uuid.UUID, changed: dict[str, Any], caller: Principal
) -> None:
    # The names are fields of ProjectChange, never a caller's words.
    values = {name: f"%({name})s" for name in changed}
    if "settings" in values:
        values["settings"] = "settings || %(settings)s"
    columns = "".join(f", {name} = {value}" for name, value in values.items())
    try:
        async with pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(_TAKE, (project_id,))
            before = await cursor.fetchone()
            await connection.execute(
                f"update projects set updated_at = now(){columns} where id = %(id)s",
                {**changed, "id": project_id},
            )
            if before and changed:
                await _note_change(connection, caller, project_id, changed, before["owner_id"])
    except ForeignKeyViolation as error:
        raise invalid("ownerId", "is the id of no user") from error


async def _note_change(
    connection: Connection,
    caller: Principal,
    project_id: uuid.UUID,
    changed: dict[str, Any],
    owner_id: uuid.UUID,
) -> None:
    """Tell which fields were changed, and of what decides on access also how."""
    details: dict[str, Detail] = {"fields": sorted(map(to_camel, changed))}
    if "is_private" in changed:
        details["is_private"] = changed["is_private"]
    if "owner_id" in changed:
        details |= {"old_owner_id": owner_id, "new_owner_id": changed["owner_id"]}
    target = ("project", project_id)
    await note(
        connection, caller, "project.changed", target=target, project_id=project_id, **details
    )


def _project(row: dict[str, Any]) -> Project:
    count = ProjectCount(documents=row["documents"], conversations=row["conversations"])
    return Project(**row, count=count)


# Not stronger: a new document of the project needs not wait.
_TAKE = "select owner_id from projects where id = %s for no key update"
# By name: a prepared statement fails where a newer version of the service adds a column.
_SELECT = f"""
select p.id, p.name, p.description, p.color, p.is_private, p.instructions, p.settings, p.owner_id,
    p.created_at, p.updated_at, access_tier, access_source,
    (select count(*) from documents d where d.project_id = p.id) as documents,
    (select count(*) from conversations c where c.project_id = p.id and c.owner_id = %(me)s)
        as conversations
from projects p join {ACCESS} access on access.project_id = p.id
"""
_SELECT_ONE = f"{_SELECT} where p.id = %(id)s"
_PAGE = f"""
where access_tier is not null and {VISIBLE}
and (%(before)s::timestamptz is null or p.created_at < %(before)s)
order by p.created_at desc, p.id limit %(limit)s
"""
_INSERT = """
insert into projects
    (id, owner_id, name, description, color, is_private, instructions, settings)
values (%(id)s, %(owner_id)s, %(name)s, %(description)s, %(color)s, %(is_private)s,
    %(instructions)s, %(settings)s)
"""
