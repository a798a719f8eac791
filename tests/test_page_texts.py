"""Templates and prompts in the page: found, edited, checked, compared, restored, and never lost."""

from collections.abc import Iterator

import pytest
from browsers import FULL, ContextFactory, check_accessible
from conftest import ServiceFactory
from desks import Desk, Member, desk_of, opened, seated
from playwright.sync_api import Page, expect
from standins.openai import OpenAIStandIn

pytestmark = pytest.mark.slow

ANSWER = "/texts/prompts/answer.md"
TEXT = "Text of prompts/answer.md"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
SECRET = "canary-of-the-secret-of-tokens-in-page-tests"


@pytest.fixture(scope="module", autouse=True)
def desk(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Desk]:
    with start_service(
        jwt_secret=SECRET, openai_base_url=shared_model.base_url, openai_model="stand-in"
    ) as service:
        yield desk_of(service)


@pytest.fixture
def grace(desk: Desk, open_context: ContextFactory) -> Iterator[Page]:
    """The list of texts, as an admin sees it."""
    with seated(open_context, desk, desk.grace) as context:
        yield opened(context, "/texts")


def counting(desk: Desk, member: Member, path: str = "") -> str:
    """The content of the prompt for answers that counts."""
    with desk.client(member) as http:
        return str(http.get(f"/api/v1{path}/texts/prompts/answer.md").json()["text"]["content"])


@pytest.fixture
def file(desk: Desk) -> Iterator[str]:
    """What the file of the prompt for answers has; it counts again at the end."""
    content = counting(desk, desk.grace)
    yield content
    with desk.client(desk.grace) as http:
        text = http.get("/api/v1/texts/prompts/answer.md").json()["text"]
        if text["source"] == "edit":
            match = {"If-Match": f'"{text["version"]}"'}
            http.delete("/api/v1/texts/prompts/answer.md", headers=match)


def test_a_mistake_is_told_at_its_line_mended_saved_compared_and_taken_back(
    grace: Page, desk: Desk, file: str
) -> None:
    grace.get_by_label("Search by name").fill("answer")
    expect(grace.get_by_role("listitem")).to_have_count(1)
    grace.get_by_role("link", name="Prompt of Answers").click()
    editor = grace.get_by_label(TEXT)
    expect(editor).to_have_value(file)

    lines = file.count("\n")
    editor.fill(f"{file}Be kind to {{{{ whom }}}}.\n")
    finding = grace.get_by_role("button", name=f"Line {lines + 1}")
    expect(finding).to_contain_text("There is no variable 'whom'.")
    expect(grace.get_by_role("heading", name="1 error, no notes")).to_be_visible()
    expect(grace.get_by_text("It cannot be shown yet.")).to_be_visible()
    grace.get_by_role("button", name="Save").click()
    expect(grace.get_by_role("alert")).to_contain_text("cannot be used")
    assert counting(desk, desk.grace) == file

    # The finding leads to its line, and a variable is put in where the caret is.
    finding.click()
    selected = "t => t.value.slice(t.selectionStart, t.selectionEnd)"
    assert editor.evaluate(selected) == "Be kind to {{ whom }}."
    grace.keyboard.type("Be kind to ")
    grace.get_by_role("button", name="Insert user_name").click()
    mended = f"{file}Be kind to {{{{ user_name }}}}\n"
    expect(editor).to_have_value(mended)
    preview = grace.get_by_role("region", name="What the text becomes")
    expect(preview).to_contain_text("Be kind to Ada Example")
    grace.get_by_label("user_name", exact=True).fill("<b>Mira</b> {{ 7*7 }}")
    expect(preview).to_contain_text("Be kind to <b>Mira</b> {{ 7*7 }}")
    expect(grace.get_by_role("heading", name="Nothing is wrong with this text")).to_be_visible()
    check_accessible(grace, "text")
    grace.keyboard.press("Control+s")
    expect(grace.get_by_text("Saved", exact=True)).to_be_visible()
    assert counting(desk, desk.grace) == mended

    grace.get_by_role("tab", name="History").click()
    entries = grace.get_by_label("Versions").get_by_role("listitem")
    expect(entries).to_have_count(2)
    expect(entries.first).to_contain_text("Written by Grace Example")
    changed = grace.get_by_role("group", name="What changed")
    expect(changed.locator("ins")).to_have_text("Be kind to {{ user_name }}")
    check_accessible(grace, "text-history")
    entries.last.get_by_role("button").click()
    grace.get_by_role("button", name="Restore this version").click()
    expect(editor).to_have_value(file)

    grace.get_by_role("button", name="Go back to the file").click()
    grace.get_by_role("dialog").get_by_role("button", name="Go back to the file").click()
    expect(grace.get_by_role("button", name="Go back to the file")).to_have_count(0)
    expect(grace.get_by_text("File", exact=True)).to_be_visible()
    assert counting(desk, desk.grace) == file


