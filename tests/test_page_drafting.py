"""Drafting in the page: the map, drafts as they come, findings, edits, acceptance, changes."""

import re
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsers import DESK, FULL, ContextFactory, check_accessible
from conftest import Service
from playwright.sync_api import Locator, Page, Route, expect
from relay import breaking
from standins.openai import Answer, OpenAIStandIn

from graph.settings import ROOT

pytestmark = pytest.mark.slow

MANIFESTO = ROOT / "templates/context/PROJECT_MANIFESTO/example.md"
LANGUAGE = ROOT / "templates/context/DOMAIN_LANGUAGE/example.md"
PATH = "docs/context/PROJECT_MANIFESTO.md"
OPEN = "[TODO: who pays for it]"


def tokens(text: str) -> list[str]:
    """The text in pieces as models send them."""
    return re.findall(r"\s*\S+|\s+$", text)


def flawed(text: str) -> str:
    """The example with an open placeholder in line 7, and without its last but one section."""
    lines = text.split("\n")
    lines[6] = f"{lines[6]} {OPEN}"
    gone = lines.index("## Constraints")
    after = lines.index("## Assumptions and open questions")
    return "\n".join(lines[:gone] + lines[after:])


def ingest(http: httpx.Client, project: str, name: str, text: str) -> None:
    body = {"doc_name": name, "markdown_content": text}
    http.post(f"/api/v1/projects/{project}/documents/ingest", json=body).raise_for_status()


def stands(http: httpx.Client, project: str) -> dict[str, str]:
    entries = http.get(f"/api/v1/projects/{project}/workflow").json()["documents"]
    return {entry["type"]: entry["status"] for entry in entries}


def content(http: httpx.Client, project: str, name: str) -> str:
    documents: list[dict[str, Any]] = http.get(f"/documents/projects/{project}").json()["documents"]
    [found] = [document["id"] for document in documents if document["name"] == name]
    return http.get(f"/documents/{found}/content").text


def card(page: Page, title: str) -> Locator:
    return page.get_by_role("main").get_by_role("link", name=re.compile(f"^{title} "))


def editor(page: Page, title: str = "Project manifesto") -> Locator:
    return page.get_by_label(f"The text of {title}")


def at_desk(page: Page, project: str, doc_type: str = "PROJECT_MANIFESTO") -> None:
    page.goto(f"/#/projects/{project}/drafting/{doc_type}")
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def begin(page: Page, about: str = "Holds on books in a library.") -> None:
    page.get_by_label("What is it about?").fill(about)
    page.get_by_role("button", name="Draft Project manifesto").click()


