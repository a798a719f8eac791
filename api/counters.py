"""The storage of the library `limits` in Postgres: one state for all processes, in its time."""

from collections.abc import Sequence
from dataclasses import dataclass

from limits.aio.storage import Storage
from limits.aio.storage.base import SlidingWindowCounterSupport

from graph.postgres import UNREACHABLE, Connection, Pool


@dataclass(frozen=True, slots=True)
class Bound:
    """At most `most` of what is counted under `key` in any `seconds`; null for no limit.

    `told`: the limit as people are told it.
    """

    key: str
    most: int | None
    seconds: int
    told: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """What is counted in the present window and in the one before; `rest_s` are left of it."""

    seconds: int
    counted: int
    counted_before: int
    rest_s: float

    def wait_s(self, room: int) -> float:
        """Seconds until less than `room`, which is at least 1, counts in the sliding window."""
        if self.counted < room:
            return self._until_below(room - self.counted, self.counted_before, self.rest_s)
        return self.rest_s + self._until_below(room, self.counted, self.seconds)

    def _until_below(self, room: int, before: int, rest_s: float) -> float:
        return max(0.0, rest_s - self.seconds * room / before) if before else 0.0


class Counters(Storage, SlidingWindowCounterSupport):
    """Counts in windows of fixed length that slide; see `count_use` in the migrations.

    The strategies of `limits` ask for one limit at a time, `count` for all of a request at once.
    """

    STORAGE_SCHEME = None

    def __init__(self, pool: Pool) -> None:
        super().__init__()
        self._pool = pool

    async def count(
        self,
        bounds: Sequence[Bound],
        amount: int,
        connection: Connection | None = None,
    ) -> list[tuple[Bound, Window]]:
        """Count `amount` under all keys, or under none: gives the bounds that do not allow it.

        With an amount of 0 nothing is counted: gives the bounds that would not allow 1.
        With a connection it is a part of that connection's transaction.
        """
        if connection is None:
            async with self._pool.connection() as own:
                return await self.count(bounds, amount, own)
        asked = [[b.key for b in bounds], [b.most for b in bounds], [b.seconds for b in bounds]]
        cursor = await connection.execute(_COUNT_USE, (*asked, amount))
        refused = [(bounds[row.pop("place")], row) for row in await cursor.fetchall()]
        return [(bound, Window(bound.seconds, **row)) for bound, row in refused]

    async def forget_expired(self, connection: Connection) -> None:
        """Delete what no window reaches back to any more."""
        await connection.execute(_FORGET_EXPIRED)

    # --- what the library asks for

    @property
    def base_exceptions(self) -> type[Exception] | tuple[type[Exception], ...]:
        """What is raised while the database is away."""
        return UNREACHABLE

    async def acquire_sliding_window_entry(
        self, key: str, limit: int, expiry: int, amount: int = 1
    ) -> bool:
        """Count `amount` if the limit allows it."""
        return not await self.count([Bound(key, limit, expiry)], amount)

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """What is counted before and now, each with the seconds for which it will matter."""
        [(_, window)] = await self.count([Bound(key, 0, expiry)], 0)
        rest_s = window.rest_s
        return window.counted_before, rest_s, window.counted, rest_s + expiry

    async def clear_sliding_window(self, key: str, expiry: int) -> None:
        """Forget what is counted under `key`."""
        await self.clear(key)

    async def clear(self, key: str) -> None:
        """Forget what is counted under `key`."""
        async with self._pool.connection() as connection:
            await connection.execute("delete from counters where key = %s", (key,))

    async def reset(self) -> int:
        """Forget all that is counted; gives the number of keys."""
        async with self._pool.connection() as connection:
            return (await connection.execute("delete from counters")).rowcount

    async def check(self) -> bool:
        """True, or what is raised while the database is away."""
        async with self._pool.connection():
            return True

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Not there: it is for windows that do not slide."""
        raise NotImplementedError(_SLIDING)

    async def get(self, key: str) -> int:
        """Not there: it is for windows that do not slide."""
        raise NotImplementedError(_SLIDING)

    async def get_expiry(self, key: str) -> float:
        """Not there: it is for windows that do not slide."""
        raise NotImplementedError(_SLIDING)


_SLIDING = "Postgres counts in sliding windows only; use SlidingWindowCounterRateLimiter."
# Waits for no row, so that nothing that counts under two keys can wait for it in turn.
_FORGET_EXPIRED = """
delete from counters where key in (
    select key from counters where expires_at < now() for update skip locked
)
"""
_COUNT_USE = "select * from count_use(%s::text[], %s::bigint[], %s::bigint[], %s)"
