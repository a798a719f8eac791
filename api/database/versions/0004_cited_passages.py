"""What citations stand on, as it was cited; pages of the web are kept in the same table."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table and take what was kept of the web along."""
    op.execute(_TABLE)


_TABLE = """
create table cited_passages (
    message_id uuid not null references messages(id) on delete cascade,
    chunk_id uuid not null,
    project_id uuid not null references projects(id) on delete cascade,
    document_id uuid,
    document_name text not null,
    page_number int,
    url text,
    snippet text not null,
    context text not null,
    primary key (message_id, chunk_id)
);
create index on cited_passages (chunk_id);
create index on cited_passages (project_id, document_id);

insert into cited_passages
    (message_id, chunk_id, project_id, document_name, url, snippet, context)
select message_id, id, project_id, title, url, text, text from web_sources;

drop table web_sources;

update messages set citations = (
    select coalesce(jsonb_agg(
        '{"quote": "", "supported": true, "by": "model"}'::jsonb || citation), '[]')
    from jsonb_array_elements(citations) as citation
) where citations <> '[]';
"""
