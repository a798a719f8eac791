"""The page as it is served: to browsers and to others, with its headers, and signed in to."""

import httpx
from browsers import check_accessible
from conftest import Service
from playwright.sync_api import Page, expect

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def test_a_browser_gets_the_page_and_everybody_else_what_was_there_before(
    http: httpx.Client,
) -> None:
    page = http.get("/", headers=HTML)
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    told = [http.get("/"), http.get("/", headers={"Accept": "application/json"})]
    assert [one.json()["status"] for one in told] == ["running", "running"]


def test_the_first_view_is_accessible(page: Page, service: Service) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="Projects")).to_be_visible()
    check_accessible(page, "home")
