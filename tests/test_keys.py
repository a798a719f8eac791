"""API keys of one's own: shown once, kept as a hash, and refused everywhere once they are gone."""

import hashlib
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from callers import new_key, new_user, signing_in, with_pool
from conftest import Service, ServiceFactory
from sse import names, read
from standins.openai import OpenAIStandIn

from api.access.keys import owner_of
from api.access.principals import LOCAL_USER, SERVICE, Principal

KEY = "a-long-enough-key"
SECRET = "canary-of-the-secret-of-tokens-in-test-keys"


# Its answers of other tests are forgotten.
pytestmark = pytest.mark.usefixtures("model")


@pytest.fixture(scope="module")
def guarded(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Service]:
    """A service that needs credentials."""
    with start_service(
        api_key=KEY,
        jwt_secret=SECRET,
        openai_base_url=shared_model.base_url,
        openai_model="stand-in",
    ) as service:
        yield service


@pytest.fixture
def ada(guarded: Service) -> Principal:
    """A user without a role."""
    return new_user(guarded, "Ada")


@pytest.fixture
def own(guarded: Service, ada: Principal) -> Iterator[httpx.Client]:
    """Ada, with a key of her own; she signs in to make further ones, for which it is not enough."""
    with guarded.client(**{"X-API-Key": new_key(guarded, ada)}) as http:
        http.event_hooks = signing_in(SECRET, ada)
        yield http


@pytest.fixture
def root(guarded: Service) -> Iterator[httpx.Client]:
    """The service principal."""
    with guarded.client(**{"X-API-Key": KEY}) as http:
        yield http


def made(http: httpx.Client, **body: str) -> dict[str, Any]:
    answer = http.post("/keys", json={"name": "Laptop", **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_a_key_is_shown_once_and_kept_as_a_hash(
    guarded: Service, ada: Principal, own: httpx.Client
) -> None:
    body = {"name": "\u202e My\u2028 laptop ", "expiresAt": "2199-01-01T00:00:00+02:00"}
    answer = own.post("/keys", json=body)
    key, secret = answer.json()["key"], answer.json()["secret"]
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert answer.json() == {
        "key": {
            "id": key["id"],
            "name": "My laptop",
            "prefix": secret[:11],
            "createdAt": key["createdAt"],
            "expiresAt": "2198-12-31T22:00:00Z",
            "lastUsedAt": None,
        },
        "secret": secret,
    }
    head, prefix, rest = secret.split("_")
    assert (head, len(prefix), len(rest)) == ("aw", 8, 43)

    listed = own.get("/keys")
    assert [listed.json()["keys"][0], len(listed.json()["keys"])] == [key, 2]
    assert rest not in listed.text
    [row] = guarded.query("select * from api_keys where id = %s", uuid.UUID(key["id"]))
    assert row == {
        "id": uuid.UUID(key["id"]),
        "user_id": ada.id,
        "name": "My laptop",
        "prefix": secret[:11],
        "hash": hashlib.sha256(secret.encode()).digest(),
        "created_at": datetime.fromisoformat(key["createdAt"]),
        "expires_at": datetime(2198, 12, 31, 22, tzinfo=UTC),
        "last_used_at": None,
        "revoked_at": None,
    }


def test_keys_are_paged_the_newest_first(own: httpx.Client) -> None:
    second, third = (made(own)["key"] for _ in range(2))
    page = own.get("/keys", params={"limit": 1}).json()["keys"]
    rest = own.get("/keys", params={"before": third["createdAt"]}).json()["keys"]
    assert (page, rest[0], len(rest)) == ([third], second, 2)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "x", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"name": "x", "expiresAt": "0001-01-01T00:00:00+14:00"}, "expiresAt"),
        ({"name": "x", "expiresAt": "2199-01-01T00:00:00"}, "expiresAt"),
        ({"name": "x", "expiresAt": "9999-12-31T23:59:59-14:00"}, "expiresAt"),
    ],
)
def test_a_key_that_does_not_validate_is_refused(
    own: httpx.Client, body: dict[str, str], field: str
) -> None:
    answer = own.post("/keys", json=body)
    assert answer.status_code == 400
    assert [issue["path"] for issue in answer.json()["error"]["issues"]] == [[field]]
    assert len(own.get("/keys").json()["keys"]) == 1


