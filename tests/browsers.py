"""A real Chromium for the tests of the page: one for each file, a fresh context for each test."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from api.settings import PAGE
from graph.settings import ROOT

_ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_PATIENCE_MS = 30_000

PHONE = {"width": 375, "height": 812}
DESK = {"width": 1280, "height": 860}

# A script after which the tab has no room for what a page wants to keep.
FULL = "void (Storage.prototype.setItem = () => { throw new DOMException('It is full.') })"

ContextFactory = Callable[..., AbstractContextManager[BrowserContext]]


# Not for the whole session: while Playwright runs, no test of the process can run an event loop.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, if possible without what shows windows: a page costs it a third."""
    if not (PAGE / "index.html").exists():
        pytest.fail("The page is not there. Make it with `make page`.")
    path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if path is None:
        pytest.fail("Chromium is not there. Install it with `apt-get install -y chromium`.")
    expect.set_options(timeout=_PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def open_context(chromium: Browser) -> ContextFactory:
    """Opens a context with what `Browser.new_context` takes; nothing of it may be wrong at the end.

    Wrong is an error of a script, a line in the console that is an error, and a request to another
    origin. `allowed` are words of such lines that a test expects.
    """

    @contextmanager
    def opening(
        *, base_url: str, allowed: tuple[str, ...] = (), **options: Any
    ) -> Iterator[BrowserContext]:
        wrong: list[str] = []
        settings = {
            "base_url": base_url, "viewport": DESK, "reduced_motion": "reduce", **options
        }  # fmt: skip
        context = chromium.new_context(**settings)
        context.set_default_timeout(_PATIENCE_MS)
        context.on("weberror", lambda error: wrong.append(f"a script failed: {error.error}"))
        context.on(
            "console",
            lambda line: wrong.append(line.text) if line.type in ("error", "warning") else None,
        )
        context.on(
            "request",
            lambda sent: (
                None
                if sent.url.startswith((f"{base_url}/", "blob:"))
                else wrong.append(f"a request left the origin: {sent.url}")
            ),
        )
        try:
            yield context
        finally:
            context.close()
        unexpected = [one for one in wrong if not any(word in one for word in allowed)]
        assert not unexpected, unexpected

    return opening


@pytest.fixture
def page(open_context: ContextFactory, service: Any) -> Iterator[Page]:
    """A tab that is about to open the page of the shared service."""
    with open_context(base_url=service.url) as context:
        yield context.new_page()


def violations(page: Page) -> list[str]:
    """What axe finds wrong with what is shown, as lines."""
    if not page.evaluate("'axe' in window"):
        page.evaluate((ROOT / "web/node_modules/axe-core/axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node.get('failureSummary', '')}"
        for rule in found
        for node in rule["nodes"]
    ]


def looks(page: Page) -> Iterator[str]:
    """Shows the page in light, in dark, and as narrow as a phone, one after the other."""
    for name, scheme, size in (
        ("light", "light", DESK), ("dark", "dark", DESK), ("narrow", "light", PHONE)
    ):  # fmt: skip
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        yield name


def check_accessible(page: Page, name: str) -> None:
    """Hold axe's rules in all looks; `PICTURES=folder` keeps a screenshot of each."""
    folder = os.environ.get("PICTURES")
    for look in looks(page):
        assert violations(page) == [], look
        # No view scrolls sideways.
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), look
        if folder:
            page.screenshot(path=Path(folder) / f"{name}-{look}.png")
