"""What a caller may do in a project: one SQL expression, used wherever projects are read."""

import uuid
from dataclasses import dataclass, field
from typing import Any, Literal

from api.access.principals import Principal
from graph.postgres import Pool, row_of

Tier = Literal["use", "edit", "full"]
TIERS: tuple[Tier, ...] = ("use", "edit", "full")
AccessSource = Literal["platform", "owner", "direct", "group", "public"]


@dataclass(frozen=True, slots=True)
class Brief:
    """How a project wants its turns done; `settings` as it stores them."""

    name: str
    instructions: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Access:
    """What a caller may do in a project, and why. `brief` spares who asks about it a look."""

    tier: Tier
    source: AccessSource
    brief: Brief | None = field(default=None, compare=False)

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
    row = await row_of(pool, _SELECT, {**about(caller), "id": project_id})
    if row is None:
        return None
    return Access(row.pop("access_tier"), row.pop("access_source"), Brief(**row))


async def brief_of(pool: Pool, project_id: uuid.UUID) -> Brief | None:
    """How a project wants its turns done; null where there is no such project."""
    row = await row_of(pool, _SELECT_BRIEF, (project_id,))
    return Brief(**row) if row else None


_BRIEF = "p.name, p.instructions, p.settings"
_SELECT = f"""
select access_tier, access_source, {_BRIEF}
from {ACCESS} access join projects p on p.id = access.project_id
where project_id = %(id)s and access_tier is not null
"""
_SELECT_BRIEF = f"select {_BRIEF} from projects p where p.id = %s"
