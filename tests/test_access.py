"""What a caller may do in a project: the resolver beside its table, and grants over HTTP."""

import asyncio
import itertools
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from conftest import Service, ServiceFactory
from fastapi import APIRouter, FastAPI
from psycopg.rows import dict_row

from api.access.principals import LOCAL_USER, Principal
from api.access.resolver import ACCESS, TIERS, VISIBLE, Access, AccessSource, Tier, about, access_to
from api.access.rules import refuse_unguarded
from graph.postgres import open_pool

ALICE, BOB = uuid.uuid4(), uuid.uuid4()
TEAM, CREW = uuid.uuid4(), uuid.uuid4()
Granted = Tier | None


def model(
    *, is_admin: bool, is_owner: bool, mine: Granted, groups: tuple[Granted, ...], is_private: bool
) -> Access | None:
    """The contract's table: platform, owner, direct, group, public, else none."""
    ours = [TIERS.index(tier) for tier in groups if tier]
    rules: list[tuple[AccessSource, Granted]] = [
        ("platform", "full" if is_admin else None),
        ("owner", "full" if is_owner else None),
        ("direct", mine),
        ("group", TIERS[max(ours)] if ours else None),
        ("public", None if is_private else "use"),
    ]
    return next((Access(tier, source) for source, tier in rules if tier), None)


@pytest.fixture
def people(service: Service) -> Iterator[psycopg.Connection]:
    """A connection in whose database there are two people and two groups."""
    with service.changing() as connection:
        for one in (ALICE, BOB):
            connection.execute(
                "insert into users (id, subject, name) values (%s, %s, 'Somebody') "
                "on conflict do nothing",
                (one, f"test:{one}"),
            )
        for one in (TEAM, CREW):
            connection.execute(
                "insert into groups (id, name) values (%s, %s) on conflict do nothing",
                (one, f"group {one}"),
            )
        connection.commit()
        yield connection


def test_the_first_match_decides_in_each_of_all_cases(people: psycopg.Connection) -> None:
    """All 512 combinations of role, owner, own grant, two groups' grants and privacy, in one go."""
    granted: tuple[Granted, ...] = (None, *TIERS)
    cases = list(
        itertools.product((True, False), (True, False), granted, granted, granted, (True, False))
    )
    people.row_factory = dict_row  # type: ignore[assignment]
    found: list[Access | None] = []
    expected = []
    ids = [uuid.uuid4() for _ in cases]
    for project, (is_admin, is_owner, mine, team, crew, is_private) in zip(ids, cases, strict=True):
        people.execute(
            "insert into projects (id, owner_id, name, is_private) values (%s, %s, 'x', %s)",
            (project, ALICE if is_owner else BOB, is_private),
        )
        for column, target, tier in (
            ("user_id", ALICE, mine),
            ("group_id", TEAM, team),
            ("group_id", CREW, crew),
        ):
            if tier:
                people.execute(
                    f"insert into grants (id, project_id, {column}, tier) "
                    "values (gen_random_uuid(), %s, %s, %s)",
                    (project, target, tier),
                )
        expected.append(
            model(
                is_admin=is_admin,
                is_owner=is_owner,
                mine=mine,
                groups=(team, crew),
                is_private=is_private,
            )
        )
    for is_admin in (True, False):
        alice = Principal(ALICE, "alice", "Alice", is_admin, (TEAM, CREW))
        rows = {
            row["project_id"]: row
            for row in people.execute(
                f"select * from {ACCESS} a where project_id = any(%(ids)s)",
                {**about(alice), "ids": ids},
            )
        }
        visible = {
            row["id"]
            for row in people.execute(
                f"select id from projects p where {VISIBLE} and id = any(%(ids)s)",
                {**about(alice), "ids": ids},
            )
        }
        assert visible == {one for one, row in rows.items() if row["access_tier"]}
        for project, case, want in zip(ids, cases, expected, strict=True):
            if case[0] == is_admin:
                row = rows[project]
                tier, source = row["access_tier"], row["access_source"]
                found.append(Access(tier, source) if tier else None)
                assert found[-1] == want, case
    assert len(found) == len(cases) == 512
    people.rollback()


