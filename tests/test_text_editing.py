"""Prompts and templates over HTTP: the whole life of an edit, and what the next answer uses."""

import asyncio
import json
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from threading import Event
from typing import Any, NamedTuple

import httpx
import pytest
from conftest import Service
from sse import live, read
from standins.openai import Answer, OpenAIStandIn
from starlette.requests import Request

from api.access.principals import LOCAL_USER, Principal
from api.editing import CHECKER, Scope, editable, for_project, for_service, readable
from api.errors import Refusal
from graph.postgres import open_pool
from graph.settings import ROOT
from graph.texts.diffs import unified
from graph.texts.document_types import version_of

ANSWER = "prompts/answer.md"
QUESTION = "prompts/question.md"
MANIFESTO = "templates/context/PROJECT_MANIFESTO/template.md"
FILE = (ROOT / ANSWER).read_text()
HELP = "Help {{ user_name }}.\n"
PLAN = "templates/lab/PLAN/template.md"
PLAN_EXAMPLE = "templates/lab/PLAN/example.md"
TEMPLATE = """\
---
title: Plan
phase: lab
order: 900
output_path: docs/lab/PLAN.md
depends_on: [PROJECT_MANIFESTO]
required_headings: [Steps]
good: ["Each step has a date."]
---
# {{ project_name }}: Plan of {{ date }}

## Steps

<!-- Weeks. -->
"""


class Desk(NamedTuple):
    """Texts over HTTP: those of the service, or of a project."""

    http: httpx.Client
    base: str = "/api/v1"

    def get(self, path: str, **headers: str) -> httpx.Response:
        """The text at `path`."""
        return self.http.get(f"{self.base}/texts/{path}", headers=headers)

    def text(self, path: str) -> dict[str, Any]:
        """The text at `path`, which is there."""
        return dict(self.get(path).raise_for_status().json()["text"])

    def put(self, path: str, content: str, *, over: str | None = None) -> httpx.Response:
        """Write a text over a version, or over what counts; a new one where nothing does."""
        now = over or self.get(path).headers.get("ETag")
        headers = {"If-Match": now} if now else {"If-None-Match": "*"}
        url = f"{self.base}/texts/{path}"
        return self.http.put(url, json={"content": content}, headers=headers)

    def delete(self, path: str) -> httpx.Response:
        """Give the edit of a text up."""
        headers = {"If-Match": self.get(path).headers["ETag"]}
        return self.http.delete(f"{self.base}/texts/{path}", headers=headers)

    def post(self, path: str, body: dict[str, Any], **headers: str) -> httpx.Response:
        """Call `preview`, `restore` or `check`."""
        return self.http.post(f"{self.base}/texts/{path}", json=body, headers=headers)

    def history(self, path: str, **query: Any) -> list[dict[str, Any]]:
        """The versions of a text, without their times."""
        answer = self.http.get(f"{self.base}/texts/{path}/history", params=query)
        entries = answer.raise_for_status().json()["versions"]
        assert sorted((e["created_at"] for e in entries), reverse=True) == [
            entry.pop("created_at") for entry in entries
        ]
        return list(entries)

    def diff(self, path: str, **query: str) -> httpx.Response:
        """What changed."""
        return self.http.get(f"{self.base}/texts/{path}/diff", params=query)


@pytest.fixture
def everywhere(http: httpx.Client) -> Iterator[Desk]:
    """The texts of the service, which have no edits before and after."""
    desk = Desk(http)
    yield desk
    for entry in http.get("/api/v1/texts").json()["texts"]:
        if entry["source"] == "edit":
            assert desk.delete(entry["path"]).is_success
    left = http.get("/api/v1/texts").json()["texts"]
    assert {entry["source"] for entry in left} == {"file"}


@pytest.fixture
def own(http: httpx.Client, project: str) -> Desk:
    """The texts of a project."""
    return Desk(http, f"/api/v1/projects/{project}")


