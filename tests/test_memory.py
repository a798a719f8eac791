"""What a conversation remembers is what stands in `messages`; its thread keeps no copy of it."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, TypeVar, cast

import httpx
import psycopg
import pytest
from conftest import Service, ServiceFactory, make_database, migrated_database
from psycopg.rows import dict_row
from sse import live, read
from standins.openai import Answer, OpenAIStandIn
from test_faults import database_away
from test_server import wait_until

from api.access.principals import LOCAL_USER, know_principals
from api.runs.transcripts import Transcripts
from graph.checkpoints import open_checkpoints
from graph.knowledge.library import Library
from graph.models import Models
from graph.pipeline import build_pipeline
from graph.postgres import Pool, open_pool
from graph.texts.texts import Texts

T = TypeVar("T")

ALL = 10**9
SLOW = Answer(["Be", "cause"], delay_s=0.5)


def ask(http: httpx.Client, project: str, message: str = "Why?", **body: Any) -> str:
    """Ask, and give the id of the conversation."""
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": message, **body})
    return str(events[0].data["conversationId"])


def asking(http: httpx.Client, project: str) -> Any:
    return http.stream("POST", f"/chat/projects/{project}", json={"message": "Why?"})


def stored(service: Service, conversation: str) -> list[int]:
    """How many rows the thread has in each of the checkpointer's tables."""
    tables = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")
    return [
        len(service.query(f"select from {table} where thread_id = %s", conversation))
        for table in tables
    ]


