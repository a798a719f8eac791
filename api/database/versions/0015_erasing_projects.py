"""Indexes by which what goes with a project is found, lest its erasure read whole tables."""

from alembic import op

revision = "0015"
down_revision = "0014"


def upgrade() -> None:
    """Make them."""
    op.execute("create index on chunks (project_id)")
    op.execute("create index on grants (project_id)")
