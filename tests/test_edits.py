"""What is written over files: layers, history, and what can be read back."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import make_database, migrated_database
from folders import ANSWER, FRONT, PLAN, Folders

from api.access.principals import LOCAL_USER, know_principals
from graph.context import Context
from graph.errors import RetrievalFailed, TextChanged
from graph.nodes.load_template import load_template
from graph.pinning import Pinning, pin
from graph.postgres import UNREACHABLE, Pool, open_pool
from graph.state import State
from graph.texts.document_types import version_of
from graph.texts.edits import _LOCK, _TAKE_TURNS, STAMPS, Stamps, stamps_of
from graph.texts.history import since_when, used_as, version_at, versions_at
from graph.texts.texts import Texts


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path)
    made.write_all()
    return made


@pytest.fixture(scope="module")
def database(postgres_url: str) -> str:
    """A database with tables, without edits."""
    url = migrated_database(postgres_url)
    return url


Scenario = Callable[[Pool], Awaitable[None]]


def at(url: str, scenario: Scenario) -> None:
    """Run `scenario` with a pool; the database is without texts at first."""

    async def whole() -> None:
        async with open_pool(url) as pool, pool.connection() as connection:
            await know_principals(pool)
            await connection.execute("delete from text_edits")
            await connection.execute("delete from text_sets")
            await scenario(pool)

    asyncio.run(whole())


async def make_project(pool: Pool, project: str) -> None:
    async with pool.connection() as connection:
        await connection.execute(
            "insert into projects (id, owner_id, name) values (%s, %s, 'P')",
            (project, LOCAL_USER.id),
        )


async def recalled(
    pool: Pool, version: str, project: str | None = None
) -> Mapping[str, str] | None:
    """The texts that answers name as `version`."""
    used = await used_as(pool, version, project)
    return used and used.parts


async def told(texts: Texts, path: str = ANSWER, project: str | None = None) -> tuple[str, str]:
    """What counts at `path`, and where it comes from."""
    text = (await texts.wording(project)).text(path)
    assert text.version == version_of(text.content)
    return text.content, text.source


def test_an_edit_counts_over_its_file_and_an_override_over_both(
    database: str, folders: Folders
) -> None:
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())
    at_first = "Answer {{ user_name }}."

    async def scenario(pool: Pool) -> None:
        await make_project(pool, mine)
        texts, elsewhere = (Texts(**folders.settings, pool=pool) for _ in range(2))
        assert await told(texts) == await told(elsewhere) == (at_first, "file")

        seen = version_of(at_first)
        saved = await texts.save(ANSWER, "Edited.", expected=seen, author_id=LOCAL_USER.id)
        assert saved == (await texts.wording()).texts[ANSWER]
        assert await told(elsewhere) == ("Edited.", "edit")

        seen = version_of("Edited.")
        await texts.save(ANSWER, "Own.", project_id=mine.upper(), expected=seen)
        found = [await told(elsewhere, ANSWER, one) for one in (mine, other, "no id", None)]
        assert found == [("Own.", "override"), *[("Edited.", "edit")] * 3]

        await texts.save(ANSWER, None, expected=seen)
        assert await told(elsewhere) == (at_first, "file")
        assert await told(elsewhere, ANSWER, mine) == ("Own.", "override")
        given_up = await texts.save(ANSWER, None, project_id=mine, expected=version_of("Own."))
        assert given_up is not None
        assert (given_up.content, given_up.source) == (at_first, "file")

    at(database, scenario)


def test_a_file_that_changes_beats_an_older_edit_until_it_is_as_it_was(
    database: str, folders: Folders
) -> None:
    before, after = "Answer {{ user_name }}.", "Answer them."

    async def scenario(pool: Pool) -> None:
        texts = Texts(**folders.settings, pool=pool)
        await texts.save(ANSWER, "Edited.", expected=version_of(before))
        found = [await told(texts)]
        for content in (after, before):
            folders.write(ANSWER, content)
            found.append(await told(texts))
        assert found == [("Edited.", "edit"), (after, "file"), ("Edited.", "edit")]

        (folders.root / ANSWER).unlink()
        wording = await texts.wording()
        assert ANSWER not in wording.texts

    at(database, scenario)


def test_who_writes_over_what_they_have_not_seen_is_refused(
    database: str, folders: Folders
) -> None:
    seen = version_of("Answer {{ user_name }}.")

    async def scenario(pool: Pool) -> None:
        texts = Texts(**folders.settings, pool=pool)

        async def write(content: str) -> str:
            try:
                await texts.save(ANSWER, content, expected=seen)
            except TextChanged as error:
                return str(error)
            return "saved"

        contents = [f"Edit {number}." for number in range(6)]
        results = await asyncio.gather(*map(write, contents))
        winner = contents[results.index("saved")]
        now = f"its version is {version_of(winner)} now. Read it again."
        refused = f"{ANSWER} was changed since it was read: {now}"
        assert sorted(results) == sorted(["saved", *[refused] * 5])
        assert await told(texts) == (winner, "edit")

        with pytest.raises(TextChanged, match="there is no such text now"):
            await texts.save("templates/planning/NEW/template.md", "x", expected=seen)

    at(database, scenario)


def test_who_writes_at_the_same_time_waits_and_then_sees_what_was_written(
    database: str, folders: Folders
) -> None:
    seen = version_of("Answer {{ user_name }}.")

    async def scenario(pool: Pool) -> None:
        texts = Texts(**folders.settings, pool=pool)
        async with pool.connection() as other, other.transaction():
            await other.execute(_TAKE_TURNS, (_LOCK,))
            writing = asyncio.create_task(texts.save(ANSWER, "Late.", expected=seen))
            done, _ = await asyncio.wait({writing}, timeout=0.2)
            await other.execute(
                "insert into text_edits (path, content, version, base, source)"
                " values (%s, 'First.', %s, %s, 'edit')",
                (ANSWER, version_of("First."), seen),
            )
        with pytest.raises(TextChanged, match=version_of("First.")):
            await writing
        assert (done, await told(texts)) == (set(), ("First.", "edit"))

    at(database, scenario)


def test_a_new_type_may_be_written_without_a_file_and_for_one_project(
    database: str, folders: Folders
) -> None:
    mine = str(uuid.uuid4())
    path = "templates/planning/NEW/template.md"
    source = FRONT.format(output_path="NEW.md") + "New."

    async def scenario(pool: Pool) -> None:
        await make_project(pool, mine)
        texts = Texts(**folders.settings, pool=pool)
        await texts.save(path, source, project_id=mine, expected=None)
        names = [
            [kind.name for kind in (await texts.wording(one)).document_types()]
            for one in (mine, None)
        ]
        assert names == [["NEW", "PLAN"], ["PLAN"]]

        folders.write("templates/planning/LATER/template.md", source)
        assert (await texts.wording()).knows("LATER")

    at(database, scenario)


def test_the_history_holds_each_content_of_a_file_once_and_each_edit(
    database: str, folders: Folders
) -> None:
    mine = str(uuid.uuid4())
    first, second = "Answer {{ user_name }}.", "Second."

    async def scenario(pool: Pool) -> None:
        await make_project(pool, mine)
        texts = Texts(**folders.settings, pool=pool)
        for content in (first, second, first):
            folders.write(ANSWER, content)
            await asyncio.gather(*(Texts(**folders.settings, pool=pool).wording() for _ in "12"))
            await texts.wording()
        seen = version_of(first)
        await texts.save(ANSWER, "Edited.", expected=seen, author_id=LOCAL_USER.id)
        await texts.save(ANSWER, None, expected=version_of("Edited."))
        await texts.save(ANSWER, "Own.", project_id=mine, expected=seen)

        history = await versions_at(pool, ANSWER, mine, limit=50)
        entries = [(e.content, e.source, e.base, e.author_id, e.project_id) for e in history]
        assert entries == [
            ("Own.", "edit", None, None, uuid.UUID(mine)),
            (None, "edit", seen, None, None),
            ("Edited.", "edit", seen, LOCAL_USER.id, None),
            (second, "file", None, None, None),
            (first, "file", None, None, None),
        ]
        assert await versions_at(pool, ANSWER, None, limit=50) == history[1:]
        older = await versions_at(pool, ANSWER, None, limit=1, before=history[2].created_at)
        assert older == [history[3]]
        assert await version_at(pool, ANSWER, version_of(second), None) == history[3]
        own = version_of("Own.")
        found = [await version_at(pool, ANSWER, own, one) for one in (mine, None)]
        assert found == [history[0], None]

    at(database, scenario)


def test_what_made_an_answer_is_kept_and_goes_with_its_project(
    database: str, folders: Folders
) -> None:
    mine = str(uuid.uuid4())

    async def scenario(pool: Pool) -> None:
        texts = Texts(**folders.settings, pool=pool)
        for round_ in range(2):
            await make_project(pool, mine)
            shared = (await texts.wording()).text(ANSWER)
            if shared.source == "file":
                await texts.save(ANSWER, "Edited.", expected=shared.version)
            await texts.save(
                "prompts/draft.md",
                "Own.",
                project_id=mine,
                expected=version_of("Draft {{ title }} as {{ format }}."),
            )
            found = []
            for name in ("UNSORTED", "PLAN"):
                pinned, sets = pin(await texts.wording(mine), name, Context())
                await texts.remember(sets, mine)
                version = pinned["prompts"]["version"]
                found.append([await recalled(pool, version, one) for one in (mine, None)])
            question = {"prompts/question.md": (folders.root / "prompts/question.md").read_text()}
            answer = {ANSWER: "Edited.", **question}
            draft = {"prompts/draft.md": "Own.", **question}
            assert found == [[answer, answer], [draft, None]], f"round {round_}"
            template = (await texts.wording(mine)).document_type("PLAN")
            plan = {PLAN: (folders.root / PLAN).read_text()}
            assert await recalled(pool, template.version) == plan
            async with pool.connection() as connection:
                await connection.execute("delete from projects where id = %s", (mine,))
            # As a turn does that goes on while its project is erased.
            await Texts(**folders.settings, pool=pool).remember(sets, mine)
            assert await recalled(pool, version, mine) is None
            assert await told(texts, "prompts/draft.md", mine) == (
                "Draft {{ title }} as {{ format }}.",
                "file",
            )

    at(database, scenario)


def test_a_text_counts_since_it_was_written_here_whoever_else_wrote_the_same(
    database: str, folders: Folders
) -> None:
    mine, other = str(uuid.uuid4()), str(uuid.uuid4())

    async def scenario(pool: Pool) -> None:
        texts = Texts(**folders.settings, pool=pool)
        seen = (await texts.wording()).text(ANSWER).version
        for project in (mine, other):
            await make_project(pool, project)
            await texts.save(ANSWER, "Own.", project_id=project, expected=seen)
        since, written = [], []
        for project in (mine, other):
            text = (await texts.wording(project)).text(ANSWER)
            since.append(await since_when(pool, [text], project))
            [newest] = await versions_at(pool, ANSWER, project, limit=1)
            written.append({ANSWER: newest.created_at})
        assert since == written

    at(database, scenario)


def test_a_database_without_tables_leaves_the_files(postgres_url: str, folders: Folders) -> None:
    async def scenario() -> None:
        async with open_pool(make_database(postgres_url)) as pool:
            texts = Texts(**folders.settings, pool=pool)
            assert await told(texts) == ("Answer {{ user_name }}.", "file")
            _, sets = pin(await texts.wording(), "PLAN", Context())
            await texts.remember(sets, None)

    asyncio.run(scenario())


def test_without_its_database_a_turn_fails_and_may_be_tried_again(
    postgres_url: str, folders: Folders
) -> None:
    runtime: Any = SimpleNamespace(context=Context())
    state: State = {"messages": [{"role": "user", "content": "Why?"}]}

    async def scenario() -> None:
        async with open_pool(make_database(postgres_url)) as pool:
            texts = Texts(**folders.settings, pool=pool)
            await load_template(state, runtime, texts=texts, pinning=Pinning())
        with pytest.raises(RetrievalFailed, match="the database is away") as caught:
            await load_template(state, runtime, texts=texts, pinning=Pinning())
        assert caught.value.transient

    asyncio.run(scenario())


def test_a_turn_without_news_gets_the_same_view(database: str, folders: Folders) -> None:
    async def scenario(pool: Pool) -> None:
        texts = Texts(**folders.settings, pool=pool)
        first = await texts.wording()
        assert await texts.wording() is first
        assert await texts.wording(str(uuid.uuid4())) is first
        folders.write(ANSWER, "News.")
        assert (await texts.wording()).text(ANSWER).content == "News."
        assert first.text(ANSWER).content == "Answer {{ user_name }}."

    at(database, scenario)


def test_the_database_is_asked_again_only_for_edits_that_are_new(
    database: str, folders: Folders
) -> None:
    project = str(uuid.uuid4())

    async def stamps(pool: Pool) -> Stamps:
        async with pool.connection() as connection:
            found = await connection.execute(STAMPS, {"project": project})
            return stamps_of(await found.fetchone() or {})

    async def scenario(pool: Pool) -> None:
        await make_project(pool, project)
        texts = Texts(**folders.settings, pool=pool)
        at_first, first = await stamps(pool), await texts.wording(project)
        expected = first.text(ANSWER).version
        await texts.save(ANSWER, "Own.", project_id=project, expected=expected)
        later = await stamps(pool)
        edited = await texts.wording(project, later)
        assert (first.text(ANSWER).source, edited.text(ANSWER).content) == ("file", "Own.")

        await pool.close()
        assert await texts.wording(project, later) is edited
        assert await texts.wording(project, at_first) is first
        for unknown in (None, (later[0], (later[1] or 0) + 1)):
            with pytest.raises(UNREACHABLE):
                await texts.wording(project, unknown)

    async def apart() -> None:
        async with open_pool(database) as pool:
            await scenario(pool)

    asyncio.run(apart())
