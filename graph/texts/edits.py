"""Edits and overrides in Postgres, and what is noted of texts, so that it can be read back."""

import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

from psycopg.errors import UndefinedTable
from psycopg.types.json import Jsonb

from graph.errors import TextChanged
from graph.looks import Looks
from graph.postgres import Connection, Pool
from graph.texts.document_types import version_of
from graph.texts.wording import NOTHING, Replacement, Replacements, Text, TextSet, counting

_LOCK = 0x61726368_0003
_MOST_PROJECTS = 256

Stamps = tuple[int | None, int | None]
"""The ids of the newest edit for the whole service, and of the project's own."""


Check = Callable[[Replacements, Replacements], Awaitable[None]]
"""Refuses an edit by raising; is given the edits of the service and the project's own."""

Noted = Callable[[Connection, Text | None], Awaitable[None]]
"""Told of an edit in the transaction that writes it, with what counts then."""


class Edits:
    """What was written over files. Kept in the process, and looked for news at each turn."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._service: tuple[int | None, Replacements] = (None, NOTHING)
        self._projects: OrderedDict[str, tuple[int, Replacements]] = OrderedDict()
        self._recorded: set[tuple[str, str]] = set()
        self._remembered: dict[str | None, set[str]] = {}
        self._looks: WeakValueDictionary[str | None, Looks[tuple[Replacements, Replacements]]] = (
            WeakValueDictionary()
        )

    async def of(
        self, project_id: str | None, stamps: Stamps | None = None
    ) -> tuple[Replacements, Replacements]:
        """The edits for the whole service, and the project's own; the same objects as before
        where there is nothing new. None in a database without tables.

        With the `stamps` of the moment that counts, no look is needed unless something is new.
        """
        if stamps is not None and (kept := self._kept(project_id, stamps)) is not None:
            return kept
        if (looks := self._looks.get(project_id)) is None:
            looks = self._looks[project_id] = Looks(partial(self._look, project_id))
        return await looks.see()

    async def save(
        self,
        path: str,
        content: str | None,
        *,
        file: str | None,
        project_id: str | None,
        expected: str | None,
        author_id: uuid.UUID | None,
        check: Check | None,
        noted: Noted | None,
    ) -> Text | None:
        """Write `content` in place of what counts at `path`, or give the edit up with null.

        For the whole service, or as the project's own. `file` is what the file holds now.
        `expected` is the version that the writer saw, null for none. `check` sees what the edit
        will stand beside; no other edit comes between. `noted` is told of it. Gives what counts
        then.

        Raises:
            TextChanged: another version counts by now; nothing is written.
        """
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(_TAKE_TURNS, (_LOCK,))
            before = await self._counting(connection, path, file, project_id)
            if (before.version if before else None) != expected:
                raise TextChanged(path, before.version if before else None)
            if check is not None:
                await check(*await self._newest(connection, project_id))
            version = None if content is None else version_of(content)
            base = None if file is None or project_id else version_of(file)
            await connection.execute(
                _INSERT_EDIT, (project_id, path, content, version, base, author_id)
            )
            after = await self._counting(connection, path, file, project_id)
            if noted is not None:
                await noted(connection, after)
            return after

    async def record(self, files: Mapping[str, str]) -> None:
        """Note in the history what files hold, each content once."""
        versions = {path: (version_of(content), content) for path, content in files.items()}
        new = {p: one for p, one in versions.items() if (p, one[0]) not in self._recorded}
        if not new:
            return
        values = (list(new), [v for v, _ in new.values()], [c for _, c in new.values()])
        try:
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_TAKE_TURNS, (_LOCK,))
                await connection.execute(_INSERT_FILES, values)
        except UndefinedTable:
            return
        self._recorded |= {(path, version) for path, (version, _) in new.items()}

    async def remember(self, sets: Iterable[TextSet], project_id: str | None) -> None:
        """Keep the texts of an answer, so that its versions can be read back.

        A set with a project's own text is kept for that project, and goes with it.
        """
        owned = [(project_id if one.is_own else None, one) for one in sets]
        new = [(p, one) for p, one in owned if one.version not in self._remembered.get(p, ())]
        if not new:
            return
        rows = [
            {"version": one.version, "parts": Jsonb(dict(one.parts)), "project": owner}
            for owner, one in new
        ]
        try:
            async with self._pool.connection() as connection:
                await connection.cursor().executemany(_INSERT_SET, rows)
        except UndefinedTable:
            return
        for owner, one in new:
            self._remembered.setdefault(owner, set()).add(one.version)

    async def _look(self, project_id: str | None) -> tuple[Replacements, Replacements]:
        try:
            async with self._pool.connection() as connection:
                return await self._newest(connection, project_id)
        except UndefinedTable:
            return NOTHING, NOTHING

    async def _newest(
        self, connection: Connection, project_id: str | None
    ) -> tuple[Replacements, Replacements]:
        service, own = await _stamps(connection, project_id)
        if service != self._service[0]:
            found = await _replacements(connection, None)
            self._service = (service, self._service[1] if found == self._service[1] else found)
        if project_id is None or own is None:
            return self._service[1], NOTHING
        known = self._projects.get(project_id)
        if known is None or known[0] != own:
            known = (own, await _replacements(connection, project_id))
            self._keep(project_id, known)
        return self._service[1], known[1]

    def _kept(
        self, project_id: str | None, stamps: Stamps
    ) -> tuple[Replacements, Replacements] | None:
        """What these stamps stand for; null where it has not been read, or is no longer kept."""
        service, own = stamps
        if service != self._service[0]:
            return None
        if project_id is None or own is None:
            return self._service[1], NOTHING
        known = self._projects.get(project_id)
        return (self._service[1], known[1]) if known is not None and known[0] == own else None

    def _keep(self, project_id: str, known: tuple[int, Replacements]) -> None:
        self._projects[project_id] = known
        self._projects.move_to_end(project_id)
        # A project that was erased and made again has lost what was remembered for it.
        self._remembered.pop(project_id, None)
        if len(self._projects) > _MOST_PROJECTS:
            oldest, _ = self._projects.popitem(last=False)
            self._remembered.pop(oldest, None)

    async def _counting(
        self, connection: Connection, path: str, file: str | None, project_id: str | None
    ) -> Text | None:
        edits = await _replacements(connection, None, path)
        own = await _replacements(connection, project_id, path) if project_id else {}
        return counting(path, file, edits.get(path), own.get(path))


async def _stamps(connection: Connection, project_id: str | None) -> Stamps:
    [row] = await (await connection.execute(STAMPS, {"project": project_id})).fetchall()
    return stamps_of(row)


def stamps_of(row: Mapping[str, Any]) -> Stamps:
    """Read them from a row that has the columns of `STAMPS`."""
    return row["service"], row["own"]


async def _replacements(
    connection: Connection, project_id: str | None, path: str | None = None
) -> dict[str, Replacement]:
    """The newest edit of each path, without those that were given up."""
    values = {"project": project_id, "path": path}
    rows = await (await connection.execute(_SELECT_EDITS, values)).fetchall()
    return {
        row["path"]: Replacement(row["content"], row["version"], row["base"])
        for row in rows
        if row["content"] is not None
    }


# Ids are then in the order of the commits, so that the highest one tells whether there is news.
_TAKE_TURNS = "select pg_advisory_xact_lock(%s)"
STAMPS = """
select (select max(id) from text_edits where project_id is null) as service,
    (select max(id) from text_edits where project_id = %(project)s) as own
"""
_SELECT_EDITS = """
select distinct on (path) path, content, version, base from text_edits
where project_id is not distinct from %(project)s::uuid and source = 'edit'
    and (%(path)s::text is null or path = %(path)s)
order by path, id desc
"""
_INSERT_EDIT = """
insert into text_edits (project_id, path, content, version, base, source, author_id)
values (%s, %s, %s, %s, %s, 'edit', %s)
"""
_INSERT_FILES = """
insert into text_edits (path, version, content, source)
select f.path, f.version, f.content, 'file'
from unnest(%s::text[], %s::text[], %s::text[]) as f (path, version, content)
where not exists (
    select from text_edits e where e.project_id is null and e.path = f.path
        and e.version = f.version and e.source = 'file'
)
"""
_INSERT_SET = """
insert into text_sets (version, parts, project_id)
select %(version)s, %(parts)s, %(project)s
where %(project)s::uuid is null or exists (select from projects where id = %(project)s)
on conflict do nothing
"""
