"""Providers, usage, the audit log, people and keys in the page, as admins and others see them."""

import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from browsers import ContextFactory, check_accessible
from callers import token
from conftest import ServiceFactory
from desks import Desk, desk_of, seated
from playwright.sync_api import Page, Route, expect
from sse import read
from standins.openai import Answer, OpenAIStandIn

pytestmark = pytest.mark.slow

SECRET = "canary-of-the-secret-of-tokens-in-page-tests"
HOSTILE = '<img src=x onerror="document.title=1"> {{ 7*7 }}'


@pytest.fixture(scope="module", autouse=True)
def desk(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Desk]:
    with start_service(
        jwt_secret=SECRET,
        openai_base_url=shared_model.base_url,
        openai_model="stand-in",
        allow_private_providers=True,
        max_user_requests="5000/minute",
    ) as service:
        yield desk_of(service)


@pytest.fixture
def grace(desk: Desk, open_context: ContextFactory) -> Iterator[Page]:
    """A tab of an admin."""
    with seated(open_context, desk, desk.grace) as context:
        yield context.new_page()


@pytest.fixture
def ada(desk: Desk, open_context: ContextFactory) -> Iterator[Page]:
    """A tab of somebody without a role, who signed in with a token."""
    user = desk.ada.user
    claims = {"name": user.name, "email": "ada@example.org"}
    shown = token(SECRET, user.subject.removeprefix("jwt::"), **claims)
    permissions = ["clipboard-read", "clipboard-write"]
    with seated(open_context, desk, {"token": shown}, permissions=permissions) as context:
        yield context.new_page()


def new_project(desk: Desk, name: str) -> str:
    """The id of a new project of Grace's."""
    return str(desk.post(desk.grace, "/projects", name=name)["project"]["id"])


def asked_model(desk: Desk, project: str) -> str:
    """The model that answers a question of Grace's."""
    with desk.client(desk.grace) as http:
        return str(
            read(http, "POST", f"/chat/projects/{project}", json={"message": "Why?"})[0].data[
                "model"
            ]
        )


def test_a_provider_is_added_tested_made_default_used_and_deleted(
    grace: Page, desk: Desk, model: OpenAIStandIn
) -> None:
    project = new_project(desk, "Harbour")
    with OpenAIStandIn() as near:
        near.will(Answer(status=401), Answer(["Hello", " there"]), Answer(["Hello"]))
        grace.goto("/#/providers")
        expect(grace.get_by_role("article")).to_have_count(1)
        grace.get_by_role("button", name="Add a provider").click()
        form = grace.get_by_role("dialog")
        form.get_by_label("Name", exact=True).fill("Near & Co")
        expect(form.get_by_label("Short name")).to_have_value("near-co")
        form.get_by_label("Address").fill("not an address")
        form.get_by_label("Key", exact=True).fill("sk-canary-near-0001")
        form.get_by_label("Model 1", exact=True).fill("near-large")
        form.get_by_role("button", name="Add", exact=True).click()
        expect(form.get_by_role("alert")).to_contain_text("The base URL may hold only")
        check_accessible(grace, "provider-form")
        form.get_by_label("Address").fill(near.base_url)
        form.get_by_role("button", name="Add", exact=True).click()
        expect(form).to_have_count(0)

        card = grace.get_by_role("article", name="Near & Co")
        expect(card).to_contain_text("Stored, sk-…0001")
        card.get_by_role("button", name="Test").click()
        expect(card).to_contain_text("near-large did not answer. 401 Authentication Failed.")
        card.get_by_role("button", name="Test").click()
        expect(card).to_contain_text(
            re.compile("near-large answered after [0-9,]+ ms, beginning with “Hello there”")
        )
        card.get_by_role("button", name="Make default").click()
        expect(card.get_by_text("Default", exact=True)).to_be_visible()
        check_accessible(grace, "providers")
        assert asked_model(desk, project) == "near-large"

        # An empty key keeps the one that is stored.
        card.get_by_role("button", name="Edit").click()
        expect(form.get_by_label("Key", exact=True)).to_have_value("")
        form.get_by_label("Name", exact=True).fill("Nearer")
        form.get_by_role("button", name="Save").click()
        card = grace.get_by_role("article", name="Nearer")
        expect(card).to_contain_text("Stored, sk-…0001")
        keys = {one.headers["authorization"] for one in near.chats}
        assert keys == {"Bearer sk-canary-near-0001"}

        card.get_by_role("button", name="Delete Nearer").click()
        form.get_by_role("button", name="Delete").click()
        expect(grace.get_by_role("article")).to_have_count(1)
    assert asked_model(desk, project) == "stand-in"


