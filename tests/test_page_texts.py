"""Templates and prompts in the page: found, edited, checked, compared, restored, and never lost."""

from collections.abc import Iterator

import pytest
from browsers import ContextFactory, check_accessible
from conftest import ServiceFactory
from desks import Desk, Member, desk_of, opened, seated
from playwright.sync_api import Page, expect
from standins.openai import OpenAIStandIn

ANSWER = "/texts/prompts/answer.md"
TEXT = "Text of prompts/answer.md"
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
    other.get_by_role("button", name="Bring it back").click()
    expect(other.get_by_label(TEXT)).to_have_value(f"{file}Second.\n")
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
    assert counting(desk, desk.grace) == file
