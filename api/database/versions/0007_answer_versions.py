"""Which words made an answer."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the versions of prompt and template, null for questions and for older answers."""
    op.execute(
        "alter table messages add column prompt_version text, add column template_version text"
    )