def test_a_tier_is_given_to_a_person_and_a_group_and_taken_back(
    grace: Page, ada: Page, desk: Desk
) -> None:
    project = new_project(desk, f"Harbour {HOSTILE}")
    with desk.service.changing() as database:
        database.execute(
            "insert into groups (id, name) values (%s, %s)", (uuid.uuid4(), f"writers {HOSTILE}")
        )
    ada.goto(f"/#/projects/{project}/people")
    expect(ada.get_by_role("alert")).to_be_visible()

    grace.goto(f"/#/projects/{project}/people")
    expect(grace.get_by_text("Nobody else sees this project")).to_be_visible()
    share = grace.get_by_role("form", name="Share this project")
    share.get_by_label("E-mail address or name").fill("nobody@example.org")
    share.get_by_role("button", name="Share").click()
    expect(share.get_by_role("alert")).to_contain_text(
        "Nobody with this address has been here yet."
    )
    share.get_by_label("E-mail address or name").fill("ADA@example.org")
    share.get_by_role("button", name="Share").click()
    expect(grace.get_by_label("Tier of Ada Example", exact=True)).to_have_value("use")
    share.get_by_label("With").select_option("A group")
    share.get_by_label("Name of the group").fill(f"writers {HOSTILE}")
    share.get_by_label("Tier", exact=True).select_option("Edit")
    share.get_by_role("button", name="Share").click()
    expect(grace.get_by_role("listitem").filter(has_text=HOSTILE)).to_be_visible()
    expect(grace.locator("img")).to_have_count(0)
    check_accessible(grace, "people")

    ada.reload()
    expect(
        ada.get_by_text("You have tier use, because it was given to you by name.")
    ).to_be_visible()
    expect(ada.get_by_role("button", name="Share")).to_have_attribute("aria-disabled", "true")
    expect(ada.get_by_text("This needs tier full. Yours is use").first).to_be_visible()
    with grace.expect_response("**/grants"):
        grace.get_by_label("Tier of Ada Example", exact=True).select_option("Full")
    ada.reload()
    expect(ada.get_by_text("You have tier full")).to_be_visible()

    grace.get_by_role("button", name="Take the tier of Ada Example back").click()
    grace.get_by_role("dialog").get_by_role("button", name="Take back").click()
    expect(grace.get_by_label("Tier of Ada Example", exact=True)).to_have_count(0)
    ada.reload()
    expect(ada.get_by_role("alert")).to_be_visible()


def test_a_key_is_shown_once_works_and_is_revoked(ada: Page, desk: Desk) -> None:
    ada.goto("/#/keys")
    ada.get_by_role("button", name="Make a key").click()
    dialog = ada.get_by_role("dialog")
    dialog.get_by_role("button", name="Make the key").click()
    expect(dialog.get_by_role("alert")).to_be_visible()
    dialog.get_by_label("Name").fill("nightly report")
    dialog.get_by_role("button", name="Make the key").click()
    secret = dialog.get_by_label("The key").input_value()
    dialog.get_by_role("button", name="Copy").click()
    expect(dialog.get_by_role("button", name="Copied")).to_be_visible()
    assert ada.evaluate("navigator.clipboard.readText()") == secret
    check_accessible(ada, "key-made")
    dialog.get_by_role("button", name="I have it").click()
    expect(ada.locator("dialog[open]")).to_have_count(0)
    assert secret not in ada.content()
    check_accessible(ada, "keys")

    with desk.service.client(**{"X-API-Key": secret}) as http:
        assert http.get("/me").json()["user"]["id"] == str(desk.ada.user.id)
        ada.get_by_role("button", name="Revoke nightly report").click()
        dialog.get_by_role("button", name="Revoke").click()
        expect(ada.get_by_role("button", name="Revoke nightly report")).to_have_count(0)
        assert http.get("/me").status_code == 401


