"""Documents: uploaded, read, replaced, erased; the drafting API's knowledge."""

import tracemalloc
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Service, ServiceFactory, migrated_database, upload
from sse import read
from standins.openai import OpenAIStandIn

HANDBOOK = Path("samples/sensor-handbook.pdf").read_bytes()


def test_a_pdf_is_indexed_with_its_pages_and_read_back(http: httpx.Client, project: str) -> None:
    document = upload(http, project, "handbook.pdf", HANDBOOK)
    assert {**document, "id": "", "createdAt": "", "chunkCount": 0} == {
        "id": "",
        "name": "handbook.pdf",
        "mimeType": "application/pdf",
        "sizeBytes": len(HANDBOOK),
        "pageCount": 4,
        "chunkCount": 0,
        "status": "indexed",
        "error": None,
        "createdAt": "",
    }
    assert document["chunkCount"] > 4
    content = http.get(f"/documents/{document['id']}/content")
    assert content.content == HANDBOOK
    assert content.headers["content-type"] == "application/pdf"
    assert content.headers["x-content-type-options"] == "nosniff"
    assert http.get(f"/documents/projects/{project}").json() == {"documents": [document]}


def test_several_files_come_in_one_upload(http: httpx.Client, project: str) -> None:
    files = [("file", ("a.md", b"# A\n\na")), ("file", ("..\\b/c.txt", b"see"))]
    answer = http.post(f"/documents/projects/{project}", files=files)
    assert answer.status_code == 202
    documents = answer.json()["documents"]
    assert [(d["name"], d["mimeType"], d["status"]) for d in documents] == [
        ("a.md", "text/markdown", "processing"),
        ("c.txt", "text/plain", "processing"),
    ]


def test_of_many_files_in_one_upload_few_are_in_memory_at_a_time(
    http: httpx.Client, project: str
) -> None:
    data = b"%PDF-1.7" + bytes(2_000_000)
    files = [("file", (f"{n}.pdf", data)) for n in range(20)]
    tracemalloc.start()
    try:
        answer = http.post(f"/documents/projects/{project}", files=files)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [d["name"] for d in answer.json()["documents"]] == [f"{n}.pdf" for n in range(20)]
    assert most < 10 * len(data)


def test_the_same_name_is_a_new_version_and_the_same_bytes_are_not_done_again(
    http: httpx.Client, project: str
) -> None:
    old = upload(http, project, "plan.md", b"# Plan\n\nThe pier is made of oak.")
    again = upload(http, project, "plan.md", b"# Plan\n\nThe pier is made of oak.")
    assert again == old
    new = upload(http, project, "plan.md", b"# Plan\n\nThe pier is made of steel.")
    assert [d["id"] for d in http.get(f"/documents/projects/{project}").json()["documents"]] == [
        new["id"]
    ]
    found = search(http, project, "What is the pier made of?")
    assert [result["content"].split()[-1] for result in found] == ["steel."]
    assert http.get(f"/documents/{old['id']}").status_code == 404


def test_the_same_file_several_times_at_once_is_one_document(
    http: httpx.Client, project: str
) -> None:
    text = "\n\n".join(f"# Part {n}\n\nThe pier has {n} piles of oak." for n in range(300))
    files = [("file", ("pier.md", text.encode()))] * 3
    documents = http.post(f"/documents/projects/{project}", files=files).json()["documents"]
    assert len({document["id"] for document in documents}) == 1
    assert upload(http, project, "pier.md", text.encode())["status"] == "indexed"
    [document] = http.get(f"/documents/projects/{project}").json()["documents"]
    assert status(http, project)["vectors"] == document["chunkCount"] > 10


def test_a_stream_that_showed_an_erased_document_is_gone_and_the_answer_stays(
    http: httpx.Client, project: str
) -> None:
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    events = read(http, "POST", f"/chat/projects/{project}", json={"message": "pier"})
    run, conversation = events[0].data["messageId"], events[0].data["conversationId"]
    http.delete(f"/documents/{document['id']}").raise_for_status()
    assert http.get(f"/runs/{run}/stream").status_code == 410
    messages = http.get(f"/chat/conversations/{conversation}").json()["conversation"]["messages"]
    assert messages[1]["content"] == "The answer."