def entry(content: str | None, source: str, *, current: bool = False) -> dict[str, Any]:
    """An entry of the history."""
    return {
        "version": None if content is None else version_of(content),
        "source": source,
        "author": None if source == "file" else "Local user",
        "is_current": current,
    }


def text(path: str, content: str, source: str) -> dict[str, str]:
    """A text as it is answered."""
    return {"path": path, "content": content, "version": version_of(content), "source": source}


# --- the life of an edit


def test_an_edit_is_made_read_given_up_and_all_of_it_is_in_the_history(everywhere: Desk) -> None:
    at_first = everywhere.get(ANSWER)
    assert at_first.json() == {"text": text(ANSWER, FILE, "file")}
    assert at_first.headers["ETag"] == f'"{version_of(FILE)}"'
    before = everywhere.history(ANSWER)

    made = everywhere.put(ANSWER, HELP)
    assert (made.status_code, made.headers["ETag"]) == (
        200,
        f'"{version_of(HELP)}"',
    )
    assert made.json() == {"text": text(ANSWER, HELP, "edit"), "findings": []}
    assert everywhere.get(ANSWER).json() == {"text": made.json()["text"]}
    [listed] = [
        one for one in everywhere.http.get("/api/v1/texts").json()["texts"] if one["path"] == ANSWER
    ]
    assert listed.pop("updated_at") > "2026"
    assert listed == {
        "path": ANSWER,
        "kind": "prompt",
        "version": made.json()["text"]["version"],
        "source": "edit",
    }
    assert everywhere.history(ANSWER, limit=1) == [entry(HELP, "edit", current=True)]

    given_up = everywhere.delete(ANSWER)
    assert given_up.json() == at_first.json()
    assert given_up.headers["ETag"] == at_first.headers["ETag"]
    assert everywhere.history(ANSWER) == [
        entry(None, "edit"),
        entry(HELP, "edit"),
        *before,
    ]
    assert before[-1] == entry(FILE, "file", current=True)
    version = version_of(HELP)
    old = everywhere.http.get(f"/api/v1/texts/{ANSWER}/versions/{version}")
    assert old.json() == {"text": text(ANSWER, HELP, "edit")}


def test_a_text_is_kept_as_it_was_sent_but_for_what_no_text_may_hold(own: Desk) -> None:
    own.put(ANSWER, "  Grüße\t🚢 <script>\r\n\x07{{ user_name }}\n\n ")
    assert own.text(ANSWER)["content"] == "  Grüße\t🚢 <script>\n{{ user_name }}\n\n "


def test_a_byte_order_mark_is_no_part_of_a_text(own: Desk) -> None:
    assert own.put(PLAN, "\ufeff" + TEMPLATE).json()["text"] == text(PLAN, TEMPLATE, "override")


def test_a_projects_own_counts_over_an_edit_and_an_edit_over_the_file(
    everywhere: Desk, own: Desk
) -> None:
    other = Desk(own.http, f"/api/v1/projects/{make_project(own.http)}")
    everywhere.put(ANSWER, "Edited.")
    assert own.text(ANSWER) == text(ANSWER, "Edited.", "edit")
    assert own.put(ANSWER, "Own.").json()["text"] == text(ANSWER, "Own.", "override")
    everywhere.put(ANSWER, "Edited again.")
    assert own.text(ANSWER) == text(ANSWER, "Own.", "override")
    assert other.text(ANSWER) == everywhere.text(ANSWER) == text(ANSWER, "Edited again.", "edit")
    assert own.history(ANSWER, limit=3) == [
        entry("Edited again.", "edit"),
        entry("Own.", "override", current=True),
        entry("Edited.", "edit"),
    ]
    assert entry("Own.", "override") not in other.history(ANSWER)
    assert own.delete(ANSWER).json() == {"text": text(ANSWER, "Edited again.", "edit")}
    everywhere.delete(ANSWER)
    assert own.text(ANSWER) == text(ANSWER, FILE, "file")


