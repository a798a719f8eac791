"""The audit log: one entry a change, in the same transaction, and never taken back."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx
import psycopg
import pytest
from callers import new_key, new_user, signing_in
from conftest import Service, ServiceFactory
from psycopg.errors import RestrictViolation

from api.access.audit import note
from api.access.principals import SERVICE, Principal
from graph.postgres import open_pool
from graph.texts.document_types import version_of

KEY = "a-long-enough-key"
SECRET = "canary-of-the-secret-of-tokens-in-test-audit"
ANSWER = "prompts/answer.md"
FAILS = """
create function fail() returns trigger language plpgsql as
    $$ begin raise exception 'It fails.'; end $$;
create {kind} trigger fails {moment} on {table} {options} for each row execute function fail()
"""
MENDED = "drop trigger fails on {table}; drop function fail()"


@dataclass(frozen=True)
class Site:
    """A service that needs credentials, as its admin and as Ada, who has no role."""

    service: Service
    root: httpx.Client
    own: httpx.Client
    ada: Principal

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table."""
        return self.service.query(f"select * from {table} order by id")

    def log(self) -> list[dict[str, Any]]:
        """The entries of the log as an admin reads them, the oldest first."""
        answer = self.root.get("/audit", params={"limit": 200}).raise_for_status()
        return list(reversed(answer.json()["entries"]))

    def new(self, path: str, thing: str, **body: Any) -> str:
        """The id of a thing that the admin makes."""
        answer = self.root.post(path, json={"name": "x", **body}).raise_for_status()
        return str(answer.json()[thing]["id"])

    def insert(self, table: str, **values: Any) -> str:
        """The id of a new row."""
        one = str(uuid.uuid4())
        columns = ", ".join(["id", *values])
        places = ", ".join(["%s"] * (1 + len(values)))
        with self.service.changing() as database:
            database.execute(
                f"insert into {table} ({columns}) values ({places})", (one, *values.values())
            )
        return one


class Deed(NamedTuple):
    """A request of an admin, the table that it changes, and what the log says of it."""

    method: str
    path: str
    table: str
    action: str
    target: tuple[str, str]
    project: str | None = None
    details: dict[str, Any] = {}
    body: dict[str, Any] | None = None
    headers: dict[str, str] = {}

    def done(self, site: Site) -> httpx.Response:
        """Send it."""
        # The server hangs up after an answer of 500.
        headers = {"Connection": "close", **self.headers}
        return site.root.request(self.method, self.path, json=self.body, headers=headers)

    def entry(self) -> dict[str, Any]:
        """What the log says, but for the number and the time."""
        return {
            "actorId": str(SERVICE.id),
            "actor": "service",
            "action": self.action,
            "targetType": self.target[0],
            "targetId": self.target[1],
            "projectId": self.project,
            "details": self.details,
        }


@pytest.fixture(scope="module")
def site(start_service: ServiceFactory) -> Iterator[Site]:
    with start_service(api_key=KEY, jwt_secret=SECRET) as service:
        ada = new_user(service, "Ada")
        with (
            service.client(**{"X-API-Key": KEY}) as root,
            service.client(**{"X-API-Key": new_key(service, ada)}) as own,
        ):
            own.event_hooks = signing_in(SECRET, ada)
            yield Site(service, root, own, ada)


def key_revoked(site: Site) -> Deed:
    new_key(site.service, site.ada)
    [key, *_] = site.root.get(f"/keys?userId={site.ada.id}").json()["keys"]
    details = {"userId": str(site.ada.id)}
    target = ("key", key["id"])
    return Deed("DELETE", f"/keys/{key['id']}", "api_keys", "key.revoked", target, None, details)


def project_changed(site: Site) -> Deed:
    one = site.new("/projects", "project")
    body = {"name": "Pier", "settings": {"topK": 3}, "isPrivate": False}
    details = {"fields": ["isPrivate", "name", "settings"], "isPrivate": False}
    return Deed(
        "PATCH", f"/projects/{one}", "projects", "project.changed", ("project", one), one, details,
        body,
    )  # fmt: skip


def project_given_away(site: Site) -> Deed:
    one = site.new("/projects", "project")
    details = {
        "fields": ["ownerId"],
        "oldOwnerId": str(SERVICE.id),
        "newOwnerId": str(site.ada.id),
    }
    return Deed(
        "PATCH", f"/projects/{one}", "projects", "project.changed", ("project", one), one, details,
        {"ownerId": str(site.ada.id)},
    )  # fmt: skip


def project_deleted(site: Site) -> Deed:
    one = site.new("/projects", "project")
    new_document(site, one)
    return Deed("DELETE", f"/projects/{one}", "projects", "project.deleted", ("project", one), one)


def document_deleted(site: Site) -> Deed:
    project = site.new("/projects", "project")
    one = new_document(site, project)
    return Deed(
        "DELETE", f"/documents/{one}", "documents", "document.deleted", ("document", one), project
    )


