"""What is kept of runs for a while only is deleted when that is over, and nothing before."""

import asyncio
import uuid
from datetime import timedelta

import psycopg
import pytest
from conftest import migrated_database

from api.access.principals import LOCAL_USER, know_principals
from api.fair_use import FairUse, Limits
from api.runs.cleaning import clean
from graph.postgres import open_pool

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    """A database in which the local user is known."""
    url = migrated_database(postgres_url)

    async def know() -> None:
        async with open_pool(url, max_size=2) as pool:
            await know_principals(pool)

    asyncio.run(know())
    return url


def clean_after(url: str, retention: timedelta) -> None:
    async def work() -> None:
        async with open_pool(url, max_size=2) as pool:
            await clean(pool, FairUse(pool, Limits()), retention)

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


def test_of_however_many_runs_no_log_is_kept_longer(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(_STORE_MANY, {"owner": LOCAL_USER.id, "count": 2001})
    clean_after(url, HOUR)
    with psycopg.connect(url) as connection:
        rows = connection.execute(_LEFT_OF_MANY).fetchall()
    assert rows == [(2001, 0)]


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
_STORE_MANY = """
with many as (select gen_random_uuid() as id from generate_series(1, %(count)s)),
run as (
    insert into runs (id, owner_id, status, api, finish_reason, ended_at)
    select id, %(owner)s, 'done', 'legacy', 'one of many', now() - interval '2 hours' from many
)
insert into run_events (run_id, seq, count, events) select id, 1, 1, 'done {}' from many
"""
_LEFT_OF_MANY = """
select count(*), count(e.run_id) from runs r left join run_events e on e.run_id = r.id
where r.finish_reason = 'one of many'
"""
