"""The package in web/client: its types, its own tests, and what it is to whoever installs it."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from conftest import Service
from javascript import CLIENT, built, node, npm, tool
from sse import events_of
from standins.openai import Answer, OpenAIStandIn

from api.app import create_app
from api.settings import Settings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return create_app(Settings(_env_file=None)).openapi()


def test_the_types_are_those_of_the_service(described: dict[str, Any], tmp_path: Path) -> None:
    """Make them anew with `make types`."""
    (tmp_path / "openapi.json").write_text(json.dumps(described), "utf-8")
    command = json.loads((CLIENT / "package.json").read_text("utf-8"))["scripts"]["types"].split()
    assert command[0] == "openapi-typescript"
    result = tool(
        "openapi-typescript/bin/cli.js", *command[1:], tmp_path / "openapi.json", "--check"
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_its_own_tests_pass() -> None:
    result = node("--test", *CLIENT.glob("test/*.test.ts"))
    assert result.returncode == 0, result.stdout


# --- what it is to whoever installs it


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the package is as npm would publish it."""
    built()
    folder = tmp_path_factory.mktemp("installed")
    [packed] = json.loads(npm("pack", "--ignore-scripts", "--json", "--pack-destination", folder))
    with tarfile.open(folder / packed["filename"]) as archive:
        archive.extractall(folder / "node_modules", filter="data")
    (folder / "node_modules/package").rename(folder / "node_modules/archwright-client")
    return folder


def examples() -> list[str]:
    """The examples of the README, the first of which is for all others."""
    page = (CLIENT / "README.md").read_text("utf-8")
    return re.findall(r"^```ts\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)


def script(address: str) -> str:
    """All examples as one script."""
    first, *others = examples()
    used = "newId, failure"
    whole = first.replace("import { ", f"import {{ {used}, ") + "".join(
        f"{{\n{other}}}\n" for other in others
    )
    return whole.replace("http://127.0.0.1:8000", address)


# What the examples take for granted.
AROUND = """
declare const runId: string, files: File[];
declare const show: (text: string) => void, notice: (text: string) => void;
declare const bar: (share: number) => void;
declare const freshToken: () => Promise<string>;
declare const process: { stdout: { write: (text: string) => void } };
"""
GIVEN = """
globalThis.show = (text) => process.stdout.write(text);
globalThis.bar = globalThis.notice = () => {};
globalThis.files = [new File(["The state Alarm is reached at 4.90 m."], "handbook.txt")];
globalThis.sessionStorage = { setItem: (_, id) => (globalThis.runId = id) };
console.log = () => {};
"""
# As strict as whoever installs it may be.
STRICT = {
    "compilerOptions": {
        "noEmit": True,
        "strict": True,
        "exactOptionalPropertyTypes": True,
        "noUncheckedIndexedAccess": True,
        "target": "es2022",
        "lib": ["es2023", "dom", "dom.iterable"],
        "module": "nodenext",
        "types": [],
    },
    "files": ["readme.mts", "streams.mts"],
}
TYPED = {
    "ChatEvent": "/chat/projects/{project_id}",
    "DraftEvent": "/api/v1/chat/stream",
    "DocumentEvent": "/documents/{document_id}/events",
}


def test_the_types_hold_for_the_examples(installed: Path, described: dict[str, Any]) -> None:
    """Those of the README, and those of the streams in the service's description."""
    (installed / "readme.mts").write_text(AROUND + script("http://127.0.0.1:8000"), "utf-8")
    lines = [f'import type {{ {", ".join(TYPED)} }} from "archwright-client";']
    for name, path in TYPED.items():
        [operation] = described["paths"][path].values()
        told = operation["responses"]["200"]["content"]["text/event-stream"]["examples"]
        events = [
            {"type": event.name, "data": event.data, "runId": "r", "seq": 1}
            for example in told.values()
            for event in events_of(example["value"].encode())
        ]
        lines.append(f"{json.dumps(events)} satisfies {name}[];")
    (installed / "streams.mts").write_text("\n".join(lines), "utf-8")
    (installed / "tsconfig.json").write_text(json.dumps(STRICT), "utf-8")
    result = tool("typescript/bin/tsc", "-p", installed, folder=installed)
    assert (result.returncode, result.stdout) == (0, "")


def test_the_examples_of_the_readme_do_what_they_say(
    installed: Path, service: Service, model: OpenAIStandIn
) -> None:
    model.will(Answer(["One", "."]), Answer([" Two", "."]), Answer([" Three", "."]))
    (installed / "given.mjs").write_text(GIVEN, "utf-8")
    (installed / "readme.mts").write_text(script(service.url), "utf-8")
    result = node("--import", "./given.mjs", "readme.mts", folder=installed)
    shown = "One." + " Two." * 3 + " Three."
    assert (result.returncode, result.stdout, result.stderr) == (0, shown, "")