def test_a_new_type_is_made_drafted_from_and_given_up(own: Desk, model: OpenAIStandIn) -> None:
    made = own.put(PLAN, TEMPLATE)
    assert made.status_code == 201, made.text
    assert [(f["severity"], f["code"]) for f in made.json()["findings"]] == [
        ("warning", "no_example")
    ]
    example = own.put(PLAN_EXAMPLE, "# Plan\n\n## Steps\n\nFirst.\n")
    assert (example.status_code, example.json()["findings"]) == (201, [])

    project = own.base.rpartition("/")[2]
    done = draft(own.http, project, "PLAN")
    assert "# Harbour: Plan of " in model.chats[0].body["messages"][-1]["content"]
    used = own.http.get(f"{own.base}/versions/{done['metadata']['template_version']}").json()
    assert {one["path"]: one["content"] for one in used["texts"]} == {
        PLAN: TEMPLATE,
        PLAN_EXAMPLE: "# Plan\n\n## Steps\n\nFirst.\n",
    }

    assert own.delete(PLAN).status_code == 204
    assert own.get(PLAN).status_code == 404
    assert own.get(PLAN).json() == {"detail": "There is no such text."}


def test_an_older_version_is_restored_as_a_new_edit(own: Desk) -> None:
    first, second = (own.put(ANSWER, content).headers["ETag"] for content in ("One.", "Two."))
    body = {"version": version_of("One.")}
    assert own.post(f"{ANSWER}/restore", body).status_code == 428
    assert own.post(f"{ANSWER}/restore", body, **{"If-Match": first}).status_code == 412
    restored = own.post(f"{ANSWER}/restore", body, **{"If-Match": second})
    assert (restored.status_code, restored.headers["ETag"]) == (200, first)
    assert restored.json() == {"text": text(ANSWER, "One.", "override"), "findings": []}
    unknown = own.post(f"{ANSWER}/restore", {"version": "0" * 16}, **{"If-Match": first})
    assert (unknown.status_code, unknown.json()) == (404, {"detail": "There is no such version."})
    assert [e["version"] for e in own.history(ANSWER, limit=3)] == [
        version_of(content) for content in ("One.", "Two.", "One.")
    ]


# --- conditions


def test_an_edit_without_a_condition_is_refused(own: Desk) -> None:
    answer = own.http.put(f"{own.base}/texts/{ANSWER}", json={"content": "New."})
    assert (answer.status_code, answer.json()) == (
        428,
        {
            "detail": "Say which version you edit: send its ETag as If-Match, or If-None-Match: * "
            "for a new text."
        },
    )
    assert own.text(ANSWER)["source"] == "file"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": "FILE"}, 200),
        ({"If-Match": '"0000000000000000", FILE'}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"0000000000000000"'}, 412),
        ({"If-None-Match": "*"}, 412),
        ({"If-None-Match": '"0000000000000000"'}, 200),
        ({"If-None-Match": "W/FILE"}, 412),
        ({"If-Match": "FILE", "If-None-Match": "*"}, 412),
    ],
)
def test_a_condition_is_kept_as_http_defines_it(
    own: Desk, headers: dict[str, str], status: int
) -> None:
    tag = f'"{version_of(FILE)}"'
    sent = {name: value.replace("FILE", tag) for name, value in headers.items()}
    answer = own.http.put(f"{own.base}/texts/{ANSWER}", json={"content": "New."}, headers=sent)
    assert answer.status_code == status
    if status == 412:
        assert answer.headers["ETag"] == tag
        assert answer.json()["detail"].startswith("The text has changed: its version is ")


@pytest.mark.parametrize("form", ["{}", 'W/"{}"', '"0000000000000000", W/"{}"'])
def test_a_version_that_is_no_strong_tag_is_told_so(own: Desk, form: str) -> None:
    headers = {"If-Match": form.format(version_of(FILE))}
    answer = own.http.put(f"{own.base}/texts/{ANSWER}", json={"content": "New."}, headers=headers)
    assert (answer.status_code, answer.json(), answer.headers["ETag"]) == (
        412,
        {"detail": 'If-Match must be the version in quotes and without W/, as in "0f3a…".'},
        f'"{version_of(FILE)}"',
    )