def test_a_grant_is_made_changed_listed_and_taken_back(
    service: Service, http: httpx.Client, project: str, people: psycopg.Connection
) -> None:
    path = f"/projects/{project}/grants"
    body = {"targetType": "user", "targetId": str(ALICE), "tier": "use"}
    made = http.post(path, json=body)
    assert made.status_code == 201
    grant = made.json()["grant"]
    assert made.json() == {
        "grant": {
            **body,
            "id": grant["id"],
            "projectId": project,
            "targetName": "Somebody",
            "createdAt": grant["createdAt"],
            "updatedAt": grant["createdAt"],
        },
        "action": "created",
    }
    assert access(service, ALICE, project) == Access("use", "direct")
    changed = http.post(path, json={**body, "tier": "edit"})
    now = changed.json()["grant"]
    assert (changed.status_code, changed.json()) == (
        200,
        {"grant": {**grant, "tier": "edit", "updatedAt": now["updatedAt"]}, "action": "updated"},
    )
    group = http.post(path, json={"targetType": "group", "targetId": str(TEAM), "tier": "full"})
    assert http.get(path).json() == {"grants": [group.json()["grant"], now]}
    assert access(service, ALICE, project, TEAM) == Access("edit", "direct")
    assert access(service, BOB, project, TEAM) == Access("full", "group")
    assert http.delete(f"{path}/{grant['id']}").status_code == 204
    assert access(service, ALICE, project) is None
    again = http.delete(f"{path}/{grant['id']}")
    assert (again.status_code, again.json()["message"]) == (404, "There is no such grant.")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"targetType": "user", "targetId": str(uuid.uuid4()), "tier": "use"},
            "is the id of no user. GET /users?email= finds one who has been here.",
        ),
        (
            {"targetType": "group", "targetId": str(ALICE), "tier": "use"},
            "is the id of no group. GET /groups?name= finds one that a token has named.",
        ),
    ],
)
def test_nobody_is_granted_nothing(
    http: httpx.Client,
    project: str,
    people: psycopg.Connection,
    body: dict[str, str],
    message: str,
) -> None:
    refused = http.post(f"/projects/{project}/grants", json=body)
    issue = {"path": ["targetId"], "message": message, "code": "value_error"}
    assert (refused.status_code, refused.json()) == (
        400, {"success": False, "error": {"name": "ZodError", "issues": [issue]}}
    )  # fmt: skip


def test_a_grant_of_another_project_is_not_taken_back(
    http: httpx.Client, project: str, people: psycopg.Connection
) -> None:
    body = {"targetType": "user", "targetId": str(ALICE), "tier": "use"}
    grant = http.post(f"/projects/{project}/grants", json=body).json()["grant"]
    other = http.post("/projects", json={"name": "Other"}).json()["project"]["id"]
    assert http.delete(f"/projects/{other}/grants/{grant['id']}").status_code == 404
    assert http.get(f"/projects/{project}/grants").json() == {"grants": [grant]}


def test_the_caller_is_told_who_they_are(http: httpx.Client) -> None:
    assert http.get("/me").json() == {
        "user": {
            "id": str(LOCAL_USER.id),
            "name": "Local user",
            "email": None,
            "role": "admin",
            "groups": [],
        }
    }


@pytest.mark.parametrize(("path", "most"), [("/users?email=", 320), ("/groups?name=", 255)])
def test_a_name_that_is_too_long_is_told_in_characters(
    http: httpx.Client, path: str, most: int
) -> None:
    [issue] = http.get(path + "a" * (most + 1)).json()["error"]["issues"]
    assert issue["message"] == f"String should have at most {most} characters"


@pytest.mark.parametrize("path", ["/users?email=a%00b", "/groups?name=a%00b"])
def test_nobody_has_a_name_that_no_text_may_hold(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, list(answer.json().values())) == (200, [[]])


def test_a_route_without_a_rule_keeps_the_service_from_starting(
    start_service: ServiceFactory,
) -> None:
    with start_service() as service:

        @service.app.get("/forgotten")
        async def forgotten() -> None: ...

        with pytest.raises(RuntimeError, match="'/forgotten'"):
            refuse_unguarded(service.app)


@pytest.mark.parametrize("is_included", [False, True])
def test_a_static_front_end_is_not_served_without_a_rule_either(
    tmp_path: Path, *, is_included: bool
) -> None:
    """FastAPI keeps those apart from the routes."""
    app, router = FastAPI(openapi_url=None), APIRouter()
    (router if is_included else app).frontend("/pages", directory=tmp_path)
    app.include_router(router)
    with pytest.raises(RuntimeError, match="front end"):
        refuse_unguarded(app)


def access(service: Service, user: uuid.UUID, project: str, *groups: uuid.UUID) -> Access | None:
    """What the resolver says of a user who is no admin."""

    async def asked() -> Access | None:
        url = service.settings.database_url
        assert url is not None
        async with open_pool(url.get_secret_value()) as pool:
            who = Principal(user, "x", "x", is_admin=False, groups=groups)
            return await access_to(pool, who, uuid.UUID(project))

    return asyncio.run(asked())
