"""What was written over prompts and templates, their history, and the texts of answers."""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make the tables."""
    op.execute(_TABLES)


_TABLES = """
create table text_edits (
    id bigint primary key generated always as identity,
    project_id uuid references projects(id) on delete cascade,
    path text not null,
    content text,
    version text,
    base text,
    source text not null check (source in ('file', 'edit')),
    author_id uuid references users(id),
    created_at timestamptz not null default clock_timestamp(),
    check ((content is null) = (version is null)),
    check (source = 'edit' or (project_id is null and content is not null))
);
create index on text_edits (project_id, id);
create index on text_edits (path, id);

create table text_sets (
    version text not null,
    project_id uuid references projects(id) on delete cascade,
    parts jsonb not null,
    first_used_at timestamptz not null default now()
);
create unique index on text_sets (version) where project_id is null;
create unique index on text_sets (version, project_id) where project_id is not null;
create index on text_sets (project_id);
"""
