"""Users, projects, documents and their chunks, conversations, messages, runs."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the first tables."""
    op.execute(_TABLES)


_TABLES = """
create table users (
    id uuid primary key,
    subject text not null unique,
    name text not null,
    created_at timestamptz not null default now()
);

create table projects (
    id uuid primary key,
    owner_id uuid not null references users(id),
    name text not null,
    description text not null default '',
    color text,
    is_private boolean not null default true,
    instructions text not null default '',
    settings jsonb not null default '{}',
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index on projects (owner_id);

create table documents (
    id uuid primary key,
    project_id uuid not null references projects(id) on delete cascade,
    name text not null,
    mime_type text not null,
    size_bytes bigint not null,
    sha256 bytea not null,
    page_count int,
    chunk_count int not null default 0,
    status text not null check (status in ('processing', 'indexed', 'failed')),
    error text,
    created_at timestamptz not null default now()
);
create index on documents (project_id, name);

create table document_files (
    document_id uuid primary key references documents(id) on delete cascade,
    content bytea not null
);
alter table document_files alter column content set storage external;

create table chunks (
    id uuid primary key,
    document_id uuid not null references documents(id) on delete cascade,
    project_id uuid not null references projects(id) on delete cascade,
    position int not null,
    page_number int,
    text text not null,
    unique (document_id, position)
);

create table conversations (
    id uuid primary key,
    project_id uuid not null references projects(id) on delete cascade,
    owner_id uuid not null references users(id),
    title text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index on conversations (project_id, owner_id, updated_at desc);
create index on conversations (owner_id, updated_at desc);

create table messages (
    id uuid primary key,
    conversation_id uuid not null references conversations(id) on delete cascade,
    position bigint generated always as identity,
    role text not null check (role in ('user', 'assistant', 'system')),
    content text not null,
    status text not null check (status in ('complete', 'streaming', 'stopped', 'failed')),
    citations jsonb not null default '[]',
    doc_type text,
    metadata jsonb,
    created_at timestamptz not null default now()
);
create index on messages (conversation_id, position);

create table web_sources (
    id uuid primary key,
    message_id uuid not null references messages(id) on delete cascade,
    project_id uuid not null references projects(id) on delete cascade,
    title text not null,
    url text not null,
    text text not null
);

create table runs (
    id uuid primary key references messages(id) on delete cascade,
    conversation_id uuid not null references conversations(id) on delete cascade,
    owner_id uuid not null references users(id),
    status text not null check (status in ('running', 'done', 'stopped', 'failed')),
    lease_until timestamptz not null,
    seq int not null default 0,
    finish_reason text,
    error jsonb,
    started_at timestamptz not null default now(),
    ended_at timestamptz
);
create unique index one_run_at_a_time on runs (conversation_id) where status = 'running';
create index on runs (lease_until) where status = 'running';
"""
