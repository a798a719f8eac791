"""What the page costs in a browser: its weight, its first paint, and a stream's tasks.

Chromium opens it anew each round, with nothing kept, against a service in a thread of this
process. The stream has 50 tokens a second, and is opened in its middle. `make bench-page`
runs it.
"""

import argparse
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from httpx_sse import connect_sse
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.table import Table

from api.server import running
from api.settings import Settings
from bench.streaming.model import NAME, order
from bench.streaming.servers import model

TOKENS = 500
PACE = 50
_QUIET_MS = 500
_OF_A_STREAM = ("Tasks over 50 ms", "The longest of them (ms)", "Layout shift")

_WATCH = """
window.tasks = [];
window.shift = 0;
const watch = (type, note) => new PerformanceObserver((list) => list.getEntries().forEach(note))
    .observe({ type, buffered: true });
watch("longtask", ({ duration }) => window.tasks.push(duration));
watch("layout-shift", ({ hadRecentInput, value }) => window.shift += hadRecentInput ? 0 : value);
"""
_FIGURES = """() => {
    const files = performance.getEntriesByType("resource");
    const kinds = (kind) => files.filter(({ name }) => name.endsWith(kind))
        .reduce((sum, { encodedBodySize }) => sum + encodedBodySize, 0);
    const [navigation] = performance.getEntriesByType("navigation");
    const paint = performance.getEntriesByName("first-contentful-paint")[0].startTime;
    return {
        "JavaScript, compressed (kB)": kinds(".js") / 1000,
        "Styles, compressed (kB)": kinds(".css") / 1000,
        "Document read (ms)": navigation.domContentLoadedEventEnd,
        "First contentful paint (ms)": paint,
        "Tasks over 50 ms": window.tasks.length,
        "The longest of them (ms)": Math.max(0, ...window.tasks),
        "Layout shift": window.shift,
    };
}"""


def main() -> None:
    """Measure and print medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=5, help="counted rounds, after one warm-up")
    rounds = parser.parse_args().n
    with served() as url, httpx.Client(base_url=url, timeout=60) as http, chromium() as browser:
        for number in range(4):
            http.post("/projects", json={"name": f"Harbour {number}", "description": "Floods."})
        first = [opened(browser, url) for _ in range(rounds + 1)][1:]
        streams = [streamed(browser, url, http) for _ in range(rounds)]
    show("The first view", first)
    show(f"An answer of {TOKENS} tokens, {PACE} a second", streams)


@contextmanager
def served() -> Iterator[str]:
    """The address of a service that asks a model of a given pace."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        model(Path(folder), None) as asked,
    ):
        settings = Settings(
            _env_file=None,
            data_dir=Path(folder) / "data",
            port=0,
            openai_base_url=f"http://127.0.0.1:{asked.port}/v1",
            openai_api_key="none",
            openai_model=NAME,
        )
        with running(settings) as url:
            yield url


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"]
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("Chromium is not there. Install it with `apt-get install -y chromium`.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


def opened(browser: Browser, url: str) -> dict[str, Any]:
    """The figures of home, opened with nothing kept."""
    with tab(browser) as page:
        page.goto(f"{url}/")
        page.locator("main h1").first.wait_for()
        page.wait_for_timeout(_QUIET_MS)
        return dict(page.evaluate(_FIGURES))


def streamed(browser: Browser, url: str, http: httpx.Client) -> dict[str, Any]:
    """The figures of an answer, from when its page is loaded to its end."""
    project = http.post("/projects", json={"name": "Harbour"}).json()["project"]["id"]
    question = {"message": f"Go on. {order(1, TOKENS, PACE)}"}
    with connect_sse(http, "POST", f"/chat/projects/{project}", json=question) as stream:
        conversation = next(stream.iter_sse()).json()["conversationId"]
    with tab(browser) as page:
        page.goto(f"{url}/#/projects/{project}/chat/{conversation}")
        page.locator("main").wait_for()
        page.wait_for_timeout(2 * _QUIET_MS)
        page.evaluate("window.tasks = [], window.shift = 0")
        page.wait_for_timeout(1000 * TOKENS // PACE)
        figures = page.evaluate(_FIGURES)
    return {name: figures[name] for name in _OF_A_STREAM}


@contextmanager
def tab(browser: Browser) -> Iterator[Page]:
    """A page with nothing kept, which is watched."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    page = context.new_page()
    page.add_init_script(_WATCH)
    yield page
    context.close()


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the medians, and the worst of each."""
    table = Table(title=title)
    for heading in ("", "median", "worst"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in rows[0]:
        values = [row[name] for row in rows]
        table.add_row(name, f"{statistics.median(values):.3g}", f"{max(values):.3g}")
    Console().print(table)


if __name__ == "__main__":
    main()
