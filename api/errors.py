"""Refusals with a status, in the shape that each of the two APIs documents."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic.alias_generators import to_camel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from api.browsers import HEADERS
from graph.errors import (
    ModelError,
    ModelRefused,
    ModelReported,
    PipelineError,
    RetrievalFailed,
    ServiceStopping,
    TemplateFailed,
    UnknownType,
    WebSearchFailed,
)
from graph.postgres import UNREACHABLE

DRAFTING_PREFIX = "/api/v1"

Answer = Callable[[Request, Exception], Awaitable[Response]]
"""Answers a request that an error has ended."""


class Refusal(Exception):
    """A request that is not carried out.

    `code` is for programs and `message` a sentence for people; `extra` are further keys of the
    answer, in snake_case, which become camelCase outside the drafting API.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        headers: dict[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}
        self.extra = extra or {}


def not_found(what: str) -> Refusal:
    """The answer for an id that does not exist or that the caller may not see: the same bytes."""
    return Refusal(404, "not_found", f"There is no such {what}.")


def invalid(
    field: str, message: str, kind: str = "value_error", *within: str | int
) -> RequestValidationError:
    """A field of the body, or a place within it, that does not validate; shaped as FastAPI's."""
    return RequestValidationError([{"type": kind, "loc": ("body", field, *within), "msg": message}])


_DATABASE_AWAY = Refusal(
    503,
    "database_unavailable",
    "The database is away. Try again in a few seconds.",
    headers={"Retry-After": "5"},
)


def in_drafting_api(path: str) -> bool:
    """Whether `path` belongs to the drafting API, whose errors are `{"detail"}`."""
    return path.startswith(DRAFTING_PREFIX)


def refusal_response(path: str, refusal: Refusal) -> JSONResponse:
    """The answer to a refused request under `path`."""
    if in_drafting_api(path):
        status = 403 if refusal.status == 401 else refusal.status
        body = {"detail": refusal.message, **refusal.extra}
    else:
        status = refusal.status
        camel = {to_camel(key): value for key, value in refusal.extra.items()}
        body = {"error": refusal.code, "message": refusal.message, **camel}
    # RFC 9110, 15.5.2: a 401 says with what one may come in.
    asked = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(body, status, headers={**asked, **refusal.headers})


def add_error_handlers(app: FastAPI) -> None:
    """Answer each kind of error in the documented shape, and count it."""
    answers: list[tuple[type[Exception], Answer]] = [
        (Refusal, _on_refusal),
        (RequestValidationError, _on_invalid),
        (HTTPException, _on_http),
        *((error, _on_database_away) for error in UNREACHABLE),
        (PipelineError, _on_pipeline_error),
        (Exception, _on_unexpected),
    ]
    for error, answer in answers:
        app.add_exception_handler(error, _counted(answer))


def _counted(answer: Answer) -> Answer:
    async def counting(request: Request, error: Exception) -> Response:
        response = await answer(request, error)
        request.state.parts.metrics.request_refused(response.status_code)
        return response

    return counting


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return refusal_response(request.url.path, error)


async def _on_database_away(request: Request, error: Exception) -> Response:
    return refusal_response(request.url.path, _DATABASE_AWAY)


async def _on_pipeline_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PipelineError)
    if isinstance(error, UnknownType):
        return await _on_invalid(request, invalid("doc_type", str(error)))
    refusal = Refusal(
        503 if error.transient else 500,
        next(code for kind, code in _PIPELINE_CODES.items() if isinstance(error, kind)),
        str(error),
        headers={"Retry-After": "5"} if error.transient else {},
    )
    return refusal_response(request.url.path, refusal)


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        # Whoever raises this says that the body cannot even be read.
        unread = {"type": "body_unreadable", "loc": ("body",), "msg": str(error.detail)}
        return await _on_invalid(request, RequestValidationError([unread]))
    code, message = _HTTP.get(error.status_code, ("", str(error.detail)))
    code = code or ("too_large" if error.status_code == 413 else "bad_request")
    headers = {"Allow": _methods_at(request)} if error.status_code == 405 else error.headers
    refusal = Refusal(error.status_code, code, message, headers=dict(headers or {}))
    return refusal_response(request.url.path, refusal)


def _methods_at(request: Request) -> str:
    """All methods that the address takes; the router names those of its first route alone."""
    path, routes = request.url.path, iter_route_contexts(request.app.routes)
    here = [route.methods or () for route in routes if route.path_regex.match(path)]
    return ", ".join(sorted(set().union(*here)))


async def _on_unexpected(request: Request, error: Exception) -> Response:
    message = "Something went wrong inside the service. It is in the log."
    # This answer goes out past all middleware.
    refusal = Refusal(500, "internal_error", message, headers=HEADERS)
    return refusal_response(request.url.path, refusal)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    # Where one rule stands on another, both ask for the same id.
    errors = list({(e["type"], e["loc"], e["msg"]): e for e in error.errors()}.values())
    path = request.url.path
    if in_drafting_api(path):
        detail = [{"type": e["type"], "loc": e["loc"], "msg": _said(e)} for e in errors]
        return JSONResponse({"detail": detail}, 422)
    if any(e["loc"][:1] == ("path",) for e in errors):
        return refusal_response(path, not_found("thing"))
    return JSONResponse(_zod_error(errors), 400)


def _zod_error(errors: Sequence[Any]) -> dict[str, Any]:
    issues = [
        {
            "path": list(e["loc"][1:]),
            # What Pydantic puts before the sentence of a rule of our own.
            "message": _PLAINLY.get(e["msg"], _said(e).removeprefix("Value error, ")),
            "code": e["type"],
        }
        for e in errors
    ]
    return {"success": False, "error": {"name": "ZodError", "issues": issues}}


def _said(error: Mapping[str, Any]) -> str:
    """The sentence; a body of another content type counts as no object, whatever it holds."""
    if error["type"] != "model_attributes_type":
        return str(error["msg"])
    if error["loc"] == ("body",):
        return "must be a JSON object, sent as application/json"
    return "must be a JSON object"


# What FastAPI says in words of Python.
_PLAINLY = {"Value error, Expected UploadFile, received: <class 'str'>": "must be a file"}
# The chat API's codes, as its refusals are written; the first that fits.
_PIPELINE_CODES: dict[type[PipelineError], str] = {
    ModelRefused: "llm_api_error",
    ModelReported: "llm_api_error",
    ModelError: "llm_connection_error",
    ServiceStopping: "llm_connection_error",
    RetrievalFailed: "retrieval_error",
    WebSearchFailed: "web_search_error",
    TemplateFailed: "template_error",
    PipelineError: "internal_error",
}
_HTTP = {
    404: ("not_found", "There is nothing at this address."),
    405: ("method_not_allowed", "This address does not take that method."),
}
