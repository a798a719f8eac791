"""What texts were: the history of each, and those that answers name."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from graph.postgres import Pool, row_of, rows_of
from graph.texts.wording import Text


@dataclass(frozen=True, slots=True)
class Version:
    """An entry of a text's history: what a file held, or what somebody wrote.

    `content` and `version` are null where an edit was given up. `base` is the version of the file
    that an edit for the whole service was made over; `project_id` is null for such an edit.
    """

    id: int
    path: str
    version: str | None
    content: str | None
    source: Literal["file", "edit"]
    project_id: uuid.UUID | None
    base: str | None
    author_id: uuid.UUID | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Used:
    """The texts, path to content, that answers name as one version, and since when."""

    parts: Mapping[str, str]
    first_used_at: datetime


async def versions_at(
    pool: Pool, path: str, project_id: str | None, *, limit: int, before: datetime | None = None
) -> list[Version]:
    """What was at `path`, the newest first: files and edits, and those of the project."""
    values = {"path": path, "project": project_id, "before": before, "limit": limit}
    return [Version(**row) for row in await rows_of(pool, _SELECT_HISTORY, values)]


async def version_at(pool: Pool, path: str, version: str, project_id: str | None) -> Version | None:
    """The newest entry of the history that is `version`; null where there is none."""
    values = {"path": path, "version": version, "project": project_id}
    row = await row_of(pool, _SELECT_VERSION, values)
    return Version(**row) if row else None


async def since_when(
    pool: Pool, texts: Iterable[Text], project_id: str | None
) -> dict[str, datetime]:
    """When each of the texts that count came, path to time."""
    versions = {text.path: text.version for text in texts}
    values = (list(versions), list(versions.values()), project_id)
    return {row["path"]: row["at"] for row in await rows_of(pool, _SELECT_SINCE, values)}


async def used_as(pool: Pool, version: str, project_id: str | None) -> Used | None:
    """The texts that answers name as `version`; null where none do."""
    row = await row_of(pool, _SELECT_SET, (version, project_id))
    return Used(**row) if row else None


_COLUMNS = "id, path, version, content, source, project_id, base, author_id, created_at"
_SELECT_HISTORY = f"""
select {_COLUMNS} from text_edits
where path = %(path)s and (project_id is null or project_id = %(project)s)
    and (%(before)s::timestamptz is null or created_at < %(before)s)
order by id desc limit %(limit)s
"""
_SELECT_VERSION = f"""
select {_COLUMNS} from text_edits
where path = %(path)s and version = %(version)s
    and (project_id is null or project_id = %(project)s)
order by id desc limit 1
"""
_SELECT_SINCE = """
select path, max(created_at) as at
from text_edits join unnest(%s::text[], %s::text[]) as counting (path, version)
    using (path, version)
where project_id is null or project_id = %s::uuid
group by path
"""
_SELECT_SET = """
select parts, first_used_at from text_sets
where version = %s and (project_id is null or project_id = %s)
order by project_id nulls last limit 1
"""