def with_pool(url: str, work: Callable[[Pool], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_pool(url) as pool:
            return await work(pool)

    return asyncio.run(run())


def state(service: Service, conversation: str) -> list[tuple[str, str]]:
    """The thread's messages as LangGraph tells them."""

    async def read_state(pool: Pool) -> list[tuple[str, str]]:
        pipeline = build_pipeline(
            texts=cast(Texts, None),
            library=cast(Library, None),
            web=None,
            models=cast(Models, None),
            checkpoints=await open_checkpoints(pool, Transcripts(pool)),
        )
        found = await pipeline.aget_state({"configurable": {"thread_id": conversation}})
        return [(one["role"], one["content"]) for one in found.values.get("messages", [])]

    assert service.settings.database_url is not None
    return with_pool(service.settings.database_url.get_secret_value(), read_state)


def shown(model: OpenAIStandIn) -> list[str]:
    """What the model was last asked, from the first question on, without its delimiters."""
    texts = [message["content"] for message in model.chats[-1].body["messages"][1:]]
    return [text.split("\n")[-2] if text.startswith("<") else text for text in texts]


def test_a_thread_has_one_checkpoint_without_a_word_and_its_state_is_the_conversation(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    model.will(Answer(["Walrus", " one."]), Answer(["Walrus"], end="cut"), Answer(["Walrus two."]))
    conversation = ask(http, project, "Walrus A?")
    for question in ("Walrus B?", "Walrus C?"):
        ask(http, project, question, conversationId=conversation)
    assert stored(service, conversation) == [1, 0, 0]
    [row] = service.query("select c::text from checkpoints c where thread_id = %s", conversation)
    assert "Walrus" not in row["c"]
    assert state(service, conversation) == [
        ("user", "Walrus A?"), ("assistant", "Walrus one."),
        ("user", "Walrus B?"), ("assistant", "Walrus"),
        ("user", "Walrus C?"), ("assistant", "Walrus two."),
    ]  # fmt: skip


def test_a_thread_that_was_never_written_has_no_state(service: Service) -> None:
    assert state(service, str(uuid.uuid4())) == []


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_the_part_of_an_answer_is_remembered(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service, how: str
) -> None:
    model.will(Answer(["Half", " an"], end="cut" if how == "failed" else "hang"), Answer(["Yes."]))
    with asking(http, project) as response:
        events = live(response.iter_lines())
        conversation = next(events).data["conversationId"]
        while next(events).data.get("delta") != " an":
            pass
        if how == "stopped":
            with service.client() as other:
                other.post(f"/runs/{response.headers['x-run-id']}/stop").raise_for_status()
        list(events)
    assert stored(service, conversation) == [1, 0, 0]
    [row] = service.query(
        "select checkpoint -> 'channel_values' as kept from checkpoints where thread_id = %s",
        conversation,
    )
    assert row == {"kept": {}}
    ask(http, project, "And now?", conversationId=conversation)
    assert shown(model) == ["Why?", "Half an", "And now?"]


def test_an_answer_that_was_replaced_is_not_remembered(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    model.will(Answer(["Wrong."]), Answer(["Right."]))
    conversation = ask(http, project)
    with service.changing() as database:
        database.execute(
            "update messages set is_superseded = true where conversation_id = %s"
            " and role = 'assistant'",
            (conversation,),
        )
    ask(http, project, "And now?", conversationId=conversation)
    assert shown(model) == ["Why?", "And now?"]
    assert state(service, conversation) == [
        ("user", "Why?"), ("user", "And now?"), ("assistant", "Right."),
    ]  # fmt: skip


def test_the_history_that_begins_a_conversation_is_remembered(
    http: httpx.Client, project: str, model: OpenAIStandIn, service: Service
) -> None:
    model.will(Answer(["Yes."]))
    conversation = str(uuid.uuid4())
    history = [{"role": "user", "content": "Blue?"}, {"role": "assistant", "content": "It is."}]
    body = {"conversation_id": conversation, "project_id": project, "message": "Why?"}
    read(http, "POST", "/api/v1/chat/stream", json={**body, "history": history})
    assert shown(model) == ["Blue?", "It is.", "Why?"]
    assert state(service, conversation) == [
        ("user", "Blue?"), ("assistant", "It is."), ("user", "Why?"), ("assistant", "Yes."),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "behind_its_back",
    [
        "update runs set status = 'failed' where conversation_id = %s",
        "delete from conversations where id = %s",
    ],
    ids=["given up", "deleted"],
)
def test_a_run_that_was_given_up_writes_no_checkpoint(
    http: httpx.Client,
    project: str,
    model: OpenAIStandIn,
    service: Service,
    behind_its_back: str,
) -> None:
    model.will(SLOW)
    with asking(http, project) as response:
        events = live(response.iter_lines())
        conversation = next(events).data["conversationId"]
        wait_until(lambda: bool(model.chats), 30)
        with service.changing() as database:
            database.execute(behind_its_back, (conversation,))
        list(events)
    asked = model.chats[-1]
    wait_until(lambda: asked.finished or asked.closed_early_at is not None, 30)
    time.sleep(0.5)
    assert stored(service, conversation) == [0, 0, 0]


def test_an_answer_outlives_a_database_that_goes_away_while_it_comes(
    postgres_url: str, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    url = make_database(postgres_url)
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in", "database_url": url}
    with start_service(**settings) as service, service.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        model.will(Answer(["Be", "cause"], first_delay_s=0.5))
        with asking(http, project) as response:
            events = live(response.iter_lines())
            conversation = next(events).data["conversationId"]
            wait_until(lambda: bool(model.chats), 30)
            with database_away(postgres_url, url):
                while next(events).data.get("delta") != "cause":
                    pass
            assert [event.name for event in events] == ["done"]
        assert stored(service, conversation) == [1, 0, 0]
        assert state(service, conversation) == [("user", "Why?"), ("assistant", "Because")]


# The transcript alone


@pytest.fixture(scope="module")
def url(postgres_url: str) -> str:
    """A database with the service's tables."""
    url = migrated_database(postgres_url)
    with_pool(url, know_principals)
    return url


@pytest.fixture
def rows(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as connection:
        yield connection


class Conversation:
    """A conversation of which each message is written by itself."""

    def __init__(self, rows: psycopg.Connection[Any]) -> None:
        self.id, project = str(uuid.uuid4()), uuid.uuid4()
        self._rows = rows
        rows.execute(
            "insert into projects (id, owner_id, name) values (%s, %s, 'x')",
            (project, LOCAL_USER.id),
        )
        rows.execute(
            "insert into conversations (id, project_id, owner_id, title) values (%s, %s, %s, 'x')",
            (self.id, project, LOCAL_USER.id),
        )

    def say(self, text: str, status: str = "complete", **other: Any) -> str:
        """Add a message and give its id."""
        columns = {"status": status, **other}
        [row] = self._rows.execute(
            f"insert into messages (id, conversation_id, role, content, {', '.join(columns)})"
            f" overriding system value values (gen_random_uuid(), %s, 'user', %s"
            f"{', %s' * len(columns)}) returning id",
            (self.id, text, *columns.values()),
        ).fetchall()
        return str(row["id"])

    def run(self, question: str) -> str:
        """A run that answers this message."""
        run_id = str(uuid.uuid4())
        self._rows.execute(
            "insert into runs (id, conversation_id, question_id, owner_id, api, status)"
            " values (%s, %s, %s, %s, 'chat', 'running')",
            (run_id, self.id, question, LOCAL_USER.id),
        )
        return run_id


def recalled(url: str, conversation: Conversation, run: str | None, most: int = ALL) -> list[str]:
    async def recall(pool: Pool) -> list[str]:
        found = await Transcripts(pool).recall(conversation.id, run, most)
        return [message["content"] for message in found]

    return with_pool(url, recall)


def said(conversation: Conversation, texts: Iterable[str]) -> list[str]:
    return [conversation.say(text) for text in texts]


def test_what_stands_before_the_question_is_recalled_in_its_order(
    url: str, rows: psycopg.Connection[Any]
) -> None:
    conversation = Conversation(rows)
    ids = said(conversation, ["a", "b", "c", "d", "e"])
    assert recalled(url, conversation, conversation.run(ids[3])) == ["a", "b", "c"]
    assert recalled(url, conversation, None) == ["a", "b", "c", "d", "e"]
    assert recalled(url, conversation, str(uuid.uuid4())) == []


def test_what_is_not_said_is_not_recalled(url: str, rows: psycopg.Connection[Any]) -> None:
    conversation = Conversation(rows)
    for status in ("streaming", "failed", "stopped"):
        conversation.say(status, status)
    conversation.say("", "failed")
    conversation.say("replaced", is_superseded=True)
    assert recalled(url, conversation, None) == ["failed", "stopped"]


def test_messages_of_one_place_come_in_the_order_of_their_time(
    url: str, rows: psycopg.Connection[Any]
) -> None:
    conversation = Conversation(rows)
    for day in (2, 1, 3):
        conversation.say(f"{day}", position=7, created_at=f"2026-01-0{day}")
    conversation.say("0", position=6)
    assert recalled(url, conversation, None) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0, []),
        (1, ["ee"]),
        (2, ["ee"]),
        (3, ["d", "ee"]),
        (4, ["ccc", "d", "ee"]),
        (6, ["ccc", "d", "ee"]),
        (7, ["b", "ccc", "d", "ee"]),
        (8, ["aa", "b", "ccc", "d", "ee"]),
        (ALL, ["aa", "b", "ccc", "d", "ee"]),
    ],
)
def test_the_oldest_that_comes_is_whole_and_there_is_enough(
    url: str, rows: psycopg.Connection[Any], most: int, expected: list[str]
) -> None:
    conversation = Conversation(rows)
    said(conversation, ["aa", "b", "ccc", "d", "ee"])
    assert recalled(url, conversation, None, most) == expected


def test_of_a_long_conversation_no_more_is_read_than_is_recalled(
    url: str, rows: psycopg.Connection[Any]
) -> None:
    """Nobody has counted the rows for Postgres, which would rather read and sort all of them."""
    conversation = Conversation(rows)
    texts = [chr(0x4E00 + number) * 100 for number in range(500)]
    with rows.transaction():
        said(conversation, texts)
    rows.execute("select pg_stat_force_next_flush()")
    before = rows_read(rows)
    assert recalled(url, conversation, None, 1000) == texts[-10:]
    # It is told once the connection has ended.
    wait_until(lambda: rows_read(rows) > before, 30)
    assert rows_read(rows) - before < 30


def rows_read(rows: psycopg.Connection[Any]) -> int:
    sql = "select seq_tup_read + idx_tup_fetch as n from pg_stat_user_tables where relname = %s"
    [row] = rows.execute(sql, ("messages",)).fetchall()
    return int(row["n"])
