"""Times as ISO 8601 in UTC, whatever the clock of the database shows."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import psycopg
import pytest
from conftest import ServiceFactory, migrated_database, upload
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier
from sse import read
from standins.openai import OpenAIStandIn

TIME = re.compile(r'"(\d{4}-\d\d-\d\dT[^"]+)"')
ISO_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@pytest.fixture(params=["America/New_York", "Asia/Kathmandu"])
def database(postgres_url: str, request: pytest.FixtureRequest) -> str:
    """A database whose sessions begin with another time zone."""
    url = migrated_database(postgres_url)
    name = Identifier(str(conninfo_to_dict(url)["dbname"]))
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("alter database {} set timezone to {}").format(name, request.param))
    return url


def test_times_are_in_utc_whatever_the_time_zone_of_the_database(
    start_service: ServiceFactory, database: str, model: OpenAIStandIn
) -> None:
    with (
        start_service(
            database_url=database, openai_base_url=model.base_url, openai_model="stand-in"
        ) as service,
        service.client() as http,
    ):
        began = datetime.now(UTC)
        project = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
        document = upload(http, project, "a.md", b"# A\n\nSome words.")["id"]
        meta = read(http, "POST", f"/chat/projects/{project}", json={"message": "words?"})[0].data
        bodies = {path: http.get(path).text for path in _paths(project, document, meta)}
        assert {path: _others(body) for path, body in bodies.items()} == dict.fromkeys(bodies, [])
        # A time without a zone is one of UTC, too.
        assert _before(http, began) == []
        assert _before(http, began + timedelta(minutes=5)) == [project]


def _paths(project: str, document: str, meta: dict[str, str]) -> list[str]:
    return [
        "/projects",
        "/chat/recent",
        f"/chat/projects/{project}/conversations",
        f"/chat/conversations/{meta['conversationId']}",
        f"/runs/{meta['messageId']}",
        f"/documents/{document}",
        f"/documents/{document}/events",
        f"/api/v1/projects/{project}/workflow",
        "/providers/admin",
        "/audit",
    ]


def _others(body: str) -> list[str]:
    """The times in `body` that are not as they should be."""
    return [time for time in TIME.findall(body) if not ISO_UTC.fullmatch(time)]


def _before(http: httpx.Client, time: datetime) -> list[str]:
    listed = http.get("/projects", params={"before": time.replace(tzinfo=None).isoformat()})
    return [one["id"] for one in listed.json()["projects"]]