def test_an_erased_document_is_found_no_more(http: httpx.Client, project: str) -> None:
    document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
    assert len(search(http, project, "pier")) == 1
    assert http.delete(f"/documents/{document['id']}").status_code == 204
    assert search(http, project, "pier") == []
    assert http.get(f"/documents/{document['id']}/content").status_code == 404
    assert status(http, project) == {
        "status": "EMPTY", "documents": 0, "vectors": 0, "collections": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.pdf", b"\x00\x01\x02"), ("a.txt", b"bin\x00ary"), ("a.docx", b"PK\x03\x04\x00")],
)
def test_what_is_none_of_the_formats_is_415_and_nothing_is_stored(
    http: httpx.Client, project: str, name: str, data: bytes
) -> None:
    files = [("file", ("good.md", b"# Good")), ("file", (name, data))]
    answer = http.post(f"/documents/projects/{project}", files=files)
    assert (answer.status_code, answer.json()["error"]) == (415, "unsupported_document")
    assert name in answer.json()["message"]
    assert http.get(f"/documents/projects/{project}").json() == {"documents": []}


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("broken.pdf", b"%PDF-1.7\nnothing more", "damaged"),
        ("cut.pdf", HANDBOOK[:200], "damaged"),
        ("empty.txt", b" \n", "no text"),
    ],
)
def test_a_file_without_text_fails_with_its_reason_and_is_not_searched(
    http: httpx.Client, project: str, name: str, data: bytes, says: str
) -> None:
    document = upload(http, project, name, data)
    assert document["status"] == "failed"
    assert says in document["error"]
    assert search(http, project, "anything") == []


def test_a_file_over_the_limit_is_413(start_service: ServiceFactory, model: OpenAIStandIn) -> None:
    settings = {"openai_base_url": model.base_url, "openai_model": "stand-in"}
    with start_service(max_upload_mb=1, **settings) as service, service.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        answers = [
            http.post(f"/documents/projects/{project}", files={"file": ("a.txt", b"a" * size)})
            for size in (1_000_001, 6_000_000)
        ]
    assert [(a.status_code, a.json()["error"]) for a in answers] == [(413, "too_large")] * 2


def test_an_upload_without_a_file_is_refused(http: httpx.Client, project: str) -> None:
    answer = http.post(f"/documents/projects/{project}", data={"x": "y"})
    assert answer.status_code == 400
    assert answer.json()["error"]["issues"][0]["path"] == ["file"]


def search(http: httpx.Client, project: str, question: str, limit: int = 5) -> list[dict[str, Any]]:
    asked: dict[str, Any] = {"q": question, "project_id": project, "limit": limit}
    answer = http.get("/api/v1/knowledge/search", params=asked)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def status(http: httpx.Client, project: str) -> dict[str, Any]:
    found: dict[str, Any] = http.get(
        "/api/v1/knowledge/status", params={"project_id": project}
    ).json()
    return found


def ingest(http: httpx.Client, project: str, name: str, text: str) -> httpx.Response:
    return http.post(
        f"/api/v1/projects/{project}/documents/ingest",
        json={"doc_name": name, "markdown_content": text},
    )


def test_an_ingested_text_is_found_at_once_and_replaced_entirely(http: httpx.Client) -> None:
    project = str(uuid.uuid4())
    first = ingest(http, project, "\u202eno\u200ftes\n", "# Boats\n\nThe ferry is red.")
    assert first.json() == {"project_id": project, "doc_name": "notes", "chunks_ingested": 1}
    ingest(http, project, "notes", "# Boats\n\nThe ferry is green.").raise_for_status()

    [result] = search(http, project, "Which colour has the ferry?")
    assert "green" in result["content"]
    assert result["metadata"]["document_name"] == "notes"
    assert 0 < result["score"] <= 1
    assert status(http, project) == {
        "status": "OK", "documents": 1, "vectors": 1, "collections": 1,
    }  # fmt: skip


