"""Keeps what is written true: settings, paths, the tree, the map, commands."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_origin

import httpx
import jinja2
import jinja2.meta
import pytest
import typer.main
from conftest import Service, ServiceFactory
from sse import events_of
from standins.openai import Answer, OpenAIStandIn

from api.app import create_app
from api.cli import app as command_line
from api.settings import Settings
from graph.knowledge.library import Library
from graph.models import Models
from graph.pipeline import build_pipeline
from graph.settings import ROOT
from graph.texts.document_types import FrontMatter
from graph.texts.texts import Texts

PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")])
ADDRESS = "http://127.0.0.1:8000"

# Named by the pages, and made by whoever follows them.
MADE_BY_READERS = {
    "data/",
    "ask.py",
    "PROJECT_MANIFESTO.md",
    "RUNBOOK.md",
    "templates/planning/RUNBOOK/template.md",
    "templates/planning/RUNBOOK/example.md",
}
FILE_ENDINGS = (".md", ".py", ".json", ".yaml", ".toml", ".lock", ".pdf", ".txt")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of a page that are marked as `language`."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    """What stands between single backticks outside of code blocks."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.findall(r"`([^`\n]+)`", prose)


def all_code(page: Path) -> str:
    """All that stands in backticks or in a code block."""
    text = page.read_text(encoding="utf-8")
    return "\n".join([*inline_code(page), *re.findall(r"^```.*?^```$", text, re.M | re.S)])


# --- settings


def default_of(name: str) -> str:
    """A setting's default as it is written; empty where it is not set."""
    value = Settings.model_fields[name].default
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case Path() if value.is_absolute():
            return str(value.relative_to(ROOT))
        case _:
            return str(value)


def meaning_of(name: str) -> str:
    """A setting's description, and its choices where it has some."""
    field = Settings.model_fields[name]
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    return (
        f"{field.description} One of {', '.join(choices)}." if choices else f"{field.description}"
    )


def expected_settings() -> dict[str, tuple[str, str]]:
    return {
        name.upper(): (default_of(name), meaning_of(name)) for name in sorted(Settings.model_fields)
    }


def test_the_example_names_each_setting_with_its_default_and_meaning() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    found = {
        name: (default, meaning)
        for meaning, name, default in re.findall(r"^# (.+)\n# ([A-Z0-9_]+)=(.*)$", text, re.M)
    }
    assert dict(sorted(found.items())) == expected_settings(), (
        ".env.example must name each setting of api.settings, with its default and description."
    )


def test_the_example_without_its_comment_signs_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(ROOT)
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    env = tmp_path / "env"
    env.write_text(re.sub(r"^# (?=[A-Z0-9_]+=)", "", text, flags=re.M), encoding="utf-8")

    example = Settings(_env_file=env).model_dump()
    default = Settings(_env_file=None).model_dump()

    assert {k: _resolved(v) for k, v in example.items()} == {
        k: _resolved(v) for k, v in default.items()
    }


def _resolved(value: object) -> object:
    return value.resolve() if isinstance(value, Path) else value


def test_the_page_of_settings_has_each_setting_with_its_default_and_meaning() -> None:
    found: dict[str, tuple[str, str]] = {}
    for line in (ROOT / "docs/settings.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)]
        if len(cells) == 5 and cells[1].startswith("`"):
            default = "" if cells[2] == "not set" else cells[2].strip("`").replace("\\|", "|")
            found[cells[1].strip("`")] = (default, re.sub(r"`(\w+)`(?=[,.])", r"\1", cells[3]))
    wanted = {
        name: (default, re.sub(r"`(\w+)`(?=[,.])", r"\1", meaning))
        for name, (default, meaning) in expected_settings().items()
    }
    assert dict(sorted(found.items())) == wanted, (
        "docs/settings.md must have each setting of api.settings, with its default and description."
    )


# --- paths, links, routes and commands


@each_page
def test_each_relative_link_leads_to_a_file(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))
    broken = [
        link
        for link in links
        if not link.startswith(("http://", "https://")) and not (page.parent / link).exists()
    ]
    assert not broken, f"{page.name} links to what is not there: {broken}."


def test_the_list_of_pages_names_each() -> None:
    listed = re.findall(
        r"^- \[[^]]+\]\(([\w-]+\.md)\)", (ROOT / "docs/README.md").read_text(), re.M
    )
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert sorted(listed) == sorted(pages)


