"""What a process does beside its runs: prolongs its lease, looks after what others left."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from functools import partial

from api.runs.leases import LEASE_S, RENEW_S, Lease
from api.runs.recovery import Recovery, Waiting
from api.runs.rows import RunRows
from graph.postgres import failures_logged

log = logging.getLogger(__name__)

TakeUp = Callable[[Waiting], Awaitable[None]]
"""Begins the work on a run that this process has taken up."""


class Upkeep:
    """The lease of a process, and the recovery that it does every few seconds.

    `known` gives the runs that the process works on or is about to begin.
    """

    def __init__(
        self,
        lease: Lease,
        rows: RunRows,
        recovery: Recovery,
        known: Callable[[], list[uuid.UUID]],
    ) -> None:
        self._lease = lease
        self._rows = rows
        self._recovery = recovery
        self._known = known
        self._renewed_at = self._steady_since = time.monotonic()
        self._renewing = asyncio.Lock()
        self._has_left = False
        self.takes_up = True

    async def work(self, take_up: TakeUp, *, alone: bool) -> None:
        """Look after it all, for ever."""
        if alone:
            self._steady_since -= LEASE_S
        # Each on its own: to recover what another process has left may take longer than a lease.
        await asyncio.gather(
            _for_ever(self._renew, "the lease could not be renewed"),
            _for_ever(partial(self._recover, take_up), "what other processes left behind waits"),
        )

    async def leave(self) -> None:
        """Give the lease back: what this process has left undone belongs to others at once."""
        async with self._renewing:
            self._has_left = True
            await self._release_orphans()
            await self._lease.leave()

    async def _renew(self) -> None:
        async with self._renewing:
            if self._has_left:
                return
            await self._lease.renew()
        self._note_renewal(time.monotonic())

    async def _recover(self, take_up: TakeUp) -> None:
        if self._has_left:
            return
        await self._release_orphans()
        if self._is_steady(time.monotonic()):
            await self._recovery.close_abandoned()
        while self.takes_up and (waiting := await self._recovery.take_up()):
            for one in waiting:
                if self.takes_up:
                    await take_up(one)

    async def _release_orphans(self) -> None:
        """Let others take up what is this process' own by the database, but not known here.

        It may have lost the database's answer that a run was stored or taken up.
        """
        process_id = self._lease.process_id
        # In this order: what begins meanwhile is known before it is stored.
        running = await self._rows.running_by(process_id)
        if orphans := running.keys() - self._known():
            await self._rows.release(process_id, list(orphans))

    def _note_renewal(self, now: float) -> None:
        # After the database was away all leases are over; who lives must come to renew it first.
        if now - self._renewed_at > 2 * RENEW_S:
            self._steady_since = now
        self._renewed_at = now

    def _is_steady(self, now: float) -> bool:
        """Whether the database was there for long enough, so that leases that are over mean it."""
        is_renewed = now - self._renewed_at <= 2 * RENEW_S
        return is_renewed and self._renewed_at - self._steady_since >= 2 * RENEW_S


async def _for_ever(work: Callable[[], Awaitable[None]], failure: str) -> None:
    while True:
        with failures_logged(log, failure):
            await work()
        await asyncio.sleep(RENEW_S)
