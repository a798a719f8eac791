"""The chat view where something breaks: it goes on by itself, or says what to do."""

import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsers import ContextFactory, check_accessible
from conftest import Service, ServiceFactory
from fleets import Fleet
from playwright.sync_api import Page, Route, expect
from relay import relay
from standins.openai import Answer, OpenAIStandIn
from test_page_chat import QUESTION, answers, ask, expect_complete, open_chat, said
from test_page_project import sign_in
from test_server import stood_in

pytestmark = pytest.mark.slow

WORDS = [f"word{number} " for number in range(60)]
WHOLE = "".join(WORDS).strip()
SERVICE_KEY = "canary-service-key"
NETWORK = ("ERR_", "Failed to load resource")
"""What the console says of connections that a test has broken."""


def slow(**other: Any) -> Answer:
    """An answer of WORDS that takes two seconds."""
    return Answer(WORDS, delay_s=2 / len(WORDS), **other)


def test_a_connection_that_breaks_loses_nothing(
    open_context: ContextFactory, service: Service, project: str, http: httpx.Client,
    model: OpenAIStandIn,
) -> None:  # fmt: skip
    model.will(slow())
    opened: list[socket.socket] = []
    with relay(opened=opened) as (address, target):
        target.append(service.url)
        with open_context(base_url=address, allowed=NETWORK) as context:
            page = context.new_page()
            open_chat(page, project)
            ask(page)
            for word in ("word5 ", "word20 "):
                expect(answers(page)).to_contain_text(word)
                break_all(opened)
                expect(answers(page)).to_contain_text("The connection broke.")
            expect_complete(page)
            expect(answers(page).locator(".prose")).to_have_text(WHOLE)
            assert said(http, page)[1:] == [("assistant", "".join(WORDS), "complete")]


def break_all(opened: list[socket.socket]) -> None:
    while opened:
        with suppress(OSError):
            opened.pop().shutdown(socket.SHUT_RDWR)


def test_a_page_that_is_loaded_again_goes_on_with_the_answer(
    page: Page, project: str, model: OpenAIStandIn
) -> None:
    model.will(slow())
    open_chat(page, project)
    ask(page)
    expect(answers(page)).to_contain_text("word5 ")
    page.reload()
    expect(answers(page)).to_contain_text("word5 ")
    # Leaving and coming back is the same.
    page.get_by_role("link", name="Documents").click()
    page.get_by_role("link", name="Chat").click()
    page.get_by_role("link", name=QUESTION).click()
    expect_complete(page)
    expect(answers(page).locator(".prose")).to_have_text(WHOLE)
    assert len(model.chats) == 1


def test_a_second_tab_shows_the_same_and_follows_what_goes_on(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["One."]), slow(), Answer(["Three."]))
    open_chat(page, project)
    ask(page)
    expect_complete(page)
    other = page.context.new_page()
    other.goto(page.url)
    expect(answers(other)).to_have_count(1)
    ask(page, "And then?")
    # The other tab is told, and follows.
    expect(answers(other).last).to_contain_text("word5 ")
    expect_complete(page)
    expect(answers(other).last.locator(".prose")).to_have_text(WHOLE)
    assert [role for role, _, _ in said(http, page)] == ["user", "assistant"] * 2


def test_a_question_meanwhile_is_kept_and_the_answer_that_goes_on_is_followed(
    open_context: ContextFactory, service: Service, project: str, http: httpx.Client,
    model: OpenAIStandIn,
) -> None:  # fmt: skip
    model.will(Answer(["One."]), Answer(["Two parts.", *[" More."] * 100], delay_s=0.3))
    with open_context(base_url=service.url, allowed=("409",)) as context:
        check_a_question_meanwhile(context.new_page(), http, project)


def check_a_question_meanwhile(page: Page, http: httpx.Client, project: str) -> None:
    open_chat(page, project)
    ask(page)
    expect_complete(page)
    conversation = page.url.rpartition("/")[2]
    body = {"message": "From elsewhere?", "conversationId": conversation}
    with http.stream("POST", f"/chat/projects/{project}", json=body) as elsewhere:
        run = elsewhere.headers["X-Run-Id"]
        ask(page, "Mine?")
        expect(answers(page).last).to_contain_text("Two parts.")
        expect(page.get_by_text("From elsewhere?")).to_be_visible()
        expect(page.get_by_role("textbox", name="Question")).to_have_value("Mine?")
        http.post(f"/runs/{run}/stop")
        expect(answers(page).last).to_contain_text("You stopped this answer.")


def test_a_question_that_does_not_get_there_is_there_again_after_a_reload(
    open_context: ContextFactory, service: Service, project: str, http: httpx.Client,
    model: OpenAIStandIn,
) -> None:  # fmt: skip
    model.will(Answer(["Now."]))
    with open_context(base_url=service.url, allowed=NETWORK) as context:
        page = context.new_page()
        open_chat(page, project)
        page.route(f"**/chat/projects/{project}", lambda route: route.abort())
        ask(page)
        expect(answers(page)).to_contain_text("The connection broke.")
        page.get_by_role("textbox", name="Question").fill("And then?")
        page.reload()
        question = page.get_by_role("textbox", name="Question")
        expect(question).to_have_value(f"{QUESTION}\n\nAnd then?")
        page.unroute_all()
        ask(page)
        expect_complete(page)
        assert [(role, text) for role, text, _ in said(http, page)] == [
            ("user", QUESTION), ("assistant", "Now.")
        ]  # fmt: skip
        # The service has it now.
        page.reload()
        expect(answers(page)).to_contain_text("Now.")
        expect(question).to_have_value("")