def conversation_deleted(site: Site) -> Deed:
    project = site.new("/projects", "project")
    one = site.insert("conversations", project_id=project, owner_id=SERVICE.id, title="Why?")
    target = ("conversation", one)
    return Deed(
        "DELETE", f"/chat/conversations/{one}", "conversations", "conversation.deleted", target,
        project,
    )  # fmt: skip


def text_edited(site: Site) -> Deed:
    project = site.new("/projects", "project")
    path = f"/api/v1/projects/{project}/texts/{ANSWER}"
    old = site.root.get(path).json()["text"]["version"]
    details = {"oldVersion": old, "newVersion": version_of("Own.")}
    body, headers = {"content": "Own."}, {"If-Match": f'"{old}"'}
    return Deed(
        "PUT", path, "text_edits", "text.edited", ("text", ANSWER), project, details, body, headers
    )


def text_restored(site: Site) -> Deed:
    deed = text_edited(site)
    deed.done(site)
    old, new = deed.details["newVersion"], deed.details["oldVersion"]
    return deed._replace(
        method="POST",
        path=f"{deed.path}/restore",
        details={"oldVersion": old, "newVersion": new},
        body={"version": new},
        headers={"If-Match": f'"{old}"'},
    )


def text_given_up(site: Site) -> Deed:
    deed = text_edited(site)
    deed.done(site)
    old, new = deed.details["newVersion"], deed.details["oldVersion"]
    return deed._replace(
        method="DELETE",
        action="text.given_up",
        details={"oldVersion": old, "newVersion": new},
        body=None,
        headers={"If-Match": f'"{old}"'},
    )


def text_edited_for_all(site: Site) -> Deed:
    path = f"/api/v1/texts/{ANSWER}"
    old = site.root.get(path).json()["text"]["version"]
    content = f"Edited over {old}."
    details = {"oldVersion": old, "newVersion": version_of(content)}
    body, headers = {"content": content}, {"If-Match": f'"{old}"'}
    return Deed(
        "PUT", path, "text_edits", "text.edited", ("text", ANSWER), None, details, body, headers
    )


def grant_created(site: Site) -> Deed:
    project = site.new("/projects", "project")
    ada = {"targetType": "user", "targetId": str(site.ada.id)}
    return Deed(
        "POST", f"/projects/{project}/grants", "grants", "grant.created", ("grant", ""), project,
        {**ada, "tier": "use"}, {**ada, "tier": "use"},
    )  # fmt: skip


def grant_updated(site: Site) -> Deed:
    deed = grant_created(site)
    one = deed.done(site).json()["grant"]["id"]
    new = {**deed.details, "tier": "full"}
    return deed._replace(action="grant.updated", target=("grant", one), details=new, body=new)


def grant_revoked(site: Site) -> Deed:
    deed = grant_created(site)
    one = deed.done(site).json()["grant"]["id"]
    return deed._replace(
        method="DELETE",
        path=f"{deed.path}/{one}",
        action="grant.revoked",
        target=("grant", one),
        body=None,
    )


def new_document(site: Site, project: str) -> str:
    return site.insert(
        "documents", project_id=project, name="a.md", mime_type="text/markdown", size_bytes=1,
        sha256=b"", status="indexed",
    )  # fmt: skip


each_deed = pytest.mark.parametrize(
    "deed",
    [
        key_revoked, project_changed, project_given_away, project_deleted, document_deleted,
        conversation_deleted, text_edited, text_restored, text_given_up, text_edited_for_all,
        grant_created, grant_updated, grant_revoked,
    ],
)  # fmt: skip


@each_deed
def test_a_change_leaves_one_whole_entry(site: Site, deed: Callable[[Site], Deed]) -> None:
    what = deed(site)
    before = site.log()
    answer = what.done(site)
    assert answer.is_success, answer.text
    [*others, entry] = site.log()
    assert others == before
    assert entry.pop("id") > before[-1]["id"]
    assert entry.pop("at") > before[-1]["at"]
    # Of what is new, the answer tells the id.
    expected = {} if what.target[1] else {"targetId": answer.json()["grant"]["id"]}
    assert entry == what.entry() | expected


def test_a_new_key_leaves_one_whole_entry_of_its_maker(site: Site) -> None:
    before = site.log()
    key = site.own.post("/keys", json={"name": "Laptop"}).json()["key"]
    [*others, entry] = site.log()
    assert others == before
    assert entry == {
        "id": entry["id"],
        "at": entry["at"],
        "actorId": str(site.ada.id),
        "actor": site.ada.subject,
        "action": "key.created",
        "targetType": "key",
        "targetId": key["id"],
        "projectId": None,
        "details": {},
    }


