"""Fair use: how much one caller and one project may ask for, and the refusals above it."""

import math
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Self

from limits import RateLimitItem, parse_many
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from api.access.principals import Principal
from api.counters import Bound, Counters, Window
from api.errors import Refusal
from api.settings import Settings
from graph.postgres import Connection, Pool

Rates = tuple[RateLimitItem, ...]
Whose = Literal["user", "project"]
What = Literal["requests", "tokens"]

_RETRY_RUN_S = 5


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator allows; empty or null for no limit. `..._runs`: at the same time."""

    user_requests: Rates = ()
    project_requests: Rates = ()
    user_tokens: Rates = ()
    project_tokens: Rates = ()
    user_runs: int | None = None
    project_runs: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The limits that are set."""
        return cls(
            _rates(settings.max_user_requests),
            _rates(settings.max_project_requests),
            _rates(settings.max_user_tokens),
            _rates(settings.max_project_tokens),
            settings.max_user_parallel_runs,
            settings.max_project_parallel_runs,
        )


@dataclass(frozen=True, slots=True)
class Allowance:
    """One limit of a caller as it stands: when `remaining` grows next, null if nothing is used."""

    name: str
    limit: int
    remaining: int
    reset_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Running:
    """How many runs are going on, of one caller and in one project."""

    user: int
    project: int


class FairUse:
    """Counts requests, tokens and runs, and refuses what is above a limit.

    A refused request counts under none of the limits that it was held against. Tokens are counted
    when a run ends, so a run may go beyond its limit; the next one is then refused for longer.
    Without limits the database is not asked.
    """

    def __init__(self, pool: Pool, limits: Limits) -> None:
        self._pool = pool
        self._limits = limits
        self._counters = Counters(pool)

    @property
    def limits_runs(self) -> bool:
        """Whether there is a limit on how many runs go on at the same time."""
        return bool(self._limits.user_runs or self._limits.project_runs)

    @property
    def limits_tokens(self) -> bool:
        """Whether there is a limit on how many tokens are used."""
        return bool(self._limits.user_tokens or self._limits.project_tokens)

    async def count_request(self, caller: Principal) -> None:
        """Count a request of `caller`.

        Raises:
            Refusal: 429, the caller's limit is reached; nothing is counted.
        """
        await self._hold(_bounds("user", caller.id, "requests", self._limits.user_requests), 1)

    async def count_project_request(self, project_id: uuid.UUID) -> None:
        """Count a request about a project, by somebody who may make it.

        Raises:
            Refusal: 429, the project's limit is reached; nothing is counted.
        """
        rates = self._limits.project_requests
        await self._hold(_bounds("project", project_id, "requests", rates), 1)

    async def refuse_without_tokens(self, user_id: uuid.UUID, project_id: uuid.UUID | None) -> None:
        """Refuse a run whose caller or project has used its tokens up. Counts nothing.

        Raises:
            Refusal: 429.
        """
        await self._hold(self._token_bounds(user_id, project_id), 0)

    async def count_tokens(
        self,
        connection: Connection,
        user_id: uuid.UUID,
        project_id: uuid.UUID | None,
        tokens: int,
    ) -> None:
        """Count what a run used, as a part of the connection's transaction."""
        bounds = self._token_bounds(user_id, project_id)
        if bounds and tokens:
            unlimited = [Bound(each.key, None, each.seconds, each.told) for each in bounds]
            await self._counters.count(unlimited, tokens, connection)

    async def refuse_one_run_more(
        self,
        connection: Connection,
        user_id: uuid.UUID,
        project_id: uuid.UUID | None,
    ) -> None:
        """Refuse the run whose row the connection's transaction has made, if it is too many.

        Transactions of one caller or project take turns here until they end.

        Raises:
            Refusal: 429; the transaction must be rolled back.
        """
        most = self._limits
        keys = [
            *([f"runs of {user_id}"] if most.user_runs else []),
            *([f"runs in {project_id}"] if most.project_runs and project_id else []),
        ]
        if not keys:
            return
        await connection.execute(_TAKE_TURNS, (keys,))
        # Another statement, which sees what was stored before its turn.
        running = await _running(connection, user_id, project_id)
        if most.user_runs is not None and running.user > most.user_runs:
            raise _too_many_runs("Your", most.user_runs)
        if most.project_runs is not None and running.project > most.project_runs:
            raise _too_many_runs("The project's", most.project_runs)

    async def allowances(self, caller: Principal) -> list[Allowance]:
        """The caller's own limits as they stand."""
        limiter = SlidingWindowCounterRateLimiter(self._counters)
        rated = [
            *(("requests", rate) for rate in self._limits.user_requests),
            *(("tokens", rate) for rate in self._limits.user_tokens),
        ]
        found = []
        for what, rate in rated:
            stats = await limiter.get_window_stats(rate, "user", str(caller.id), what)
            reset_at = datetime.fromtimestamp(stats.reset_time, UTC)
            is_used = stats.remaining < rate.amount
            name = f"{what} per {_period(rate)}"
            found.append(
                Allowance(name, rate.amount, stats.remaining, reset_at if is_used else None)
            )
        if most := self._limits.user_runs:
            async with self._pool.connection() as connection:
                running = await _running(connection, caller.id, None)
            left = max(0, most - running.user)
            found.append(Allowance("parallel runs", most, left, None))
        return found

    async def forget_expired(self, connection: Connection) -> None:
        """Delete counters that count no more."""
        await self._counters.forget_expired(connection)

    def _token_bounds(self, user_id: uuid.UUID, project_id: uuid.UUID | None) -> list[Bound]:
        of_user = _bounds("user", user_id, "tokens", self._limits.user_tokens)
        if project_id is None:
            return of_user
        return [*of_user, *_bounds("project", project_id, "tokens", self._limits.project_tokens)]

    async def _hold(self, bounds: Sequence[Bound], amount: int) -> None:
        """Count `amount` under all of `bounds`, or refuse."""
        refused = await self._counters.count(bounds, amount) if bounds else []
        if refused:
            raise _refusal(refused)