def test_a_question_that_is_refused_is_given_back_where_it_was_asked(
    open_context: ContextFactory, service: Service, project: str, http: httpx.Client,
    model: OpenAIStandIn,
) -> None:  # fmt: skip
    model.will(Answer(["One."]), Answer(["Two parts.", *[" More."] * 100], delay_s=0.3))
    with open_context(base_url=service.url, allowed=("409",)) as context:
        check_a_refusal_elsewhere(context.new_page(), http, project)


def check_a_refusal_elsewhere(page: Page, http: httpx.Client, project: str) -> None:
    open_chat(page, project)
    ask(page)
    expect_complete(page)
    body = {"message": "From elsewhere?", "conversationId": page.url.rpartition("/")[2]}
    question = page.get_by_role("textbox", name="Question")
    with http.stream("POST", f"/chat/projects/{project}", json=body) as elsewhere:
        # What goes on in the conversation is read after the refusal.
        with page.expect_response("**/chat/conversations/*"):
            leave_while_asking(page, project, "Mine?")
        page.evaluate("new Promise((done) => setTimeout(done, 200))")
        expect(question).to_have_value("")
        page.get_by_role("link", name=QUESTION).click()
        expect(answers(page).last).to_contain_text("Two parts.")
        expect(question).to_have_value("Mine?")
        http.post(f"/runs/{elsewhere.headers['X-Run-Id']}/stop")


def test_a_question_that_is_left_on_its_way_is_followed_no_further(
    page: Page, service: Service, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["One."]), Answer(["Begun."], end="hang"))
    open_chat(page, project)
    ask(page)
    expect_complete(page)
    leave_while_asking(page, project, "And then?")
    deadline = time.monotonic() + 10
    while (load := service.app.state.parts.runs.load()) != (1, 0) and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    assert load == (1, 0)
    page.get_by_role("link", name=QUESTION).click()
    expect(answers(page).last).to_contain_text("Begun.")
    page.get_by_role("button", name="Stop").click()
    expect(answers(page).last).to_contain_text("You stopped this answer.")
    assert len(model.chats) == 2


def leave_while_asking(page: Page, project: str, question: str) -> None:
    """Ask, and begin another conversation before the question has left."""
    address = f"**/chat/projects/{project}"
    held: list[Route] = []
    page.route(address, lambda route: held.append(route))
    with page.expect_request(address):
        ask(page, question)
    page.get_by_role("link", name="New conversation").first.click()
    expect(page.get_by_role("heading", name="New conversation")).to_be_visible()
    with page.expect_response(address):
        held[0].continue_()
    page.unroute_all()


def test_an_error_says_what_to_do_and_the_same_question_is_sent_again(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(status=503), Answer(["Now."]))
    open_chat(page, project)
    ask(page)
    alert = answers(page).get_by_role("alert")
    expect(alert).to_contain_text("The model's provider refused: 503")
    expect(alert).to_contain_text("choose another model")
    check_accessible(page, "chat-error")
    page.get_by_role("button", name="Try again").click()
    expect(answers(page).locator(".prose")).to_have_text("Now.")
    expect_complete(page)
    # The question stays one.
    roles = [(role, text) for role, text, status in said(http, page) if status != "failed"]
    assert roles == [("user", QUESTION), ("assistant", "Now.")]


def test_an_error_that_does_not_pass_is_asked_about_anew(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(status=401), Answer(["Now."]))
    open_chat(page, project)
    ask(page)
    page.get_by_role("button", name="Try again").click()
    expect(answers(page).last.locator(".prose")).to_have_text("Now.")
    expect_complete(page)
    # What is read again says why the first one failed, as long as it is the last.
    assert [role for role, _, _ in said(http, page)] == ["user", "assistant"] * 2


def test_a_service_that_is_killed_and_comes_again_begins_the_answer_anew(
    open_context: ContextFactory, postgres_url: str, model: OpenAIStandIn, tmp_path: Path
) -> None:
    model.will(Answer(WORDS[:20], end="hang"), Answer(WORDS, first_delay_s=1))
    settings = stood_in(model, postgres_url) | {"LLM_IDLE_TIMEOUT_S": "60"}
    fleet = Fleet(tmp_path, settings, is_hasty=True)
    with closing(fleet), relay() as (address, target):
        first = fleet.start()
        target.append(first.url)
        with fleet.client() as http:
            project = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
        with open_context(base_url=address, allowed=NETWORK) as context:
            page = context.new_page()
            open_chat(page, project)
            ask(page)
            expect(answers(page)).to_contain_text("word19")
            # Events are in the log within a quarter of a second.
            time.sleep(0.5)
            fleet.kill(first)
            expect(answers(page)).to_contain_text("The connection broke.")
            target.append(fleet.start().url)
            expect(answers(page)).to_contain_text("the answer begins again", timeout=60_000)
            expect_complete(page)
            expect(answers(page)).to_have_count(1)
            expect(answers(page).locator(".prose")).to_have_text(WHOLE)


def test_credentials_that_end_are_asked_for_and_nothing_is_lost(
    open_context: ContextFactory, start_service: ServiceFactory, model: OpenAIStandIn
) -> None:
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    with (
        start_service(api_key=SERVICE_KEY, **settings) as service,
        service.client(**{"X-API-Key": SERVICE_KEY}) as http,
    ):
        project = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
        key = http.post("/keys", json={"name": "for the page"}).json()
        with open_context(base_url=service.url, allowed=("401",)) as context:
            page = context.new_page()
            page.goto(f"/#/projects/{project}/chat")
            sign_in(page, key["secret"])
            page.get_by_role("textbox", name="Question").fill(QUESTION)
            assert http.delete(f"/keys/{key['key']['id']}").status_code == 204
            page.keyboard.press("Enter")
            sign_in(page, SERVICE_KEY)
            expect_complete(page)
            expect(page.get_by_text(QUESTION).first).to_be_visible()
