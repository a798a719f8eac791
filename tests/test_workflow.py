"""A project's way through the document types: what each draft stands on, what is done and stale."""

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import Service, ServiceFactory, upload
from sse import read
from standins.openai import Answer, OpenAIStandIn

from graph.settings import ROOT
from graph.texts.document_types import version_of

pytestmark = pytest.mark.slow

STREAM = "/api/v1/chat/stream"
BLOCK = re.compile(r'<(document-[b-z]{8}) path="([^"]+)">\n(.*?)\n</\1>', re.DOTALL)
TALES = '{"__tales__": [{"id": "T-1", "text": "As *a* keeper I read the level."}]}'


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


def new_project(http: httpx.Client) -> str:
    answer = http.post("/projects", json={"name": "Harbour"}).raise_for_status()
    return str(answer.json()["project"]["id"])


def statuses(http: httpx.Client, project: str) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in workflow(http, project)["documents"]}


def some_of(found: dict[str, str]) -> dict[str, str]:
    return {name: found[name] for name in ("PROJECT_MANIFESTO", "DOMAIN_LANGUAGE")}


def add_type(
    service: Service, project: str, name: str, order: int, output_path: str, needs: list[str]
) -> None:
    """Write the template of a type that only this project has."""
    source = (
        f"---\ntitle: {name.title()}\nphase: own\norder: {order}\noutput_path: {output_path}\n"
        f"depends_on: [{', '.join(needs)}]\nrequired_headings: [Tales]\ngood: [It is short.]\n"
        f"---\n# {name}\n\n## Tales\n"
    )
    with service.changing() as connection:
        connection.execute(
            "insert into text_edits (project_id, path, content, version, source)"
            " values (%s, %s, %s, %s, 'edit')",
            (project, f"templates/own/{name}/template.md", source, version_of(source)),
        )


def test_the_types_are_told_in_the_order_in_which_a_project_goes_through_them(
    http: httpx.Client,
) -> None:
    fronts = {
        path.parent.name: yaml.safe_load(path.read_text(encoding="utf-8").split("---\n")[1])
        for path in (ROOT / "templates").glob("*/*/template.md")
    }
    types = http.get("/api/v1/document-types").json()["document_types"]
    assert types == [
        {
            "type": name,
            **{key: front[key] for key in front if key not in ("order", "good")},
            "version": told["version"],
        }
        for (name, front), told in zip(
            sorted(fronts.items(), key=lambda item: int(str(item[1]["order"]))), types, strict=True
        )
    ]


def test_the_way_from_an_empty_project_to_its_last_document(
    roomy: Service, plain: httpx.Client, model: OpenAIStandIn
) -> None:
    project = new_project(plain)
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


def test_a_change_makes_stale_what_stands_on_it_and_nothing_else_does(http: httpx.Client) -> None:
    project = str(uuid.uuid4())
    for name in ("PROJECT_MANIFESTO", "DOMAIN_LANGUAGE"):
        ingest(http, project, f"docs/context/{name}.md", f"# {name}")
    done = {"PROJECT_MANIFESTO": "done", "DOMAIN_LANGUAGE": "done"}
    assert some_of(statuses(http, project)) == done

    ingest(http, project, "docs/context/PROJECT_MANIFESTO.md", "# PROJECT_MANIFESTO")
    assert some_of(statuses(http, project)) == done
    assert upload(http, project, "PROJECT_MANIFESTO.md", b" \n")["status"] == "failed"
    assert some_of(statuses(http, project)) == done

    before = workflow(http, project)
    assert upload(http, project, "PROJECT_MANIFESTO.md", b"# New")["status"] == "indexed"
    assert some_of(statuses(http, project)) == {**done, "DOMAIN_LANGUAGE": "stale"}
    assert workflow(http, project)["next"] == "DOMAIN_LANGUAGE" != before["next"]
    ingest(http, project, "docs/context/DOMAIN_LANGUAGE.md", "# Made anew")
    assert some_of(statuses(http, project)) == done


def test_a_document_that_is_deleted_is_not_done_any_more(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    project = str(uuid.uuid4())
    model.will(Answer(["# Words"]))
    draft(http, project, "DOMAIN_LANGUAGE")
    ids = [
        upload(http, project, f"{name}.md", b"# x")["id"]
        for name in ("PROJECT_MANIFESTO", "DOMAIN_LANGUAGE")
    ]
    for document in ids:
        assert http.delete(f"/documents/{document}").status_code == 204
    assert some_of(statuses(http, project)) == {
        "PROJECT_MANIFESTO": "ready",
        "DOMAIN_LANGUAGE": "draft",
    }
    draft(http, project, "DOMAIN_LANGUAGE")
    assert shown(model) == {}


def test_what_the_request_brings_counts_before_what_the_project_has(
    http: httpx.Client, model: OpenAIStandIn
) -> None:
    project = str(uuid.uuid4())
    ingest(http, project, "docs/context/PROJECT_MANIFESTO.md", "Ours.")
    ingest(http, project, "ARCHITECTURE_SPEC.md", "Of the project.")
    ingest(http, project, "docs/context/DOMAIN_LANGUAGE.md", "Not needed.")
    theirs = {"notes.md": "A note.", "elsewhere/PROJECT_MANIFESTO.md": "Theirs."}

    done = draft(http, project, "TECH_STACK", project_context=theirs)

    assert list(shown(model).items()) == [
        ("elsewhere/PROJECT_MANIFESTO.md", "Theirs."),
        ("ARCHITECTURE_SPEC.md", "Of the project."),
        ("notes.md", "A note."),
    ]
    assert done["sources"][:3] == ["TECH_STACK", "PROJECT_MANIFESTO", "ARCHITECTURE_SPEC"]
    draft(http, project, "UNSORTED", project_context={})
    assert shown(model) == {}


def test_a_project_goes_its_own_way_through_types_of_its_own(
    service: Service, http: httpx.Client, project: str, model: OpenAIStandIn
) -> None:
    add_type(service, project, "TALES", 1, "docs/tales/TALES.json", [])
    add_type(service, project, "DIGEST", 2, "DIGEST.md", ["TALES"])
    elsewhere = new_project(http)
    assert [entry["type"] for entry in workflow(http, project)["documents"]][:2] == [
        "TALES", "DIGEST",
    ]  # fmt: skip
    assert "TALES" not in statuses(http, elsewhere)

    ingest(http, project, "docs/tales/TALES.json", TALES)
    assert workflow(http, project)["next"] == "DIGEST"
    draft(http, project, "DIGEST")
    assert shown(model) == {"docs/tales/TALES.json": TALES}
    found = http.get("/api/v1/knowledge/search", params={"project_id": project, "q": "keeper"})
    assert [result["content"] for result in found.json()["results"]] == [TALES]

    ingest(http, project, "DIGEST.md", "# Digest")
    assert upload(http, project, "TALES.json", b'{"__tales__": []}')["status"] == "indexed"
    assert {name: statuses(http, project)[name] for name in ("TALES", "DIGEST")} == {
        "TALES": "done",
        "DIGEST": "stale",
    }
    draft(http, project, "DIGEST")
    assert shown(model) == {"TALES.json": '{"__tales__": []}'}
