"""The composition root: opens everything at start, assembles the app, closes all at the end."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
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
from api.access.credentials import Credentials
from api.access.principals import know_principals
from api.access.rules import refuse_unguarded
from api.browsers import BrowserHeaders
from api.database.migrations import migrate
from api.database.scrubbing import scrub
from api.dependencies import Parts
from api.erasure import Erasure
from api.errors import DRAFTING_PREFIX, add_error_handlers
from api.fair_use import FairUse, Limits
from api.hosts import KnownHosts
from api.ingestion import Ingestion
from api.limits import BodyLimit
from api.measuring import Metrics
from api.origins import Origins
from api.other_vectors import warn_of_other_vectors
from api.refusals import refusals_under
from api.runs import routes as runs
from api.runs.course import Watchers
from api.runs.dialects import Dialects
from api.runs.engine import Runs
from api.runs.transcripts import Transcripts
from api.server import GRACE_S
from api.settings import LOOPBACK_NAMES, Settings, load_settings
from api.turns import Turns
from graph.checkpoints import open_checkpoints
from graph.knowledge.library import Library, open_library
from graph.local_model import LentModel
from graph.models import Models, open_models
from graph.offers import ProviderOffers
from graph.pipeline import build_pipeline
from graph.postgres import Pool, open_database, open_pool
from graph.providers import Providers
from graph.secrets import open_secrets
from graph.texts.texts import Texts
from graph.web import open_web_search

log = logging.getLogger(__name__)

DIALECTS: Dialects = {
    "chat": chat.ChatDialect,
    "drafting": drafting.DraftingDialect,
    "legacy": legacy.LegacyDialect,
}
_DESCRIPTION = f"""
A question goes to `POST /chat/projects/{{project_id}}`, the order for a draft to
`POST {DRAFTING_PREFIX}/chat/stream`. Both are answered as Server-Sent Events, one for each token;
`GET /runs/{{run_id}}/stream` gives a stream that broke off from the event after `Last-Event-ID`.

Where credentials are set, each request brings `X-API-Key` or `Authorization: Bearer`. What a
caller needs for an operation is its `x-needs`.

Who is refused gets a sentence, in `message` or, under `{DRAFTING_PREFIX}`, in `detail`. With 429
and 503 `Retry-After` says after how many seconds to ask again.
"""
_CONNECTIONS = 20
# The embedded Postgres has a hundred for all workers together.
_WORKER_CONNECTIONS = 10
_JOB_CONNECTIONS = 4


class AppState(TypedDict):
    """What each request finds in `request.state`."""

    parts: Parts


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[AppState]]


@asynccontextmanager
async def open_parts(
    settings: Settings, lent_model: LentModel | None = None, *, is_worker: bool = False
) -> AsyncIterator[Parts]:
    """Open the database, the library, the models and the run engine; close them in reverse.

    With `lent_model` the embedded model is not started here, if it is to be used at all. One that
    `is_worker` shares what is embedded with others.
    """
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(open_database(settings))
        await asyncio.to_thread(migrate, url)
        most = _WORKER_CONNECTIONS if is_worker else _CONNECTIONS
        pool = await stack.enter_async_context(open_pool(url, max_size=most))
        await know_principals(pool)
        saver = await open_checkpoints(pool, Transcripts(pool))

        # First what may be refused: another process may own the data folder.
        library = await stack.enter_async_context(open_library(settings, pool))
        providers, models = await _open_models(stack, settings, pool, lent_model)
        web = open_web_search(settings)
        if web is not None:
            stack.push_async_callback(web.close)

        credentials = Credentials(settings, pool)
        stack.push_async_callback(credentials.aclose)
        texts = Texts(settings.prompts_dir, settings.templates_dir, pool)
        # The history of the texts begins with what the files hold now.
        await texts.wording()
        build = partial(build_pipeline, texts=texts, library=library, web=web, models=models)
        fair_use = FairUse(pool, Limits.of(settings))
        measured = Metrics()
        watchers = await _open_watchers(stack, settings, measured)
        runs = _runs_of(settings, pool, fair_use, models, watchers)
        forgetful_pipeline = build()
        turns = Turns(
            pool,
            models,
            runs,
            DIALECTS,
            pipeline=build(checkpoints=saver),
            forgetful_pipeline=forgetful_pipeline,
        )
        has_others = is_worker or settings.database_url or settings.chroma_url
        await stack.enter_async_context(
            runs.open(turns.begin_again, alone=not has_others, grace_s=GRACE_S)
        )
        await warn_of_other_vectors(pool, runs.process_id, await library.store_id())
        is_alone = settings.chroma_url is None and not is_worker
        ingestion = await _open_ingestion(stack, url, pool, library, alone=is_alone)
        # Only the embedded server is the service's own.
        clean = None if settings.database_url else partial(scrub, url)
        erasure = Erasure(pool, library, saver, runs, clean)
        for work in (erasure.work(), measured.work(runs, pool)):
            stack.push_async_callback(_cancelled, asyncio.create_task(work))

        yield Parts(
            settings=settings,
            credentials=credentials,
            pool=pool,
            fair_use=fair_use,
            texts=texts,
            library=library,
            models=models,
            providers=providers,
            forgetful_pipeline=forgetful_pipeline,
            runs=runs,
            turns=turns,
            ingestion=ingestion,
            erasure=erasure,
            metrics=measured,
        )


async def _open_models(
    stack: AsyncExitStack, settings: Settings, pool: Pool, lent_model: LentModel | None
) -> tuple[Providers, Models]:
    providers = Providers(pool, await asyncio.to_thread(open_secrets, settings))
    await providers.rotate()
    rows = ProviderOffers(providers, settings)
    models = await asyncio.to_thread(open_models, settings, rows, lent_model)
    stack.push_async_callback(models.aclose)
    await models.refresh()
    return providers, models


async def _open_watchers(stack: AsyncExitStack, settings: Settings, measured: Metrics) -> Watchers:
    if not settings.otel_exporter_otlp_endpoint:
        return Watchers(measured.run_ended)
    # Nobody else needs it.
    from api.spans import open_spans  # noqa: PLC0415

    return Watchers(measured.run_ended, await stack.enter_async_context(open_spans(settings)))


def _runs_of(
    settings: Settings, pool: Pool, fair_use: FairUse, models: Models, watchers: Watchers
) -> Runs:
    return Runs(
        pool,
        fair_use,
        DIALECTS,
        retention=timedelta(minutes=settings.run_retention_minutes),
        cancel_on_disconnect=settings.chat_on_disconnect == "cancel",
        reruns=settings.chat_on_crash == "rerun",
        price_of=models.price,
        most_recalled=models.most_recalled,
        watch=watchers,
    )


async def _open_ingestion(
    stack: AsyncExitStack, url: str, pool: Pool, library: Library, *, alone: bool
) -> Ingestion:
    ingestion = Ingestion(pool, library)
    job_pool = await stack.enter_async_context(open_pool(url, max_size=_JOB_CONNECTIONS))
    await stack.enter_async_context(ingestion.open(job_pool, alone=alone))
    return ingestion


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


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
