"""The pipeline for LangGraph's own server: `langgraph dev` finds it through langgraph.json.

The server asks for the pipeline anew for each run and each read, from any of its event loops.
What the pipeline needs is opened once, when the server starts, and closed when it ends.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

from starlette.applications import Starlette

from graph.context import context_with_prompts
from graph.knowledge.library import Library, open_library
from graph.knowledge.ownership import VectorsInUse
from graph.models import open_models
from graph.offers import ProviderOffers
from graph.pipeline import Pipeline, build_pipeline
from graph.postgres import open_database, open_pool
from graph.providers import open_providers
from graph.secrets import Secrets, open_secrets
from graph.settings import PipelineSettings
from graph.texts.paths import PromptName
from graph.texts.texts import Texts
from graph.texts.wording import Text
from graph.web import WebSearch, open_web_search

log = logging.getLogger(__name__)

_opened: "Future[Opened]" = Future()


async def pipeline() -> Pipeline:
    """The pipeline, without memory: the server brings its own checkpointer.

    Its context shows the prompts as they stand now.
    """
    # A caller that gives up must not cancel what the others wait for.
    opened = await asyncio.shield(asyncio.wrap_future(_opened))
    return await opened.pipeline()


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Open everything while the server starts; close it when the server ends."""
    async with AsyncExitStack() as stack:
        _opened.set_result(await _open(PipelineSettings(), stack))
        yield


# The server tells only an app of ours when it starts and ends; this one has no routes.
app = Starlette(lifespan=lifespan)


class Opened:
    """What the pipeline needs, and the pipeline, built again when the prompts have changed."""

    def __init__(self, texts: Texts, build: Callable[..., Pipeline]) -> None:
        self._texts = texts
        self._build = build
        self._prompts: Mapping[PromptName, Text] | None = None
        self._built: Pipeline | None = None

    async def pipeline(self) -> Pipeline:
        """The pipeline, with the prompts of this moment in its context."""
        prompts = (await self._texts.wording()).prompts()
        if self._built is None or prompts != self._prompts:
            shown = {name: text.content for name, text in prompts.items()}
            self._built = self._build(context=context_with_prompts(shown))
            self._prompts = prompts
        return self._built


async def _open(settings: PipelineSettings, stack: AsyncExitStack) -> Opened:
    # Of the service's folder in any case: the database may be the service's too.
    secrets = await asyncio.to_thread(open_secrets, settings)
    try:
        return await _open_in(settings, secrets, stack)
    except VectorsInUse:
        aside = settings.model_copy(update={"data_dir": settings.data_dir / "studio"})
        log.warning(
            "A running service owns the data folder %s. Studio uses %s instead and does not see "
            "that service's documents. Set DATABASE_URL and CHROMA_URL for both to share them.",
            settings.data_dir,
            aside.data_dir,
        )
        return await _open_in(aside, secrets, stack)


async def _open_in(settings: PipelineSettings, secrets: Secrets, stack: AsyncExitStack) -> Opened:
    """Open everything in one data folder; what was opened before a failure is closed again."""
    async with AsyncExitStack() as opened:
        url = await opened.enter_async_context(open_database(settings))
        pool = await opened.enter_async_context(open_pool(url, max_size=4))
        library = await opened.enter_async_context(open_library(settings, pool))
        providers = await open_providers(pool, secrets)
        offers = InItsLoop(ProviderOffers(providers, settings)) if providers else None
        rows = cast("ProviderOffers | None", offers)
        models = await asyncio.to_thread(open_models, settings, rows)
        opened.push_async_callback(models.aclose)
        web = open_web_search(settings)
        if web is not None:
            opened.push_async_callback(web.close)
        stack.push_async_exit(opened.pop_all())
    texts = cast(Texts, InItsLoop(Texts(settings.prompts_dir, settings.templates_dir, pool)))
    build = partial(
        build_pipeline,
        texts=texts,
        library=cast(Library, InItsLoop(library)),
        web=cast(WebSearch, InItsLoop(web)) if web else None,
        models=models,
    )
    return Opened(texts, build)


class InItsLoop:
    """Runs a part's methods in the event loop in which it was opened.

    Its connections belong to that loop.
    """

    def __init__(self, part: Library | WebSearch | Texts | ProviderOffers) -> None:
        self._part = part
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._part, name)

        async def ask(*args: Any, **options: Any) -> Any:  # noqa: ANN401
            asking = asyncio.run_coroutine_threadsafe(method(*args, **options), self._loop)
            return await asyncio.wrap_future(asking)

        return ask