def test_two_tabs_that_edit_the_same_text_lose_nothing(grace: Page, desk: Desk, file: str) -> None:
    other = grace.context.new_page()
    for tab, word in ((grace, "First."), (other, "Second.")):
        tab.goto(f"/#{ANSWER}")
        expect(tab.get_by_label(TEXT)).to_have_value(file)
        tab.get_by_label(TEXT).fill(f"{file}{word}\n")
    grace.get_by_role("button", name="Save").click()
    expect(grace.get_by_text("Saved", exact=True)).to_be_visible()

    other.get_by_role("button", name="Save").click()
    expect(other.get_by_text("Grace Example saved this text")).to_be_visible()
    differing = other.get_by_role("group", name="From theirs to yours")
    expect(differing.locator("del")).to_have_text("First.")
    expect(differing.locator("ins")).to_have_text("Second.")
    check_accessible(other, "text-conflict")
    assert counting(desk, desk.grace) == f"{file}First.\n"

    other.get_by_role("button", name="Take theirs").click()
    expect(other.get_by_label(TEXT)).to_have_value(f"{file}First.\n")
    other.get_by_label(TEXT).fill(f"{file}Third.\n")
    for word in ("Second.", "Third.", "Second."):
        other.get_by_role("button", name="Bring it back").click()
        expect(other.get_by_label(TEXT)).to_have_value(f"{file}{word}\n")
    other.get_by_role("button", name="Save").click()
    expect(other.get_by_text("Saved", exact=True)).to_be_visible()
    assert counting(desk, desk.grace) == f"{file}Second.\n"


def test_what_is_not_saved_survives_a_reload_and_leaving_asks(
    grace: Page, desk: Desk, file: str
) -> None:
    grace.goto(f"/#{ANSWER}")
    expect(grace.get_by_label(TEXT)).to_have_value(file)
    grace.get_by_label(TEXT).press("Control+End")
    grace.keyboard.type("Half a sent")
    asked: list[str] = []
    grace.once("dialog", lambda one: (asked.append(one.type), one.accept()))
    grace.reload()
    assert asked == ["beforeunload"]
    expect(grace.get_by_label(TEXT)).to_have_value(f"{file}Half a sent")

    grace.get_by_role("link", name="All texts").click()
    asks = grace.get_by_role("dialog", name="Leave without saving?")
    asks.get_by_role("button", name="Close").click()
    expect(grace.get_by_label(TEXT)).to_have_value(f"{file}Half a sent")
    grace.get_by_role("link", name="All texts").click()
    asks.get_by_role("button", name="Leave and keep").click()
    row = grace.get_by_role("listitem").filter(has_text="Answers")
    expect(row.get_by_text("Unsaved")).to_be_visible()
    row.get_by_role("link").click()
    grace.get_by_role("button", name="Discard").click()
    expect(grace.get_by_label(TEXT)).to_have_value(file)

    # Where the tab cannot keep it, it does not say that it does.
    grace.evaluate(FULL)
    grace.get_by_label(TEXT).press("!")
    expect(grace.get_by_text("This tab cannot keep your changes.")).to_be_visible()
    grace.get_by_role("link", name="All texts").click()
    expect(asks.get_by_text("they are lost: this tab cannot keep them")).to_be_visible()
    expect(asks.get_by_role("button", name="Leave and keep")).to_have_count(0)
    assert counting(desk, desk.grace) == file


