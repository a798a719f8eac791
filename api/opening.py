"""Opens the parts of the service at start, and closes them in reverse at the end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial

from api import chat, drafting, legacy
from api.access.credentials import Credentials
from api.access.principals import know_principals
from api.database.migrations import migrate
from api.database.scrubbing import scrub
from api.dependencies import Parts
from api.erasure import Erasure
from api.fair_use import FairUse, Limits
from api.ingestion import Ingestion
from api.measuring import Metrics
from api.other_vectors import warn_of_other_vectors
from api.runs.course import Watchers
from api.runs.dialects import Dialects
from api.runs.engine import Runs
from api.runs.transcripts import Transcripts
from api.server import GRACE_S
from api.settings import Settings
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
from graph.web import WebSearch, open_web_search

DIALECTS: Dialects = {
    "chat": chat.ChatDialect,
    "drafting": drafting.DraftingDialect,
    "legacy": legacy.LegacyDialect,
}
_CONNECTIONS = 20
# The embedded Postgres has a hundred for all workers together.
_WORKER_CONNECTIONS = 10
_JOB_CONNECTIONS = 4


@asynccontextmanager
async def open_parts(
    settings: Settings, lent_model: LentModel | None = None, *, is_worker: bool = False
) -> AsyncIterator[Parts]:
    """Open the database, the library, the models and the run engine; close them in reverse.

    With `lent_model` the embedded model is not started here, if it is to be used at all. One that
    `is_worker` shares what is embedded with others.
    """
    async with AsyncExitStack() as stack:
        url, pool = await _open_database(stack, settings, is_worker=is_worker)
        saver = await open_checkpoints(pool, Transcripts(pool))
        # First what may be refused: another process may own the data folder.
        library = await stack.enter_async_context(open_library(settings, pool))
        providers, models = await _open_models(stack, settings, pool, lent_model)
        web = await _open_web(stack, settings)
        texts = await _open_texts(settings, pool)
        build = partial(build_pipeline, texts=texts, library=library, web=web, models=models)
        forgetful_pipeline = build()

        credentials = Credentials(settings, pool)
        stack.push_async_callback(credentials.aclose)
        fair_use = FairUse(pool, Limits.of(settings))
        measured = Metrics()
        watchers = await _open_watchers(stack, settings, measured)
        runs = _runs_of(settings, pool, fair_use, models, watchers)
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


async def _open_database(
    stack: AsyncExitStack, settings: Settings, *, is_worker: bool
) -> tuple[str, Pool]:
    url = await stack.enter_async_context(open_database(settings))
    await asyncio.to_thread(migrate, url)
    most = _WORKER_CONNECTIONS if is_worker else _CONNECTIONS
    pool = await stack.enter_async_context(open_pool(url, max_size=most))
    await know_principals(pool)
    return url, pool


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


async def _open_web(stack: AsyncExitStack, settings: Settings) -> WebSearch | None:
    web = open_web_search(settings)
    if web is not None:
        stack.push_async_callback(web.close)
    return web


async def _open_texts(settings: Settings, pool: Pool) -> Texts:
    texts = Texts(settings.prompts_dir, settings.templates_dir, pool)
    # The history of the texts begins with what the files hold now.
    await texts.wording()
    return texts


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


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
