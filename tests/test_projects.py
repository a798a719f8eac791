"""Projects and who may do what: the local user, the service's key, and the open door."""

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from callers import new_key, new_user
from conftest import ServiceFactory, upload
from sse import read
from standins.openai import OpenAIStandIn

from api.settings import Settings, SettingsError, load_settings, warn_of_misspelt

KEY = "a-long-enough-key"
_SECRET = "a secret of more than thirty-two bytes"


def test_a_project_is_made_read_changed_and_listed(http: httpx.Client) -> None:
    made = http.post(
        "/projects",
        json={"name": "\u202eHar\u200fbour\n <scr\u202eipt>x</script>", "color": "#12abEF"},
    ).json()["project"]
    times = {"createdAt": made.pop("createdAt"), "updatedAt": made.pop("updatedAt")}
    assert made == {
        "id": made["id"],
        "name": "Harbour",
        "description": "",
        "color": "#12abEF",
        "isPrivate": True,
        "instructions": "",
        "settings": {"model": None, "temperature": None, "topK": None},
        "ownerId": made["ownerId"],
        "accessTier": "full",
        "accessSource": "platform",
        "_count": {"documents": 0, "conversations": 0},
    }
    change = {"name": "Port", "settings": {"topK": 3}, "isPrivate": False}
    changed = http.patch(f"/projects/{made['id']}", json=change).json()["project"]
    assert changed.pop("updatedAt") > times["updatedAt"]
    assert changed == {
        **made,
        "createdAt": times["createdAt"],
        "name": "Port",
        "isPrivate": False,
        "settings": {"model": None, "temperature": None, "topK": 3},
    }
    assert http.get(f"/projects/{made['id']}").json()["project"]["name"] == "Port"
    assert http.get("/projects", params={"limit": 1}).json()["projects"][0]["id"] == made["id"]


def test_active_html_is_taken_out_of_descriptions(http: httpx.Client) -> None:
    body = {"name": "x", "description": "List<String><script>x</script>"}
    made = http.post("/projects", json=body).json()["project"]
    change = {"description": "<img src=a onerror=b>"}
    changed = http.patch(f"/projects/{made['id']}", json=change).json()["project"]
    assert (made["description"], changed["description"]) == ("List<String>", "<img src=a>")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, ["name"]),
        ({"name": "  "}, ["name"]),
        ({"name": "x", "color": "red"}, ["color"]),
        ({"name": "x", "settings": {"topK": 0}}, ["settings", "topK"]),
        ({"name": "x", "settings": {"temperature": 3}}, ["settings", "temperature"]),
    ],
)
def test_a_project_that_does_not_validate_is_refused(
    http: httpx.Client, body: dict[str, Any], path: list[str]
) -> None:
    answer = http.post("/projects", json=body)
    assert answer.status_code == 400
    assert [issue["path"] for issue in answer.json()["error"]["issues"]] == [path]


def test_settings_that_a_change_leaves_out_stay(http: httpx.Client, project: str) -> None:
    path = f"/projects/{project}"
    http.patch(path, json={"settings": {"temperature": 0.2, "model": "a\u0000b"}})
    changed = http.patch(path, json={"settings": {"topK": 2}}).json()["project"]
    assert changed["settings"] == {"model": "ab", "temperature": 0.2, "topK": 2}
    refused = http.patch(path, json={"ownerId": str(uuid.uuid4())})
    issue = {"path": ["ownerId"], "message": "is the id of no user", "code": "value_error"}
    assert (refused.status_code, refused.json()) == (
        400, {"success": False, "error": {"name": "ZodError", "issues": [issue]}}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("is_private", "tier", "source"), [(True, "full", "owner"), (False, "use", "public")]
)
def test_who_hands_a_project_over_is_answered_with_it(
    start_service: ServiceFactory, *, is_private: bool, tier: str, source: str
) -> None:
    """Once more as its owner, where they see nothing of it from then on."""
    with start_service(jwt_secret=_SECRET) as service:
        ann, bob = new_user(service, "ann"), new_user(service, "bob")
        with service.client(**{"X-API-Key": new_key(service, ann)}) as http:
            body = {"name": "Harbour", "isPrivate": is_private}
            made = http.post("/projects", json=body).json()["project"]
            path = f"/projects/{made['id']}"
            given = http.patch(path, json={"ownerId": str(bob.id)})
            afterwards = http.get(path).status_code
    assert given.status_code == 200, given.text
    project = given.json()["project"]
    assert project == {
        **made,
        "ownerId": str(bob.id),
        "updatedAt": project["updatedAt"],
        "accessTier": tier,
        "accessSource": source,
    }
    assert afterwards == (404 if is_private else 200)


