"""Makes the pictures of docs/page.md: `make pictures`."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from browsers import ContextFactory
from conftest import Service, ServiceFactory, upload
from PIL import Image
from playwright.sync_api import Page, expect
from standins.openai import Answer, OpenAIStandIn

from graph.settings import ROOT

pytestmark = pytest.mark.skipif(
    "PICTURES_OF_DOCS" not in os.environ, reason="`make pictures` makes them"
)

SIZE = {"width": 1100, "height": 720}
ANSWER = (
    "The state **Alarm** is reached at 4.90 m above chart datum, and is held until the level has "
    "been below 4.60 m for thirty minutes [1]."
)


@pytest.fixture(scope="module")
def filled(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Service]:
    """A service with what somebody would have in it after a day."""
    shared_model.reset()
    shared_model.will(Answer([f"{word} " for word in ANSWER.split()]))
    model = {"openai_base_url": shared_model.base_url, "openai_model": "stand-in"}
    with start_service(**model) as service, service.client() as http:
        for name, color, description in (
            ("Office move", "#b07a13", "Where we sit from October, and who needs what."),
            ("Ferry timetable", "#8a63c2", "One timetable for four operators."),
            ("Tidewatch", "#3b78b5", "Buoys that warn the harbour of floods."),
        ):
            body = {"name": name, "color": color, "description": description}
            project = http.post("/projects", json=body).json()["project"]["id"]
            for question in ("At which water level is the state Alarm reached?", "Who is on call?"):
                if name == "Tidewatch":
                    break
                http.post(f"/chat/projects/{project}", json={"message": question})
        for path in sorted((ROOT / "samples").iterdir()):
            if path.name != "README.md":
                upload(http, project, path.name, path.read_bytes())
        http.post(
            f"/chat/projects/{project}",
            json={"message": "At which water level is the state Alarm reached?"},
        )
        yield service


@pytest.fixture
def tidewatch(filled: Service) -> str:
    """The id of the project that is shown."""
    with filled.client() as http:
        return str(http.get("/projects").json()["projects"][0]["id"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_home(filled: Service, open_context: ContextFactory, scheme: str) -> None:
    with open_context(base_url=filled.url, viewport=SIZE, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto("/")
        expect(page.get_by_role("heading", name="Recent conversations")).to_be_visible()
        keep(page, f"home-{scheme}" if scheme == "dark" else "home")


@pytest.mark.parametrize("view", ["", "drafting", "texts"])
def test_views_of_a_project(
    filled: Service, tidewatch: str, open_context: ContextFactory, view: str
) -> None:
    with open_context(base_url=filled.url, viewport=SIZE) as context:
        page = context.new_page()
        page.goto(f"/#/projects/{tidewatch}/{view}")
        expect(page.locator("main h1")).to_be_visible()
        page.wait_for_load_state("networkidle")
        keep(page, view or "documents")


def test_chat(filled: Service, tidewatch: str, open_context: ContextFactory) -> None:
    with filled.client() as http:
        [latest, *_] = recent(http, tidewatch)
    with open_context(base_url=filled.url, viewport=SIZE) as context:
        page = context.new_page()
        page.goto(f"/#/projects/{tidewatch}/chat/{latest}")
        expect(page.get_by_text("4.90 m above chart datum").first).to_be_visible()
        page.wait_for_load_state("networkidle")
        keep(page, "chat")


def recent(http: httpx.Client, project: str) -> list[str]:
    listed = http.get(f"/chat/projects/{project}/conversations").json()["conversations"]
    return [one["id"] for one in listed]


def keep(page: Page, name: str) -> None:
    """Write what is shown as a small file."""
    folder = ROOT / Path(os.environ["PICTURES_OF_DOCS"])
    folder.mkdir(parents=True, exist_ok=True)
    shown = Image.open(io.BytesIO(page.screenshot()))
    shown.convert("RGB").quantize(64).save(folder / f"{name}.png", optimize=True)
