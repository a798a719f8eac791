"""Model providers that admins enter while the service runs."""

from alembic import op

revision = "0009"
down_revision = "0008"

TABLES = """
create table providers (
    id uuid primary key,
    name text not null,
    slug text not null unique,
    base_url text not null,
    api_key bytea,
    models jsonb not null,
    is_default boolean not null default false,
    is_fallback boolean not null default false,
    is_enabled boolean not null default true,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check (is_enabled or not is_default)
);
create unique index providers_one_default on providers (is_default) where is_default;
create unique index providers_one_fallback on providers (is_fallback) where is_fallback;
"""


def upgrade() -> None:
    """Make the table; `api_key` is encrypted, null where the endpoint asks for none."""
    op.execute(TABLES)
