"""The order in which projects are listed, so that a page does not cost all of them."""

from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the index."""
    op.execute("create index on projects (created_at desc, id)")