def _rates(notation: str | None) -> Rates:
    return tuple(dict.fromkeys(parse_many(notation))) if notation else ()


def _bounds(whose: Whose, of: uuid.UUID, what: What, rates: Rates) -> list[Bound]:
    owner = "Your" if whose == "user" else "The project's"
    return [
        Bound(
            rate.key_for(whose, str(of), what),
            rate.amount,
            rate.get_expiry(),
            f"{owner} limit of {_number(rate.amount, what)} per {_period(rate)}",
        )
        for rate in rates
    ]


def _period(rate: RateLimitItem) -> str:
    name = rate.GRANULARITY.name
    return name if rate.multiples == 1 else f"{rate.multiples} {name}s"


def _refusal(refused: Sequence[tuple[Bound, Window]]) -> Refusal:
    """The answer that names the limit for which the caller must wait longest."""
    waits = {bound.told: window.wait_s(bound.most or 1) for bound, window in refused}
    told = max(waits, key=lambda each: waits[each])
    # One more than the whole seconds: at the very moment it is not yet below the limit.
    seconds = math.floor(waits[told]) + 1
    return _rate_limited(f"{told} is reached. Try again in {_in_words(seconds)}.", seconds)


def _too_many_runs(whose: str, most: int) -> Refusal:
    return _rate_limited(
        f"{whose} limit of {_number(most, 'runs')} at the same time is reached. "
        "Wait until one of them has ended, or stop one, then try again.",
        _RETRY_RUN_S,
    )


def _rate_limited(message: str, seconds: int) -> Refusal:
    return Refusal(429, "rate_limited", message, headers={"Retry-After": str(seconds)})


def _in_words(seconds: int) -> str:
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds > 2 * size:
            return f"{math.ceil(seconds / size)} {unit}"
    return _number(seconds, "seconds")


def _number(count: int, of: str) -> str:
    return f"{count} {of if count != 1 else of.removesuffix('s')}"


async def _running(
    connection: Connection, user_id: uuid.UUID, project_id: uuid.UUID | None
) -> _Running:
    of = {"user": user_id, "project": project_id}
    [row] = await (await connection.execute(_COUNT_RUNNING, of)).fetchall()
    return _Running(**row)


_TAKE_TURNS = """
select pg_advisory_xact_lock(hashtextextended(key, 0)) from unnest(%s::text[]) as key
"""
# Those of processes that died count no more; those that wait for a process do.
_COUNT_RUNNING = """
select count(*) filter (where r.owner_id = %(user)s) as "user",
    count(*) filter (where c.project_id = %(project)s) as project
from runs r
left join conversations c on c.id = r.conversation_id
left join processes p on p.id = r.process_id
where r.status = 'running' and (r.process_id is null or p.lease_until > clock_timestamp())
    and (r.owner_id = %(user)s or c.project_id = %(project)s)
"""
