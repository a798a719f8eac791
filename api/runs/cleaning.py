"""Deletes what is kept of runs for a while only (logs, keys, legacy runs), and folds accounts."""

import asyncio
import logging
from datetime import timedelta

from api.fair_use import FairUse
from api.runs.accounts import fold
from api.runs.keys import forget_old
from graph.postgres import Connection, Pool, failures_logged

log = logging.getLogger(__name__)

_EACH_S = 60
_AT_ONCE = 1000


async def clean_for_ever(pool: Pool, fair_use: FairUse, retention: timedelta) -> None:
    """Clean each minute."""
    while True:
        await asyncio.sleep(_EACH_S)
        with failures_logged(log, "old logs of runs could not be deleted"):
            await clean(pool, fair_use, retention)


async def clean(pool: Pool, fair_use: FairUse, retention: timedelta) -> None:
    """Delete what has expired, such as logs of runs that ended longer than `retention` ago."""
    async with pool.connection() as connection:
        await forget_old(connection)
        await _delete_logs(connection, retention)
        await connection.execute(_DELETE_UNREMEMBERED, (retention,))
        await fair_use.forget_expired(connection)
        await fold(connection)


async def _delete_logs(connection: Connection, retention: timedelta) -> None:
    """Delete all that have expired, some at once: they are locked meanwhile."""
    deleted = _AT_ONCE
    while deleted == _AT_ONCE:
        cursor = await connection.execute(_DELETE_LOGS, (retention, _AT_ONCE))
        [row] = await cursor.fetchall()
        deleted = row["runs"]


# Not those that another process deletes already. As long as a key leads to a run, the same request
# sent again is to get its stream.
_DELETE_LOGS = """
with over as (
    select id from runs where is_followable and ended_at < now() - %s::interval
        and not exists (select from run_keys k where k.run_id = runs.id)
    limit %s for no key update skip locked
),
closed as (
    update runs set is_followable = false, documents = '{}', document_names = '{}'
    where id in (select id from over)
),
deleted as (
    delete from run_events where run_id in (select id from over)
)
select count(*) as runs from over
"""
_DELETE_UNREMEMBERED = """
delete from runs
where conversation_id is null and ended_at < now() - greatest(%s, interval '24 hours')
"""