def test_a_revoked_key_is_refused_at_once_by_every_process(
    guarded: Service, start_service: ServiceFactory, own: httpx.Client
) -> None:
    new = made(own)
    path = f"/keys/{new['key']['id']}"
    settings = guarded.settings.model_dump(include={"database_url", "api_key", "openai_model"})
    base_url = guarded.settings.openai_base_url
    with (
        start_service(**settings, openai_base_url=base_url) as second,
        second.client(**{"X-API-Key": new["secret"]}) as there,
    ):
        assert there.get("/projects").status_code == 200
        assert own.delete(path).status_code == 204
        assert there.get("/projects").status_code == 401
    assert own.delete(path).status_code == 204
    assert new["key"]["id"] not in own.get("/keys").text


def test_a_key_that_is_not_valid_is_answered_like_one_that_never_was(
    guarded: Service, ada: Principal, own: httpx.Client
) -> None:
    revoked, expired = made(own), made(own)
    own.delete(f"/keys/{revoked['key']['id']}")
    with guarded.changing() as database:
        database.execute(
            "update api_keys set expires_at = now() where id = %s", (expired["key"]["id"],)
        )
    secrets = {
        "unknown": new_key(guarded, ada)[:-4] + "0000",
        "guessed": "guess",
        "cut": revoked["secret"][:-1],
        "revoked": revoked["secret"],
        "expired": expired["secret"],
        "of the local user": new_key(guarded, LOCAL_USER),
    }
    for path in ("/projects", "/api/v1/document-types"):
        answers = set()
        for secret in secrets.values():
            with guarded.client(**{"X-API-Key": secret}) as http:
                answer = http.get(path)
            del answer.headers["date"]
            answers.add((answer.status_code, answer.content, tuple(answer.headers.items())))
        [(status, content, _)] = answers
        assert status == (401 if path == "/projects" else 403)
        assert b"The key in X-API-Key is unknown, has expired or was revoked." in content


def test_with_a_key_its_user_calls_both_apis_and_reads_streams(
    own: httpx.Client, ada: Principal, root: httpx.Client
) -> None:
    project = own.post("/projects", json={"name": "Harbour"}).json()["project"]
    access = {key: project[key] for key in ("ownerId", "accessTier", "accessSource")}
    assert access == {"ownerId": str(ada.id), "accessTier": "full", "accessSource": "owner"}
    chat = f"/chat/projects/{project['id']}"
    asked = read(own, "POST", chat, json={"message": "Why?"})
    ids = {"conversation_id": str(uuid.uuid4()), "project_id": project["id"]}
    drafted = read(own, "POST", "/api/v1/chat/stream", json={"message": "Why?", **ids})
    assert [names(asked)[-1], names(drafted)[-1]] == ["done", "done"]
    assert own.get("/api/v1/document-types").status_code == 200

    foreign = root.post("/projects", json={"name": "Not hers"}).json()["project"]["id"]
    assert own.get(f"/projects/{foreign}").status_code == 404
    assert own.get("/audit").status_code == 403


def test_a_key_has_the_rights_and_groups_that_its_user_has_now(
    guarded: Service, ada: Principal, own: httpx.Client, root: httpx.Client
) -> None:
    foreign = root.post("/projects", json={"name": "Not hers"}).json()["project"]["id"]
    assert own.get(f"/projects/{foreign}").status_code == 404
    group = uuid.uuid4()
    with guarded.changing() as database:
        database.execute("update users set is_admin = true where id = %s", (ada.id,))
        database.execute("insert into groups (id, name) values (%s, 'Port')", (group,))
        database.execute(
            "insert into memberships (user_id, group_id) values (%s, %s)", (ada.id, group)
        )
    assert own.get(f"/projects/{foreign}").status_code == 200
    secret = own.headers["X-API-Key"]
    owner = with_pool(guarded, lambda pool: owner_of(pool, secret))
    assert owner == replace(ada, is_admin=True, groups=(group,), by_own_key=True)


