"""The page as it is served, and what browsers are told with every kind of answer."""

import gzip
import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsers import ContextFactory
from conftest import Service, upload
from playwright.sync_api import expect
from standins.openai import Answer, OpenAIStandIn

import api.page
from api.browsers import HEADERS
from api.settings import PAGE

pytestmark = pytest.mark.slow

HTML = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
POLICY = "Content-Security-Policy"
OF_THE_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "require-trusted-types-for 'script'; trusted-types svelte-trusted-html dompurify; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
MOST_JAVASCRIPT = 150_000


def asset(kind: str) -> str:
    """The path of the page's main file of a kind."""
    [found] = re.findall(rf'"(/assets/index-[\w-]+\.{kind})"', (PAGE / "index.html").read_text())
    return str(found)


def told(answer: httpx.Response) -> dict[str, str | None]:
    """What an answer tells browsers."""
    return {name: answer.headers.get(name) for name in HEADERS}


# --- who gets what


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (HTML["Accept"], "text/html; charset=utf-8"),
        ("text/html", "text/html; charset=utf-8"),
        ("application/json, text/html;q=0.5", "application/json"),
        ("text/html;q=0", "application/json"),
        ("text/html;q=much", "text/html; charset=utf-8"),
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("", "application/json"),
    ],
)
def test_browsers_get_the_page_and_everybody_else_what_answers_here(
    http: httpx.Client, accept: str, kind: str
) -> None:
    answer = http.get("/", headers={"Accept": accept})
    assert (answer.headers["Content-Type"], answer.headers["Vary"]) == (
        kind, "Accept, Accept-Encoding, Origin"
    )  # fmt: skip
    if kind == "application/json":
        assert answer.json().keys() == {"name", "version", "status", "docs", "api_v1"}


def test_without_the_page_everybody_gets_what_answers_here(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.page, "PAGE", tmp_path)
    assert http.get("/", headers=HTML).json() == http.get("/").json()


def test_a_page_that_is_made_anew_is_served_at_once(
    http: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.page, "PAGE", tmp_path)
    for text in ("<p>old", "<p>new"):
        (tmp_path / "index.html").write_text(text)
        assert http.get("/", headers=HTML).text == text


@pytest.mark.parametrize("encoding", ["br", "gzip", "identity"])
def test_files_come_compressed_and_are_kept_for_ever(http: httpx.Client, encoding: str) -> None:
    path = asset("js")
    with http.stream("GET", path, headers={"Accept-Encoding": encoding}) as answer:
        raw = b"".join(answer.iter_raw())
    content = (PAGE / path[1:]).read_bytes()
    ending = {"br": ".br", "gzip": ".gz", "identity": ""}[encoding]
    stored = (PAGE / f"{path[1:]}{ending}").read_bytes()
    assert raw == stored
    assert encoding != "gzip" or gzip.decompress(raw) == content
    got = {name: answer.headers.get(name) for name in (
        "Cache-Control", "Content-Encoding", "Content-Type", "ETag", "Vary"
    )}  # fmt: skip
    assert got == {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Content-Encoding": None if encoding == "identity" else encoding,
        "Content-Type": "text/javascript; charset=utf-8",
        "ETag": f'"{hashlib.sha256(stored).hexdigest()[:32]}"',
        "Vary": "Accept-Encoding, Origin",
    }


@pytest.mark.parametrize("path", ["/", "script"])
def test_who_has_it_already_is_not_sent_it_again(http: httpx.Client, path: str) -> None:
    address = asset("js") if path == "script" else path
    first = http.get(address, headers=HTML)
    again = http.get(address, headers={**HTML, "If-None-Match": first.headers["ETag"]})
    assert (first.status_code, again.status_code, again.content) == (200, 304, b"")
    assert again.headers["Cache-Control"] == first.headers["Cache-Control"]


@pytest.mark.parametrize(
    "name",
    [
        "..%2findex.html",
        "%2e%2e/index.html",
        "no-such-12345678.js",
        "index.html",
        "%00",
        f"{'a' * 300}-12345678.js",
    ],
)
def test_nothing_but_the_files_of_the_page_is_among_its_files(
    http: httpx.Client, name: str
) -> None:
    answer = http.get(f"/assets/{name}")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


# --- what browsers are told


