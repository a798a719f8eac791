"""Home and a project on the page: signed in, made, filled, changed and deleted, in Chromium."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsers import PHONE, ContextFactory, check_accessible
from callers import token
from conftest import Service, ServiceFactory, upload
from playwright.sync_api import Page, Route, expect
from standins.openai import OpenAIStandIn

from graph.settings import ROOT

pytestmark = pytest.mark.slow

HANDBOOK = ROOT / "samples/sensor-handbook.pdf"
SECRET = "a secret of more than thirty-two bytes"
HOSTILE = "<img src=x onerror=alert(1)>\"'`{{7*7}} \u202eevil\u202c &amp; " + "long" * 30


@pytest.fixture(scope="module")
def guarded(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Service]:
    """A service that asks who is calling."""
    with start_service(
        jwt_secret=SECRET, openai_base_url=shared_model.base_url, openai_model="stand-in"
    ) as service:
        yield service


def as_user(service: Service, subject: str) -> httpx.Client:
    return service.client(Authorization=f"Bearer {token(SECRET, subject)}")


def key_of(service: Service, subject: str) -> dict[str, Any]:
    """A key of a user's own, with its secret."""
    with as_user(service, subject) as caller:
        return dict(caller.post("/keys", json={"name": "for the page"}).json())


def sign_in(page: Page, secret: str) -> None:
    dialog = page.get_by_role("dialog", name="Sign in")
    dialog.get_by_label("Key or token").fill(secret)
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_be_hidden()


def make_project(page: Page, name: str) -> None:
    page.get_by_role("button", name="New project").first.click()
    dialog = page.get_by_role("dialog", name="New project")
    dialog.get_by_label("Name").fill(name)
    dialog.get_by_role("button", name="Make the project").click()
    expect(page.get_by_role("heading", name="Documents", exact=True)).to_be_visible()


# --- the walk


def test_from_signing_in_to_a_document_that_can_be_asked_about(
    guarded: Service, open_context: ContextFactory, tmp_path: Path
) -> None:
    secret = key_of(guarded, "ada")["secret"]
    with open_context(base_url=guarded.url, allowed=("401",)) as context:
        page = context.new_page()
        page.goto("/")
        dialog = page.get_by_role("dialog", name="Sign in")
        expect(dialog.get_by_label("Key or token")).to_be_focused()
        check_accessible(page, "sign-in")

        page.keyboard.type("aw_not-a-key")
        page.keyboard.press("Enter")
        expect(dialog.get_by_role("alert")).to_have_text(
            "The service does not take this. Copy all of it, and try again."
        )
        sign_in(page, secret)
        expect(page.get_by_text("No projects yet")).to_be_visible()
        check_accessible(page, "home-empty")

        make_project(page, "Harbour")
        expect(page).to_have_title("Harbour · Documents · Archwright")
        check_accessible(page, "project-empty")
        page.locator("input[type=file]").set_input_files(HANDBOOK)
        row = page.get_by_role("listitem").filter(has_text="sensor-handbook.pdf")
        expect(row.get_by_role("img", name="Ready")).to_be_visible()
        expect(page.get_by_role("link", name="Ask about them")).to_be_visible()

        with page.expect_download() as saving:
            row.get_by_role("button", name="Download sensor-handbook.pdf").click()
        saving.value.save_as(tmp_path / "saved.pdf")
        assert (tmp_path / "saved.pdf").read_bytes() == HANDBOOK.read_bytes()
        assert saving.value.suggested_filename == "sensor-handbook.pdf"

        # Neither in the address, nor in the document, nor kept on the device.
        assert secret not in page.url + page.content()
        assert page.evaluate("localStorage.length") == 0
        page.reload()
        expect(row.get_by_role("img", name="Ready")).to_be_visible()

        page.get_by_role("button", name="Menu and account").click()
        page.get_by_role("button", name="Sign out").click()
        expect(dialog).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0


