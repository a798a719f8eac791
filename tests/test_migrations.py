"""Steps from one state of the tables to the next, with rows in them."""

import uuid

import alembic.command
import psycopg
import pytest
from conftest import make_database, migrated_database
from sqlalchemy import create_engine, make_url

from api.database.migrations import TablesAreNewer, _config, is_newest, migrate

BEFORE = """
insert into users (id, subject, name) values (%(id)s, 'me', 'Me');
insert into projects (id, owner_id, name) values (%(id)s, %(id)s, 'Harbour');
insert into conversations (id, project_id, owner_id, title) values (%(id)s, %(id)s, %(id)s, 'Why?');
insert into messages (id, conversation_id, role, content, status, citations) values
    (%(id)s, %(id)s, 'assistant', 'So [2].', 'complete', '[{"index": 2, "pageNumber": null}]');
insert into web_sources (id, message_id, project_id, title, url, text)
    values (%(id)s, %(id)s, %(id)s, 'Moon', 'https://moon.example/', 'It pulls.');
"""
WITHOUT_INDEX = """
select conrelid::regclass::text from pg_constraint
where contype = 'f' and confrelid = 'projects'::regclass and not exists (
    select from pg_index where indrelid = conrelid and indkey[0] = conkey[1] and indpred is null
)
"""
AFTER = """
select m.citations, p.document_name, p.url, p.snippet, p.context, p.document_id
from cited_passages p join messages m on m.id = p.message_id where p.chunk_id = %s
"""


def test_pages_of_the_web_and_older_citations_are_kept(postgres_url: str) -> None:
    url = make_database(postgres_url)
    one = "5f1b1c0a-0000-4000-8000-000000000001"
    upgrade(url, "0001")
    with psycopg.ClientCursor(psycopg.connect(url, autocommit=True)) as cursor:
        cursor.execute(BEFORE, {"id": one})
        migrate(url)
        row = cursor.execute(AFTER, (one,)).fetchone()
        cursor.connection.close()
    citation = {"index": 2, "pageNumber": None, "quote": "", "supported": True, "by": "model"}
    page = ("Moon", "https://moon.example/", "It pulls.", "It pulls.", None)
    assert row == ([citation], *page)


RUNNING = """
insert into users (id, subject, name) values (%(id)s, 'me', 'Me');
insert into projects (id, owner_id, name) values (%(id)s, %(id)s, 'Harbour');
insert into conversations (id, project_id, owner_id, title) values (%(id)s, %(id)s, %(id)s, 'Why?');
insert into messages (id, conversation_id, role, content, status) values
    (%(question)s, %(id)s, 'user', 'Why?', 'complete'),
    (%(id)s, %(id)s, 'assistant', 'Be', 'streaming');
insert into runs (id, conversation_id, owner_id, status, lease_until)
    values (%(id)s, %(id)s, %(id)s, 'running', now());
"""
ENDED = """
select r.status, m.status, r.question_id, r.api, r.is_followable, r.ended_at is not null
from runs r join messages m on m.id = r.id
"""


def test_runs_that_went_on_under_an_older_version_have_failed(postgres_url: str) -> None:
    url = make_database(postgres_url)
    ids = {"id": uuid.UUID(int=1), "question": uuid.UUID(int=2)}
    upgrade(url, "0012")
    with psycopg.ClientCursor(psycopg.connect(url, autocommit=True)) as cursor:
        cursor.execute(RUNNING, ids)
        migrate(url)
        rows = cursor.execute(ENDED).fetchall()
        cursor.connection.close()
    assert rows == [("failed", "failed", ids["question"], "chat", False, True)]


def upgrade(url: str, revision: str) -> None:
    engine = create_engine(make_url(url).set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        alembic.command.upgrade(_config(connection), revision)
    engine.dispose()


def test_the_address_may_be_any_that_postgres_reads(postgres_url: str) -> None:
    url = make_database(postgres_url)
    migrate(url.replace("@/", "@:/"))
    with psycopg.connect(url) as connection:
        rows = connection.execute("select version_num from alembic_version").fetchall()
    assert [is_newest(version) for (version,) in rows] == [True]


def test_tables_of_a_newer_version_are_refused_with_a_sentence(postgres_url: str) -> None:
    url = migrated_database(postgres_url)
    with psycopg.connect(url) as connection:
        connection.execute("update alembic_version set version_num = '9999'")
    with pytest.raises(TablesAreNewer, match="by a newer version of Archwright"):
        migrate(url)
    with psycopg.connect(url) as connection:
        assert connection.execute("select * from alembic_version").fetchall() == [("9999",)]


def test_what_goes_with_a_project_is_found_by_an_index(postgres_url: str) -> None:
    with psycopg.connect(migrated_database(postgres_url)) as connection:
        assert connection.execute(WITHOUT_INDEX).fetchall() == []