def test_the_way_from_an_empty_map_to_a_stale_document(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    written = MANIFESTO.read_text(encoding="utf-8").rstrip("\n")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.url.rsplit("/", 1)[-1]))
    page.goto(f"/#/projects/{project}/drafting")
    expect(card(page, "Domain language")).to_contain_text("Missing")
    expect(card(page, "Domain language")).to_contain_text("Waits for Project manifesto.")
    expect(card(page, "Project manifesto")).to_contain_text("Ready")
    check_accessible(page, "drafting-map")
    assert sent.count("workflow") == 1

    # Draft.
    page.get_by_role("link", name="Draft Project manifesto").click()
    page.get_by_label("What is it about?").fill("Holds on books in a library.")
    check_accessible(page, "drafting-ask")
    model.will(Answer(tokens(flawed(written))))
    page.get_by_role("button", name="Draft Project manifesto").click()
    expect(editor(page)).to_have_value(flawed(written))
    asked = model.chats[-1].body["messages"][-1]["content"]
    assert "Draft: Project manifesto.\n\nHolds on books in a library." in asked

    # What was found leads to its lines, and goes away once they are mended.
    expect(page.get_by_text("2 findings", exact=True)).to_be_visible()
    check_accessible(page, "drafting-findings")
    page.get_by_role("button", name="Line 7").click()
    selected = editor(page).evaluate("t => t.value.slice(t.selectionStart, t.selectionEnd)")
    assert selected == flawed(written).split("\n")[6]
    page.keyboard.press("End")
    for _ in range(len(OPEN) + 1):
        page.keyboard.press("Backspace")
    expect(page.get_by_text("2 findings, 1 of them settled")).to_be_visible()
    page.get_by_role("button", name=re.compile("^Settle: The heading '## Constraints'")).click()
    expect(page.get_by_text("2 findings, all settled")).to_be_visible()
    edited = flawed(written).replace(f" {OPEN}", "")
    expect(editor(page)).to_have_value(edited)

    # Edits outlive a reload, which asks.
    page.once("dialog", lambda dialog: dialog.accept())
    page.reload()
    expect(editor(page)).to_have_value(edited)
    expect(page.get_by_text("2 findings, all settled")).to_be_visible()
    page.get_by_role("link", name="All documents").click()
    expect(card(page, "Project manifesto")).to_contain_text("Your edits are not accepted.")
    expect(card(page, "Project manifesto")).to_contain_text("Draft")
    page.set_viewport_size(DESK)
    expect(card(page, "Project manifesto")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(card(page, "Domain language")).to_be_focused()
    expect(page.get_by_text("it stands on this")).to_have_count(1)
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("stands on it", exact=True)).not_to_have_count(0)
    page.keyboard.press("Enter")
    page.get_by_role("tab", name="Preview").click()
    expect(page.get_by_role("heading", name="Who it serves")).to_be_visible()
    check_accessible(page, "drafting-preview")
    # What was typed can be undone after a look at the preview.
    page.get_by_role("tab", name="Edit").click()
    editor(page).press("!")
    expect(editor(page)).not_to_have_value(edited)
    page.get_by_role("tab", name="Preview").click()
    page.get_by_role("tab", name="Edit").click()
    editor(page).press("Control+z")
    expect(editor(page)).to_have_value(edited)

    # Accept.
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Accepted. It is saved")).to_be_visible()
    assert content(http, project, PATH) == edited
    page.get_by_role("link", name="Draft Domain language").click()
    expect(page.get_by_role("heading", name="Domain language")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text="Project manifesto")).to_contain_text(
        "Done"
    )
    model.will(Answer(tokens(LANGUAGE.read_text(encoding="utf-8"))))
    page.get_by_role("button", name="Draft Domain language").click()
    expect(editor(page, "Domain language")).to_have_value(re.compile("^# Shelfway: Domain lang"))
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_role("link", name="Draft User journey map")).to_be_visible()

    # Change the first: the second is stale.
    page.get_by_role("link", name="All documents").first.click()
    expect(card(page, "Project manifesto")).to_contain_text("Done")
    card(page, "Project manifesto").click()
    expect(editor(page)).to_have_value(edited)
    anew = edited.replace("## Principles", "## Principles\n\nOne more.")
    editor(page).fill(anew)
    page.get_by_role("tab", name="Changes").click()
    changes = page.get_by_role("group", name="Changes, line by line")
    expect(page.get_by_text("2 lines added, no lines removed.")).to_be_visible()
    expect(changes.locator("ins").filter(has_text="One more.")).to_be_visible()
    check_accessible(page, "drafting-changes")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download").click()
    assert download.value.suggested_filename == "PROJECT_MANIFESTO.md"
    assert Path(download.value.path()).read_text(encoding="utf-8") == anew
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Domain language stands on it and is stale now.")).to_be_visible()
    expect(page.get_by_label("Compared with")).to_contain_text("the text accepted before")
    page.get_by_role("link", name="All documents").first.click()
    expect(card(page, "Domain language")).to_contain_text("Stale")
    expect(card(page, "Domain language")).to_contain_text("Project manifesto changed since.")
    check_accessible(page, "drafting-stale-map")
    assert stands(http, project)["DOMAIN_LANGUAGE"] == "stale"
    card(page, "Domain language").click()
    expect(page.get_by_text("Project manifesto changed since this was accepted.")).to_be_visible()


def test_a_draft_goes_on_over_a_reload_and_stops_when_it_is_told_to(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    words = [f"{at} words.\n" for at in range(4000)]
    model.will(Answer(["# Harbour\n\n## Why this project exists\n", *words], delay_s=0.01))
    at_desk(page, project)
    begin(page)
    draft = page.get_by_role("region", name="The draft, as it is written")
    expect(draft).to_contain_text("40 words.")
    expect(page.get_by_text("section 1 of 7: Why this project exists")).to_be_visible()
    check_accessible(page, "drafting-written")
    page.reload()
    expect(draft).to_contain_text("90 words.")
    # Elsewhere and back.
    page.get_by_role("link", name="All documents").click()
    expect(card(page, "Project manifesto")).to_contain_text("It is being drafted.")
    card(page, "Project manifesto").click()
    expect(draft).to_contain_text("120 words.")
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("It was stopped here, and not checked.")).to_be_visible()
    kept = editor(page).input_value().split("\n")
    assert kept[3 : len(kept) - 1] == [word.strip() for word in words[: len(kept) - 4]]
    assert len(model.chats) == 1
    assert "run=" not in page.url


def test_a_draft_survives_cuts(
    service: Service, open_context: ContextFactory, project: str, model: OpenAIStandIn
) -> None:
    written = MANIFESTO.read_text(encoding="utf-8").strip()
    model.will(Answer(tokens(written), delay_s=0.002))
    with (
        breaking(service.url, []) as (address, cuts),
        # The browser says that a connection broke.
        open_context(base_url=address, allowed=("net::ERR", "Failed to load")) as context,
    ):
        page = context.new_page()
        at_desk(page, project)
        page.get_by_label("What is it about?").fill("Holds.")
        cuts.extend([None, 9000, 20_000, 30_000])
        page.get_by_role("button", name="Draft Project manifesto").click()
        expect(editor(page)).to_have_value(written)
    assert len(model.chats) == 1


