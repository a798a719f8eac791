"""Brings the tables up to date at start, one process at a time.

Alembic runs plain SQL; the job queue brings its own. All steps are one transaction under an
advisory lock: processes that start together take turns, and one that is killed in the middle
leaves nothing behind.
"""

from pathlib import Path

import alembic.command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from api.queue import make_tables

_HERE = Path(__file__).resolve().parent
_LOCK = 0x61726368_0002


def migrate(url: str) -> None:
    """Apply what is missing to the database at `url`. Blocks: call it in a thread."""
    engine = create_engine(
        make_url(url).set(drivername="postgresql+psycopg"),
        connect_args={"prepare_threshold": None, "connect_timeout": 10},
        poolclass=NullPool,
    )
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        alembic.command.upgrade(_config(connection), "head")
        make_tables(connection)


def newest_version() -> str | None:
    """The version to which `migrate` brings a database."""
    return ScriptDirectory(str(_HERE)).get_current_head()


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("path_separator", "os")
    return config
