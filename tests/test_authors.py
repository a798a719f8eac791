"""Follows docs/authors.md to the letter, from an idea to a checked draft and to one's own words."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import ServiceFactory
from standins.openai import Answer, OpenAIStandIn

from graph.settings import ROOT

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/authors.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
TEMPLATE = "templates/planning/RUNBOOK/template.md"
EXAMPLE = "templates/planning/RUNBOOK/example.md"


@dataclass(frozen=True)
class Block:
    """A code block of the page: its language, its text, and the words right before it."""

    language: str
    text: str
    before: str


def blocks() -> list[Block]:
    """All blocks of the page, in their order."""
    return [
        Block(found[1], found[2], PAGE[: found.start()].rstrip().rsplit("\n\n", 1)[-1])
        for found in BLOCK.finditer(PAGE)
    ]


def file_of(block: Block) -> str | None:
    """The file as which the page says to write a block."""
    named = re.search(r"as `(templates/[^`]+)`:$", block.before)
    return named[1] if named else None


def step(block: Block) -> str:
    """What a reader does with a block, as a line for the shell; nothing where it is only shown."""
    path = file_of(block)
    if path:
        return f"cat > {path} <<'END OF FILE'\n{block.text}END OF FILE"
    if block.language == "console":
        return "\n".join(re.findall(r"^\$ (.*)$", block.text, re.M))
    return block.text if block.language == "sh" else ""


def the_draft() -> str:
    """What the page lets the model write."""
    [text] = [one.text for one in blocks() if one.before.endswith("Say that it wrote this:")]
    return text


def followed(folder: Path, url: str, project: str) -> list[str]:
    """What the terminal shows for each step of the page, one after the other in one shell."""
    steps = [line for line in map(step, blocks()) if line]
    mark = "\n=== END OF STEP ===\n"
    script = "\n".join(f"{line}\nprintf '%s' '{mark}'\n" for line in steps)
    done = subprocess.run(
        ["sh", "-eu"],
        input=f"base={url}\nproject={project}\n{script}",
        cwd=folder,
        env={
            **{name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
            "PORT": url.rsplit(":", 1)[1],
            "NO_PROXY": "*",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return [shown.strip() for shown in done.stdout.split(mark)[:-1]]


def output_of(block: Block) -> str:
    """What the page says that a console shows."""
    return "".join(line for line in block.text.splitlines(keepends=True) if line[:2] != "$ ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like the one that a reader works in."""
    for name in ("prompts", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    env = f"PROMPTS_DIR={tmp_path / 'prompts'}\nTEMPLATES_DIR={tmp_path / 'templates'}\n"
    (tmp_path / ".env").write_text(env)
    return tmp_path


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_the_walk_goes_as_the_page_says(
    start_service: ServiceFactory, model: OpenAIStandIn, folder: Path
) -> None:
    model.will(Answer(re.findall(r"\S+\s*", the_draft())))
    settings: dict[str, Any] = {
        "prompts_dir": folder / "prompts",
        "templates_dir": folder / "templates",
        "openai_base_url": model.base_url,
        "openai_model": "stand-in",
    }
    with start_service(**settings) as service, service.client() as http:
        project = http.post("/projects", json={"name": "Tidewatch"}).json()["project"]["id"]
        shown = followed(folder, service.url, project)
        texts = http.get(f"/api/v1/projects/{project}/texts").json()["texts"]

    consoles = [output_of(block).strip() for block in blocks() if block.language == "console"]
    _, _, listed, checked, _, again, drafted, ingested, done, put, looked, own = shown
    assert [checked, again, drafted, ingested] == [
        consoles[0], consoles[1], consoles[3], consoles[4]
    ]  # fmt: skip
    assert listed == '"type":"RUNBOOK"'
    assert '"status":"done"' in done
    assert (folder / "RUNBOOK.md").read_text() == the_draft()

    edit = json.loads(put)
    assert edit["text"]["content"] == template().replace("Who is called", "Who is woken")
    assert [(one["path"], one["code"]) for one in edit["findings"]] == [
        (EXAMPLE, "missing_heading")
    ]
    history, diff, given_up = read_all(looked)
    assert [(one["version"], one["source"]) for one in history["versions"]] == [
        (edit["text"]["version"], "edit"), (given_up["text"]["version"], "file")
    ]  # fmt: skip
    changed = re.findall(r"^[-+](?![-+])(.*)$", diff["diff"], re.M)
    assert changed == [
        "  - Who is called", "  - Who is woken", "## Who is called", "## Who is woken"
    ]  # fmt: skip
    assert given_up["text"]["content"] == template()

    assert json.loads(own)["findings"] == []
    assert {one["path"]: one["source"] for one in texts if "RUNBOOK" in one["path"]} == {
        TEMPLATE: "file", EXAMPLE: "override"
    }  # fmt: skip


def template() -> str:
    """The template that the page has its readers write."""
    [text] = [one.text for one in blocks() if file_of(one) == TEMPLATE]
    return text


def read_all(shown: str) -> list[dict[str, Any]]:
    """The JSON documents that were printed one after the other."""
    found, at = [], 0
    while at < len(shown):
        document, at = json.JSONDecoder().raw_decode(shown, at)
        found.append(document)
    return found
