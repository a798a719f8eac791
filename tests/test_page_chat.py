"""The chat view in a real browser: what is asked, what is shown of the answer, what is kept."""

from typing import Any

import httpx
import pytest
from browsers import ContextFactory, check_accessible
from conftest import Service, ServiceFactory, upload
from playwright.sync_api import Locator, Page, expect
from standins.openai import Answer, OpenAIStandIn
from test_chat import TIDES

pytestmark = pytest.mark.slow

QUESTION = "When does the alarm sound?"


def open_chat(page: Page, project: str) -> None:
    page.goto(f"/#/projects/{project}/chat")
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()


def ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def answers(page: Page) -> Locator:
    return page.get_by_role("article", name="Answer")


def announced(page: Page) -> Locator:
    return page.locator("p[aria-live=polite]")


def expect_complete(page: Page) -> None:
    """Wait for the end of the last answer."""
    expect(answers(page).last.get_by_text("Answered by stand-in")).to_be_visible()


def conversation(http: httpx.Client, page: Page) -> dict[str, Any]:
    """What is stored of the conversation that is shown."""
    found = http.get(f"/chat/conversations/{page.url.rpartition('/')[2]}").json()
    return dict(found["conversation"])


def said(http: httpx.Client, page: Page) -> list[tuple[str, str, str]]:
    return [
        (one["role"], one["content"], one["status"]) for one in conversation(http, page)["messages"]
    ]


@pytest.fixture
def tides(http: httpx.Client, project: str) -> str:
    """A project with one document."""
    upload(http, project, "tides.md", TIDES.encode())
    return project


def test_an_answer_streams_and_its_citation_opens_the_passage(
    page: Page, http: httpx.Client, tides: str, model: OpenAIStandIn
) -> None:
    rest = [" [1]", ". It is **very", "** loud.", "\n\n```py\nx = [1]\n```\n"]
    model.will(Answer(["The alarm sounds at 4.90 m", *rest], first_delay_s=1))
    open_chat(page, tides)
    ask(page)
    answer = answers(page)
    expect(answer.get_by_role("status")).to_have_text("The model reads one passage…")
    expect(answer.get_by_role("list", name="Passages")).to_have_text("1 tides.md")

    expect_complete(page)
    expect(announced(page)).to_have_text("Answer complete.")
    expect(answer.locator(".prose > p")).to_have_text(
        "The alarm sounds at 4.90 m 1. It is very loud."
    )
    expect(answer.locator("strong")).to_have_text("very")
    expect(answer.get_by_role("group", name="Code, py")).to_have_text("x = [1]\n")
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()

    marker = answer.locator(".prose").get_by_role("button", name="Source 1, tides.md")
    marker.click()
    source = page.get_by_role("dialog", name="Source 1: tides.md")
    expect(source.locator("mark")).to_have_text("The alarm sounds at 4.90 m above chart datum.")
    with page.expect_download() as download:
        source.get_by_role("button", name="Download the original").click()
    assert download.value.suggested_filename == "tides.md"
    assert download.value.path().read_bytes() == TIDES.encode()
    check_accessible(page, "chat-source")

    page.keyboard.press("Escape")
    expect(source).to_be_hidden()
    expect(marker).to_be_focused()
    check_accessible(page, "chat")

    # What is read again shows the same.
    page.reload()
    expect(answers(page).locator("strong")).to_have_text("very")
    expect(answers(page).get_by_role("list", name="Cited")).to_have_text("1 tides.md")
    expect_complete(page)


def test_a_claim_that_is_not_borne_out_is_marked_in_words(
    page: Page, tides: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["The alarm sounds at 5.90 m [1]."]))
    open_chat(page, tides)
    ask(page)
    marker = answers(page).locator(".prose").get_by_role("button")
    expect(marker).to_have_accessible_name("Source 1, tides.md, not borne out")
    expect(answers(page).get_by_text("Where a marker says “not borne out”")).to_be_visible()
    marker.click()
    expect(page.get_by_role("dialog")).to_contain_text("does not plainly bear out")
    check_accessible(page, "chat-doubt")


def test_a_marker_of_the_service_says_so(page: Page, tides: str, model: OpenAIStandIn) -> None:
    model.will(Answer(["The alarm sounds at 4.90 m above chart datum."]))
    open_chat(page, tides)
    ask(page)
    marker = answers(page).locator(".prose").get_by_role("button")
    expect(marker).to_have_accessible_name("Source 1, tides.md, added by the service")


def test_stop_and_ask_the_same_again(
    page: Page, http: httpx.Client, tides: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["Half", " of it"], end="hang"), Answer(["Whole."]))
    open_chat(page, tides)
    ask(page)
    expect(answers(page)).to_contain_text("Half of it")
    page.get_by_role("textbox", name="Question").fill("And then?")
    expect(page.get_by_text("Your question can be sent when it ends.")).to_be_visible()
    page.get_by_role("button", name="Stop").click()
    expect(answers(page)).to_contain_text("You stopped this answer.")
    expect(announced(page)).to_have_text("Answer stopped.")
    page.get_by_role("button", name="Ask the same again").click()
    expect(answers(page).last.locator(".prose")).to_have_text("Whole.")
    # What was typed meanwhile is still there.
    expect(page.get_by_role("textbox", name="Question")).to_have_value("And then?")
    expect_complete(page)
    assert said(http, page) == [
        ("user", QUESTION, "complete"),
        ("assistant", "Half of it", "stopped"),
        ("user", QUESTION, "complete"),
        ("assistant", "Whole.", "complete"),
    ]


