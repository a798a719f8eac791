"""Drafting in the page: the map, drafts as they come, findings, edits, acceptance, changes."""

import re
from pathlib import Path
from typing import Any

import httpx
from browsers import check_accessible
from playwright.sync_api import Locator, Page, expect
from standins.openai import Answer, OpenAIStandIn

from graph.settings import ROOT

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


def test_the_way_from_an_empty_map_to_a_stale_document(
    page: Page, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    written = MANIFESTO.read_text(encoding="utf-8").rstrip("\n")
    page.goto(f"/#/projects/{project}/drafting")
    expect(card(page, "Domain language")).to_contain_text("Missing")
    expect(card(page, "Domain language")).to_contain_text("Waits for Project manifesto.")
    expect(card(page, "Project manifesto")).to_contain_text("Ready")
    check_accessible(page, "drafting-map")

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
    page.go_back()

    # Accept.
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Accepted. It is saved")).to_be_visible()
    assert content(http, project, PATH) == edited
    check_accessible(page, "drafting-accepted")
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
    check_accessible(page, "drafting-stale")
