"""Several processes of the service on one database, and what there is in it."""

import uuid
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row
from test_server import Process, environment

OFTEN_S = 0.5
"""Seconds from one look for the dead to the next, where they are looked for often."""


class Fleet:
    """Processes of the service on one database, each in a folder of its own.

    `is_hasty`: the dead are looked for every `OFTEN_S` seconds, and their leases are made to be
    over; else both take their time.
    """

    def __init__(self, folder: Path, settings: dict[str, str], *, is_hasty: bool) -> None:
        self.settings = settings
        self._is_hasty = is_hasty
        self._folder = folder
        self._opened = ExitStack()
        self._leases: dict[int, uuid.UUID] = {}
        self.live: list[Process] = []
        self.rows = self._opened.enter_context(
            psycopg.connect(settings["DATABASE_URL"], autocommit=True, row_factory=dict_row)
        )

    def start(self) -> Process:
        """Start one more, and wait until it is ready."""
        names = {process.folder.name for process in self.live}
        name = next(str(n) for n in range(len(names) + 1) if str(n) not in names)
        (self._folder / name).mkdir(exist_ok=True)
        before = self._processes()
        process = Process(
            self._folder / name,
            environment(**self.settings),
            renew_s=OFTEN_S if self._is_hasty else None,
        )
        self._opened.callback(_end, process)
        process.wait_until_ready()
        self.live.append(process)
        [self._leases[process.child.pid]] = self._processes() - before
        return process

    def kill(self, process: Process) -> None:
        """End a process at once, as a machine does that loses its power."""
        self.live.remove(process)
        process.child.kill()
        process.child.wait()
        self.give_up(process)

    def give_up(self, process: Process) -> None:
        """Make it late: the lease of this process is over, unless that is to be waited for."""
        if self._is_hasty:
            self.rows.execute(_END_LEASE, (self._leases[process.child.pid],))

    def _processes(self) -> set[uuid.UUID]:
        try:
            return {row["id"] for row in self.select("select id from processes")}
        except psycopg.errors.UndefinedTable:
            # Nobody has started yet.
            return set()

    def select(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of the database."""
        return self.rows.execute(sql, values).fetchall()

    def client(self, process: Process | None = None) -> httpx.Client:
        """A client of one that lives."""
        url = (process or self.live[0]).url
        return httpx.Client(base_url=url, timeout=30, trust_env=False)

    def running(self) -> int:
        """How many runs go on, or wait for a process."""
        [row] = self.select("select count(*) as n from runs where status = 'running'")
        return int(row["n"])

    def close(self) -> None:
        """End all."""
        self._opened.close()


_END_LEASE = "update processes set lease_until = now() - interval '1 s' where id = %s"


def _end(process: Process) -> None:
    process.child.kill()
    process.child.wait()
