"""The full-text index, the headings above each chunk, and which vectors are the better ones."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add them. Documents that are there already are searchable after `archwright reindex`."""
    op.execute(_TABLES)


_TABLES = """
alter table chunks add column heading text not null default '';
alter table documents add column is_refined boolean not null default false;
create index on documents (project_id) where not is_refined;

create table postings (
    project_id uuid not null,
    term text not null,
    document_id uuid not null references documents(id) on delete cascade,
    chunks int not null,
    positions bytea not null,
    weights bytea not null,
    primary key (project_id, term, document_id)
);
create index on postings (document_id);
"""