def test_a_key_that_is_revoked_in_mid_session_loses_nothing(
    guarded: Service, open_context: ContextFactory
) -> None:
    keys = [key_of(guarded, "ben") for _ in range(3)]
    with (
        open_context(base_url=guarded.url, allowed=("401", "403")) as context,
        as_user(guarded, "ben") as ben,
    ):
        page = context.new_page()

        def revoked(number: int) -> None:
            """Ben's key goes, and he is asked for another one at the next call."""
            ben.delete(f"/keys/{keys[number]['key']['id']}").raise_for_status()

        def asked_for_another(secret: str) -> None:
            expect(page.get_by_text("nothing here is lost")).to_be_visible()
            # Escape does not lead past it.
            page.keyboard.press("Escape")
            page.keyboard.press("Escape")
            sign_in(page, secret)

        page.goto("/")
        sign_in(page, keys[0]["secret"])
        make_project(page, "Weir")
        page.get_by_role("link", name="Settings").click()
        page.get_by_label("Instructions").fill("Answer in one sentence.")
        revoked(0)
        page.get_by_role("button", name="Save").first.click()
        asked_for_another(keys[1]["secret"])
        expect(page.get_by_text("Saved.", exact=True)).to_be_visible()
        [weir] = ben.get("/projects").json()["projects"]
        assert weir["instructions"] == "Answer in one sentence."

        # An upload, which is not sent by `fetch`.
        page.get_by_role("link", name="Documents").click()
        expect(page.get_by_text("No documents yet")).to_be_visible()
        revoked(1)
        page.locator("input[type=file]").set_input_files(HANDBOOK)
        asked_for_another(keys[2]["secret"])
        expect(page.get_by_role("img", name="Ready")).to_be_visible()

        # The drafting API, which answers 403 to strangers.
        revoked(2)
        page.get_by_role("link", name="Drafting").click()
        # A token in place of a key, which is sent with it no more.
        asked_for_another(token(SECRET, "ben"))
        expect(page.get_by_role("heading", name="Drafting", exact=True)).to_be_visible()


def test_what_one_person_wanted_to_send_is_not_sent_by_another(
    guarded: Service, open_context: ContextFactory
) -> None:
    key = key_of(guarded, "fay")
    with (
        open_context(base_url=guarded.url, allowed=("401",)) as context,
        as_user(guarded, "fay") as fay,
        as_user(guarded, "gil") as gil,
    ):
        page = context.new_page()
        page.goto("/")
        sign_in(page, key["secret"])
        make_project(page, "Fay's")
        page.goto("/#/")
        page.get_by_role("button", name="New project").first.click()
        dialog = page.get_by_role("dialog", name="New project")
        dialog.get_by_label("Name").fill("Only Fay's")
        fay.delete(f"/keys/{key['key']['id']}").raise_for_status()
        dialog.get_by_role("button", name="Make the project").click()
        sign_in(page, token(SECRET, "gil"))
        expect(page.get_by_text("No projects yet")).to_be_visible()
        assert gil.get("/projects").json()["projects"] == []


def test_who_is_remembered_is_signed_in_in_a_new_tab(
    guarded: Service, open_context: ContextFactory
) -> None:
    with open_context(base_url=guarded.url, allowed=("401",)) as context:
        page = context.new_page()
        page.goto("/")
        page.get_by_label("Remember on this device").check()
        sign_in(page, token(SECRET, "cleo"))
        other = context.new_page()
        other.goto("/")
        expect(other.get_by_text("No projects yet")).to_be_visible()


# --- documents


def open_project(page: Page, project: str, view: str = "") -> None:
    page.goto(f"/#/projects/{project}{view}")


