"""The container files: they pass their linters, name what is there, and copy all that is needed."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Service

from api.settings import Settings
from graph.settings import ROOT

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> Iterator[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.M)
    for line in text.replace("\\\n", "").splitlines():
        if line.strip():
            name, arguments = line.split(maxsplit=1)
            yield name, arguments


def copied() -> list[tuple[str, str]]:
    """What is copied from the repository, and where to, below /app."""
    found, folder = [], Path("/app")
    for name, arguments in instructions():
        if name == "WORKDIR":
            folder = Path(arguments)
        elif name == "COPY" and not arguments.startswith("--from"):
            *sources, target = arguments.split()
            place = (folder / target).relative_to("/app").as_posix()
            found += [(source, place) for source in sources]
    return found


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return found


def lint(*command: str | Path) -> None:
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


# --- the linters


def test_hadolint_has_nothing_to_say() -> None:
    lint(BIN / "hadolint", "Dockerfile")


def test_yamllint_has_nothing_to_say() -> None:
    lint(BIN / "yamllint", "--strict", "compose.yaml")


# --- the image


def test_all_that_the_image_copies_is_there_and_reaches_the_builder() -> None:
    sources = [source for source, _ in copied()]
    missing = [source for source in sources if not (ROOT / source).exists()]
    assert not missing, f"The Dockerfile copies what is not there: {missing}."

    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignore, ".dockerignore must begin by leaving all out."
    let_in = {line[1:] for line in ignore if line.startswith("!")}
    assert let_in == set(sources), ".dockerignore must let in what the Dockerfile copies, no more."


_NOT_COPIED = shutil.ignore_patterns("__pycache__", "node_modules", "dist")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A folder with the files that the Dockerfile copies to /app, and no others."""
    folder = tmp_path / "app"
    for source, target in copied():
        place = folder / target
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=_NOT_COPIED)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, place)
    return folder


_START = """
import sys
from pathlib import Path
import api.app, api.cli, graph.pipeline
from alembic.script import ScriptDirectory
from api.settings import Settings
from graph.texts.texts import Texts

here = Path.cwd()
assert all(Path(m.__file__).is_relative_to(here) for m in (api.app, api.cli, graph.pipeline))
settings = Settings(_env_file=None)
texts = Texts(settings.prompts_dir, settings.templates_dir)
assert texts.files().prompts() and texts.files().document_types()
assert ScriptDirectory(str(here / "api/database")).get_current_head()
assert api.app.create_app(settings).version
"""


def test_the_copied_files_are_all_that_the_service_needs(image: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-B", "-c", _START],
        cwd=image,
        env={"PYTHONPATH": str(image)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_the_copied_files_make_the_package(image: Path) -> None:
    """What `uv pip install --editable .` asks of the build backend in the image."""
    build = "import hatchling.build as b; print(b.build_editable('.'))"
    result = subprocess.run(
        [sys.executable, "-B", "-c", build], cwd=image, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    [wheel] = image.glob("archwright-*.whl")
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", wheel], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(r"archwright.*\.pth", listing), "The package must point to the source tree."
    assert "entry_points.txt" in listing


def test_the_tools_of_the_image_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [version] = re.findall(r"^UV_VERSION := (\S+)$", makefile, re.M)
    assert ("ARG", f"UV_VERSION={version}") in instructions(), "Makefile and image use two uvs."


def test_the_image_installs_by_hash_and_does_not_run_as_root() -> None:
    runs = [arguments for name, arguments in instructions() if name == "RUN"]
    [install] = [run for run in runs if "requirements.lock" in run]
    assert "--require-hashes" in install
    [user] = [arguments for name, arguments in instructions() if name == "USER"]
    assert user not in ("root", "0")
    [entry] = [arguments for name, arguments in instructions() if name == "ENTRYPOINT"]
    assert json.loads(entry) == ["archwright", "serve", "--host", "0.0.0.0"]
    places = [arguments for name, arguments in instructions() if name == "VOLUME"]
    assert places == ["/data"]
    assert "DATA_DIR=/data" in dict(instructions())["ENV"]


def health_check(port: int) -> subprocess.CompletedProcess[str]:
    """The image's health check, against a service on `port` of this machine."""
    [arguments] = [arguments for name, arguments in instructions() if name == "HEALTHCHECK"]
    command = json.loads(arguments.split("CMD", 1)[1])
    assert command[:2] == ["python", "-c"]
    return subprocess.run(
        [sys.executable, *command[1:]],
        # A proxy must not be asked for what is in the same container.
        env={"PORT": str(port), "http_proxy": "http://127.0.0.1:9"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_the_health_check_is_content_with_a_service_that_runs(service: Service) -> None:
    result = health_check(int(service.url.rpartition(":")[2]))
    assert result.returncode == 0, result.stderr


def test_the_health_check_is_not_content_without_a_service() -> None:
    assert health_check(9).returncode != 0


# --- compose


def test_all_that_compose_names_is_there() -> None:
    services, volumes = compose()["services"], set(compose()["volumes"])
    for name, one in services.items():
        if build := one.get("build"):
            assert (ROOT / build / "Dockerfile").exists(), f"{name} has no Dockerfile to build."
        for env_file in one.get("env_file", []):
            assert env_file == {"path": ".env", "required": False}, "Only .env, if it is there."
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            is_folder = source.startswith("./") and (ROOT / source).is_dir()
            assert is_folder or source in volumes, f"{name} mounts {source}, which is not there."
        assert set(one.get("depends_on", {})) <= set(services)


def test_compose_asks_for_a_key_and_sets_only_what_there_is_to_set() -> None:
    environment = compose()["services"]["archwright"]["environment"]
    assert environment["API_KEY"].startswith("${API_KEY:?")
    assert {name.lower() for name in environment} <= set(Settings.model_fields)
    assert environment["DATA_DIR"] == "/data"
    assert Settings(_env_file=None, database_url=environment["DATABASE_URL"]).database_url


def test_compose_waits_for_a_postgres_that_keeps_its_data() -> None:
    service, postgres = (compose()["services"][name] for name in ("archwright", "postgres"))
    assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    assert postgres["image"] == "postgres:18"
    assert "pg_isready" in postgres["healthcheck"]["test"]
    # Since 18 the image keeps its data in a folder of the version below this one.
    assert postgres["volumes"] == ["postgres:/var/lib/postgresql"]
    user, password = (postgres["environment"][f"POSTGRES_{n}"] for n in ("USER", "PASSWORD"))
    url = service["environment"]["DATABASE_URL"]
    assert url.startswith(f"postgresql://{user}:{password}@postgres:5432/")
