"""Who changed what: a log that is only ever added to."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the table, which refuses all but new rows."""
    op.execute(_TABLES)


# No foreign keys: an entry outlives what it tells of, and blocks no deletion.
_TABLES = """
create table audit (
    id bigint primary key generated always as identity,
    at timestamptz not null default clock_timestamp(),
    actor_id uuid not null,
    actor text not null,
    action text not null,
    target_type text not null,
    target_id text not null,
    project_id uuid,
    details jsonb not null default '{}'
);
create index on audit (at);
create index on audit (project_id, at) where project_id is not null;
create index on audit (actor_id, at);

create function refuse_audit_change() returns trigger language plpgsql as $$
begin
    raise exception 'The audit log is only ever added to: % is refused.', lower(tg_op)
        using errcode = 'restrict_violation';
end
$$;
create trigger only_added_to before update or delete or truncate on audit
    for each statement execute function refuse_audit_change();
-- Where a replica applies changes too.
alter table audit enable always trigger only_added_to;
"""
