"""The model that wrote an answer; null where it is not known, as for answers of before."""

from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    """Make the column."""
    op.execute("alter table messages add column model text")
