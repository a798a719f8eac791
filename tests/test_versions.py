"""A document's versions, each step in any order: what is searchable in the end is the newest."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from conftest import migrated_database

from api.access.principals import LOCAL_USER, know_principals
from api.progress import Progress
from api.queue import Queue
from api.versions import Version, Versions
from graph.knowledge.chunking import Chunk
from graph.knowledge.reading import Reading
from graph.postgres import Pool, open_pool

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
READING = Reading("text/markdown", None, [Chunk(0, None, "", "Oak.")])


@dataclass
class Desk:
    """Versions of a project, without anybody who works on them."""

    pool: Pool
    queue: Queue
    versions: Versions
    project: UUID

    async def accept(self, data: bytes) -> UUID:
        row = await self.versions.accept(self.project, "plan.md", data, data, "text/markdown")
        return UUID(str(row["id"]))

    async def take_up(self, document: UUID) -> Version:
        version = await self.versions.take_up(document)
        assert version is not None
        return version

    async def publish(self, version: Version) -> list[UUID]:
        return await self.versions.publish(version, READING)

    async def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(sql.encode(), values)
            return [tuple(row.values()) for row in await cursor.fetchall()]

    async def standing(self) -> list[tuple[Any, ...]]:
        return await self.rows("select id, status from documents order by accepted")


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    made = migrated_database(postgres_url)
    return made


@asynccontextmanager
async def desk_at(url: str) -> AsyncIterator[Desk]:
    queue, project = Queue({}), uuid4()
    async with open_pool(url) as pool, queue.open(pool), pool.connection() as connection:
        await know_principals(pool)
        await connection.execute("delete from documents")
        await connection.execute("delete from procrastinate_jobs")
        await connection.execute(
            "insert into projects (id, owner_id, name) values (%s, %s, 'P')",
            (project, LOCAL_USER.id),
        )
        yield Desk(pool, queue, Versions(pool, queue), project)


def at_desk(url: str, scenario: Callable[[Desk], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with desk_at(url) as desk:
            await scenario(desk)

    asyncio.run(whole())


def test_an_older_version_that_is_ready_after_the_newer_one_goes(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        older, newer = await desk.accept(b"1"), await desk.accept(b"2")
        first, second = await desk.take_up(older), await desk.take_up(newer)
        assert await desk.publish(second) == [older]
        assert await desk.publish(first) == []
        assert await desk.standing() == [(newer, "indexed")]

    at_desk(url, scenario)


def test_an_older_version_that_is_begun_anew_meanwhile_goes_and_leaves_a_job_for_its_vectors(
    url: str,
) -> None:
    async def scenario(desk: Desk) -> None:
        older, newer = await desk.accept(b"1"), await desk.accept(b"2")
        await desk.rows("update documents set status = 'indexed' where id = %s returning 1", newer)
        assert await desk.publish(await desk.take_up(older)) == [older]
        assert await desk.standing() == [(newer, "indexed")]
        jobs = await desk.rows("select args->>'document_id' from procrastinate_jobs order by id")
        assert jobs == [(str(older),), (str(newer),), (str(older),)]

    at_desk(url, scenario)


def test_a_version_is_published_while_the_vectors_of_a_failed_one_still_wait_for_their_end(
    url: str,
) -> None:
    async def scenario(desk: Desk) -> None:
        served = await desk.accept(b"0")
        await desk.publish(await desk.take_up(served))
        failed = await desk.accept(b"1")
        await desk.versions.fail(await desk.take_up(failed), "It failed.")
        newest = await desk.accept(b"2")
        assert set(await desk.publish(await desk.take_up(newest))) == {served, failed}
        assert await desk.standing() == [(newest, "indexed")]
        jobs = await desk.rows(
            "select args->>'document_id' from procrastinate_jobs where task_name = 'forget'"
        )
        assert sorted(jobs) == sorted([(str(served),), (str(failed),)])

    at_desk(url, scenario)


def test_what_an_earlier_attempt_still_wants_to_write_is_refused(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        document = await desk.accept(b"1")
        earlier, later = await desk.take_up(document), await desk.take_up(document)
        progress = Progress(desk.pool, desk.versions)
        await progress.note(earlier, ("reading", 0, 1))
        assert await desk.publish(earlier) == []
        await desk.versions.fail(earlier, "It failed.")
        assert await desk.versions.wait(earlier) is None
        assert await desk.standing() == [(document, "processing")]
        await progress.note(later, ("reading", 0, 1), ("reading", 1, 1))
        assert await desk.publish(later) == []
        assert await desk.standing() == [(document, "indexed")]
        assert await desk.rows("select seq, done from document_events") == [(1, 0), (2, 1)]
        assert await desk.versions.take_up(document) is None

    at_desk(url, scenario)


def test_a_wait_counts_from_when_something_last_got_through(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        document = await desk.accept(b"1")
        progress = Progress(desk.pool, desk.versions)
        waited = []
        for note in (("waiting", 0, 600), ("embedding", 1, 9)):
            version = await desk.take_up(document)
            await desk.versions.wait(version)
            await desk.rows(
                "update documents set waits_since = now() - interval '700 s' returning 1"
            )
            await progress.note(version, note)
            waited.append(await desk.versions.wait(version))
        assert [round(seconds or 0, -2) for seconds in waited] == [700, 0]
        # No event is told any more, so that this comes to an end.
        await desk.rows("update documents set events = 200, waits_since = %s returning 1", LONG_AGO)
        await progress.note(version, ("embedding", 1, 9))
        assert (await desk.versions.wait(version) or 0) > 700

    at_desk(url, scenario)


def test_the_same_bytes_are_new_again_once_others_came_between(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        first = await desk.accept(b"1")
        assert await desk.accept(b"1") == first
        await desk.accept(b"2")
        assert await desk.accept(b"1") != first

    at_desk(url, scenario)


def test_the_same_bytes_at_once_are_one_version(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        documents = await asyncio.gather(*(desk.accept(b"1" * 100_000) for _ in range(8)))
        assert len(set(documents)) == 1

    at_desk(url, scenario)


def test_a_failed_document_keeps_no_text_and_may_be_uploaded_again(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        document = await desk.accept(b"1")
        await desk.rows(
            "insert into chunks (id, document_id, project_id, position, text)"
            " values (%s, %s, %s, 0, 'x') returning 1", uuid4(), document, desk.project,
        )  # fmt: skip
        await desk.versions.fail(await desk.take_up(document), "It failed.")
        assert await desk.rows("select error from documents") == [("It failed.",)]
        assert await desk.rows("select 1 from chunks") == []
        assert await desk.accept(b"1") != document

    at_desk(url, scenario)


def test_a_document_that_has_lost_its_job_gets_another(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        document = await desk.accept(b"1")
        await desk.rows("delete from procrastinate_jobs returning 1")
        for _ in range(2):
            await desk.versions.put_forgotten()
        jobs = await desk.rows("select args->>'document_id' from procrastinate_jobs")
        assert jobs == [(str(document),)]

    at_desk(url, scenario)


def test_crashes_are_counted_for_what_was_under_way_only(url: str) -> None:
    async def scenario(desk: Desk) -> None:
        done, open_ = await desk.accept(b"1"), await desk.accept(b"2")
        await desk.versions.fail(await desk.take_up(done), "It failed.")
        await desk.versions.count_crashes([done, open_, uuid4()])
        assert (await desk.take_up(open_)).crashes == 1
        assert await desk.rows("select crashes from documents where id = %s", done) == [(0,)]

    at_desk(url, scenario)