def test_an_erased_project_is_gone_with_all_that_was_in_it(http: httpx.Client) -> None:
    project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
    document = upload(http, project, "a.md", b"# A\n\nSome words.")
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": "words"})
    chunk = events[1].data["chunks"][0]["id"]

    assert http.delete(f"/projects/{project}").status_code == 204

    gone = [
        f"/projects/{project}",
        f"/documents/{document['id']}",
        f"/documents/projects/{project}",
        f"/chat/conversations/{events[0].data['conversationId']}",
        f"/chat/chunks/{chunk}/source",
        f"/runs/{events[0].data['messageId']}",
    ]
    assert [http.get(path).status_code for path in gone] == [404] * 6


def test_with_a_key_nobody_gets_in_without_it(
    start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    with start_service(api_key=KEY, **settings) as service, service.client() as http:
        right, wrong = {"X-API-Key": KEY}, {"X-API-Key": "guess"}
        assert http.get("/projects", headers=right).status_code == 200
        for headers in ({}, wrong):
            refused = http.get("/projects", headers=headers)
            assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized")
            drafting = http.get("/api/v1/document-types", headers=headers)
            assert (drafting.status_code, set(drafting.json())) == (403, {"detail"})
        closed = [
            path
            for path, operations in service.app.openapi()["paths"].items()
            if "get" in operations and "{" not in path
        ]
        assert {path for path in closed if http.get(path).status_code < 400} == {
            "/", "/api/v1/system/health",
        }  # fmt: skip
        assert [http.get(path).status_code for path in ("/docs", "/openapi.json")] == [401, 401]
        assert http.get("/docs", headers=right).status_code == 200


def test_a_key_may_have_letters_beyond_ascii(start_service: ServiceFactory) -> None:
    """Clients send them in UTF-8, as they stand in the environment."""
    key = "schlüssel-日本"
    with start_service(api_key=key) as service, service.client() as http:
        sent = [key.encode(), key.encode()[:-1], b"schl\xfcssel"]
        answers = [http.get("/projects", headers={"X-API-Key": each}) for each in sent]
    assert [answer.status_code for answer in answers] == [200, 401, 401]


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"port": "many"}, "PORT"),
        ({"log_level": "LOUD"}, "LOG_LEVEL"),
        ({"openai_base_url": "http://x"}, "OPENAI_MODEL"),
        ({"chroma_url": "localhost:8001"}, "CHROMA_URL"),
        ({"database_url": "localhost:5432/archwright"}, "DATABASE_URL"),
        ({"templates_dir": "/nowhere/at/all"}, "TEMPLATES_DIR"),
        ({"api_key": "  "}, "API_KEY"),
        ({"embedding_model": "x"}, "EMBEDDING_BASE_URL"),
        ({"cors_origin_regex": "("}, "CORS_ORIGIN_REGEX"),
        ({"llm_connect_timeout_s": "inf"}, "LLM_CONNECT_TIMEOUT_S"),
        ({"llm_first_token_timeout_s": "inf"}, "LLM_FIRST_TOKEN_TIMEOUT_S"),
        ({"llm_idle_timeout_s": "1e300"}, "LLM_IDLE_TIMEOUT_S"),
        ({"run_retention_minutes": "inf"}, "RUN_RETENTION_MINUTES"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_it(values: dict[str, Any], names: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(**values)
    assert names in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "chroma_url",
        "embedding_base_url",
        "jwt_jwks_url",
        "openai_base_url",
        "otel_exporter_otlp_endpoint",
        "rerank_base_url",
        "tavily_base_url",
    ],
)
@pytest.mark.parametrize(
    "value",
    [
        "http://h:port/v1",
        "http://127.0.0.1:99999/v1",
        "http://h:0",
        "http://h:-1",
        "http://[::1/v1",
        "http://[::1]x/v1",
        "http://ann:[hush]@h/v1",
        "http://ann:hu[sh@h/v1",
        "http://ann:hush#1@h/v1",
        "http://h\t/v1",
        "http://a..b/v1",
        "h:8000",
    ],
)
def test_an_address_that_leads_nowhere_is_refused_without_its_password(
    name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(**{name: value})
    assert str(caught.value) == (
        f"{name.upper()}: must be an address as https://example.com/v1 or http://127.0.0.1:8080"
    )


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://ann:hush@h:port/x",
        "postgresql://ann:hush@h:99999/x",
        "postgresql://ann:hush@h:0/x",
        "postgresql://ann:hush@h1:1,h2:two/x",
        "postgresql://ann:hush@[::1/x",
        "postgresql://ann:hush%zz@h/x",
        "postgresql://ann:hu/sh@h:5432/x",
        "postgresql://ann:hush@h/x?nope=1",
        "host=h dbname=x",
    ],
)
def test_a_database_that_leads_nowhere_is_refused_without_its_password(value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(database_url=value)
    assert str(caught.value) == (
        "DATABASE_URL: must be an address as postgresql://user:password@host:5432/name, with "
        "signs in its parts percent-encoded"
    )


@pytest.mark.parametrize(
    "value",
    [
        "postgres://h",
        "postgresql:///x?host=/tmp/sockets",
        "postgresql://ann:hu%2Fsh@h:5432/x?sslmode=require",
        "postgresql://ann@h1:5432,h2:5433/x",
        "postgresql://ann@[::1]:5432/x",
        "postgresql://ann@h:/x",
    ],
)
def test_every_address_of_a_database_that_postgres_reads_is_taken(value: str) -> None:
    url = load_settings(database_url=value).database_url
    assert url is not None
    assert url.get_secret_value() == value


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            b'PORT=8000\n\nAPI_KEY="lost\n',
            ".env: line 3 cannot be read. A line is NAME=value, and a quote that opens must close.",
        ),
        (
            b"PORT 8000\n",
            ".env: line 1 cannot be read. A line is NAME=value, and a quote that opens must close.",
        ),
        ("PORT=8000\n".encode("utf-16"), ".env: it is no text in UTF-8. Save it as such."),
    ],
)
def test_a_file_of_settings_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == sentence