def test_what_is_refused_or_changes_nothing_leaves_no_entry(site: Site) -> None:
    project = site.new("/projects", "project", isPrivate=False)
    document = new_document(site, project)
    text = f"/api/v1/projects/{project}/texts/{ANSWER}"
    version = site.root.get(text).headers["ETag"]
    gone = key_revoked(site)
    gone.done(site)
    before = site.log()
    answers = [
        site.own.patch(f"/projects/{project}", json={"name": "Mine"}),
        site.own.delete(f"/projects/{project}"),
        site.own.delete(f"/documents/{document}"),
        site.own.put(text, json={"content": "x"}, headers={"If-Match": version}),
        site.root.put(text, json={"content": "x"}, headers={"If-Match": '"sha256:0"'}),
        site.root.put(text, json={"content": "{{"}, headers={"If-Match": version}),
        site.root.patch(f"/projects/{project}", json={"ownerId": str(uuid.uuid4())}),
        site.root.patch(f"/projects/{project}", json={"name": None}),
        site.root.delete(f"/documents/{uuid.uuid4()}"),
        site.root.delete(f"/keys/{uuid.uuid4()}"),
        gone.done(site),
        site.root.patch(f"/projects/{project}", json={}),
    ]
    codes = [403, 403, 403, 403, 412, 422, 400, 400, 404, 404, 204, 200]
    assert [answer.status_code for answer in answers] == codes
    assert site.log() == before


@contextmanager
def failing(site: Site, table: str, *, at_the_end: bool) -> Iterator[None]:
    """Let each change of the table's rows fail: when it is made, or when it is to be kept."""
    options = {
        "kind": "constraint" if at_the_end else "",
        "moment": "after insert or update or delete" if at_the_end else "before insert",
        "options": "deferrable initially deferred" if at_the_end else "",
    }
    with site.service.changing() as database:
        database.execute(FAILS.format(table=table, **options).encode())
    try:
        yield
    finally:
        with site.service.changing() as database:
            database.execute(MENDED.format(table=table).encode())


@each_deed
def test_neither_a_change_nor_its_entry_is_there_without_the_other(
    site: Site, deed: Callable[[Site], Deed]
) -> None:
    what = deed(site)
    before, log = site.rows(what.table), site.log()
    with failing(site, what.table, at_the_end=True):
        assert what.done(site).status_code == 500
    assert (site.rows(what.table), site.log()) == (before, log)
    with failing(site, "audit", at_the_end=False):
        assert what.done(site).status_code == 500
    assert (site.rows(what.table), site.log()) == (before, log)
    assert what.done(site).is_success


def test_an_entry_without_a_transaction_is_refused(site: Site) -> None:
    url = site.service.app.state.parts.pool.conninfo

    async def noted() -> None:
        async with open_pool(url) as pool, pool.connection() as connection:
            await note(connection, SERVICE, "key.revoked", target=("key", "1"))

    before = site.log()
    with pytest.raises(RuntimeError, match="needs the transaction"):
        asyncio.run(noted())
    assert site.log() == before


@pytest.mark.parametrize(
    "statement",
    [
        "update audit set actor = 'nobody'",
        "update audit set actor = 'nobody' where false",
        "delete from audit",
        "truncate audit",
        "set local session_replication_role = replica; delete from audit",
    ],
)
def test_the_database_itself_refuses_to_change_an_entry(site: Site, statement: str) -> None:
    before = site.log()
    with (
        pytest.raises(RestrictViolation, match="The audit log is only ever added to: "),
        site.service.changing() as database,
    ):
        database.execute(statement.encode())
    assert site.log() == before != []


def test_the_log_survives_that_its_table_is_written_anew(site: Site) -> None:
    before = site.log()
    url = site.service.app.state.parts.pool.conninfo
    with psycopg.connect(url, autocommit=True) as database:
        database.execute("vacuum (full, analyze) audit")
    assert site.log() == before


def test_the_log_is_filtered_and_paged(site: Site) -> None:
    first, second = (site.new("/projects", "project") for _ in range(2))
    for project in (first, second, first):
        site.root.patch(f"/projects/{project}", json={"name": "Pier"})
    site.root.delete(f"/projects/{first}")
    site.own.post("/keys", json={"name": "Laptop"})

    def found(**query: Any) -> list[tuple[str, str]]:
        entries = site.root.get("/audit", params=query).raise_for_status().json()["entries"]
        return [(entry["action"], entry["targetId"]) for entry in entries]

    changed, deleted = ("project.changed", first), ("project.deleted", first)
    assert found(projectId=first) == [deleted, changed, changed]
    assert found(projectId=first, action="project.changed") == [changed, changed]
    assert found(actorId=str(site.ada.id), projectId=first) == []
    assert {action for action, _ in found(actorId=str(site.ada.id))} == {"key.created"}
    [last, *_] = site.root.get("/audit", params={"projectId": first}).json()["entries"]
    assert found(projectId=first, before=last["at"], limit=1) == [changed]
    assert site.root.get("/audit", params={"action": "project.sold"}).status_code == 400


def test_only_admins_read_the_log_and_nobody_writes_it(site: Site) -> None:
    refused = site.own.get("/audit")
    assert (refused.status_code, refused.json()) == (
        403,
        {"error": "forbidden", "message": "This needs the role admin."},
    )
    methods = ("POST", "PUT", "PATCH", "DELETE")
    assert {site.root.request(one, "/audit", json={}).status_code for one in methods} == {405}
    with site.service.client() as stranger:
        assert stranger.get("/audit").status_code == 401
