"""The audit log: who changed what, written in the transaction of the change itself."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Literal
from uuid import UUID

from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb
from pydantic.alias_generators import to_camel

from api.access.principals import Principal
from graph.postgres import Connection

Action = Literal[
    "grant.created", "grant.updated", "grant.revoked",
    "key.created", "key.revoked",
    "project.changed", "project.deleted",
    "document.deleted", "conversation.deleted",
    "provider.created", "provider.changed", "provider.deleted",
    "text.edited", "text.given_up",
]  # fmt: skip
Detail = UUID | str | int | bool | Sequence[str] | None


async def note(
    connection: Connection,
    actor: Principal,
    action: Action,
    *,
    target: tuple[str, object],
    project_id: UUID | None = None,
    **details: Detail,
) -> None:
    """Add an entry: `actor` did `action` to the `target`, which is a kind of thing and its id.

    It is there if and only if the change is: both are written in the transaction that is open on
    `connection`. Details are ids, tiers, slugs, versions and names of fields; never content, a
    key, or the name of what may be erased. Their names become camelCase.

    Raises:
        RuntimeError: no transaction is open.
    """
    if connection.info.transaction_status != TransactionStatus.INTRANS:
        raise RuntimeError("an entry of the audit log needs the transaction of its change")
    kind, target_id = target
    told = {to_camel(name): value for name, value in details.items()}
    await connection.execute(
        _INSERT,
        (actor.id, actor.subject, action, kind, str(target_id), project_id, Jsonb(told, _dumps)),
    )


_dumps = partial(json.dumps, default=str)
_INSERT = """
insert into audit (actor_id, actor, action, target_type, target_id, project_id, details)
values (%s, %s, %s, %s, %s, %s, %s)
"""
