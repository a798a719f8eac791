"""Providers that admins enter: who sees what, which model answers, and where keys go."""

import asyncio
import logging
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from conftest import Service, ServiceFactory
from pydantic import SecretStr
from sse import read
from standins.openai import Answer, OpenAIStandIn
from timed import timed

from api.provider_models import shown_to_admins
from graph.offers import guarded_chat
from graph.postgres import open_pool
from graph.providers import ModelEntry, Provider, Providers
from graph.secrets import Secrets

FIRST, SECOND, FOREIGN = (f"{name}-{'0123456789' * 2}" for name in ("first", "second", "foreign"))
NEAR_KEY, FAR_KEY, OWN_KEY = "sk-canary-near-0001", "sk-canary-far-0002", "sk-canary-own-0003"


@dataclass
class Desk:
    """A service with a provider of its environment, and two more to enter."""

    service: Service
    http: httpx.Client
    project: str
    own: OpenAIStandIn
    near: OpenAIStandIn
    far: OpenAIStandIn

    def body(self, which: str, /, **changes: Any) -> dict[str, Any]:
        """What an admin enters for `near` or `far`."""
        near = which == "near"
        return {
            "name": which.title(),
            "slug": which,
            "baseUrl": (self.near if near else self.far).base_url,
            "apiKey": NEAR_KEY if near else FAR_KEY,
            "models": ["small", f"{which}-only"],
            **changes,
        }

    def enter(self, which: str, /, **changes: Any) -> dict[str, Any]:
        """Enter `near` or `far`; gives the provider as admins see it."""
        answer = self.http.post("/providers", json=self.body(which, **changes))
        assert answer.status_code == 201, answer.text
        return dict(answer.json()["provider"])

    def change(self, provider: dict[str, Any], **changes: Any) -> httpx.Response:
        """Patch a provider."""
        return self.http.patch(f"/providers/{provider['id']}", json=changes)

    def try_out(self, provider_id: str, **body: Any) -> httpx.Response:
        """Test a provider."""
        return self.http.post(f"/providers/{provider_id}/test", json={"model": "small", **body})

    def ask(self, model: str | None = None, http: httpx.Client | None = None) -> tuple[str, Any]:
        """The model that `meta` names, and the last event."""
        body = {"message": "Why?", "modelId": model}
        events = read(http or self.http, "POST", f"/chat/projects/{self.project}", json=body)
        return str(events[0].data["model"]), events[-1].data

    def asked(self) -> list[tuple[str, str, str]]:
        """Who was asked since the last call, for which model, and with which credentials."""
        found = []
        for name in ("own", "near", "far"):
            standin: OpenAIStandIn = getattr(self, name)
            for chat in standin.chats:
                found.append((name, chat.body["model"], chat.headers["authorization"]))
            standin.reset()
        return found

    def own_id(self) -> str:
        """The id of the environment's provider."""
        listed = self.http.get("/providers/admin").json()["providers"]
        return next(one["id"] for one in listed if one["isReadOnly"])


@pytest.fixture(scope="module")
def opened(start_service: ServiceFactory) -> Iterator[Desk]:
    with (
        OpenAIStandIn() as own,
        OpenAIStandIn() as near,
        OpenAIStandIn() as far,
        start_service(
            openai_base_url=own.base_url,
            openai_api_key=OWN_KEY,
            openai_model="own-model",
            secret_key=f"{FIRST},{SECOND}",
            llm_first_token_timeout_s=5,
        ) as service,
        service.client() as http,
    ):
        made = http.post("/projects", json={"name": "Harbour"})
        yield Desk(service, http, made.json()["project"]["id"], own, near, far)


@pytest.fixture
def desk(opened: Desk) -> Iterator[Desk]:
    opened.asked()
    yield opened
    for provider in opened.http.get("/providers/admin").json()["providers"]:
        if not provider["isReadOnly"]:
            assert opened.http.delete(f"/providers/{provider['id']}").status_code == 204


