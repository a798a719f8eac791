"""A project's way through the document types: what each draft stands on, what is done and stale."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Service, ServiceFactory, upload
from sse import read
from standins.openai import Answer, OpenAIStandIn

from graph.settings import ROOT

STREAM = "/api/v1/chat/stream"
BLOCK = re.compile(r'<(document-[0-9a-f]{8}) path="([^"]+)">\n(.*?)\n</\1>', re.DOTALL)
STORIES = '{"__stories__": [{"id": "US-1", "text": "As *a* keeper I read the level."}]}'


@pytest.fixture(scope="module")
def roomy(start_service: ServiceFactory, shared_model: OpenAIStandIn) -> Iterator[Service]:
    """A service whose model takes four whole documents beside template and example."""
    with start_service(
        openai_base_url=shared_model.base_url,
        openai_model="stand-in",
        openai_context_window=400_000,
    ) as service:
        yield service


@pytest.fixture
def plain(roomy: Service, model: OpenAIStandIn) -> Iterator[httpx.Client]:
    with roomy.client() as client:
        yield client


def ingest(http: httpx.Client, project: str, name: str, text: str) -> None:
    body = {"doc_name": name, "markdown_content": text}
    answer = http.post(f"/api/v1/projects/{project}/documents/ingest", json=body)
    assert answer.status_code == 200, answer.text


def draft(http: httpx.Client, project: str, doc_type: str, **changes: Any) -> dict[str, Any]:
    body = {"conversation_id": str(uuid.uuid4()), "project_id": project, "message": "Draft it."}
    *_, last = read(http, "POST", STREAM, json={**body, "doc_type": doc_type, **changes})
    assert last.name == "done", last.data
    done: dict[str, Any] = last.data
    return done


def shown(model: OpenAIStandIn) -> dict[str, str]:
    """The documents in the prompt that the model received last, in their order."""
    asked = model.chats[-1].body["messages"][-1]["content"]
    return {path: text for _, path, text in BLOCK.findall(asked)}


def example_of(entry: dict[str, Any]) -> str:
    folder = ROOT / "templates" / entry["phase"] / entry["type"]
    return (folder / f"example{Path(entry['output_path']).suffix}").read_text(encoding="utf-8")


def workflow(http: httpx.Client, project: str) -> dict[str, Any]:
    answer = http.get(f"/api/v1/projects/{project}/workflow")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def statuses(http: httpx.Client, project: str) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in workflow(http, project)["documents"]}


def test_the_way_from_an_empty_project_to_its_last_document(
    roomy: Service, plain: httpx.Client, model: OpenAIStandIn
) -> None:
    project = str(uuid.uuid4())
    entries = {entry["type"]: entry for entry in workflow(plain, project)["documents"]}
    needs = {name: entry["depends_on"] for name, entry in entries.items()}
    written: dict[str, str] = {}

    def standing() -> dict[str, str]:
        return {
            name: "done"
            if name in written
            else "ready"
            if all(need in written for need in needs[name])
            else "missing"
            for name in entries
        }

    while doc_type := workflow(plain, project)["next"]:
        assert statuses(plain, project) == standing()
        assert doc_type == next(name for name, at in standing().items() if at == "ready")
        model.will(Answer([example_of(entries[doc_type])]))
        done = draft(plain, project, doc_type)
        assert shown(model) == {
            entries[need]["output_path"]: written[need] for need in needs[doc_type]
        }
        assert done["sources"][: len(needs[doc_type]) + 1] == [doc_type, *needs[doc_type]]
        assert statuses(plain, project) == {**standing(), doc_type: "draft"}
        ingest(plain, project, entries[doc_type]["output_path"], done["full_response"])
        written[doc_type] = done["full_response"]

    assert statuses(plain, project) == dict.fromkeys(entries, "done")
    ingest(plain, project, entries["DOMAIN_LANGUAGE"]["output_path"], "# Other words\n")
    assert statuses(plain, project) == {
        name: "stale" if "DOMAIN_LANGUAGE" in needs[name] else "done" for name in entries
    }
