"""What each run used and what that costs, added up by day, project, user and model."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from graph.events import Failed, Terminal, Usage
from graph.offers import Price
from graph.postgres import Connection

_MILLION = 1_000_000


PriceOf = Callable[[str, str], Price | None]
"""The price of a provider's model, by slug and name; null where nobody set one."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a run used of which model; null where it ended before one was chosen."""

    provider: str | None
    model: str | None
    usage: Usage
    cost: Decimal | None


def spent_on(terminal: Terminal, price_of: PriceOf) -> Spent:
    """What a run that ended like this used, as its provider counted it, else estimated."""
    answer, usage = terminal.answer, _used(terminal)
    if answer.provider is None or answer.model is None:
        return Spent(answer.provider, answer.model, usage, None)
    price = price_of(answer.provider, answer.model)
    return Spent(answer.provider, answer.model, usage, cost_of(usage, price))


def cost_of(usage: Usage, price: Price | None) -> Decimal | None:
    """What the tokens cost, null without a price."""
    if price is None:
        return None
    # By way of text: 0.1 is to be a tenth.
    of_prompt, of_answer = Decimal(str(price.input)), Decimal(str(price.output))
    return (usage.prompt_tokens * of_prompt + usage.completion_tokens * of_answer) / _MILLION


def _used(terminal: Terminal) -> Usage:
    answer = terminal.answer
    # A provider that refused or was not reached did no work.
    if isinstance(terminal, Failed) and not answer.text:
        return answer.usage
    return answer.used


def columns_of(spent: Spent) -> dict[str, object]:
    """What `ADDED` adds."""
    return {
        "provider": spent.provider,
        "model": spent.model,
        "prompt_tokens": spent.usage.prompt_tokens,
        "completion_tokens": spent.usage.completion_tokens,
        "cost": spent.cost,
    }


async def fold(connection: Connection) -> None:
    """Make one row of those that runs have added for the same day, user, project and model."""
    await connection.execute(_FOLD)


# A day is one of UTC, and is the one on which the run ended.
ADDED = """
insert into usage (day, project_id, user_id, provider, model, runs, prompt_tokens,
    completion_tokens, cost)
select (now() at time zone 'utc')::date, %(project)s, %(owner)s, %(provider)s, %(model)s, 1,
    %(prompt_tokens)s, %(completion_tokens)s, %(cost)s
from ended
"""
"""Adds a run to the accounts, as a part of the statement that has `ended` it, which comes once.

A row of its own, since runs that change the same row would wait for each other's end.
"""

# Of the days that may still grow. What another process folds meanwhile is gone here.
_FOLD = """
with many as (
    select day, user_id, project_id, provider, model from usage
    where day >= (now() at time zone 'utc')::date - 7
    group by day, user_id, project_id, provider, model having count(*) > 1
),
folded as (
    delete from usage u using many m
    where u.day = m.day and u.user_id = m.user_id
        and (u.project_id, u.provider, u.model)
            is not distinct from (m.project_id, m.provider, m.model)
    returning u.*
)
insert into usage
    (day, project_id, user_id, provider, model, runs, prompt_tokens, completion_tokens, cost)
select day, project_id, user_id, provider, model, sum(runs), sum(prompt_tokens),
    sum(completion_tokens), sum(cost)
from folded group by day, project_id, user_id, provider, model
"""