def test_an_answer_is_copied_as_markdown(
    open_context: ContextFactory, service: Service, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["**Bold** and\n\n```\ncode\n```"]))
    allowed = ["clipboard-read", "clipboard-write"]
    with open_context(base_url=service.url, permissions=allowed) as context:
        page = context.new_page()
        open_chat(page, project)
        ask(page)
        page.get_by_role("button", name="Copy the answer").click()
        expect(announced(page)).to_have_text("Answer copied.")
        assert page.evaluate("navigator.clipboard.readText()") == "**Bold** and\n\n```\ncode\n```"
        answers(page).get_by_role("button", name="Copy", exact=True).click()
        expect(announced(page)).to_have_text("Code copied.")
        assert page.evaluate("navigator.clipboard.readText()") == "code\n"


def test_what_cannot_be_chosen_says_why_and_what_was_used_is_told(
    open_context: ContextFactory, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    with start_service(**settings) as service, service.client() as http:
        project = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
        with open_context(base_url=service.url) as context:
            page = context.new_page()
            open_chat(page, project)
            modes = page.get_by_label("Where to look").locator("option")
            expect(modes).to_have_text([
                "Documents",
                "Documents and web (not set up: needs TAVILY_API_KEY)",
                "Documents and web, thorough (not set up: needs TAVILY_API_KEY)",
            ])  # fmt: skip
            assert [one.is_disabled() for one in modes.all()] == [False, True, True]
            expect(page.get_by_label("Model").locator("option")).to_have_text("stand-in")


def test_the_mode_and_the_model_that_are_chosen_are_asked(
    page: Page, project: str, model: OpenAIStandIn, tavily: Any
) -> None:
    model.will(Answer(["From the web [1]."]))
    open_chat(page, project)
    page.get_by_label("Where to look").select_option("web")
    ask(page)
    expect_complete(page)
    answers(page).get_by_role("list", name="Passages").get_by_role("button").first.click()
    expect(page.get_by_role("dialog").get_by_role("link", name="Open on")).to_have_attribute(
        "rel", "noopener noreferrer"
    )


def test_conversations_are_listed_renamed_and_deleted(
    page: Page, http: httpx.Client, project: str
) -> None:
    open_chat(page, project)
    for question in ("First?", "Second?"):
        page.get_by_role("link", name="New conversation").first.click()
        expect(answers(page)).to_have_count(0)
        ask(page, question)
        expect_complete(page)
    entries = page.get_by_role("navigation", name="Conversations").get_by_role("listitem")
    expect(entries).to_contain_text(["Second?", "First?"])

    page.get_by_role("button", name="More about Second?").click()
    page.get_by_role("button", name="Rename").first.click()
    page.get_by_role("textbox", name="Title").fill("The second")
    page.get_by_role("button", name="Rename", exact=True).last.click()
    expect(page.get_by_role("heading", name="The second")).to_be_visible()

    page.get_by_role("button", name="More about The second").click()
    page.get_by_role("button", name="Delete").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    expect(entries).to_contain_text(["First?"])
    listed = http.get(f"/chat/projects/{project}/conversations").json()["conversations"]
    assert [one["title"] for one in listed] == ["First?"]

    page.get_by_role("link", name="First?").click()
    expect(answers(page)).to_contain_text("The answer.")


def test_older_conversations_come_page_by_page(
    page: Page, service: Service, http: httpx.Client, project: str
) -> None:
    with service.changing() as rows:
        rows.execute(
            "insert into conversations (id, project_id, owner_id, title, updated_at)"
            " select gen_random_uuid(), id, owner_id, 'Number ' || n, now() - n * interval '1 m'"
            " from projects, generate_series(1, 90) n where id = %s",
            (project,),
        )
    open_chat(page, project)
    entries = page.get_by_role("navigation", name="Conversations").get_by_role(
        "link", name="Number"
    )
    expect(entries).to_have_count(40)
    older = page.get_by_role("button", name="Show older ones")
    older.click()
    expect(entries).to_have_count(80)
    older.click()
    expect(entries).to_have_count(90)
    expect(older).to_have_count(0)


def test_everything_is_done_by_keyboard(page: Page, tides: str, model: OpenAIStandIn) -> None:
    model.will(Answer(["It sounds at 4.90 m [1]."]))
    open_chat(page, tides)
    keys = page.keyboard
    keys.type("When does the alarm")
    keys.press("Shift+Enter")
    keys.type("sound?")
    expect(page.get_by_role("textbox", name="Question")).to_have_value(
        "When does the alarm\nsound?"
    )
    keys.press("Enter")
    expect_complete(page)
    answers(page).locator(".marker").focus()
    keys.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    keys.press("Escape")
    expect(answers(page).locator(".marker")).to_be_focused()
    keys.press("/")
    expect(page.get_by_role("textbox", name="Question")).to_be_focused()


def test_a_question_that_is_too_long_is_told(page: Page, project: str) -> None:
    open_chat(page, project)
    page.get_by_role("textbox", name="Question").fill("x" * 20_001)
    expect(page.get_by_text("20,001 of 20,000")).to_be_visible()
    send = page.get_by_role("button", name="Ask", exact=True)
    expect(send).to_have_accessible_description("A question has at most 20,000 characters.")


def test_a_phone_has_the_conversations_in_a_dialog(
    page: Page, http: httpx.Client, tides: str
) -> None:
    page.set_viewport_size({"width": 375, "height": 812})
    open_chat(page, tides)
    ask(page)
    expect_complete(page)
    page.get_by_role("button", name="Conversations").click()
    dialog = page.get_by_role("dialog", name="Conversations")
    expect(dialog.get_by_role("link", name=QUESTION)).to_be_visible()
    check_accessible(page, "chat-list")
