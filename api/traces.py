"""What stored answers and the logs of runs hold of documents, and how it goes with a document."""

import uuid
from collections.abc import Set
from typing import Any

from api.runs.stored_log import NEWS
from graph.postgres import Connection


async def erase_traces(
    connection: Connection, project_id: uuid.UUID, document_id: uuid.UUID, name: str
) -> None:
    """Take out of a project's answers what they quote of a document and of its older versions.

    The logs of runs that showed its passages go. Called in the transaction that erases the
    document, after its row was deleted.
    """
    about = {"project": project_id, "document": str(document_id), "name": name, "channel": NEWS}
    for statement in _STATEMENTS:
        await connection.execute(statement, about)


def without_quotes(citations: list[dict[str, Any]], names: Set[str]) -> list[dict[str, Any]]:
    """The citations as they are stored: quoting only web pages and documents of these names."""
    return [
        {**one, "quote": ""} if _is_erased(one, names) and "quote" in one else one
        for one in citations
    ]


def _is_erased(citation: dict[str, Any], names: Set[str]) -> bool:
    return citation["documentId"] is not None and citation["documentName"] not in names


_ERASE_QUOTES = """
update messages set citations = (
    select jsonb_agg(
        case when one ->> 'documentId' = %(document)s
            or one ->> 'documentId' is not null and one ->> 'documentName' = %(name)s
        then one || '{"quote": ""}' else one end order by place)
    from jsonb_array_elements(citations) with ordinality as cited(one, place))
where conversation_id in (select id from conversations where project_id = %(project)s)
    and exists (
        select from jsonb_array_elements(citations) as cited(one)
        where one ->> 'quote' <> '' and (one ->> 'documentId' = %(document)s
            or one ->> 'documentId' is not null and one ->> 'documentName' = %(name)s))
"""
_ERASE_PASSAGES = """
delete from cited_passages where project_id = %(project)s and document_id is not null
    and (document_id = %(document)s::uuid or document_name = %(name)s)
"""
# A run that goes on keeps its readers, but nothing of it is kept any more.
_ERASE_LOGS = """
with shown as (
    select id from runs
    where conversation_id in (select id from conversations where project_id = %(project)s)
        and is_followable
        and (%(document)s::uuid = any(documents) or %(name)s = any(document_names))
    order by id for no key update
),
erased as (
    update runs set is_followable = false, documents = '{}', document_names = '{}'
    where id in (select id from shown) returning id
),
gone as (delete from run_events where run_id in (select id from erased))
select pg_notify(%(channel)s, id::text) from erased
"""
# Runs before messages, as a run that ends locks them.
_STATEMENTS = (_ERASE_LOGS, _ERASE_QUOTES, _ERASE_PASSAGES)