def test_the_knowledge_endpoints_refuse_what_is_wrong(http: httpx.Client, project: str) -> None:
    unknown = {"project_id": str(uuid.uuid4()), "q": "x"}
    answers = [
        ingest(http, project, "a", "  "),
        ingest(http, project, "", "x"),
        ingest(http, project, "a" * 256, "x"),
        http.get("/api/v1/knowledge/search", params={"q": "x"}),
        http.get("/api/v1/knowledge/search", params=unknown),
        http.get("/api/v1/knowledge/status", params=unknown),
    ]
    assert [answer.status_code for answer in answers] == [400, 422, 422, 422, 403, 403]
    assert all("detail" in answer.json() for answer in answers)


@pytest.mark.parametrize(
    ("q", "sentence"),
    [
        ("", "String should have at least 1 character"),
        ("a" * 2001, "String should have at most 2000 characters"),
    ],
)
def test_a_search_for_nothing_or_too_much_is_told_in_characters(
    http: httpx.Client, project: str, q: str, sentence: str
) -> None:
    answer = http.get("/api/v1/knowledge/search", params={"project_id": project, "q": q})
    [detail] = answer.json()["detail"]
    assert (answer.status_code, detail["loc"], detail["msg"]) == (422, ["query", "q"], sentence)


def test_a_text_without_text_makes_no_project(http: httpx.Client, service: Service) -> None:
    project = str(uuid.uuid4())
    refused = ingest(http, project, "a", "![](a.png)")
    assert (refused.status_code, refused.json()) == (400, {"detail": "'a.md' has no text in it."})
    assert http.get(f"/projects/{project}").status_code == 404
    assert service.query("select from documents where project_id = %s", project) == []


def test_a_text_that_is_refused_leaves_the_projects_documents_as_they_are(
    http: httpx.Client, project: str, service: Service
) -> None:
    ingest(http, project, "a", "# Boats\n\nThe ferry is red.").raise_for_status()
    before = http.get(f"/documents/projects/{project}").json()
    for name in ("a", "b"):
        refused = ingest(http, project, name, "![](a.png)")
        assert (refused.status_code, refused.json()) == (
            400,
            {"detail": f"'{name}.md' has no text in it."},
        )
    assert http.get(f"/documents/projects/{project}").json() == before
    assert service.query(_SELECT_FILES, project) == [{"files": 1}]


_SELECT_FILES = """
select count(*) as files from document_files f join documents d on d.id = f.document_id
where d.project_id = %s
"""


def test_after_a_restart_conversation_documents_and_vectors_are_there(
    start_service: ServiceFactory, model: OpenAIStandIn, tmp_path: Path, postgres_url: str
) -> None:
    settings = {
        "data_dir": tmp_path,
        "database_url": migrated_database(postgres_url),
        "openai_base_url": model.base_url,
        "openai_model": "stand-in",
    }
    with start_service(**settings) as first, first.client() as http:
        project = http.post("/projects", json={"name": "x"}).json()["project"]["id"]
        document = upload(http, project, "a.md", b"# Pier\n\nThe pier is made of oak.")
        events = read(http, "POST", f"/chat/projects/{project}", json={"message": "pier?"})
    with start_service(**settings) as second, second.client() as http:
        assert http.get(f"/documents/{document['id']}").json()["document"] == document
        assert [result["content"][-4:] for result in search(http, project, "pier")] == ["oak."]
        conversation = events[0].data["conversationId"]
        messages = http.get(f"/chat/conversations/{conversation}").json()["conversation"]
        assert [message["content"] for message in messages["messages"]] == [
            "pier?", "The answer.",
        ]  # fmt: skip
        body = {"message": "And now?", "conversationId": conversation}
        read(http, "POST", f"/chat/projects/{project}", json=body)
    assert len(model.chats[-1].body["messages"]) == 4
