"""Takes deleted text out of the files of the embedded Postgres, which keeps it for long.

A deleted row stays readable in its page, in the write-ahead log and in the planner's samples.
`VACUUM` alone only makes its place free. So the tables are written anew, the samples with them,
and the log goes on in a new file before a checkpoint removes the old ones.
"""

import asyncio
import logging
import time
from collections.abc import Sequence

from psycopg import AsyncConnection, sql
from psycopg.errors import LockNotAvailable
from psycopg.rows import DictRow, dict_row

log = logging.getLogger(__name__)

# With their partitions, if they have any.
_OF_DOCUMENTS_ALONE = ("chunks%", "document_files%")
_PATIENCE_S = 30.0
_PAUSE_S = 0.5


async def scrub(url: str, documents: bool) -> bool:
    """Write the tables of `url` anew without what was deleted; needs the rights of a superuser.

    A table is locked while it is written. Without `documents` those are left out that hold
    nothing but documents. False if a transaction or a lock was in the way for too long.
    """
    began = time.monotonic()
    connection = await AsyncConnection.connect(url, autocommit=True, row_factory=dict_row)
    async with connection:
        for setting in _SETTINGS:
            await connection.execute(setting)
        try:
            await _until_nobody_sees_it(connection)
            await _rewrite_all(connection, () if documents else _OF_DOCUMENTS_ALONE)
        except (LockNotAvailable, TimeoutError) as error:
            log.warning("what was erased stays in the database's files for now: %s", error)
            return False
        await connection.execute("select pg_switch_wal()")
        await connection.execute("checkpoint")
    log.info("what was erased is out of the database's files, %.1f s", time.monotonic() - began)
    return True


async def _until_nobody_sees_it(connection: AsyncConnection[DictRow]) -> None:
    """Wait for the transactions that began before: what they may read would be kept."""
    cursor = await connection.execute("select pg_current_xact_id()::xid::text as xid")
    [row] = await cursor.fetchall()
    for _ in range(int(_PATIENCE_S / _PAUSE_S)):
        cursor = await connection.execute(_WHO_SEES_IT, (row["xid"],))
        if not cursor.rowcount:
            return
        await asyncio.sleep(_PAUSE_S)
    raise TimeoutError("a transaction from before goes on")


async def _rewrite_all(connection: AsyncConnection[DictRow], left_out: Sequence[str]) -> None:
    cursor = await connection.execute(_TABLES, (list(left_out),))
    for row in await cursor.fetchall():
        await connection.execute("delete from pg_statistic where starelid = %s", (row["oid"],))
        await _rewrite(connection, row["schema"], row["name"])
    await _rewrite(connection, "pg_catalog", "pg_statistic")


async def _rewrite(connection: AsyncConnection[DictRow], *table: str) -> None:
    statement = sql.SQL("vacuum (full, analyze) {}").format(sql.Identifier(*table))
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            await connection.execute(statement)
            return
        except LockNotAvailable:
            # Whoever comes after a waiting lock waits too: let them pass.
            if time.monotonic() > until:
                raise
            await asyncio.sleep(_PAUSE_S)


_SETTINGS = ("set lock_timeout = '2s'", "set maintenance_work_mem = '256MB'")
_TABLES = """
select c.oid, n.nspname as schema, c.relname as name
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema$)' and not c.relname like any(%s)
order by c.relname
"""
_WHO_SEES_IT = """
select from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()
    and greatest(age(backend_xid), age(backend_xmin)) > age(%s::xid)
"""