def test_a_key_of_somebody_else_is_as_if_there_were_none(
    guarded: Service, own: httpx.Client, root: httpx.Client
) -> None:
    bob = new_user(guarded, "Bob")
    secret = new_key(guarded, bob)
    path = f"/keys?userId={bob.id}"
    [key] = root.get(path).json()["keys"]
    foreign, unknown = (own.delete(f"/keys/{one}") for one in (key["id"], uuid.uuid4()))
    assert (foreign.status_code, foreign.content) == (404, unknown.content)
    seen, unseen = own.get(path), own.get(f"/keys?userId={uuid.uuid4()}")
    assert (seen.status_code, seen.content) == (404, unseen.content)
    assert root.get(f"/keys?userId={uuid.uuid4()}").content == unseen.content

    with guarded.client(**{"X-API-Key": secret}) as http:
        assert http.get(path).json()["keys"][0]["id"] == key["id"]
        assert root.delete(f"/keys/{key['id']}").status_code == 204
        assert http.get(path).status_code == 401


def test_a_user_has_at_most_fifty_keys_also_when_they_ask_at_once(
    guarded: Service, ada: Principal, own: httpx.Client
) -> None:
    gone = made(own)["key"]["id"]
    own.delete(f"/keys/{gone}")
    with guarded.changing() as database:
        database.execute(
            "insert into api_keys (id, user_id, name, prefix, hash, expires_at)"
            " select gen_random_uuid(), %s, 'x', 'x', sha256(gen_random_uuid()::text::bytea),"
            " case when one > 48 then now() end from generate_series(1, 50) as one",
            (ada.id,),
        )
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: own.post("/keys", json={"name": "x"}), range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
    [error] = {answer.json()["error"] for answer in answers if answer.status_code == 409}
    assert error == "too_many_keys"


def test_the_time_of_use_is_written_once_a_minute(
    guarded: Service, ada: Principal, own: httpx.Client
) -> None:
    def used_after(seconds: int) -> timedelta:
        with guarded.changing() as database:
            database.execute(
                "update api_keys set last_used_at = now() - %s where user_id = %s",
                (timedelta(seconds=seconds), ada.id),
            )
        [key] = own.get("/keys").json()["keys"]
        return datetime.now(UTC) - datetime.fromisoformat(key["lastUsedAt"])

    assert own.get("/keys").json()["keys"][0]["lastUsedAt"] is not None
    assert used_after(50) > timedelta(seconds=40)
    assert used_after(61) < timedelta(seconds=10)


def test_the_service_may_have_keys_and_remains_an_admin_with_them(
    guarded: Service, root: httpx.Client
) -> None:
    secret = made(root)["secret"]
    owner = with_pool(guarded, lambda pool: owner_of(pool, secret))
    assert owner == replace(SERVICE, by_own_key=True)


def test_a_key_makes_no_further_keys(guarded: Service, ada: Principal) -> None:
    """They would outlive it."""
    with guarded.client(**{"X-API-Key": new_key(guarded, ada)}) as http:
        refused = http.post("/keys", json={"name": "Laptop"})
        assert (refused.status_code, refused.json()) == (
            403,
            {
                "error": "forbidden",
                "message": "A key of one's own cannot make further keys. Send a token, or the "
                "API_KEY of the service.",
            },
        )


def test_where_nobody_needs_a_key_nobody_gets_one(http: httpx.Client) -> None:
    refused = http.post("/keys", json={"name": "Laptop"})
    assert (refused.status_code, refused.json()) == (
        409,
        {
            "error": "no_credentials_set",
            "message": "Nobody needs a key here, for no credentials are set. "
            "Set API_KEY, JWT_SECRET or JWT_JWKS_URL first.",
        },
    )
    assert http.get("/keys").json() == {"keys": []}
