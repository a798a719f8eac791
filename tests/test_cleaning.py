"""What is kept of runs for a while only is deleted when that is over, and nothing before."""

import asyncio
import uuid
from datetime import timedelta

import psycopg
import pytest
from conftest import make_database

from api.access.principals import LOCAL_USER, know_principals
from api.database.migrations import migrate
from api.fair_use import FairUse
from api.runs.cleaning import clean
from graph.postgres import open_pool

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    """A database in which the local user is known."""
    url = make_database(postgres_url)
    migrate(url)

    async def know() -> None:
        async with open_pool(url, max_size=2) as pool:
            await know_principals(pool)

    asyncio.run(know())
    return url


def clean_after(url: str, retention: timedelta) -> None:
    async def work() -> None:
        async with open_pool(url, max_size=2) as pool:
            await clean(pool, FairUse(pool), retention)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("retention", "ended_ago", "key_ago", "left"),
    [
        (HOUR, None, None, ["run", "log"]),
        (HOUR, HOUR - MINUTE, None, ["run", "log"]),
        (HOUR, HOUR + MINUTE, None, ["run"]),
        (HOUR, HOUR + MINUTE, 2 * HOUR, ["run", "log", "key"]),
        (HOUR, DAY - MINUTE, DAY + MINUTE, ["run"]),
        (HOUR, DAY + MINUTE, None, []),
        (2 * DAY, DAY + MINUTE, None, ["run", "log"]),
        (2 * DAY, 2 * DAY + MINUTE, None, []),
    ],
)
def test_of_a_run_of_the_legacy_api_is_kept_what_may_be_asked_for(
    url: str,
    retention: timedelta,
    ended_ago: timedelta | None,
    key_ago: timedelta | None,
    left: list[str],
) -> None:
    run_id = uuid.uuid4()
    values = {"run": run_id, "owner": LOCAL_USER.id, "ended": ended_ago, "key": key_ago}
    with psycopg.connect(url) as connection:
        connection.execute(_STORE, values)
    clean_after(url, retention)
    with psycopg.connect(url) as connection:
        rows = connection.execute(_LEFT, {"run": run_id}).fetchall()
    assert [name for (name,) in rows] == left


_STORE = """
with run as (
    insert into runs (id, owner_id, status, api, ended_at)
    select %(run)s, %(owner)s, case when ended is null then 'running' else 'done' end, 'legacy',
        now() - ended
    from (values (%(ended)s::interval)) as told(ended)
),
log as (
    insert into run_events (run_id, seq, count, events) values (%(run)s, 1, 1, 'done {}')
)
insert into run_keys (owner_id, route, key, body_hash, run_id, created_at)
select %(owner)s, 'legacy', %(run)s::text, '', %(run)s, now() - key
from (values (%(key)s::interval)) as told(key) where key is not null
"""
_LEFT = """
select 'run' from runs where id = %(run)s
union all select 'log' from run_events where run_id = %(run)s
union all select 'key' from run_keys where run_id = %(run)s
"""