def test_of_twenty_edits_at_once_one_wins(own: Desk) -> None:
    tag = own.get(ANSWER).headers["ETag"]
    contents = [f"Edit {n}." for n in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda content: own.put(ANSWER, content, over=tag), contents))
    [winner] = [n for n, answer in enumerate(answers) if answer.status_code == 200]
    now = own.get(ANSWER)
    assert now.json()["text"] == text(ANSWER, contents[winner], "override")
    others = [answer for n, answer in enumerate(answers) if n != winner]
    assert {(a.status_code, a.headers["ETag"]) for a in others} == {(412, now.headers["ETag"])}
    assert len([e for e in own.history(ANSWER) if e["source"] == "override"]) == 1


def test_two_edits_at_once_that_would_make_a_circle_are_not_both_made(own: Desk) -> None:
    paths = [PLAN, PLAN.replace("PLAN", "TALE")]
    plan = TEMPLATE.replace("[PROJECT_MANIFESTO]", "[]")
    tale = plan.replace("PLAN", "TALE").replace("900", "901")
    for path, content in zip(paths, (plan, tale), strict=True):
        assert own.put(path, content).status_code == 201
    edits = [plan.replace("on: []", "on: [TALE]"), tale.replace("on: []", "on: [PLAN]")]
    with ThreadPoolExecutor(2) as pool:
        statuses = [answer.status_code for answer in pool.map(own.put, paths, edits)]
    assert sorted(statuses) == [200, 422]


def test_a_text_that_the_reader_has_is_not_sent_again(own: Desk) -> None:
    tag = own.get(ANSWER).headers["ETag"]
    same = own.get(ANSWER, **{"If-None-Match": f'"x", W/{tag}'})
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", tag)
    assert own.get(ANSWER, **{"If-None-Match": '"x"'}).status_code == 200


def test_only_an_edit_can_be_given_up(own: Desk) -> None:
    answer = own.delete(ANSWER)
    assert (answer.status_code, answer.json()) == (404, {"detail": "There is no such edit."})
    own.put(ANSWER, "Own.")
    url = f"{own.base}/texts/{ANSWER}"
    assert own.http.delete(url).status_code == 428
    assert own.http.delete(url, headers={"If-Match": '"x"'}).status_code == 412
    assert own.http.delete(url, headers={"If-Match": "*"}).status_code == 200


# --- what cannot be used


def test_an_edit_that_cannot_be_used_is_refused_with_its_errors(own: Desk) -> None:
    answer = own.put(ANSWER, "Hello {{ user }}.\n\n{{ 7*7 }}\n")
    assert (answer.status_code, answer.json()) == (
        422,
        {
            "detail": "With this, templates and prompts cannot be used. prompts/answer.md: There "
            "is no variable 'user'. There are: user_name, today, instructions, doc_type, title, "
            "format, is_json.",
            "findings": [
                {
                    "path": ANSWER,
                    "severity": "error",
                    "code": "unknown_variable",
                    "line": 1,
                    "message": "There is no variable 'user'. There are: user_name, today, "
                    "instructions, doc_type, title, format, is_json.",
                },
                {
                    "path": ANSWER,
                    "severity": "error",
                    "code": "template_language",
                    "line": 3,
                    "message": "Arithmetic is not allowed; only {{ variable }} and "
                    "{% if variable %} with elif, else, not, and, or are.",
                },
            ],
        },
    )
    assert own.text(ANSWER)["source"] == "file"