def test_a_dialog_stays_when_one_before_it_is_done(ada: Page) -> None:
    ada.goto("/#/keys")
    dialog = ada.get_by_role("dialog")
    for name in ("slow", "next"):
        ada.get_by_role("button", name="Make a key").click()
        dialog.get_by_label("Name").fill(name)
        dialog.get_by_role("button", name="Make the key").click()
        dialog.get_by_role("button", name="I have it").click()
    held: list[Route] = []
    ada.route("**/keys/*", lambda route: held.append(route))
    ada.get_by_role("button", name="Revoke slow").click()
    dialog.get_by_role("button", name="Revoke").click()
    dialog.get_by_role("button", name="Cancel").click()
    ada.get_by_role("button", name="Revoke next").click()
    held[0].continue_()
    expect(ada.locator("main").get_by_role("listitem").filter(has_text="slow")).to_have_count(0)
    expect(ada.get_by_role("dialog", name="Revoke next?")).to_be_visible()
    ada.unroute("**/keys/*")
    dialog.get_by_role("button", name="Revoke").click()
    expect(ada.locator("main").get_by_role("listitem").filter(has_text="next")).to_have_count(0)


def test_usage_is_told_by_day_and_person_and_the_log_by_pages(
    grace: Page, ada: Page, desk: Desk
) -> None:
    project = new_project(desk, f"Usage {HOSTILE}")
    values: dict[str, Any] = {
        "project": project,
        "ada": desk.ada.user.id,
        "grace": desk.grace.user.id,
    }
    with desk.service.changing() as database:
        database.execute(_USAGE, values)
        database.execute(_LOG, values)
    grace.goto("/#/usage")
    chart = grace.get_by_role("img", name="Tokens by day")
    expect(chart).to_have_accessible_name(re.compile("The most were "))
    expect(chart.locator(".bar")).to_have_count(30)
    grace.get_by_label("Added up by").select_option("Person")
    row = grace.get_by_role("row").filter(has_text="Ada Example")
    expect(row.get_by_role("cell")).to_have_text(["20", "1,990", "100", "2,090", "5"])
    check_accessible(grace, "usage")

    grace.get_by_role("tab", name="Audit log").click()
    grace.get_by_label("Project").select_option(project)
    rows = grace.get_by_role("list", name="Entries").get_by_role("listitem")
    expect(rows).to_have_count(50)
    grace.get_by_role("button", name="Show older ones").click()
    expect(rows).to_have_count(60)
    expect(rows.first).to_contain_text("Grace Example (you) changed a share")
    expect(rows.first).to_contain_text("tier edit · for Ada Example · in Usage <img")
    expect(grace.locator("img[src]")).to_have_count(0)
    check_accessible(grace, "audit")

    ada.goto("/#/usage")
    expect(ada.get_by_text("requests per minute", exact=False)).to_be_visible()
    expect(ada.get_by_role("tab")).to_have_count(0)
    ada.goto("/#/providers")
    expect(ada.get_by_text("Only admins change providers.")).to_be_visible()


_USAGE = """
insert into usage (day, project_id, user_id, provider, model, runs, prompt_tokens,
    completion_tokens, cost)
select (now() at time zone 'utc')::date - n, %(project)s, %(ada)s, 'acme', 'acme-large', 1,
    5 + 9 * n, 5, 0.25
from generate_series(1, 20) n
"""
_LOG = """
insert into audit (at, actor_id, actor, action, target_type, target_id, project_id, details)
select now() - n * interval '1 minute', %(grace)s, 'jwt::grace', 'grant.updated', 'grant',
    gen_random_uuid()::text, %(project)s,
    jsonb_build_object('tier', 'edit', 'targetType', 'user', 'targetId', %(ada)s::text)
from generate_series(1, 60) n
"""
