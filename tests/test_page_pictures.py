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

SIZE = {"width": 1180, "height": 740}
QUESTION = "When is the state Alarm reached?"
ANSWER = (
    "The threshold of the state **Alarm** is 4.90 m above chart datum, which is 40 cm below the "
    "edge of the Fish Quay [1]. A state is reached only when at least two buoys have stayed at or "
    "above its threshold for 180 seconds without a break [1].\n\nThe action in each state:\n\n"
    "- **Watch**: the duty officer is alerted [1].\n"
    "- **Warning**: a warning to berth holders is proposed [1].\n"
    "- **Alarm**: the siren on the Fish Quay is proposed [1].\n"
)


@pytest.fixture(scope="module")
def filled(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Service]:
    """A service with what somebody would have in it after a day."""
    shared_model.reset()
    shared_model.will(Answer(ANSWER.splitlines(keepends=True)))
    model = {"openai_base_url": shared_model.base_url, "openai_model": "stand-in"}
    with start_service(**model) as service, service.client() as http:
        for name, color, description in (
            ("Office move", "#b07a13", "Where we sit from October, and who needs what."),
            ("Ferry timetable", "#8a63c2", "One timetable for four operators."),
            ("Tidewatch", "#3b78b5", "Buoys that warn the harbour of floods."),
        ):
            body = {"name": name, "color": color, "description": description}
            project = http.post("/projects", json=body).json()["project"]["id"]
            for question in () if name == "Tidewatch" else ("What is still open?", "Who decides?"):
                http.post(f"/chat/projects/{project}", json={"message": question})
        for path in sorted((ROOT / "samples").iterdir()):
            if path.name != "README.md":
                upload(http, project, path.name, path.read_bytes())
        http.post(f"/chat/projects/{project}", json={"message": QUESTION})
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


@pytest.mark.parametrize("view", ["", "drafting"])
def test_views_of_a_project(
    filled: Service, tidewatch: str, open_context: ContextFactory, view: str
) -> None:
    with open_context(base_url=filled.url, viewport=SIZE) as context:
        page = context.new_page()
        page.goto(f"/#/projects/{tidewatch}/{view}")
        expect(page.locator("main h1")).to_be_visible()
        page.wait_for_load_state("networkidle")
        keep(page, view or "documents")


def test_text(filled: Service, tidewatch: str, open_context: ContextFactory) -> None:
    with open_context(base_url=filled.url, viewport=SIZE) as context:
        page = context.new_page()
        page.goto(f"/#/projects/{tidewatch}/texts/prompts/answer.md")
        editor = page.get_by_label("Text of prompts/answer.md")
        text = "Write British English."
        page.get_by_label("instructions", exact=True).fill(text)
        expect(page.get_by_role("region", name="What the text becomes")).to_contain_text(text)
        lines = editor.input_value().splitlines(keepends=True)
        lines[2] = lines[2].replace("the question", "the question of {{ name }}")
        editor.fill("".join(lines))
        expect(page.get_by_role("button", name="Line 3")).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
        keep(page, "texts")


def test_chat(filled: Service, tidewatch: str, open_context: ContextFactory) -> None:
    with filled.client() as http:
        [latest, *_] = recent(http, tidewatch)
    with open_context(base_url=filled.url, viewport=SIZE) as context:
        page = context.new_page()
        page.goto(f"/#/projects/{tidewatch}/chat/{latest}")
        page.get_by_role("button", name="Source 1, sensor-handbook.pdf").last.click()
        expect(page.get_by_role("dialog").locator("mark")).to_be_visible()
        keep(page, "chat")


def recent(http: httpx.Client, project: str) -> list[str]:
    listed = http.get(f"/chat/projects/{project}/conversations").json()["conversations"]
    return [one["id"] for one in listed]


def keep(page: Page, name: str) -> None:
    """Write what is shown as a small file."""
    folder = ROOT / Path(os.environ["PICTURES_OF_DOCS"])
    folder.mkdir(parents=True, exist_ok=True)
    shown = Image.open(io.BytesIO(page.screenshot()))
    shown.convert("RGB").quantize(256).save(folder / f"{name}.png", optimize=True)
