"""What OpenAPI says of requests that are refused, in the shape of each of the two APIs."""

from types import UnionType
from typing import Any, Literal

from pydantic import BaseModel

from api.errors import in_drafting_api
from api.schema import example


class Refused(BaseModel):
    """Why a request is refused: `error` is for programs. A few refusals have a key more."""

    model_config = example(error="not_found", message="There is no such project.")
    error: str
    message: str


class InvalidPart(BaseModel):
    """A part of the request; `path` leads to it."""

    path: list[str | int]
    message: str
    code: str


class InvalidParts(BaseModel):
    """What is wrong, part by part."""

    name: Literal["ZodError"]
    issues: list[InvalidPart]


class Invalid(BaseModel):
    """Which parts of the request do not validate; the status is 400."""

    success: Literal[False]
    error: InvalidParts


class DraftingRefused(BaseModel):
    """Why a request is refused. A few refusals have a key more."""

    model_config = example(detail="There is no such document.")
    detail: str


class DraftingInvalidPart(BaseModel):
    """A part of the request; `loc` leads to it."""

    type: str
    loc: list[str | int]
    msg: str


class DraftingInvalid(BaseModel):
    """Which parts of the request do not validate; the status is 422."""

    detail: list[DraftingInvalidPart]


CHAT_API = Refused | Invalid
DRAFTING_API = DraftingRefused | DraftingInvalid


def refusals_under(path: str) -> dict[int | str, dict[str, Any]]:
    """The shape of all refusals of the routes under `path`, but for those that stream."""
    shape = DRAFTING_API if in_drafting_api(path) else CHAT_API
    return {"default": {"model": shape, "description": "The request is refused."}}


def refusal_content(shape: UnionType) -> dict[str, Any]:
    """The same for a route that streams, of which FastAPI would say that it refuses in a stream."""
    refs = [{"$ref": f"#/components/schemas/{one.__name__}"} for one in shape.__args__]
    return {"application/json": {"schema": {"anyOf": refs}}}