def test_a_draft_that_fails_says_why_and_is_asked_for_again(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(["# Half"], end="no_finish"), Answer(["# Whole"]))
    at_desk(page, project)
    begin(page)
    expect(page.get_by_role("alert")).to_contain_text("Try again")
    expect(editor(page)).to_have_value("# Half")
    check_accessible(page, "drafting-failed")
    page.get_by_role("button", name="Try again").click()
    expect(editor(page)).to_have_value("# Whole")
    assert len(model.chats) == 2
    [entry] = http.get(f"/chat/projects/{project}/conversations").json()["conversations"]
    conversation = http.get(f"/chat/conversations/{entry['id']}").json()["conversation"]
    assert conversation["title"] == "Draft: Project manifesto. Holds on books in a library."
    assert [message["role"] for message in conversation["messages"]].count("user") == 1

    # Another browser finds the draft.
    page.evaluate("sessionStorage.clear()")
    page.once("dialog", lambda dialog: dialog.accept())
    page.goto("about:blank")
    at_desk(page, project)
    expect(editor(page)).to_have_value("# Whole")
    expect(page.get_by_text("7 findings", exact=True)).to_be_visible()

    # Its address is not that of another document.
    run = conversation["messages"][-1]["id"]
    page.goto(f"/#/projects/{project}/drafting/DOMAIN_LANGUAGE?run={run}")
    expect(page.get_by_label("What else is to be known?")).to_be_visible()
    assert "run=" not in page.url
    page.goto(f"/#/projects/{project}/drafting/PROJECT_MANIFESTO?run={run}")
    expect(editor(page)).to_have_value("# Whole")


def test_edits_stay_where_no_new_draft_takes_their_place(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    model.will(Answer(status=401))
    ingest(http, project, PATH, "# Harbour")
    at_desk(page, project)
    editor(page).fill("# Harbour\n\nMine.")
    page.get_by_text("Draft it anew").click()
    begin(page)
    page.get_by_role("dialog").get_by_role("button", name="Draft anew").click()
    expect(page.get_by_role("alert")).to_contain_text("401")
    expect(editor(page)).to_have_value("# Harbour\n\nMine.")
    expect(page.get_by_text("Your edits are kept in this tab")).to_be_visible()


def test_a_view_that_is_left_early_leaves_the_next_one_alone(page: Page, project: str) -> None:
    held: list[Route] = []
    page.route(f"**/documents/projects/{project}?*", lambda route: held.append(route))
    at_desk(page, project)
    expect(page.get_by_text("Reading the document")).to_be_visible()
    page.evaluate(f"location.hash = '/projects/{project}/drafting?run=another'")
    expect(card(page, "Project manifesto")).to_be_visible()
    with page.expect_response(f"**/documents/projects/{project}?*") as answered:
        held[0].continue_()
    answered.value.finished()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.url.endswith("/drafting?run=another")


def test_edits_that_the_tab_cannot_keep_are_not_said_to_be_kept(
    page: Page, http: httpx.Client, project: str
) -> None:
    ingest(http, project, PATH, "# Harbour")

    def double(route: Route) -> None:
        answer = route.fetch()
        types = answer.json()["document_types"]
        for one in types:
            one["required_headings"] *= 2
        route.fulfill(response=answer, json={"document_types": types})

    # Headings of a template may be equal.
    page.route("**/api/v1/document-types?*", double)
    at_desk(page, project)
    page.get_by_text("Draft it anew").click()
    expect(page.get_by_text("Why this project exists")).to_have_count(2)
    editor(page).press("!")
    expect(page.get_by_text("Your edits are kept in this tab")).to_be_visible()
    page.evaluate(FULL)
    editor(page).press("!")
    expect(page.get_by_text("Your edits cannot be kept in this tab.")).to_be_visible()
    page.get_by_role("link", name="All documents").click()
    asks = page.get_by_role("dialog", name="Leave without saving?")
    asks.get_by_role("button", name="Stay here").click()
    expect(editor(page)).to_be_visible()


def test_nothing_of_a_hostile_draft_runs(page: Page, project: str, model: OpenAIStandIn) -> None:
    hostile = (
        "# <img src=x onerror=\"document.title='caught'\">\n\n"
        "<script>document.title='caught'</script>\n\n"
        "![](https://elsewhere.example/pixel.png) [open](javascript:document.title='caught')\n\n"
        "</textarea><svg onload=\"document.title='caught'\"> \u202egnirts"
    )
    model.will(Answer(tokens(hostile), delay_s=0.02))
    at_desk(page, project)
    begin(page)
    expect(editor(page)).to_have_value(hostile)
    page.get_by_role("tab", name="Preview").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("open")
    expect(page.locator("main img, main script, main a[href^=javascript]")).to_have_count(0)
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Accepted. It is saved")).to_be_visible()
    page.get_by_role("tab", name="Edit").click()
    editor(page).fill(f"{hostile}<b onmouseover=alert(1)>")
    page.get_by_role("tab", name="Changes").click()
    expect(page.get_by_text("1 line added, 1 line removed.")).to_be_visible()
    assert "caught" not in page.title()