def test_an_edit_that_closes_a_circle_elsewhere_is_refused(own: Desk) -> None:
    assert own.put(PLAN, TEMPLATE).status_code == 201
    manifesto = own.text(MANIFESTO)["content"]
    answer = own.put(MANIFESTO, manifesto.replace("depends_on: []", "depends_on: [PLAN]"))
    assert answer.status_code == 422
    assert [(f["path"], f["code"], f["message"]) for f in answer.json()["findings"]] == [
        (
            PLAN,
            "dependency_cycle",
            "The types depend on each other in a circle: PLAN -> PROJECT_MANIFESTO -> PLAN. "
            "Break it somewhere.",
        )
    ]


@pytest.mark.parametrize("content", ["", " \n", "x" * 100_001, "\x00", None, 7])
def test_what_is_no_text_is_refused(own: Desk, content: object) -> None:
    answer = own.http.put(
        f"{own.base}/texts/{ANSWER}", json={"content": content}, headers={"If-Match": "*"}
    )
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "content"]


@pytest.mark.parametrize(
    "path",
    [
        "prompts/../prompts/answer.md",
        "prompts/%2e%2e/%2e%2e/etc/passwd",
        "..%2f..%2fetc%2fpasswd",
        "%2fetc%2fpasswd",
        "prompts%5canswer.md",
        "prompts//answer.md",
        "prompts/answer.md%00",
        "prompts/answer.md/",
        "prompts/ANSWER.md",
        "prompts/new.md",
        "templates/lab/plan/template.md",
        "templates/lab/PLAN/template.txt",
        "templates/lab/PLAN/../PLAN/template.md",
        "templates/lab/PL%C3%84N/template.md",
    ],
)
def test_other_paths_hold_no_texts(own: Desk, path: str) -> None:
    # httpx would resolve the dots.
    with closing(HTTPConnection(own.http.base_url.netloc.decode(), timeout=10)) as connection:
        for method, status in (("GET", 404), ("PUT", 422), ("DELETE", 404)):
            connection.request(
                method,
                f"{own.base}/texts/{path}",
                json.dumps({"content": "x"}),
                {"Content-Type": "application/json", "If-Match": "*"},
            )
            answer = connection.getresponse()
            told = answer.read()
            assert (method, answer.status) == (method, status), told


# --- diff, preview, check


def test_a_diff_shows_what_changed_from_what_lies_beneath(own: Desk) -> None:
    [line] = [line for line in FILE.splitlines() if "Be brief and exact." in line]
    edited = FILE.replace("Be brief and exact.", "Be brief.") + "Bye."
    assert own.diff(ANSWER).json()["from"] in (None, version_of(FILE))
    own.put(ANSWER, edited)
    shown = own.diff(ANSWER).json()
    assert shown["from"] == version_of(FILE)
    assert shown["to"] == version_of(edited)
    changed = [
        line for line in shown["diff"].splitlines() if line[0] in "+-\\" and line[:3] != "---"
    ]
    assert changed == [
        f"+++ {ANSWER} {version_of(edited)}",
        f"-{line}",
        f"+{line.replace('Be brief and exact.', 'Be brief.')}",
        "+Bye.",
        "\\ No newline at end of file",
    ]
    back = own.diff(ANSWER, **{"from": version_of(edited), "to": version_of(FILE)}).json()
    assert (back["from"], back["to"]) == (shown["to"], shown["from"])
    assert own.diff(ANSWER, **{"from": "0" * 16}).status_code == 404
    assert own.diff(ANSWER, **{"from": "x"}).status_code == 422