def test_a_file_of_settings_may_come_from_any_editor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = ["\ufeff# ours", "", "export PORT=8111", "OPENAI_MODEL", "LOG_LEVEL='DEBUG' # loud", ""]
    (tmp_path / ".env").write_text("\r\n".join(lines), "utf-8", newline="")
    settings = load_settings()
    assert (settings.port, settings.openai_model, settings.log_level) == (8111, None, "DEBUG")


def test_a_misspelt_name_in_the_file_of_settings_is_told_without_its_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_MODELL", "hush")
    lines = ["DATABASE_ULR=hush", "openai_base_ur=hush", "log_level=INFO", "GRAFANA_TOKEN=hush"]
    (tmp_path / ".env").write_text("\n".join(lines))
    warn_of_misspelt()
    assert caplog.messages == [
        ".env: there is no setting DATABASE_ULR; the nearest is DATABASE_URL",
        ".env: there is no setting openai_base_ur; the nearest is OPENAI_BASE_URL",
    ]


def test_another_servers_name_for_the_number_of_processes_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    warn_of_misspelt()
    assert caplog.messages == ["WEB_CONCURRENCY is not read: set WORKERS for several processes"]


@pytest.mark.parametrize(
    ("values", "opens"),
    [
        ({"host": "127.0.0.1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "api_key": KEY}, True),
        ({"host": "0.0.0.0", "allow_anonymous": True}, True),
    ],
)
def test_the_door_is_not_left_open_to_others(values: dict[str, Any], opens: bool) -> None:
    settings = Settings(_env_file=None, **values)
    if opens:
        settings.refuse_open_door()
        return
    with pytest.raises(SettingsError, match="API_KEY"):
        settings.refuse_open_door()


def test_a_body_over_the_limit_is_413_in_each_shape(http: httpx.Client, project: str) -> None:
    big = {"message": "x", "metadata": {"a": "b" * 10_500_000}}
    camel = http.post(f"/chat/projects/{project}", json=big)
    snake = http.post("/api/v1/chat/stream", json=big)
    assert (camel.status_code, camel.json()["error"]) == (413, "too_large")
    assert (snake.status_code, set(snake.json())) == (413, {"detail"})

    def pieces() -> Any:
        for _ in range(12):
            yield b"a" * 1_000_000

    unannounced = http.post("/api/v1/chat/stream", content=pieces())
    assert (unannounced.status_code, set(unannounced.json())) == (413, {"detail"})


def test_what_is_not_there_is_told_in_each_shape(http: httpx.Client) -> None:
    camel, snake = http.get("/nothing"), http.get("/api/v1/nothing")
    assert (camel.status_code, camel.json()["error"]) == (404, "not_found")
    assert (snake.status_code, set(snake.json())) == (404, {"detail"})
    wrong = http.put("/projects", json={})
    assert (wrong.status_code, wrong.json()["error"]) == (405, "method_not_allowed")


def test_a_page_that_points_its_own_name_at_this_address_gets_nothing(http: httpx.Client) -> None:
    """DNS rebinding: without credentials, only the names of loopback are served."""
    for host in ("evil.example", "evil.example:8000", "[", "127.0.0.1.evil.example"):
        refused = http.get("/projects", headers={"Host": host})
        assert (refused.status_code, refused.json()["error"]) == (400, "bad_host")
    port = http.base_url.port
    assert http.get("/projects", headers={"Host": f"localhost:{port}"}).status_code == 200
    assert http.get("/projects", headers={"Host": f"[::1]:{port}"}).status_code == 200


def test_a_page_from_elsewhere_cannot_act_as_the_local_user(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    """A browser sends such requests without asking first, and needs no answer for the harm."""
    asked = '{"input": {"messages": [{"role": "user", "content": "Why?"}]}}'
    own = str(http.base_url).rstrip("/")
    for origin in ("https://evil.example", "null", "http://localhost.evil.example", "http://["):
        page = {"Origin": origin, "Content-Type": "text/plain"}
        refused = http.post("/langserve/pipeline/invoke", content=asked, headers=page)
        assert (refused.status_code, refused.json()["error"]) == (403, "foreign_origin")
    assert model.requests == []
    for origin in (own, "http://localhost:3000"):
        assert http.get("/projects", headers={"Origin": origin}).status_code == 200
