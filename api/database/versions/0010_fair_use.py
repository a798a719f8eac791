"""What everybody used, for limits within a window of time and for accounts by day."""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the counters, the accounts, and whether a run is in them."""
    op.execute(_COUNTERS)
    op.execute(_COUNT_USE)
    op.execute(_USAGE)


# Not logged: a request then waits for no disk. After a crash of Postgres counting begins anew.
_COUNTERS = """
create unlogged table counters (
    key text primary key,
    began_at timestamptz not null,
    expires_at timestamptz not null,
    counted bigint not null,
    counted_before bigint not null
) with (fillfactor = 50);
create index on counters (expires_at);
"""
# The sliding window counter of the library `limits`: what was counted in the window before weighs
# as much as of that window is not yet over. All keys are counted or, where one is refused, none.
_COUNT_USE = """
create function count_use(keys text[], limits bigint[], seconds bigint[], amount bigint)
returns table (place int, counted bigint, counted_before bigint, rest_s double precision)
language plpgsql as $$
#variable_conflict use_column
begin
    return query
    with moments as (select clock_timestamp() as moment),
    asked as (
        select a.key, a.most, a.seconds, a.place, moment,
            to_timestamp(floor(extract(epoch from moment) / a.seconds) * a.seconds) as began_at
        from unnest(keys, limits, seconds) with ordinality as a(key, most, seconds, place), moments
    ),
    counters_now as (
        insert into counters as c (key, began_at, expires_at, counted, counted_before)
        select key, began_at, began_at + make_interval(secs => 2 * seconds), amount, 0
        from asked order by key
        on conflict (key) do update set
            began_at = greatest(c.began_at, excluded.began_at),
            expires_at = greatest(c.expires_at, excluded.expires_at),
            counted = amount
                + case when c.began_at >= excluded.began_at then c.counted else 0 end,
            counted_before = case
                when c.began_at >= excluded.began_at then c.counted_before
                when c.expires_at > excluded.began_at then c.counted
                else 0 end
        returning c.key, c.began_at, c.counted - amount as counted, c.counted_before
    ),
    judged as (
        select (a.place - 1)::int as place, n.counted, n.counted_before, a.most, a.seconds,
            extract(epoch from n.began_at - a.moment)::double precision + a.seconds as rest_s
        from asked a join counters_now n on n.key = a.key
    )
    select place, counted, counted_before, rest_s from judged
    where floor(counted_before * rest_s / seconds) + counted + greatest(amount, 1) > most;
    if found and amount > 0 then
        update counters set counted = counted - amount where key = any(keys);
    end if;
end
$$;
"""
# No foreign keys: accounts outlive projects and people. They hold ids and numbers only.
_USAGE = """
create table usage (
    day date not null,
    project_id uuid,
    user_id uuid not null,
    provider text,
    model text,
    runs bigint not null,
    prompt_tokens bigint not null,
    completion_tokens bigint not null,
    cost numeric
);
create unique index usage_of_a_day on usage (
    day, user_id, coalesce(project_id, '00000000-0000-0000-0000-000000000000'),
    coalesce(provider, ''), coalesce(model, '')
);
create index on usage (project_id, day);

alter table runs add column is_counted boolean not null default false;
"""