def test_a_diff_of_a_new_text_is_all_added(own: Desk) -> None:
    own.put(PLAN, TEMPLATE)
    shown = own.diff(PLAN).json()
    assert shown["from"] is None
    assert shown["diff"].count("\n+") == TEMPLATE.count("\n") + 1


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("\n" * 100_000, "x\n" * 50_000),
        ("".join(f"{n % 100:02}\n" for n in range(33_000)),
         "".join(f"{n * 7 % 100:02}\n" for n in range(33_000))),
        ("".join(f"{n % 100:02}\n" for n in range(3000)),
         "".join(f"{n * 7 % 100:02}\n" for n in range(3000))),
        ("x" * 100_000, "y" * 100_000),
    ],
)  # fmt: skip
def test_a_diff_of_large_texts_takes_a_bounded_time(before: str, after: str) -> None:
    started = time.thread_time()
    shown = unified(before, after, names=("a", "b"))
    assert time.thread_time() - started < 5
    kept = [line[1:] for line in shown.split("\n")[3:] if line[:1] in ("+", " ")]
    assert set(after.split("\n")) - {""} <= set(kept)


def test_a_diff_of_many_changed_lines_keeps_what_is_equal_at_both_ends() -> None:
    before = "head\n" + "a\n" * 4000 + "tail\n"
    after = "head\n" + "b\n" * 4001 + "tail\n"
    shown = unified(before, after, names=("a", "b"))
    assert shown == "--- a\n+++ b\n@@ -2,4000 +2,4001 @@\n" + "-a\n" * 4000 + "+b\n" * 4001


@pytest.mark.parametrize(
    "value",
    ["{{ 7*7 }}", "{% for x in range(10**9) %}", "{# gone #}", "{{ question.__class__ }}", "%}{{"],
)
def test_a_preview_inserts_values_and_never_evaluates_them(own: Desk, value: str) -> None:
    answer = own.post(
        f"{QUESTION}/preview",
        {"content": "{{ material }}|{{ question }}", "values": {"question": value}},
    )
    shown = answer.raise_for_status().json()
    sample = shown["variables"]["material"]
    assert shown == {
        "rendered": f"{sample}|{value}",
        "variables": {"material": sample, "question": value},
        "findings": [],
    }
    assert own.text(QUESTION)["source"] == "file"


def test_a_preview_shows_the_text_that_counts_with_samples(own: Desk) -> None:
    shown = own.post(f"{MANIFESTO}/preview", {}).json()
    assert shown["variables"] == {"project_name": "Shelfway", "date": "2026-08-14"}
    assert shown["rendered"].startswith("# Shelfway: ")
    assert [one for one in shown["findings"] if one["severity"] == "error"] == []


def test_a_preview_of_what_cannot_be_rendered_says_why(own: Desk) -> None:
    shown = own.post(f"{ANSWER}/preview", {"content": "{% include '/etc/passwd' %}"}).json()
    assert shown["rendered"] is None
    assert [one["code"] for one in shown["findings"]] == ["template_language"]
    unknown = own.post(f"{ANSWER}/preview", {"values": {"user": "Ada"}})
    assert (unknown.status_code, unknown.json()) == (
        422,
        {
            "detail": "This text has no variable 'user'. There are: user_name, today, "
            "instructions, doc_type, title, format, is_json."
        },
    )
    assert own.post(f"{PLAN}/preview", {}).status_code == 404


def test_a_preview_does_not_grow_without_bounds(own: Desk) -> None:
    body = {"content": "{{ user_name }}" * 6000, "values": {"user_name": "x" * 20_000}}
    assert own.post(f"{ANSWER}/preview", body).json()["rendered"] is None


def test_texts_are_checked_over_those_that_count(own: Desk) -> None:
    whole = own.post("check", {}).json()["findings"]
    assert [one for one in whole if one["severity"] == "error"] == []
    found = own.post("check", {"texts": {PLAN: TEMPLATE, "prompts/x.md": "x"}}).json()["findings"]
    assert [(f["path"], f["line"], f["code"]) for f in found if f not in whole] == [
        ("prompts/x.md", 1, "unknown_file"),
        (PLAN, 1, "no_example"),
    ]
    assert own.get(PLAN).status_code == 404
    many = {f"templates/lab/T{n}/template.md": "x" * 90_000 for n in range(20)}
    assert own.post("check", {"texts": many}).status_code == 422


