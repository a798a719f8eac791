"""What was erased and may still be in files, vectors and memories: ids alone, no text."""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table of erasures that are not carried out to the end yet."""
    op.execute(_TABLES)


_TABLES = """
create table erasures (
    id bigint primary key generated always as identity,
    project_id uuid,
    document_id uuid,
    conversation_id uuid,
    is_scrubbed boolean not null default false,
    requested_at timestamptz not null default now()
);
"""