def test_every_kind_of_answer_lets_a_browser_do_nothing_but_what_it_needs(
    service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["Hello", "."]))
    document = upload(
        http, project, "page.html", b"<p>The <b>state</b> Alarm.</p><script>1</script>"
    )
    chat = http.post(f"/chat/projects/{project}", json={"message": "Hello?"})
    answers = {
        "the page": http.get("/", headers=HTML),
        "a script": http.get(asset("js")),
        "JSON": http.get("/projects"),
        "not modified": http.get("/", headers={**HTML, "If-None-Match": "*"}),
        "nothing": http.delete(f"/documents/{document['id']}"),
        "a stream": chat,
        "a run's stream": http.get(f"/runs/{chat.headers['X-Run-Id']}/stream"),
        "not found": http.get("/nowhere"),
        "no such method": http.delete("/me"),
        "not valid": http.post("/projects", json={}),
        "a foreign origin": http.get("/me", headers={"Origin": "https://evil.example"}),
        "a foreign host": http.get("/me", headers={"Host": "evil.example"}),
        "a preflight": http.options(
            "/me",
            headers={"Origin": "http://localhost:5173", "Access-Control-Request-Method": "GET"},
        ),
        "metrics": http.get("/metrics"),
        "the description": http.get("/openapi.json"),
        "a script of the documentation": http.get("/docs/swagger-ui-bundle.js"),
    }
    expected = {name: HEADERS for name in answers}
    for name in ("the page", "not modified"):
        expected[name] = {**HEADERS, POLICY: OF_THE_PAGE}
    assert {name: told(answer) for name, answer in answers.items()} == expected


def test_an_uploaded_page_is_saved_and_never_shown(http: httpx.Client, project: str) -> None:
    document = upload(http, project, "page.html", b"<p>Text.</p><script>alert(1)</script>")
    answer = http.get(f"/documents/{document['id']}/content", headers=HTML)
    assert told(answer) == HEADERS
    assert answer.headers["Content-Disposition"].startswith("attachment;")


def test_an_error_that_nobody_foresaw_says_so_too(
    service: Service, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.app.state.parts.pool, "connection", None)
    answer = http.get("/me")
    assert (answer.status_code, told(answer)) == (500, HEADERS)


@pytest.mark.parametrize(
    ("path", "policy", "shown"),
    [
        (
            "/docs",
            "default-src 'none'; script-src 'self' 'sha256-…'; style-src 'self'; "
            "img-src 'self' data:; connect-src 'self'; ",
            "Answers questions about",
        ),
        (
            "/langserve/pipeline/playground/",
            "default-src 'none'; script-src 'self' 'sha256-…' 'unsafe-eval'; "
            "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; ",
            "Playground",
        ),
    ],
)
def test_pages_of_others_work_under_policies_that_name_their_own_scripts(
    service: Service, open_context: ContextFactory, path: str, policy: str, shown: str
) -> None:
    with open_context(base_url=service.url, allowed=("favicon",)) as context:
        page = context.new_page()
        answer = page.goto(path)
        assert answer
        told = re.sub(r"sha256-[\w+/=]{44}", "sha256-…", answer.headers[POLICY.lower()])
        assert told == f"{policy}base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        expect(page.get_by_text(shown).first).to_be_visible()


def test_no_string_becomes_html_or_code_in_the_page(
    service: Service, open_context: ContextFactory
) -> None:
    """Were a text of others ever given to the wrong function: it would do nothing."""
    expected = ("Trusted", "Content Security Policy", "https://elsewhere.example/")
    failed: list[str | None] = []
    with open_context(base_url=service.url, allowed=expected) as context:
        context.on("requestfailed", lambda sent: failed.append(sent.failure))
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()
        refused = page.evaluate(
            """() => [
                () => document.body.innerHTML = "<img src=x onerror='window.ran = 1'>",
                () => document.body.insertAdjacentHTML("beforeend", "<b>x</b>"),
                () => document.createElement("img").setAttribute("onerror", "window.ran = 1"),
                () => document.createElement("script").text = "window.ran = 1",
                () => document.createElement("script").src = "/assets/other.js",
                () => setTimeout("window.ran = 1", 0),
                () => trustedTypes.createPolicy("another", {}),
            ].map((attempt) => {
                try { attempt(); return null; } catch (error) { return error.name; }
            })"""
        )
        assert refused == ["TypeError"] * 7
        lost = page.evaluate(
            """() => Promise.all([
                fetch("https://elsewhere.example/").catch((error) => error.name),
                new Promise((resolve) => {
                    const image = new Image();
                    image.addEventListener("error", () => resolve("not loaded"));
                    image.src = "https://elsewhere.example/picture.png";
                }),
            ])"""
        )
        assert lost == ["TypeError", "not loaded"]
        # Chromium itself did not send them.
        assert set(failed) == {"csp"}
        assert page.evaluate("window.ran") is None


# --- its weight


def test_the_first_view_weighs_little(service: Service, open_context: ContextFactory) -> None:
    sizes: dict[str, int] = {}

    def weigh(answer: Any) -> None:
        if answer.url.endswith(".js"):
            sizes[answer.url] = int(answer.headers["content-length"])

    with open_context(base_url=service.url) as context:
        context.on("response", weigh)
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()
        page.wait_for_load_state("networkidle")
    assert sizes
    assert sum(sizes.values()) <= MOST_JAVASCRIPT, sizes
