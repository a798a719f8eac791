"""The chat view where something breaks or is hostile, and where there is very much of it."""

import os
import socket
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import httpx
from browsers import ContextFactory, check_accessible
from conftest import Service, ServiceFactory
from fleets import Fleet
from playwright.sync_api import Page, expect
from relay import relay
from standins.openai import Answer, OpenAIStandIn
from test_page_chat import QUESTION, answers, ask, expect_complete, open_chat, said
from test_page_project import sign_in
from test_server import stood_in

TOKENS = int(os.environ.get("TOKENS", "2000"))
TURNS = int(os.environ.get("TURNS", "100"))
WORDS = [f"word{number} " for number in range(60)]
WHOLE = "".join(WORDS).strip()
SERVICE_KEY = "canary-service-key"
NETWORK = ("ERR_", "Failed to load resource")
"""What the console says of connections that a test has broken."""


def slow(**other: Any) -> Answer:
    """An answer of WORDS that takes two seconds."""
    return Answer(WORDS, delay_s=2 / len(WORDS), **other)


# --- what breaks


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
    model.will(Answer(["One."]), Answer(["Two", " parts."], end="hang"))
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


# --- what is hostile

HOSTILE = [
    "<script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title = 'run'\">",
    "<svg onload=\"document.title = 'run'\"><a xlink:href='javascript:1'>x</a></svg>",
    "<meta http-equiv=refresh content='0;url=https://evil.example/'>",
    "<iframe srcdoc='<script>1</script>'></iframe><form action=https://evil.example><button>go",
    "[a](javascript:document.title='run') [b](JaVaScRiPt:1) [c](data:text/html,<script>1</script>)",
    "![pixel](https://evil.example/pixel.png) [![x](https://evil.example/y.png)](https://evil.example)",
    "[out](https://evil.example/path) <https://evil.example/auto> https://evil.example/bare",
    "[in](#/projects) [up](/projects/1) [rel](//evil.example/x)",
    "[ref]\n\n[ref]: https://evil.example/ref '\"><script>1</script>'",
    "````md\n```html\n<script>1</script>\n```\n````",
    '```"><img/src=x/onerror=alert(1)>\ncode\n```',
    "| <b onclick=alert(1)>a</b> | [x](javascript:1) |\n|---|---|\n| `</td><script>` | ![i](x) |",
    "<style>* { display: none }</style><link rel=stylesheet href=https://evil.example/x.css>",
    "&lt;script&gt;1&lt;/script&gt; <button data-source=1 class=marker>2</button>",
]


def test_nothing_that_a_model_writes_runs_or_leaves(
    page: Page, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["\n\n".join(HOSTILE), "\n\n" + "[" * 10_000, "\n\nThe end."]))
    open_chat(page, project)
    title = page.title()
    ask(page, "".join(HOSTILE))
    expect_complete(page)
    prose = answers(page).locator(".prose")
    expect(prose).to_contain_text("The end.")
    assert page.title() == title
    assert prose.locator("script, img, svg, meta, iframe, form, style, link").count() == 0
    assert prose.locator("[data-source]").count() == 0
    links = prose.locator("a").evaluate_all(
        "all => all.map(({href, target, rel}) => [href, target, rel])"
    )
    assert {tuple(link[1:]) for link in links} == {("_blank", "noopener noreferrer")}
    assert {link[0] for link in links} == {
        f"https://evil.example/{path}"
        for path in ("", "pixel.png", "path", "auto", "bare", "ref", "x.css")
    }
    attributes = prose.evaluate(
        "e => [...new Set([...e.querySelectorAll('*')].flatMap(one => one.getAttributeNames()))]"
    )
    assert set(attributes) <= {
        "aria-label", "class", "href", "rel", "role", "tabindex", "target", "type",
    }  # fmt: skip


# --- what is long

LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => longTasks.push(...list.getEntries().map((one) => one.duration)))
  .observe({ type: "longtask" });
"""


def test_a_long_answer_streams_without_holding_the_page_up(
    page: Page, project: str, model: OpenAIStandIn
) -> None:
    part = ["The ", "**alarm** ", "sounds ", "at ", "`4.90` ", "m ", "above ", "datum.\n"]
    tokens = [
        *["# Long\n\n", *part * (TOKENS // 32), "\n"],
        *["- " + token if token == "The " else token for token in part * (TOKENS // 32)],
        *["\n```py\n", *part * (TOKENS // 32), "```\n\n"],
        *(token for _ in range(TOKENS // 32) for token in [*part, "\n"]),
        "The end.",
    ]
    model.will(Answer(tokens, delay_s=0.001))
    open_chat(page, project)
    page.evaluate(LONG_TASKS)
    ask(page)
    expect(answers(page)).to_contain_text("The end.", timeout=60_000)
    expect_complete(page)
    found = page.evaluate("longTasks")
    assert len(found) < len(tokens) / 100, found
    # The reader was taken along to the end.
    expect(page.get_by_role("button", name="To the end")).to_be_hidden()
    expect(answers(page).get_by_text("The end.")).to_be_in_viewport()


def test_a_reader_who_goes_up_stays_there_while_it_is_written(
    page: Page, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer([f"Line {number}.\n\n" for number in range(150)], delay_s=0.02))
    open_chat(page, project)
    ask(page)
    expect(answers(page).get_by_text("Line 60.")).to_be_visible()
    log = page.get_by_role("log", name="Conversation")
    log.hover()
    page.mouse.wheel(0, -600)
    expect(page.get_by_role("button", name="To the end")).to_be_visible()
    place = log.evaluate("e => e.scrollTop")
    expect_complete(page)
    assert log.evaluate("e => e.scrollTop") == place
    page.get_by_role("button", name="To the end").click()
    expect(answers(page).get_by_text("Line 149.")).to_be_in_viewport()


def test_a_conversation_of_many_turns_opens_at_its_end_and_scrolls_to_its_beginning(
    page: Page, service: Service, project: str
) -> None:
    with service.changing() as rows:
        rows.execute(MANY, {"project": project, "turns": TURNS})
    page.add_init_script(LONG_TASKS)
    page.goto(f"/#/projects/{project}/chat")
    page.get_by_role("link", name="Many").click()
    expect(page.get_by_text(f"Question {TURNS}?")).to_be_in_viewport()
    assert answers(page).count() < 60
    log = page.get_by_role("log", name="Conversation")
    log.evaluate(UPWARDS)
    expect(page.get_by_text("Question 1?", exact=True)).to_be_in_viewport()
    # Those of a machine that does more than this are let pass.
    found = page.evaluate("longTasks")
    assert len(found) < TURNS / 4, found


# As a person does who turns the wheel as fast as it goes: 400 pixels in each frame.
UPWARDS = """
(log) => new Promise((resolve) => {
  longTasks.length = 0;
  const up = () => {
    log.scrollBy(0, -400);
    if (log.scrollTop > 0 || log.querySelector(".earlier")) requestAnimationFrame(up);
    else resolve();
  };
  up();
})
"""
MANY = """
with made as (
    insert into conversations (id, project_id, owner_id, title)
    select gen_random_uuid(), id, owner_id, 'Many' from projects where id = %(project)s
    returning id)
insert into messages (id, conversation_id, role, content, status)
select gen_random_uuid(), made.id, kind.role, kind.text, 'complete'
from made, generate_series(1, %(turns)s) n,
    lateral (values (1, 'user', 'Question ' || n || '?'),
        (2, 'assistant', repeat('The **alarm** sounds at `4.90` m. ', 12) || E'\n\n- one\n- two')
    ) as kind (place, role, text)
order by n, kind.place
"""