def read_only(desk: Desk, *, is_default: bool) -> dict[str, Any]:
    return {
        "id": desk.own_id(),
        "name": "Environment",
        "slug": "default",
        "baseUrl": desk.own.base_url,
        "apiKey": "sk-…0003",
        "models": [
            {"name": "own-model", "contextWindow": None, "inputPrice": None, "outputPrice": None}
        ],
        "isDefault": is_default,
        "isFallback": False,
        "isEnabled": True,
        "isReadOnly": True,
        "problem": None,
        "createdAt": None,
        "updatedAt": None,
    }


# Who sees what


def test_without_rows_there_is_the_provider_of_the_environment(desk: Desk) -> None:
    own = desk.own_id()
    assert desk.http.get("/providers").json() == {
        "providers": [
            {
                "id": own,
                "name": "Environment",
                "slug": "default",
                "models": ["own-model"],
                "isDefault": True,
                "isEnabled": True,
            }
        ]
    }
    assert desk.http.get("/providers/models").json() == {
        "models": [
            {
                "id": "default/own-model",
                "model": "own-model",
                "provider": "Environment",
                "providerSlug": "default",
                "providerId": own,
                "isDefault": True,
            }
        ]
    }
    assert desk.http.get("/providers/admin").json() == {
        "providers": [read_only(desk, is_default=True)]
    }


def test_admins_see_what_was_entered_and_others_see_less(desk: Desk) -> None:
    priced = {"name": "big", "contextWindow": 9000, "inputPrice": 0.5, "outputPrice": 2}
    near = desk.enter(
        "near",
        name="\u202eNe\u200far\n",
        models=["small\u202e", priced],
        isDefault=True,
        isFallback=True,
    )
    far = desk.enter("far", isEnabled=False)

    unset = {"contextWindow": None, "inputPrice": None, "outputPrice": None}
    assert near == {
        "id": near["id"],
        "name": "Near",
        "slug": "near",
        "baseUrl": desk.near.base_url,
        "apiKey": "sk-…0001",
        "models": [{"name": "small", **unset}, {**priced, "outputPrice": 2.0}],
        "isDefault": True,
        "isFallback": True,
        "isEnabled": True,
        "isReadOnly": False,
        "problem": None,
        "createdAt": near["createdAt"],
        "updatedAt": near["createdAt"],
    }
    assert desk.http.get("/providers/admin").json() == {
        "providers": [near, read_only(desk, is_default=False), far]
    }
    assert desk.http.get("/providers").json()["providers"][0] == {
        "id": near["id"],
        "name": "Near",
        "slug": "near",
        "models": ["small", "big"],
        "isDefault": True,
        "isEnabled": True,
    }
    models = desk.http.get("/providers/models").json()["models"]
    assert [(one["id"], one["providerId"], one["isDefault"]) for one in models] == [
        ("near/small", near["id"], True),
        ("near/big", near["id"], False),
        ("default/own-model", desk.own_id(), False),
    ]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        (None, None),
        ("sk-eleven89", "…"),
        ("sk-twelve890", "sk-…e890"),
        ("abcdefgh1234", "…1234"),
    ],
)
def test_a_key_shows_no_more_than_its_end(key: str | None, shown: str | None) -> None:
    given = SecretStr(key) if key else None
    provider = Provider("A", "a", "http://u:pw@h/v1", (ModelEntry("m"),), given)
    seen = shown_to_admins(provider)
    assert (seen.api_key, seen.base_url) == (shown, "http://h/v1")
    assert not key or key not in repr(provider)


# What may be entered