def test_a_projects_own_text_counts_there_alone_and_others_may_only_try(
    grace: Page, desk: Desk, file: str, open_context: ContextFactory
) -> None:
    project = desk.post(desk.grace, "/projects", name="Harbour")["project"]["id"]
    grant = {"targetType": "user", "targetId": str(desk.ada.user.id), "tier": "use"}
    desk.post(desk.grace, f"/projects/{project}/grants", **grant)
    grace.goto(f"/#/projects/{project}{ANSWER}")
    expect(grace.get_by_label(TEXT)).to_have_value(file)
    grace.get_by_label(TEXT).fill(f"{file}{HOSTILE}\n")
    preview = grace.get_by_role("region", name="What the text becomes")
    expect(preview).to_contain_text("<script>alert(1)</script>")
    grace.get_by_role("button", name="Save for this project").click()
    expect(grace.get_by_text("Saved", exact=True)).to_be_visible()
    expect(grace.get_by_text("This project’s own")).to_be_visible()
    assert counting(desk, desk.grace, f"/projects/{project}") == f"{file}{HOSTILE}\n"
    assert counting(desk, desk.grace) == file
    grace.get_by_role("tab", name="History").click()
    changed = grace.get_by_role("group", name="What changed")
    expect(changed.locator("ins")).to_have_text(HOSTILE)
    expect(changed.locator("img, script")).to_have_count(0)

    with seated(open_context, desk, desk.ada) as context:
        ada = opened(context, f"/projects/{project}{ANSWER}")
        expect(ada.get_by_text("This needs tier full. Yours is use").first).to_be_visible()
        expect(ada.get_by_label(TEXT)).to_have_attribute("readonly", "")
        save = ada.get_by_role("button", name="Save for this project")
        expect(save).to_have_attribute("aria-disabled", "true")
        ada.get_by_label("user_name", exact=True).fill("Mira")
        preview = ada.get_by_role("region", name="What the text becomes")
        expect(preview).to_contain_text("helps Mira with")
        check_accessible(ada, "text-read-only")
        ada.goto("/#/texts")
        expect(
            ada.get_by_text("You can read and try these texts, but not change them.")
        ).to_be_visible()
        check_accessible(ada, "texts")

    # What is not saved stays when the text beneath it is given up, until it is discarded.
    grace.get_by_role("tab", name="Edit").click()
    grace.get_by_label(TEXT).fill(f"{file}Mine.\n")
    grace.get_by_role("button", name="Use the service’s text").click()
    grace.get_by_role("dialog").get_by_role("button", name="Use the service’s text").click()
    expect(grace.get_by_role("button", name="Use the service’s text")).to_have_count(0)
    assert counting(desk, desk.grace, f"/projects/{project}") == file
    expect(grace.get_by_label(TEXT)).to_have_value(f"{file}Mine.\n")
    grace.get_by_role("tab", name="History").click()
    grace.get_by_role("button", name="Discard").click()
    grace.get_by_role("link", name="All texts").click()
    expect(grace.get_by_role("heading", name="Templates and prompts")).to_be_visible()
    expect(grace.get_by_text("Unsaved", exact=True)).to_have_count(0)


def test_a_new_type_is_made_from_its_template_with_what_it_brings_elsewhere(
    grace: Page, desk: Desk
) -> None:
    grace.get_by_role("button", name="New type").click()
    dialog = grace.get_by_role("dialog")
    dialog.get_by_label("Name").fill("run book")
    dialog.get_by_role("button", name="Write its template").click()
    expect(dialog.get_by_role("alert")).to_contain_text("Use capital letters")
    dialog.get_by_label("Name").fill("RUNBOOK")
    dialog.get_by_role("button", name="Write its template").click()
    expect(grace.get_by_role("heading", name="Runbook")).to_be_visible()
    expect(grace.get_by_role("heading", name="no errors, 1 note")).to_be_visible()
    grace.get_by_role("button", name="Save").click()
    expect(grace.get_by_text("Saved", exact=True)).to_be_visible()

    grace.get_by_role("link", name="All texts").click()
    grace.get_by_label("Search by name").fill("runbook")
    grace.get_by_role("link", name="Write an example of Runbook").click()
    grace.get_by_label("Text of templates/planning/RUNBOOK/example.md").fill(
        "# Shelfway: Runbook\n"
    )
    finding = grace.get_by_role("button", name="Line 1")
    expect(finding.first).to_contain_text("Purpose")

    # What is wrong elsewhere leads there, to its line, with what is not saved.
    grace.get_by_role("link", name="All texts").click()
    dialog.get_by_role("button", name="Leave and keep").click()
    grace.get_by_role("button", name="Check all").click()
    grace.get_by_role("link", name="templates/planning/RUNBOOK/example.md, line 1").first.click()
    editor = grace.get_by_label("Text of templates/planning/RUNBOOK/example.md")
    expect(editor).to_be_focused()
    expect(editor).to_have_value("# Shelfway: Runbook\n")
