"""Brings the tables up to date at start, one process at a time.

Alembic runs plain SQL; the job queue brings its own. All steps are one transaction under an
advisory lock: processes that start together take turns, and one that is killed in the middle
leaves nothing behind.
"""

from functools import partial
from pathlib import Path

import alembic.command
import psycopg
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from api.queue import make_tables

_HERE = Path(__file__).resolve().parent
_LOCK = 0x61726368_0002
_NEWER = (
    "The database was brought up to date by a newer version of Archwright. Start that version, or "
    "go back to a dump that was made before."
)


class TablesAreNewer(ValueError):
    """A newer version has changed the tables, in ways that this one does not know."""

    def __init__(self) -> None:
        super().__init__(_NEWER)


def migrate(url: str) -> None:
    """Apply what is missing to the database at `url`. Blocks: call it in a thread.

    Raises:
        TablesAreNewer: nothing is changed.
    """
    connect = partial(psycopg.connect, url, prepare_threshold=None, connect_timeout=10)
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        try:
            alembic.command.upgrade(_config(connection), "head")
        except CommandError as error:
            raise TablesAreNewer from error
        make_tables(connection)


def is_newest(version: str | None) -> bool:
    """Whether `migrate` would leave a database of this version as it is.

    Raises:
        TablesAreNewer: it would refuse the database.
    """
    versions = ScriptDirectory(str(_HERE))
    try:
        versions.get_revision(version or "base")
    except CommandError as error:
        raise TablesAreNewer from error
    return version == versions.get_current_head()


def _config(connection: Connection) -> Config:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("path_separator", "os")
    return config