@pytest.mark.parametrize(
    ("changes", "path", "message"),
    [
        ({"slug": "Near"}, "slug", "String should match pattern '^[a-z0-9]+(-[a-z0-9]+)*$'"),
        ({"slug": "a--b"}, "slug", "String should match pattern '^[a-z0-9]+(-[a-z0-9]+)*$'"),
        (
            {"slug": "default"},
            "slug",
            "'default' is the provider of the service's own settings",
        ),
        (
            {"slug": "embedded"},
            "slug",
            "'embedded' is the provider of the service's own settings",
        ),
        ({"models": []}, "models", "List should have at least 1 item after validation, not 0"),
        ({"models": ["a", {"name": " a "}]}, "models", "must name each model once"),
        ({"models": [" "]}, "models.0.name", "must not be blank"),
        (
            {"models": [{"name": "a", "contextWindow": 511}]},
            "models.0.contextWindow",
            "Input should be greater than or equal to 512",
        ),
        (
            {"models": [{"name": "a", "inputPrice": -1}]},
            "models.0.inputPrice",
            "Input should be greater than or equal to 0",
        ),
        (
            {"models": [{"name": "a", "inputPrice": 1}]},
            "models.0",
            "inputPrice and outputPrice must be given together",
        ),
        (
            {"apiKey": "sk-…0001"},
            "apiKey",
            "must be the key as the provider gave it, on one line of ASCII",
        ),
    ],
)
def test_what_cannot_be_is_refused(
    desk: Desk, changes: dict[str, Any], path: str, message: str
) -> None:
    answer = desk.http.post("/providers", json=desk.body("near", **changes))
    [issue] = answer.json()["error"]["issues"]
    assert answer.status_code == 400
    assert (".".join(map(str, issue["path"])), issue["message"]) == (path, message)


@pytest.mark.parametrize(
    "url",
    [
        *("ftp://h/v1", "h/v1", "http://", "http://u:p@h/v1", "http://h/v1?key=k", "http://h/#a"),
        *("http://a\tb/v1", "http://h:99999/v1", "http://h:0/v1", "http://[::1/v1", "http://ü/v1"),
    ],
)
def test_an_address_that_is_none_is_refused(desk: Desk, url: str) -> None:
    answer = desk.http.post("/providers", json=desk.body("near", baseUrl=url))
    assert answer.status_code == 400, answer.text


def test_a_slug_is_given_once(desk: Desk) -> None:
    desk.enter("near")
    far = desk.enter("far")
    taken = {
        "error": "slug_taken",
        "message": "Another provider has the slug 'near'. Choose another one.",
    }
    for answer in (
        desk.http.post("/providers", json=desk.body("near")),
        desk.change(far, slug="near"),
    ):
        assert (answer.status_code, answer.json()) == (409, taken)


def test_the_default_stays_enabled_and_may_be_deleted(desk: Desk) -> None:
    near = desk.enter("near", isDefault=True)
    answer = desk.change(near, isEnabled=False)
    assert (answer.status_code, answer.json()) == (
        409,
        {
            "error": "default_disabled",
            "message": "The default provider cannot be disabled. "
            "Make another one the default first.",
        },
    )
    assert desk.ask()[0] == "small"
    desk.http.delete(f"/providers/{near['id']}")
    assert desk.ask()[0] == "own-model"


def test_an_unknown_provider_is_not_found(desk: Desk) -> None:
    gone = f"/providers/{uuid.uuid4()}"
    answers = [
        desk.http.patch(gone, json={}),
        desk.http.delete(gone),
        desk.http.post(f"{gone}/test", json={"model": "small"}),
    ]
    expected = (404, {"error": "not_found", "message": "There is no such provider."})
    assert [(answer.status_code, answer.json()) for answer in answers] == [expected] * 3


def test_the_provider_of_the_environment_is_read_only(desk: Desk) -> None:
    own = f"/providers/{desk.own_id()}"
    for answer in (desk.http.patch(own, json={"name": "Mine"}), desk.http.delete(own)):
        assert (answer.status_code, answer.json()) == (
            409,
            {
                "error": "read_only",
                "message": "This provider is made by the service's settings. Change "
                "OPENAI_BASE_URL, OPENAI_API_KEY and OPENAI_MODEL (or LOCAL_MODEL_PATH) and "
                "start the service again.",
            },
        )


def test_many_who_make_theirs_the_default_leave_one(desk: Desk) -> None:
    entered = [desk.enter("near", slug=f"near-{n}", isDefault=n == 0) for n in range(6)]
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda one: desk.change(one, isDefault=True), entered))
    assert [answer.status_code for answer in answers] == [200] * 6
    listed = desk.http.get("/providers/admin").json()["providers"]
    assert sum(one["isDefault"] for one in listed) == 1


# Which model answers