def drop(page: Page, *files: tuple[str, bytes]) -> None:
    """Drop files where somebody would."""
    transfer = page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const [name, text] of files) transfer.items.add(new File([text], name));
            return transfer;
        }""",
        [[name, data.decode("latin-1")] for name, data in files],
    )
    area = page.locator(".area")
    for event in ("dragenter", "dragover", "drop"):
        area.dispatch_event(event, {"dataTransfer": transfer})


def test_files_are_dropped_and_each_says_what_became_of_it(
    open_context: ContextFactory, service: Service, project: str, http: httpx.Client
) -> None:
    # Chromium itself notes in the console that a request was refused.
    with open_context(base_url=service.url, allowed=("415",)) as context:
        drop_files(context.new_page(), project)
    listed = http.get(f"/documents/projects/{project}").json()["documents"]
    assert [one["name"] for one in listed] == ["notes.md"]


def drop_files(page: Page, project: str) -> None:
    open_project(page, project)
    expect(page.get_by_text("No documents yet")).to_be_visible()
    drop(
        page,
        ("notes.md", b"# Alarm\n\nThe state Alarm is reached at 4.90 m.\n"),
        ("picture.pdf", b"\x89PNG\r\n\x1a\n" + bytes(200)),
        ("broken.pdf", b"%PDF-1.7\nnothing of a PDF"),
    )
    rows = page.get_by_role("list", name="Documents").get_by_role("listitem")
    expect(rows.filter(has_text="notes.md").get_by_role("img", name="Ready")).to_be_visible()
    expect(rows.filter(has_text="broken.pdf").get_by_role("img", name="Cannot")).to_be_visible()
    refused = rows.filter(has_text="picture.pdf")
    expect(refused.locator(".error")).to_be_visible()
    check_accessible(page, "documents")
    refused.get_by_role("button", name="Dismiss picture.pdf").click()
    expect(rows).to_have_count(2)

    # What is there now is said to screen readers.
    rows.filter(has_text="broken.pdf").get_by_role("button", name="Delete broken.pdf").click()
    dialog = page.get_by_role("dialog", name="Delete this document?")
    check_accessible(page, "delete-document")
    dialog.get_by_role("button", name="Cancel").click()
    expect(rows).to_have_count(2)
    rows.filter(has_text="broken.pdf").get_by_role("button", name="Delete broken.pdf").click()
    dialog.get_by_role("button", name="Delete", exact=True).click()
    expect(rows).to_have_count(1)
    expect(page.get_by_role("status").last).to_have_text("broken.pdf is deleted.")
    # The button that had the focus is gone.
    expect(page.locator("#main")).to_be_focused()


def test_what_is_being_sent_goes_on_when_another_view_is_opened(page: Page, project: str) -> None:
    sent: list[Route] = []

    def hold(route: Route) -> None:
        if route.request.method == "POST" and not sent:
            sent.append(route)
        else:
            route.continue_()

    page.route(f"**/documents/projects/{project}", hold)
    open_project(page, project)
    expect(page.get_by_text("No documents yet")).to_be_visible()
    drop(
        page, ("weir.md", b"# Weir\n\nIt opens at 4.90 m.\n"), ("lock.md", b"# Lock\n\nIt shuts.\n")
    )
    page.get_by_role("link", name="People").click()
    expect(page.get_by_role("heading", name="People")).to_be_visible()
    page.get_by_role("link", name="Documents").click()
    expect(page.get_by_text("Waiting to be uploaded")).to_have_count(2)
    sent[0].continue_()
    expect(page.get_by_role("img", name="Ready")).to_have_count(2)


def test_a_list_that_was_read_before_an_upload_does_not_hide_it(page: Page, project: str) -> None:
    held: list[Route] = []
    page.route(
        f"**/documents/projects/{project}?*",
        lambda route: route.continue_() if held else held.append(route),
    )
    open_project(page, project)
    expect(page.get_by_text("Loading the documents")).to_be_visible()
    before = held[0].fetch()
    drop(page, ("weir.md", b"# Weir\n\nIt opens at 4.90 m.\n"))
    expect(page.get_by_role("img", name="Ready")).to_have_count(1)
    # It is read again.
    with page.expect_request(f"**/documents/projects/{project}?*"):
        held[0].fulfill(response=before)
    expect(page.get_by_role("img", name="Ready")).to_have_count(1)


def test_a_name_that_is_typed_early_stays(page: Page, service: Service) -> None:
    held: list[Route] = []
    page.route("**/projects?*", lambda route: held.append(route))
    page.goto("/")
    page.get_by_role("button", name="New project").click()
    name = page.get_by_role("dialog", name="New project").get_by_label("Name")
    name.fill("Weir")
    with page.expect_response("**/projects?*"):
        held[0].continue_()
    empty = page.get_by_text("No projects yet")
    expect(page.locator("a.card").or_(empty).first).to_be_attached()
    expect(name).to_have_value("Weir")


def test_progress_is_live_and_waits_for_what_is_away(
    page: Page, project: str, http: httpx.Client
) -> None:
    open_project(page, project)
    page.get_by_text("No documents yet").wait_for()
    seen = page.evaluate_handle(
        """() => {
            const seen = new Set();
            new MutationObserver(() => {
                const bar = document.querySelector("li[data-status=processing] progress");
                if (bar) seen.add(bar.getAttribute("aria-label"));
            }).observe(document.body, { subtree: true, childList: true, attributes: true });
            return seen;
        }"""
    )
    page.locator("input[type=file]").set_input_files(HANDBOOK)
    expect(page.get_by_role("img", name="Ready")).to_be_visible()
    assert seen.evaluate("(seen) => [...seen]") == ["Taking in sensor-handbook.pdf"]


def test_a_new_version_takes_the_place_of_the_old_one(page: Page, project: str) -> None:
    open_project(page, project)
    rows = page.get_by_role("list", name="Documents").get_by_role("listitem")
    for text in (b"The first version is short.", b"The second version is somewhat longer."):
        drop(page, ("notes.txt", text))
        expect(rows).to_have_count(1)
        expect(rows.filter(has_text=f"{len(text)} bytes")).to_be_visible()
        expect(rows.get_by_role("img", name="Ready")).to_be_visible()


# --- what others may not do


def test_who_may_only_use_a_project_reads_why_the_rest_is_grey(
    guarded: Service, open_context: ContextFactory
) -> None:
    with as_user(guarded, "dora") as dora:
        body = {"name": "Open house", "isPrivate": False, "instructions": "Be brief."}
        project = dora.post("/projects", json=body).json()["project"]["id"]
        upload(dora, project, "notes.txt", b"The gate opens at nine.")
    with open_context(base_url=guarded.url, allowed=("401",)) as context:
        page = context.new_page()
        page.goto("/")
        sign_in(page, token(SECRET, "eve"))
        expect(page.get_by_text("Open to everybody here")).to_be_visible()
        open_project(page, project)
        expect(page.get_by_text("To upload or delete: This needs tier edit.")).to_be_visible()
        for name in ("Upload files", "Delete notes.txt"):
            expect(page.get_by_role("button", name=name)).to_be_disabled()
        drop(page, ("mine.txt", b"This must not get in."))
        expect(page.get_by_role("listitem").filter(has_text="mine.txt")).to_have_count(0)
        check_accessible(page, "documents-read-only")
        page.get_by_role("link", name="Settings").click()
        expect(page.get_by_label("Instructions")).to_have_value("Be brief.")
        expect(page.get_by_label("Instructions")).to_be_disabled()
        expect(page.get_by_label("Temperature")).to_be_disabled()
        expect(page.get_by_role("button", name="Delete the project")).to_be_disabled()
        check_accessible(page, "settings-read-only")


# --- settings


def test_settings_are_saved_with_what_is_wrong_beside_them(
    page: Page, project: str, http: httpx.Client
) -> None:
    open_project(page, project, "/settings")
    page.get_by_label("Name").fill(" Weir ")
    page.get_by_label("Violet").check(force=True)

    # What is typed is not lost by a click.
    page.get_by_role("link", name="People").click()
    leaving = page.get_by_role("dialog", name="Leave without saving?")
    check_accessible(page, "leave-settings")
    leaving.get_by_role("button", name="Stay here").click()
    expect(leaving).to_be_hidden()

    page.get_by_role("button", name="Save").first.click()
    expect(page.get_by_text("Saved.", exact=True)).to_be_visible()

    page.get_by_label("Temperature").fill("3")
    expect(page.get_by_role("alert")).to_have_text("Take a number from 0 to 2, or leave it empty.")
    expect(page.get_by_role("button", name="Save").last).to_be_disabled()
    check_accessible(page, "settings")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_label("Passages").fill("7")
    page.get_by_label("Model", exact=True).select_option("default/stand-in")
    page.get_by_label("Private").uncheck()
    page.get_by_role("button", name="Save").last.click()
    expect(page.get_by_text("Saved.", exact=True)).to_have_count(2)

    saved = http.get(f"/projects/{project}").json()["project"]
    assert {name: saved[name] for name in ("name", "color", "isPrivate", "settings")} == {
        "name": "Weir",
        "color": "#8a63c2",
        "isPrivate": False,
        "settings": {"model": "default/stand-in", "temperature": 0.5, "topK": 7},
    }


def test_a_project_is_deleted_once_its_name_is_typed(
    page: Page, project: str, http: httpx.Client
) -> None:
    open_project(page, project, "/settings")
    page.get_by_role("button", name="Delete the project").click()
    dialog = page.get_by_role("dialog", name="Delete this project?")
    button = dialog.get_by_role("button", name="Delete for good")
    expect(button).to_be_disabled()
    dialog.get_by_label("Type the name").fill("Harbor")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Type the name").fill("Harbour")
    check_accessible(page, "delete-project")
    button.click()
    expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()
    assert http.get(f"/projects/{project}").status_code == 404


# --- names, keys, addresses


def test_names_of_others_are_text_and_nothing_else(page: Page, http: httpx.Client) -> None:
    made = http.post("/projects", json={"name": HOSTILE[:180], "description": HOSTILE})
    project = made.json()["project"]["id"]
    upload(http, project, f"{HOSTILE[:120]}.txt".replace("/", "_"), b"Some words.")
    page.add_init_script("window.alert = () => { document.title = 'run' }")
    open_project(page, project)
    expect(page.get_by_role("img", name="Ready")).to_be_visible()
    check_accessible(page, "hostile")
    page.goto("/#/")
    expect(page.get_by_role("link", name=re.compile("img src=x")).first).to_be_visible()
    check_accessible(page, "hostile-home")
    assert page.evaluate("document.querySelectorAll('main img').length") == 0
    assert page.title() == "Home · Archwright"


def test_everything_is_reached_with_the_keyboard(page: Page, project: str) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="New project")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Name")).to_be_focused()
    check_accessible(page, "new-project")
    page.keyboard.type("By keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Documents", exact=True)).to_be_visible()
    expect(page.locator("main")).to_be_focused()
    switch = page.get_by_role("button", name="Project: By keyboard")
    switch.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    expect(switch).to_be_focused()
    check_accessible(page, "keyboard")


def test_colours_are_chosen_and_kept(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Menu and account").click()
    page.get_by_label("Dark").check()
    check_accessible(page, "menu")
    page.reload()
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    expect(page.get_by_role("heading", name="Projects", exact=True)).to_be_visible()
    assert page.evaluate(scheme) == "dark"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/nowhere/at/all", "This address leads nowhere."),
        ("/projects/00000000-0000-0000-0000-000000000000", "There is no such project."),
        ("/projects/not-an-id/settings", "There is no such thing."),
        ("/projects/%E0%A4%A", "There is no such thing."),
    ],
)
def test_an_address_that_leads_nowhere_says_so(
    service: Service, open_context: ContextFactory, path: str, shown: str
) -> None:
    with open_context(base_url=service.url, allowed=("404",)) as context:
        page = context.new_page()
        page.goto(f"/#{path}")
        expect(page.locator("main").get_by_text(shown)).to_be_visible()
        check_accessible(page, "nowhere")


def test_home_shows_recent_conversations_of_all_projects(
    page: Page, http: httpx.Client, project: str
) -> None:
    for question in ("When is the alarm raised?", "Who keeps the log?"):
        http.post(f"/chat/projects/{project}", json={"message": question})
    page.goto("/")
    latest = page.get_by_role("link", name=re.compile("Who keeps the log.*Harbour"))
    expect(latest).to_be_visible()
    check_accessible(page, "home")
    latest.click()
    expect(page).to_have_url(re.compile(rf"#/projects/{project}/chat/[\w-]{{36}}$"))


def test_what_cannot_be_reached_says_so_and_is_tried_again(
    service: Service, open_context: ContextFactory, project: str
) -> None:
    with open_context(
        base_url=service.url, allowed=("ERR_INTERNET_DISCONNECTED", "preload assets")
    ) as context:
        page = context.new_page()
        open_project(page, project)
        expect(page.get_by_text("No documents yet")).to_be_visible()
        context.set_offline(True)
        page.get_by_role("link", name="Settings").click()
        expect(page.get_by_role("alert")).to_contain_text("This part of the page cannot be read.")
        page.get_by_role("link", name="Documents").click()
        expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
        check_accessible(page, "offline")
        context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(page.get_by_text("No documents yet")).to_be_visible()


def test_on_a_phone_the_present_section_is_in_sight(
    service: Service, open_context: ContextFactory, project: str
) -> None:
    with open_context(base_url=service.url, viewport=PHONE) as context:
        page = context.new_page()
        open_project(page, project, "/settings")
        expect(page.get_by_role("heading", name="Settings", exact=True)).to_be_visible()
        section = page.get_by_role("navigation", name="Project").get_by_text("Settings")
        expect(section).to_be_in_viewport()
