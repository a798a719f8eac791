"""The chat view where an answer is hostile, and where there is very much of it."""

import os

import pytest
from conftest import Service
from playwright.sync_api import Page, expect
from standins.openai import Answer, OpenAIStandIn
from test_page_chat import answers, ask, expect_complete, open_chat

pytestmark = pytest.mark.slow

TOKENS = int(os.environ.get("TOKENS", "2000"))
TURNS = int(os.environ.get("TURNS", "100"))

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


COMPLETE = """
() => new Promise((resolve) => {
  const region = document.querySelector("p[aria-live=polite]");
  const look = setInterval(() => {
    if (region.textContent !== "Answer complete.") return;
    clearInterval(look);
    resolve();
  }, 100);
})
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
    # Playwright, while it waits for a text, holds the page up itself.
    page.evaluate(COMPLETE)
    found = page.evaluate("longTasks")
    expect_complete(page)
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
    log.press("PageUp")
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
