"""Whom tokens stand for, and what is kept of them for keys of one's own."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from callers import with_pool
from conftest import Service

from api.access import keys, users
from api.access.principals import group_id
from api.access.tokens import Claims
from api.access.users import Users
from graph.postgres import Pool

ISSUED = datetime(2026, 3, 1, tzinfo=UTC)


def claims(subject: str, issuer: str = "https://id.example", **other: object) -> Claims:
    about = {"name": "Ada", "email": None, "groups": (), "is_admin": False, "issued_at": None}
    return Claims(issuer, subject, **{**about, **other})  # type: ignore[arg-type]


def admins(service: Service, subject: str) -> list[bool]:
    rows = service.query("select is_admin from users where subject like %s", f"%:{subject}")
    return [row["is_admin"] for row in rows]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("https", "//id.example:u-1"), ("https://id.example", "u-1")),
        (("", "a:b"), (":a", "b")),
        (("a%3Ab", "c"), ("a:b", "c")),
    ],
)
def test_two_people_never_become_one(
    service: Service, one: tuple[str, str], other: tuple[str, str]
) -> None:
    async def ids(pool: Pool) -> set[uuid.UUID]:
        known = Users(pool)
        both = [claims(subject, issuer) for issuer, subject in (one, other)]
        return {(await known.principal(each)).id for each in both}

    assert len(with_pool(service, ids)) == 2


def test_without_iat_the_token_that_came_last_counts_also_with_two_processes(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of an admin of yesterday must not bring the role back to their keys for good."""
    subject = uuid.uuid4().hex
    old, new = claims(subject, is_admin=True), claims(subject)

    async def come(pool: Pool) -> None:
        here, elsewhere = Users(pool), Users(pool)
        await here.principal(old)
        await here.principal(new)
        await elsewhere.principal(old)
        assert admins(service, subject) == [True]
        monkeypatch.setattr(users, "UNDATED_S", 0)
        await here.principal(new)
        assert admins(service, subject) == [False]

    with_pool(service, come)


def test_with_iat_the_newest_token_counts_whichever_came_last(service: Service) -> None:
    subject = uuid.uuid4().hex
    new = claims(subject, issued_at=ISSUED)
    old = claims(subject, is_admin=True, issued_at=datetime(2026, 2, 1, tzinfo=UTC))

    async def come(pool: Pool) -> None:
        for each in (new, old):
            await Users(pool).principal(each)

    with_pool(service, come)
    assert admins(service, subject) == [False]


def test_a_key_is_in_the_groups_that_the_newest_token_names_and_in_no_other(
    service: Service,
) -> None:
    subject = uuid.uuid4().hex
    first = claims(subject, groups=("crew", "port"), issued_at=ISSUED - timedelta(days=1))
    newest = claims(subject, groups=("port", "yard"), issued_at=ISSUED)

    async def come(pool: Pool) -> list[list[uuid.UUID]]:
        _, secret = await keys.make(pool, await Users(pool).principal(first), "Of a test", None)
        groups = []
        for each in (first, newest, first):
            await Users(pool).principal(each)
            owner = await keys.owner_of(pool, secret)
            assert owner is not None
            groups.append(list(owner.groups))
        return groups

    crew, port, yard = map(group_id, ("crew", "port", "yard"))
    before, after = sorted([crew, port]), sorted([port, yard])
    assert with_pool(service, come) == [before, after, after]
