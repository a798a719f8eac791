"""The composition root: the app with its routes and middleware, which opens its parts."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import TypedDict

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from api import (
    audit,
    chat,
    conversations,
    docs,
    document_types,
    documents,
    drafting,
    grants,
    health,
    keys,
    knowledge,
    langserve,
    legacy,
    metrics,
    page,
    people,
    projects,
    providers,
    texts,
    usage,
)
from api.access.rules import refuse_unguarded
from api.browsers import BrowserHeaders
from api.dependencies import Parts
from api.errors import DRAFTING_PREFIX, add_error_handlers
from api.hosts import KnownHosts
from api.limits import BodyLimit
from api.opening import open_parts
from api.origins import Origins
from api.refusals import refusals_under
from api.runs import routes as runs
from api.settings import LOOPBACK_NAMES, Settings, load_settings
from graph.local_model import LentModel

_DESCRIPTION = f"""
A question goes to `POST /chat/projects/{{project_id}}`, the order for a draft to
`POST {DRAFTING_PREFIX}/chat/stream`. Both are answered as Server-Sent Events, one for each token;
`GET /runs/{{run_id}}/stream` gives a stream that broke off from the event after `Last-Event-ID`.

Where credentials are set, each request brings `X-API-Key` or `Authorization: Bearer`. What a
caller needs for an operation is its `x-needs`.

Who is refused gets a sentence, in `message` or, under `{DRAFTING_PREFIX}`, in `detail`. With 429
and 503 `Retry-After` says after how many seconds to ask again.
"""


class AppState(TypedDict):
    """What each request finds in `request.state`."""

    parts: Parts


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[AppState]]


def create_app(
    settings: Settings | None = None,
    *,
    lifespan: Lifespan | None = None,
    lent_model: LentModel | None = None,
    is_worker: bool = False,
) -> FastAPI:
    """The service. `lifespan` replaces what opens its parts; without settings, the environment's.

    `lent_model` and `is_worker` are as in `open_parts`.

    Raises:
        SettingsError: a setting is wrong.
    """
    chosen = settings or load_settings()
    app = FastAPI(
        title="Archwright",
        summary="Answers questions about a project's documents, and drafts its next one.",
        description=_DESCRIPTION,
        version=version("archwright"),
        lifespan=lifespan or _lifespan_of(chosen, lent_model, is_worker),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    _add_middleware(app, chosen)
    add_error_handlers(app)
    for part in page, health, docs:
        app.include_router(part.router)
    for part in (
        metrics, people, chat, conversations, runs, projects, grants, documents, providers,
        drafting, legacy, knowledge, document_types, texts, keys, usage, audit,
    ):  # fmt: skip
        app.include_router(part.router, responses=refusals_under(part.router.prefix))
    refuse_unguarded(app)
    return app


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    if not (settings.needs_credentials or settings.allow_anonymous):
        app.add_middleware(KnownHosts, names=LOOPBACK_NAMES, origins=settings.cors_origin_regex)
    app.add_middleware(BodyLimit, body_mb=settings.max_body_mb, upload_mb=settings.max_upload_mb)
    app.add_middleware(
        CORSMiddleware,
        allow_origin_regex=settings.cors_origin_regex,
        allow_methods=["GET", "POST", "PATCH", "PUT", "DELETE"],
        allow_headers=["*"],
        expose_headers=["X-Run-Id", "Retry-After", "ETag"],
        allow_credentials=True,
    )
    if settings.otel_exporter_otlp_endpoint:
        app.add_middleware(Origins)
    # The last one is the first: no answer goes out without them.
    app.add_middleware(BrowserHeaders)


def _lifespan_of(settings: Settings, lent_model: LentModel | None, is_worker: bool) -> Lifespan:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[AppState]:
        async with open_parts(settings, lent_model, is_worker=is_worker) as parts:
            langserve.mount(app, parts.forgetful_pipeline, settings)
            refuse_unguarded(app)
            app.state.parts = parts
            yield {"parts": parts}

    return lifespan
