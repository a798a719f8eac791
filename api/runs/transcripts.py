"""What was said in a conversation, read for the model from where it stands: the messages."""

from graph.postgres import Pool, rows_of
from graph.state import Message


class Transcripts:
    """Reads conversations as the pipeline remembers them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def recall(self, thread_id: str, run_id: str | None, most: int) -> list[Message]:
        """The messages before the run's question, oldest first; without a run, all of them.

        The newest that have `most` characters together, each of them whole, so that a long
        conversation costs no more than a short one. Nothing of a run that is not there.
        """
        values = {"conversation": thread_id, "run": run_id, "most": most}
        rows = await rows_of(self._pool, _RECALL, values)
        return [{"role": r["role"], "content": r["content"], "id": str(r["id"])} for r in rows]


_SPOKEN = """
m.conversation_id = %(conversation)s
    and m.status <> 'streaming' and not m.is_superseded and m.content <> ''
"""
# Step by step along the index: asked for the newest hundred at once, Postgres, which takes the
# conversation for one of usual length, may read and sort all of it.
_RECALL = f"""
with recursive places as (
    select 0::bigint as characters, case when %(run)s::uuid is null then {2**63 - 1} else (
        select q.position from runs r join messages q on q.id = r.question_id
        where r.id = %(run)s
    ) end as position
    union all
    select places.characters + older.characters, older.position
    from places cross join lateral (
        select length(m.content) as characters, m.position from messages m
        where {_SPOKEN} and m.position < places.position
        order by m.position desc limit 1
    ) as older
    where places.characters < %(most)s
)
select said.id, said.role, said.content
from places cross join lateral (
    select m.id, m.role, m.content, m.created_at from messages m
    where {_SPOKEN} and m.position = places.position
    offset 0
) as said
where places.characters > 0
order by places.position, said.created_at
"""
