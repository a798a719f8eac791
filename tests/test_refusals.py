"""What is refused before anything is done, and in which shape."""

from typing import Any

import httpx
import pytest
from conftest import Service

DRAFT = "/api/v1/chat/stream"
JSON = {"Content-Type": "application/json"}


def zod(path: list[str | int], message: str, code: str) -> dict[str, Any]:
    """The chat API's answer to a body with one thing wrong."""
    issues = [{"path": path, "message": message, "code": code}]
    return {"success": False, "error": {"name": "ZodError", "issues": issues}}


@pytest.mark.parametrize(
    "body",
    [b'{"message": "\xff"}', b"[" * 100_000, b'{"message": %s}' % (b"9" * 5_000)],
    ids=["no UTF-8", "too deep", "too long a number"],
)
def test_a_body_that_cannot_be_read_is_one_that_does_not_validate(
    http: httpx.Client, project: str, body: bytes
) -> None:
    camel = http.post(f"/chat/projects/{project}", content=body, headers=JSON)
    snake = http.post(DRAFT, content=body, headers=JSON)
    says = "There was an error parsing the body"
    assert (camel.status_code, camel.json()) == (400, zod([], says, "body_unreadable"))
    detail = [{"type": "body_unreadable", "loc": ["body"], "msg": says}]
    assert (snake.status_code, snake.json()) == (422, {"detail": detail})


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'{"message": "x"}', None),
        (b'{"message": "x"}', "text/plain"),
        (b"message=x", "application/x-www-form-urlencoded"),
        (b"null", "application/json"),
        (b"[]", "application/json"),
    ],
)
def test_a_body_that_is_no_json_object_or_not_sent_as_one_is_told_so(
    http: httpx.Client, project: str, content: bytes, kind: str | None
) -> None:
    """As with curl, where somebody forgets the header."""
    headers = {"Content-Type": kind} if kind else {}
    camel = http.post(f"/chat/projects/{project}", content=content, headers=headers)
    snake = http.post(DRAFT, content=content, headers=headers)
    says, code = "must be a JSON object, sent as application/json", "model_attributes_type"
    assert (camel.status_code, camel.json()) == (400, zod([], says, code))
    detail = [{"type": code, "loc": ["body"], "msg": says}]
    assert (snake.status_code, snake.json()) == (422, {"detail": detail})


def test_a_part_of_a_body_that_is_no_object_is_told_so(http: httpx.Client, project: str) -> None:
    answer = http.patch(f"/projects/{project}", json={"settings": 1})
    expected = zod(["settings"], "must be a JSON object", "model_attributes_type")
    assert (answer.status_code, answer.json()) == (400, expected)


def test_an_upload_that_cannot_be_read_is_one_that_does_not_validate(
    http: httpx.Client, project: str
) -> None:
    answer = http.post(
        f"/documents/projects/{project}",
        content=b"x",
        headers={"Content-Type": "multipart/form-data"},
    )
    says = "Missing boundary in multipart."
    assert (answer.status_code, answer.json()) == (400, zod([], says, "body_unreadable"))


def test_an_upload_without_a_file_says_so_without_a_word_of_python(
    http: httpx.Client, project: str
) -> None:
    """As with curl, where somebody forgets the @."""
    answer = http.post(f"/documents/projects/{project}", files={"file": (None, "handbook.pdf")})
    expected = zod(["file", 0], "must be a file", "value_error")
    assert (answer.status_code, answer.json()) == (400, expected)


def test_a_null_where_none_may_be_is_told_with_its_field(http: httpx.Client, project: str) -> None:
    answer = http.patch(f"/projects/{project}", json={"isPrivate": None})
    expected = zod(["isPrivate"], "must not be null", "value_error")
    assert (answer.status_code, answer.json()) == (400, expected)


@pytest.mark.parametrize("body", [b"", b"{", b'{"message": "x"}', b'{"prompt": 7}'])
def test_the_deprecated_message_endpoint_says_so_whatever_it_is_sent(
    http: httpx.Client, body: bytes
) -> None:
    answer = http.post("/api/v1/chat/message", content=body, headers=JSON)
    says = "This endpoint is deprecated. Use POST /api/v1/chat/stream, which streams."
    assert (answer.status_code, answer.json()) == (400, {"detail": says})


def test_a_wrong_method_is_told_all_right_ones(http: httpx.Client, project: str) -> None:
    asked = [("PUT", "/projects"), ("PUT", f"/projects/{project}"), ("GET", DRAFT), ("PUT", "/")]
    answers = [http.request(method, path) for method, path in asked]
    assert [(one.status_code, one.headers["allow"]) for one in answers] == [
        (405, "GET, POST"),
        (405, "DELETE, GET, PATCH"),
        (405, "POST"),
        (405, "GET, HEAD"),
    ]


@pytest.mark.parametrize("path", ["/", "/api/v1/system/health"])
def test_monitors_may_ask_for_the_head_alone(service: Service, path: str) -> None:
    with service.client() as client:
        whole, head = client.get(path), client.head(path)
    for each in (whole, head):
        each.headers.pop("date")
    assert (head.status_code, head.headers, head.content) == (200, whole.headers, b"")