@each_page
def test_each_path_that_a_page_names_is_there(page: Path) -> None:
    names = {path.name for path in _files()}
    missing = [
        word
        for word in inline_code(page)
        if re.fullmatch(r"[\w.-]+(/[\w.-]+)*/?", word)
        if word not in MADE_BY_READERS and word not in FILE_ENDINGS
        if not _is_there(page, word, names)
    ]
    assert not missing, f"{page.name} names paths that are not there: {missing}."


def _is_there(page: Path, word: str, names: set[str]) -> bool:
    if "/" in word:
        return (ROOT / word).exists() or (page.parent / word).exists()
    return not word.endswith(FILE_ENDINGS) or word in names


@cache
def _files() -> tuple[Path, ...]:
    """The repository's own files, without what hides and what tools make."""
    return tuple(
        Path(folder) / name
        for folder, names in _folders()
        for name in names
        if not name.startswith(".") and not name.endswith(".pyc")
    )


def _folders() -> Iterator[tuple[str, list[str]]]:
    for folder, below, names in os.walk(ROOT):
        made = {"data", "dist", "node_modules", "__pycache__"}
        below[:] = [name for name in below if name not in made and not name.startswith(".")]
        yield folder, names


@cache
def served() -> set[tuple[str, str]]:
    """Method and path of each route, its parameters without their names."""
    paths = create_app(Settings(_env_file=None)).openapi()["paths"]
    return {
        (method.upper(), re.sub(r"{\w+}", "{}", path))
        for path, methods in paths.items()
        for method in methods
    }


@each_page
def test_each_route_that_a_page_names_is_served(page: Path) -> None:
    named = re.findall(r"\b(GET|POST|PATCH|PUT|DELETE) (/[\w/{}.-]*)", all_code(page))
    missing = [
        f"{method} {path}"
        for method, path in named
        if (method, re.sub(r"{\w+}", "{}", path)) not in served()
    ]
    assert not missing, f"{page.name} names routes that nobody serves: {missing}."


@each_page
def test_each_command_that_a_page_names_is_there(page: Path) -> None:
    group = cast("typer.main.TyperGroup", typer.main.get_command(command_line))
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    code = all_code(page)
    missing = [
        *(f"archwright {c}" for c in _said(r"(?:bin/|`)archwright (\w+)", code, group.commands)),
        *(f"make {t}" for t in _said(r"(?:`|\$ |^)make (\w+)", code, targets)),
    ]
    assert not missing, f"{page.name} names commands that are not there: {missing}."


def _said(pattern: str, text: str, known: Mapping[str, Any] | list[str]) -> list[str]:
    return [word for word in re.findall(pattern, text, re.M) if word not in known]


# --- the tree, the map, the version, the authors' variables


def tree() -> dict[str, str]:
    """The tree of ARCHITECTURE.md: path to the words beside it."""
    [text] = blocks("ARCHITECTURE.md", "text")
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in text.splitlines():
        match = re.fullmatch(r"((?:  )*)(\S+)(?: +(\S.*))?", line)
        assert match, f"The tree has a line that is none of it: {line!r}."
        depth, name, words = len(match[1]) // 2, match[2], match[3]
        folders[depth:] = [name]
        found["".join(folders)] = words or ""
    return found


def test_the_tree_names_each_module_and_nothing_that_is_not_there() -> None:
    named = tree()
    modules = {
        path.relative_to(ROOT).as_posix()
        for package in ("api", "graph")
        for path in (ROOT / package).rglob("*.py")
    }
    assert {name for name in named if name.endswith(".py")} == modules, (
        "The tree in ARCHITECTURE.md and the modules of api/ and graph/ differ."
    )
    gone = [name for name in named if not (ROOT / name).exists()]
    assert not gone, f"The tree in ARCHITECTURE.md names what is not there: {gone}."
    silent = [name for name, words in named.items() if not words]
    assert not silent, f"The tree in ARCHITECTURE.md does not say what these are: {silent}."


def test_the_map_is_the_one_that_the_pipeline_draws() -> None:
    pipeline = build_pipeline(
        texts=Texts(ROOT / "prompts", ROOT / "templates"),
        library=cast(Library, None),
        web=None,
        models=cast(Models, None),
    )
    assert blocks("ARCHITECTURE.md", "mermaid") == [pipeline.get_graph().draw_mermaid()], (
        "The map in ARCHITECTURE.md is not what pipeline.get_graph().draw_mermaid() gives."
    )


def test_the_changelog_begins_with_the_version_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert versions[0] == project["version"], "CHANGELOG.md and pyproject.toml name two versions."