def test_the_asked_model_answers_with_its_providers_key(desk: Desk) -> None:
    desk.enter("near")
    desk.enter("far", isDefault=True)
    models = [None, "small", "near/small", "near-only", "default/own-model", "own-model"]
    for model in models:
        desk.ask(model)
    assert sorted(desk.asked()) == sorted(
        [
            ("far", "small", f"Bearer {FAR_KEY}"),
            ("far", "small", f"Bearer {FAR_KEY}"),
            ("near", "small", f"Bearer {NEAR_KEY}"),
            ("near", "near-only", f"Bearer {NEAR_KEY}"),
            ("own", "own-model", f"Bearer {OWN_KEY}"),
            ("own", "own-model", f"Bearer {OWN_KEY}"),
        ]
    )


def test_what_an_answer_cost_is_told_by_the_prices_of_its_model(desk: Desk) -> None:
    priced = {"name": "priced", "inputPrice": 2.5, "outputPrice": 10}
    desk.enter("near", models=[priced, "free"])
    used = desk.ask("near/priced")[1]["usage"]
    desk.ask("near/free")
    rows = desk.http.get("/usage", params={"projectId": desk.project}).json()["usage"]
    cost = (used["promptTokens"] * 2.5 + used["completionTokens"] * 10) / 1_000_000
    told = {(row["provider"], row["model"]): row["cost"] for row in rows}
    assert (told["near", "priced"], told["near", "free"]) == (cost, None)


def test_a_disabled_provider_is_not_asked_and_the_answer_says_so(desk: Desk) -> None:
    near = desk.enter("near", isEnabled=False)
    meta, done = desk.ask("near/small")
    assert (meta, done["warnings"]) == (
        "own-model",
        [
            {
                "code": "model_not_found",
                "message": "No enabled model is named 'near/small'; own-model was used.",
            }
        ],
    )
    desk.change(near, isEnabled=True)
    assert (desk.ask("near/small")[0], desk.ask("near/gone")[0]) == ("small", "own-model")
    assert [who for who, *_ in desk.asked()] == ["own", "own", "near"]


def test_a_change_holds_for_the_next_question_and_keeps_the_key(desk: Desk) -> None:
    near = desk.enter("near", isDefault=True)
    changed = desk.change(near, models=["other"], apiKey="", name="Nearer").json()["provider"]
    assert (changed["name"], changed["apiKey"]) == ("Nearer", "sk-…0001")
    desk.ask()
    desk.change(near, apiKey=FAR_KEY)
    desk.ask()
    assert desk.asked() == [
        ("near", "other", f"Bearer {NEAR_KEY}"),
        ("near", "other", f"Bearer {FAR_KEY}"),
    ]


def test_a_context_window_of_the_row_counts(desk: Desk) -> None:
    small = {"name": "small", "contextWindow": 512}
    desk.enter("near", models=[small], isDefault=True)
    body = {"message": "word " * 2000}
    events = read(desk.http, "POST", f"/chat/projects/{desk.project}", json=body)
    assert events[-1].name == "error"
    assert desk.asked() == []


# Where a key goes


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        ("https://a.example/v1", "https://a.example:8443/other", 200),
        ("http://a.example/v1", "https://A.example/v1", 200),
        ("https://a.example/v1", "http://a.example/v1", 400),
        ("https://a.example/v1", "https://b.example/v1", 400),
        ("https://a.example/v1", "https://a.example.evil.example/v1", 400),
    ],
)
def test_a_stored_key_stays_with_its_host(desk: Desk, old: str, new: str, status: int) -> None:
    entered = desk.enter("near", baseUrl=old)
    answer = desk.change(entered, baseUrl=new)
    assert answer.status_code == status
    if status == 400:
        refused = {
            "error": "api_key_required",
            "message": "The stored key is kept for the host that it was entered for. Give apiKey "
            "together with the new baseUrl.",
        }
        assert answer.json() == refused
        assert desk.try_out(entered["id"], baseUrl=new).json() == refused
        assert desk.change(entered, baseUrl=new, apiKey="sk-canary-new-0004").status_code == 200


def test_without_a_key_the_host_may_change(desk: Desk) -> None:
    near = desk.enter("near", apiKey=None, baseUrl="https://a.example/v1")
    assert near["apiKey"] is None
    assert desk.change(near, baseUrl=desk.near.base_url).status_code == 200
    assert desk.try_out(near["id"]).json()["ok"] is True
    assert desk.asked() == [("near", "small", "Bearer none")]


