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
from test_docs import ADDRESS

from graph.settings import ROOT

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder like the one that a reader works in."""
    for name in ("prompts", "templates"):
        shutil.copytree(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    env = f"PROMPTS_DIR={tmp_path / 'prompts'}\nTEMPLATES_DIR={tmp_path / 'templates'}\n"
    (tmp_path / ".env").write_text(env)
    return tmp_path


def test_the_walk_goes_as_the_page_says(
    start_service: ServiceFactory, model: OpenAIStandIn, folder: Path
) -> None:
    assert ADDRESS not in PAGE
    if not shutil.which("curl"):
        pytest.skip("curl is not on this machine")
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
    for one in shown:
        print(one, "\n-----")
    assert 0