def test_turns_and_edits_do_not_wait_for_checks_that_take_long(
    own: Desk, project: str, http: httpx.Client
) -> None:
    over = Event()
    CHECKER.submit(over.wait, 30)
    with ThreadPoolExecutor(40) as checking:
        checks = [checking.submit(own.post, "check", {}) for _ in range(40)]
        try:
            time.sleep(0.2)
            draft(http, project, "PROJECT_MANIFESTO")
            assert own.put(ANSWER, HELP).status_code == 200
            assert not any(check.done() for check in checks)
        finally:
            over.set()
        assert {check.result().status_code for check in checks} == {200}


# --- access


def test_unknown_and_foreign_projects_are_the_same_refusal(
    service: Service, http: httpx.Client
) -> None:
    unknown = Desk(http, f"/api/v1/projects/{uuid.uuid4()}").get(ANSWER)
    assert (unknown.status_code, unknown.json()) == (
        403,
        {"detail": "There is no such project, or it is somebody else's."},
    )
    project = uuid.UUID(make_project(http))
    assert scope_of(service, STRANGER, project) == f"403 {unknown.json()['detail']}"


@pytest.mark.parametrize(
    ("method", "body"), [("GET", None), ("PUT", {"content": "x"}), ("DELETE", None)]
)
def test_what_is_no_id_of_a_project_is_said(
    http: httpx.Client, method: str, body: dict[str, str] | None
) -> None:
    answer = http.request(method, f"/api/v1/projects/tidewatch/texts/{ANSWER}", json=body)
    assert answer.status_code == 422
    assert [one["loc"] for one in answer.json()["detail"]] == [["path", "project_id"]]


@pytest.mark.parametrize(
    ("caller", "private", "expected"),
    [("admin", True, None), ("stranger", False, "This needs tier 'full'; yours is 'use'.")],
)
def test_a_project_is_read_with_tier_use_and_edited_with_tier_full(
    service: Service, http: httpx.Client, caller: str, private: bool, expected: str | None
) -> None:
    project = make_project(http, isPrivate=private)
    scope = scope_of(service, LOCAL_USER if caller == "admin" else STRANGER, uuid.UUID(project))
    assert isinstance(scope, Scope)
    assert scope.project_id == project
    assert (scope.refusal.message if scope.refusal else None) == expected


def test_the_texts_of_the_service_are_edited_by_admins_only() -> None:
    async def scopes(caller: Principal) -> tuple[Scope, Scope | str]:
        request = Request({"type": "http", "state": {}})
        await for_service(request, caller)
        try:
            return await readable(request), await editable(request)
        except Refusal as refusal:
            return await readable(request), f"{refusal.status} {refusal.message}"

    scope, refused = asyncio.run(scopes(STRANGER))
    assert (scope.project_id, refused) == (None, "403 This needs the role admin.")
    assert asyncio.run(scopes(LOCAL_USER)) == (Scope(None, None), Scope(None, None))


STRANGER = Principal(uuid.uuid4(), "stranger", "Stranger", is_admin=False)


def scope_of(service: Service, caller: Principal, project: uuid.UUID) -> Scope | str:
    """What a caller may do with a project's texts, or why not."""

    async def asked() -> Scope | str:
        url = service.settings.database_url
        assert url is not None
        async with open_pool(url.get_secret_value()) as pool:
            parts = replace(service.app.state.parts, pool=pool)
            state = {"parts": parts}
            request = Request({"type": "http", "state": state, "path": "/api/v1", "headers": []})
            try:
                await for_project(project, request, parts, caller)
            except Refusal as refusal:
                return f"{refusal.status} {refusal.message}"
            return await readable(request)

    return asyncio.run(asked())


# --- the next answer


