"""Which processes of the service live: each prolongs a lease, by the database's clock."""

import uuid

from graph.postgres import Pool

LEASE_S = 20
"""A process that has not prolonged its lease for so long is taken for dead."""

RENEW_S = 5
"""Seconds from one renewal to the next."""


class Lease:
    """The lease of this process; `process_id` is new with each start."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.process_id = uuid.uuid4()

    async def enter(self, *, alone: bool) -> None:
        """Begin. `alone`: nobody else can use this database, so all others are dead."""
        if alone:
            async with self._pool.connection() as connection:
                await connection.execute("delete from processes")
        await self.renew()

    async def renew(self) -> None:
        """Prolong the lease. Runs that others have closed meanwhile stay closed."""
        async with self._pool.connection() as connection:
            await connection.execute(_RENEW, (self.process_id, LEASE_S))
            await connection.execute(_FORGET_DEAD)

    async def leave(self) -> None:
        """End the lease now."""
        async with self._pool.connection() as connection:
            await connection.execute("delete from processes where id = %s", (self.process_id,))


_RENEW = """
insert into processes as p (id, lease_until) values (%s, now() + make_interval(secs => %s))
on conflict (id) do update set lease_until = greatest(p.lease_until, excluded.lease_until)
"""
# Long after others have looked for what they left behind.
_FORGET_DEAD = "delete from processes where lease_until < now() - interval '1 hour'"
