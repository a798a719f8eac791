"""What a caller may do in a project: one SQL expression, used wherever projects are read."""

import uuid
from dataclasses import dataclass
from typing import Any, Literal

from api.access.principals import Principal
from graph.postgres import Pool

Tier = Literal["use", "edit", "full"]
TIERS: tuple[Tier, ...] = ("use", "edit", "full")
AccessSource = Literal["platform", "owner", "direct", "group", "public"]


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may do in a project, and why."""

    tier: Tier
    source: AccessSource

    def allows(self, needed: Tier) -> bool:
        """Whether this tier includes `needed`."""
        return TIERS.index(self.tier) >= TIERS.index(needed)


def about(caller: Principal) -> dict[str, Any]:
    """The values that `ACCESS` asks for."""
    return {"me": caller.id, "my_groups": list(caller.groups), "is_admin": caller.is_admin}


# The first match wins, also where a later one would give more: who was granted `use` by name
# has that, whatever their groups have.
ACCESS = """(
select p.id as project_id,
    case
        when %(is_admin)s then 'platform'
        when p.owner_id = %(me)s then 'owner'
        when mine.tier is not null then 'direct'
        when ours.tier is not null then 'group'
        when not p.is_private then 'public'
    end as access_source,
    case
        when %(is_admin)s or p.owner_id = %(me)s then 'full'
        else coalesce(mine.tier, ours.tier, case when not p.is_private then 'use'::tier end)
    end as access_tier
from projects p
left join grants mine on mine.project_id = p.id and mine.user_id = %(me)s
left join lateral (
    select max(tier) as tier from grants
    where grants.project_id = p.id and grants.group_id = any(%(my_groups)s::uuid[])
) ours on true
)"""
"""A subquery with `project_id`, `access_tier` and `access_source`; both are null for no access."""

VISIBLE = """(
%(is_admin)s or p.owner_id = %(me)s or not p.is_private
or p.id in (select project_id from grants where user_id = %(me)s)
or p.id in (select project_id from grants where group_id = any(%(my_groups)s::uuid[]))
)"""
"""Whether `ACCESS` gives any tier in the project `p`: cheaper where few of many are looked for."""


async def access_to(pool: Pool, caller: Principal, project_id: uuid.UUID) -> Access | None:
    """What `caller` may do in a project; null too where there is no such project."""
    async with pool.connection() as connection:
        cursor = await connection.execute(_SELECT, {**about(caller), "id": project_id})
        row = await cursor.fetchone()
    return Access(row["access_tier"], row["access_source"]) if row else None


_SELECT = f"""
select access_tier, access_source from {ACCESS} access
where project_id = %(id)s and access_tier is not null
"""
