"""The chat view in a real browser: what streams, what breaks, what is cited, what is hostile."""

import httpx
from browsers import check_accessible
from conftest import upload
from playwright.sync_api import Page, expect
from standins.openai import Answer, OpenAIStandIn
from test_chat import TIDES

QUESTION = "When does the alarm sound?"


def ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_role("textbox", name="Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()


def test_ask_and_read_what_an_answer_stands_on(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    upload(http, project, "tides.md", TIDES.encode())
    model.will(Answer(tokens=["The **alarm**", " sounds at", " 4.90 m [1]", ".\n\n- It is loud."]))
    page.goto(f"/#/projects/{project}/chat")
    ask(page)
    answer = page.get_by_role("article", name="Answer")
    expect(answer.get_by_text("Answered by stand-in")).to_be_visible()
    expect(answer.locator("strong")).to_have_text("alarm")
    answer.get_by_role("button", name="Source 1, tides.md").last.click()
    source = page.get_by_role("dialog", name="tides.md")
    expect(source.locator("mark")).to_have_text("The alarm sounds at 4.90 m above chart datum.")
    check_accessible(page, "chat")