def test_the_environments_key_goes_to_its_own_address_only(desk: Desk) -> None:
    own = desk.own_id()
    for url in (desk.near.base_url, f"{desk.own.base_url}/more"):
        answer = desk.try_out(own, baseUrl=url)
        assert (answer.status_code, answer.json()["error"]) == (400, "api_key_required")
    desk.try_out(own)
    desk.try_out(own, baseUrl=desk.own.base_url)
    desk.try_out(own, baseUrl=desk.near.base_url, apiKey=NEAR_KEY)
    desk.try_out(own, apiKey=FAR_KEY)
    assert desk.asked() == [
        ("own", "small", f"Bearer {OWN_KEY}"),
        ("own", "small", f"Bearer {OWN_KEY}"),
        ("own", "small", f"Bearer {FAR_KEY}"),
        ("near", "small", f"Bearer {NEAR_KEY}"),
    ]


# Trying


def test_what_is_tried_is_not_stored(desk: Desk) -> None:
    near = desk.enter("near")
    desk.far.will(Answer(tokens=["Hello\x07\n", " there", "!" * 200]))
    answer = desk.try_out(near["id"], baseUrl=desk.far.base_url, apiKey=FAR_KEY, model="new").json()
    assert answer.pop("latencyMs") < 2000
    assert answer == {"ok": True, "status": 200, "sample": f"Hello there{'!' * 89}"}
    [chat] = desk.far.chats
    assert (chat.body["model"], chat.body["max_tokens"]) == ("new", 16)
    desk.try_out(near["id"])
    assert desk.asked() == [
        ("near", "small", f"Bearer {NEAR_KEY}"),
        ("far", "new", f"Bearer {FAR_KEY}"),
    ]


@pytest.mark.parametrize(
    ("answer", "status", "sample"),
    [
        (
            Answer(status=401, error={"message": f"The key {NEAR_KEY} is wrong."}),
            401,
            "401 Authentication Failed. Check the provider's API key.",
        ),
        (
            Answer(end="error_object", error={"message": NEAR_KEY}),
            None,
            "The model reported an error instead of an answer. Check the provider and the model.",
        ),
        (
            Answer(body=f"<h1>{NEAR_KEY}</h1>"),
            None,
            "The model's endpoint does not speak the OpenAI protocol. "
            "Check the provider's base URL.",
        ),
    ],
)
def test_what_failed_is_said_in_our_words(
    desk: Desk, answer: Answer, status: int | None, sample: str
) -> None:
    near = desk.enter("near")
    desk.near.will(answer)
    found = desk.try_out(near["id"]).json()
    assert {**found, "latencyMs": 0} == {
        "ok": False, "latencyMs": 0, "status": status, "sample": sample,
    }  # fmt: skip