def test_an_edit_while_an_answer_streams_counts_for_the_next_one(
    everywhere: Desk, project: str, model: OpenAIStandIn
) -> None:
    http = everywhere.http
    manifesto = everywhere.text(MANIFESTO)["content"]
    model.will(Answer(["word "] * 40, delay_s=0.02), Answer(["Done."]))
    with http.stream("POST", "/api/v1/chat/stream", json=drafting(project)) as response:
        events = live(response.iter_lines())
        assert next(events).name == "message"
        edited = manifesto.replace("# {{ project_name }}", "# {{ project_name }}, once more")
        assert everywhere.put(MANIFESTO, edited).status_code == 200
        draft_prompt = everywhere.text("prompts/draft.md")["content"] + "\nWrite plainly.\n"
        assert everywhere.put("prompts/draft.md", draft_prompt).status_code == 200
        assert not model.chats[0].finished
        *_, last = events
    first = last.data["metadata"]
    second = draft(http, project, "PROJECT_MANIFESTO")["metadata"]

    system, asked = zip(*(read_by(chat.body) for chat in model.chats), strict=True)
    assert ["Write plainly." in text for text in system] == [False, True]
    assert ["# Harbour, once more: " in text for text in asked] == [False, True]
    question, example = (everywhere.text(path)["content"] for path in (QUESTION, EXAMPLE))
    for metadata, prompt, template in (
        (first, (ROOT / "prompts/draft.md").read_text(), manifesto),
        (second, draft_prompt, edited),
    ):
        assert texts_of(everywhere, metadata["prompt_version"]) == {
            "prompts/draft.md": prompt,
            QUESTION: question,
        }
        assert texts_of(everywhere, metadata["template_version"]) == {
            MANIFESTO: template,
            EXAMPLE: example,
        }


def test_what_an_answer_used_of_a_projects_own_is_for_that_project_only(
    own: Desk, project: str, model: OpenAIStandIn
) -> None:
    everywhere = Desk(own.http)
    own.put("prompts/draft.md", "Draft {{ title }} our way.")
    metadata = draft(own.http, project, "PROJECT_MANIFESTO")["metadata"]
    assert model.chats[0].body["messages"][0]["content"].endswith(" our way.")
    assert "prompts/draft.md" in texts_of(own, metadata["prompt_version"])
    assert MANIFESTO in texts_of(everywhere, metadata["template_version"])
    assert MANIFESTO in texts_of(own, metadata["template_version"])
    version = metadata["prompt_version"]
    other = Desk(own.http, f"/api/v1/projects/{make_project(own.http)}")
    for desk in (everywhere, other):
        answer = desk.http.get(f"{desk.base}/versions/{version}")
        assert (answer.status_code, answer.json()) == (
            404,
            {"detail": "There is no such version."},
        )


EXAMPLE = MANIFESTO.replace("template.md", "example.md")


def make_project(http: httpx.Client, **settings: object) -> str:
    """The id of a new project."""
    answer = http.post("/projects", json={"name": "Harbour", **settings})
    return str(answer.raise_for_status().json()["project"]["id"])


def drafting(project: str, doc_type: str = "PROJECT_MANIFESTO") -> dict[str, str]:
    """The body of a request for a draft."""
    conversation = str(uuid.uuid4())
    return {
        "conversation_id": conversation,
        "project_id": project,
        "doc_type": doc_type,
        "message": "Draft it.",
    }


def draft(http: httpx.Client, project: str, doc_type: str) -> dict[str, Any]:
    """The `done` of a draft."""
    *_, done = read(http, "POST", "/api/v1/chat/stream", json=drafting(project, doc_type))
    assert done.name == "done", done
    return dict(done.data)


def read_by(body: dict[str, Any]) -> tuple[str, str]:
    """The system message that a model was given, and the last one."""
    messages = body["messages"]
    return messages[0]["content"], messages[-1]["content"]


def texts_of(desk: Desk, version: str) -> dict[str, str]:
    """The texts that answers name as `version`, path to content."""
    used = desk.http.get(f"{desk.base}/versions/{version}").raise_for_status().json()
    assert used["version"] == version
    assert used["first_used_at"] > "2026"
    return {one["path"]: one["content"] for one in used["texts"]}
