"""What access hangs on: users' claims, groups, grants, keys of one's own."""

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the tables."""
    op.execute(_TABLES)


_TABLES = """
create type tier as enum ('use', 'edit', 'full');

alter table users
    add email text,
    add is_admin boolean not null default false,
    add claims_at timestamptz;
create index on users (lower(email));

create table groups (
    id uuid primary key,
    name text not null unique,
    created_at timestamptz not null default now()
);

create table memberships (
    user_id uuid not null references users(id) on delete cascade,
    group_id uuid not null references groups(id) on delete cascade,
    primary key (user_id, group_id)
);

create table grants (
    id uuid primary key,
    project_id uuid not null references projects(id) on delete cascade,
    user_id uuid references users(id) on delete cascade,
    group_id uuid references groups(id) on delete cascade,
    tier tier not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check (num_nonnulls(user_id, group_id) = 1)
);
create unique index one_grant_a_user on grants (project_id, user_id) where user_id is not null;
create unique index one_grant_a_group on grants (project_id, group_id) where group_id is not null;
create index on grants (user_id) where user_id is not null;
create index on grants (group_id) where group_id is not null;

create table api_keys (
    id uuid primary key,
    user_id uuid not null references users(id) on delete cascade,
    name text not null,
    prefix text not null,
    hash bytea not null unique,
    created_at timestamptz not null default now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);
create index on api_keys (user_id, created_at);
"""
