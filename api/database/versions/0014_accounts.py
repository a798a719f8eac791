"""Accounts to which runs are added without waiting for each other: a row each, folded later."""

from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Let a day have several rows of the same user, project and model."""
    op.execute("drop index usage_of_a_day")
    op.execute("create index on usage (day, user_id)")