def test_authors_are_told_each_variable_and_each_key() -> None:
    page = (ROOT / "docs/authors.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`", page))
    texts = [*(ROOT / "prompts").glob("*.md"), *(ROOT / "templates").glob("*/*/template.md")]
    used = {name for path in texts for name in _variables(path.read_text(encoding="utf-8"))}
    assert used <= told, "docs/authors.md does not name all variables that the texts use."
    assert set(FrontMatter.model_fields) == set(re.findall(r"^\| `(\w+)` \|", page, re.M))


def _variables(text: str) -> set[str]:
    return jinja2.meta.find_undeclared_variables(jinja2.Environment().parse(text))


# --- what readers paste


def test_what_the_readme_has_readers_paste_gives_what_it_shows(
    service: Service, model: OpenAIStandIn
) -> None:
    if not shutil.which("curl"):
        pytest.skip("curl is not on this machine")
    model.will(
        Answer(["Battery life", " is 14 months in normal mode", "."]), Answer(["# Tidewatch"])
    )
    script = "\n".join(blocks("README.md", "sh"))
    assert ADDRESS in script

    result = subprocess.run(
        ["sh", "-eu"],
        input=script.replace(ADDRESS, service.url).encode(),
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "*"},
        capture_output=True,
        timeout=60,
        check=True,
    )

    uploaded, asked, drafted = result.stdout.split(b": open\n\n")
    assert json.loads(uploaded)["documents"][0]["name"] == "sensor-handbook.pdf"
    answer = events_of(asked)
    assert [event.name for event in answer] == ["meta", "sources", *["text"] * 4, "done"]
    assert answer[1].data["chunks"][0]["documentName"] == "sensor-handbook.pdf"
    assert [event.name for event in events_of(drafted)] == ["message", "done"]

    [shown] = blocks("README.md", "text")
    excerpts = re.findall(r"^event: (\w+)\ndata: (.*)$", shown, re.M)
    assert {name: keys_of(json.loads(data)) for name, data in excerpts} == {
        event.name: keys_of(event.data) for event in answer
    }, "The excerpts in README.md have other keys than the events."


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_what_the_page_of_access_has_readers_paste_makes_a_key_and_shares_a_project(
    start_service: ServiceFactory, shared_model: OpenAIStandIn
) -> None:
    secret = "a secret of more than thirty-two bytes"
    model = {"openai_base_url": shared_model.base_url, "openai_model": "stand-in"}
    with start_service(jwt_secret=secret, **model) as service:
        me, keys, grant = pasted("docs/access.md", service, JWT_SECRET=secret)
    assert (me["user"]["name"], [one["name"] for one in me["user"]["groups"]]) == (
        "Ada", ["writers"]
    )  # fmt: skip
    assert [one["name"] for one in keys["keys"]] == ["nightly report"]
    assert (grant["action"], grant["grant"]["targetName"]) == ("created", "writers")


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not on this machine")
def test_what_the_page_of_providers_has_readers_paste_enters_and_tries_one(
    service: Service, http: httpx.Client, model: OpenAIStandIn
) -> None:
    model.will(Answer(["Hello", "!"]))
    replaced = {"https://llm.acme.example/v1": model.base_url}
    try:
        [tried] = pasted("docs/providers.md", service, replaced)
        assert {**tried, "latencyMs": 0} == {
            "ok": True, "latencyMs": 0, "status": 200, "sample": "Hello!"
        }  # fmt: skip
        [request] = model.chats
        assert request.headers["authorization"] == "Bearer sk-..."
    finally:
        for one in http.get("/providers/admin").json()["providers"]:
            if one["slug"] == "acme":
                assert http.delete(f"/providers/{one['id']}").status_code == 204


def pasted(
    page: str, service: Service, replaced: Mapping[str, str] | None = None, **environment: str
) -> list[dict[str, Any]]:
    """What the shell blocks of a page print, one after the other in one shell."""
    script = "\n".join(blocks(page, "sh"))
    for shown, real in {ADDRESS: service.url, **(replaced or {})}.items():
        assert shown in script
        script = script.replace(shown, real)
    result = subprocess.run(
        ["sh", "-eu"],
        input=script.replace(".venv/bin/python", sys.executable),
        cwd=ROOT,
        env={**os.environ, "NO_PROXY": "*", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    decoder, rest, found = json.JSONDecoder(), result.stdout, []
    while rest:
        document, end = decoder.raw_decode(rest)
        found.append(document)
        rest = rest[end:].lstrip()
    return found


def keys_of(value: Any) -> Any:
    """The keys of an event's data, those of lists by their first entry."""
    match value:
        case dict():
            return {key: keys_of(inner) for key, inner in value.items()}
        case [first, *_]:
            return [keys_of(first)]
        case _:
            return None