def test_a_silent_endpoint_is_waited_for_in_bounds(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph.trials._PATIENCE_S", 0.2)
    near = desk.enter("near")
    desk.near.will(Answer(hang_before_headers=True))
    found = desk.try_out(near["id"]).json()
    assert (found["ok"], found["sample"]) == (False, "The model did not answer within 0.2 seconds.")


# Keys at rest


def stored_by(service: Service) -> list[bytes]:
    return [bytes(row["api_key"]) for row in service.query("select api_key from providers")]


@timed
def test_another_service_uses_a_change_within_two_seconds_and_encrypts_anew(
    desk: Desk, start_service: ServiceFactory
) -> None:
    near = desk.enter("near", isDefault=True)
    [before] = stored_by(desk.service)
    assert Secrets([SecretStr(FIRST)]).decrypt(before) == SecretStr(NEAR_KEY)
    twin_settings = {"openai_base_url": desk.own.base_url, "openai_model": "own-model"}
    with (
        start_service(
            database_url=desk.service.settings.database_url,
            secret_key=f"{SECOND},{FIRST}",
            **twin_settings,
        ) as twin,
        twin.client() as http,
    ):
        [after] = stored_by(desk.service)
        assert Secrets([SecretStr(SECOND)]).decrypt(after) == SecretStr(NEAR_KEY)
        assert desk.ask(http=http)[0] == "small"
        desk.change(near, models=["newer"], apiKey=FAR_KEY)
        began = asked_at = time.monotonic()
        while desk.ask(http=http)[0] != "newer":
            assert asked_at - began < 1.5
            time.sleep(0.05)
            asked_at = time.monotonic()
        assert desk.asked()[-1] == ("near", "newer", f"Bearer {FAR_KEY}")


def test_a_key_that_cannot_be_read_is_told_and_can_be_entered_again(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    near = desk.enter("near", isDefault=True, isFallback=True)
    foreign = Secrets([SecretStr(FOREIGN)]).encrypt(SecretStr(NEAR_KEY))
    with desk.service.changing() as connection:
        connection.execute("update providers set api_key = %s", (foreign,))
    desk.change(near)  # Has the rows read anew.
    problem = (
        "The key of the provider 'near' was encrypted with another SECRET_KEY. "
        "An admin must enter it again."
    )

    [shown, _] = desk.http.get("/providers/admin").json()["providers"]
    assert (shown["apiKey"], shown["problem"], shown["isEnabled"]) == ("…", problem, True)
    meta, error = desk.ask()
    assert (meta, error) == (
        "small",
        {"type": "error", "message": "LLM_CONNECTION_ERROR", "detail": problem},
    )
    assert desk.try_out(near["id"]).json() == {
        "ok": False, "latencyMs": 0, "status": None, "sample": problem,
    }  # fmt: skip
    assert desk.change(near, baseUrl="https://b.example/v1").status_code == 400
    assert [record.message for record in caplog.records].count(problem) == 1
    assert desk.asked() == []

    changed = desk.change(near, apiKey=NEAR_KEY).json()["provider"]
    assert (changed["apiKey"], changed["problem"]) == ("sk-…0001", None)
    desk.ask()
    assert desk.asked() == [("near", "small", f"Bearer {NEAR_KEY}")]


def test_keys_that_cannot_be_read_do_not_stop_the_rotation(desk: Desk) -> None:
    desk.enter("near")
    desk.enter("far")
    foreign = Secrets([SecretStr(FOREIGN)]).encrypt(SecretStr(NEAR_KEY))
    with desk.service.changing() as connection:
        connection.execute("update providers set api_key = %s where slug = 'near'", (foreign,))
    secrets = Secrets([SecretStr(SECOND), SecretStr(FIRST)])

    async def rotate_in_all() -> None:
        assert desk.service.settings.database_url is not None
        url = desk.service.settings.database_url.get_secret_value()
        async with open_pool(url, max_size=4) as pool:
            await asyncio.gather(*(Providers(pool, secrets).rotate() for _ in range(4)))

    asyncio.run(rotate_in_all())
    found = desk.service.query("select api_key from providers order by created_at")
    near, far = (bytes(row["api_key"]) for row in found)
    assert near == foreign
    assert Secrets([SecretStr(SECOND)]).decrypt(far) == SecretStr(FAR_KEY)


def test_no_key_gets_out(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    near = desk.enter("near", isDefault=True)
    answers = [desk.http.post("/providers", json=desk.body("near"))]
    desk.near.will(Answer(status=401, error={"message": f"Wrong: {NEAR_KEY}"}))
    told = [str(desk.ask())]
    answers += [desk.try_out(near["id"], apiKey=f"{FAR_KEY}\n…"), desk.try_out(near["id"])]
    answers += [desk.http.get(path) for path in ("/providers", "/providers/admin", "/openapi.json")]
    told += [answer.text for answer in answers]
    told += [record.getMessage() for record in caplog.records]
    told += [str(desk.service.query("select * from providers"))]
    url = desk.service.settings.database_url
    assert url is not None
    with (
        psycopg.connect(url.get_secret_value()) as connection,
        connection.cursor().copy("copy providers to stdout") as dump,
    ):
        told += [bytes(b"".join(dump)).decode()]
    parts = desk.service.app.state.parts
    told += [repr(parts.models.resolve("near/small", None)), repr(parts.settings)]
    row = Provider("Near", "near", desk.near.base_url, (ModelEntry("m"),), SecretStr(NEAR_KEY))
    told += [repr(guarded_chat(parts.settings, row)), repr(row)]
    assert "canary" not in "".join(told)
