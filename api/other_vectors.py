"""Warns where processes share a database, but not the vectors of its documents."""

import logging
import uuid

from graph.postgres import Pool

log = logging.getLogger(__name__)


async def warn_of_other_vectors(pool: Pool, process_id: uuid.UUID, store_id: uuid.UUID) -> None:
    """Note which vector store a process uses, and warn if another one that lives uses another.

    The process has a row in `processes` by then. Of two that start at once, one warns at least.
    """
    async with pool.connection() as connection:
        await connection.execute(_NOTE, (store_id, process_id))
        cursor = await connection.execute(_OTHERS, (store_id,))
        if cursor.rowcount:
            log.warning(
                "another process uses the same database with other vectors: each finds only the "
                "documents that it took in itself. Set CHROMA_URL to the same Chroma server for all"
            )


_NOTE = "update processes set vectors = %s where id = %s"
_OTHERS = "select from processes where vectors <> %s and lease_until > now() limit 1"
