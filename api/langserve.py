"""Mounts LangServe's routes and playground for the pipeline, for admins."""

import json
import logging
import warnings
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Sequence
from functools import partial
from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from langserve import add_routes
from langserve.server import EndpointName
from pydantic import AfterValidator, ValidationError
from sse_starlette import EventSourceResponse

from api.access.rules import GuardedRoute, admin
from api.browsers import POLICY, policy, scripts_of
from api.refusals import refusals_under
from api.settings import Settings
from api.wire import EventStream
from graph.errors import InternalFailure, PipelineError, UnknownType
from graph.pipeline import Pipeline
from graph.sanitizing import clean
from graph.state import Message, Turn

log = logging.getLogger(__name__)

PATH = "/langserve/pipeline"

_ENDPOINTS: tuple[EndpointName, ...] = (
    "invoke", "batch", "stream", "stream_log", "stream_events",
    "input_schema", "output_schema", "config_schema", "config_hashes", "playground",
)  # fmt: skip

Event = dict[str, Any]


def mount(app: FastAPI, pipeline: Pipeline, settings: Settings) -> None:
    """Add `/langserve/pipeline/{invoke,batch,stream,stream_log,playground,...}` to the app."""
    # The playground cannot do without it, and nobody who reads our log can change that.
    warnings.filterwarnings("ignore", "astream_log is deprecated")
    # On the router: LangServe leaves a route of its own without the dependencies it is given.
    router = APIRouter(route_class=_Route, dependencies=[Depends(admin), Depends(_require_json)])
    asked = AfterValidator(partial(_asked, settings))
    add_routes(
        router,
        pipeline.with_types(input_type=cast("type[Turn]", Annotated[Turn, asked])),
        path=PATH,
        # A request brings a turn and nothing else, such as a name to which LangGraph gives meaning.
        config_keys=(),
        enabled_endpoints=_ENDPOINTS,
    )
    for route in cast("list[_Route]", router.routes):
        if "/stream" in route.path:
            # LangServe leaves OpenAPI to take its streams for JSON.
            route.response_class = EventStream
    app.include_router(router, responses=refusals_under(PATH))


def _asked(settings: Settings, turn: Turn) -> Turn:
    """The turn, its texts without what no text may hold, within the limits of the chat API.

    Raises:
        ValueError: a sentence that says what is wrong.
    """
    messages: list[Message] = [
        {**message, "content": clean(message["content"])} for message in turn["messages"]
    ]
    longest, most = settings.chat_max_message_length, settings.chat_max_history_messages
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("messages must end with the question")
    if not messages[-1]["content"].strip():
        raise ValueError("the question must not be blank")
    if any(len(message["content"]) > longest for message in messages):
        raise ValueError(f"a message must have at most {longest} characters")
    if len(messages) - 1 > most:
        raise ValueError(f"there must be at most {most} messages before the question")
    if project_id := turn.get("project_id"):
        _require_uuid(project_id)
    return {**turn, "messages": messages}


def _require_uuid(project_id: str) -> None:
    try:
        UUID(project_id)
    except ValueError:
        raise ValueError("project_id must be a UUID") from None


class _Route(GuardedRoute):
    """A route of LangServe whose refusals are ours, and whose streams come to an end."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """LangServe's handler, with that done to its answer."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                response = await handle(request)
            except (RequestValidationError, ValidationError) as error:
                raise _located(error.errors()) from error
            if isinstance(response, EventSourceResponse):
                response.body_iterator = _to_the_end(response.body_iterator)
            elif response.headers.get("content-type", "").startswith("text/html"):
                response.headers[POLICY] = _policy(bytes(response.body).decode())
            return response

        return handler


def _policy(playground: str) -> str:
    """What the playground needs, which only admins see.

    While it runs it makes styles, and compiles the schema of its input with `eval`.
    """
    return policy(
        f"{scripts_of(playground)} 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "connect-src 'self'",
    )


async def _require_json(request: Request) -> None:
    """Refuse a body that is no JSON, nested too deep, or has a number of thousands of digits."""
    if request.method != "POST":
        return
    try:
        await request.json()
    except (ValueError, RecursionError) as error:
        issue = {"type": "json_invalid", "loc": (), "msg": "Invalid JSON body"}
        raise RequestValidationError([issue]) from error


def _located(issues: Sequence[Any]) -> RequestValidationError:
    """The issues with places in the body, which LangServe's own do not have."""
    return RequestValidationError([{**issue, "loc": ("body", *issue["loc"])} for issue in issues])


async def _to_the_end(events: AsyncIterable[Any]) -> AsyncIterator[Event]:
    """LangServe's events, the last of which says what failed.

    LangServe itself says "Internal Server Error", whatever it was, and breaks the connection.
    """
    try:
        async for event in events:
            if event["event"] != "error":
                yield event
    except PipelineError as error:
        yield _failed(error)
    except Exception:
        log.exception("a run for LangServe failed unexpectedly")
        yield _failed(InternalFailure())


def _failed(error: PipelineError) -> Event:
    status = 400 if isinstance(error, UnknownType) else 503 if error.transient else 500
    return {
        "event": "error",
        "data": json.dumps({"status_code": status, "message": str(error)}),
    }
