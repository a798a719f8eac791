"""Makes projects on first use: the drafting API takes ids of which nobody has heard yet."""

import uuid

from graph.postgres import Connection


class ProjectTaken(Exception):
    """The project that was to be made is there by now, or was once."""


async def make_project(connection: Connection, project_id: uuid.UUID, owner_id: uuid.UUID) -> None:
    """Make the project; one that is made at the same time by others is waited for.

    Raises:
        ProjectTaken: it is there, or was: who has an erased one's id is not its heir.
    """
    made = await connection.execute(_INSERT, {"id": project_id, "owner": owner_id})
    if not made.rowcount:
        raise ProjectTaken


_INSERT = """
insert into projects (id, owner_id, name)
select %(id)s, %(owner)s, 'Untitled'
where not exists (
    select from audit where project_id = %(id)s and action = 'project.deleted'
)
on conflict (id) do nothing
"""
