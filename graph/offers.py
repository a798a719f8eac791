"""The models that can be asked, with their connections: one offer for each model of a provider."""

import asyncio
import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from pydantic import SecretStr

from graph.addresses import Reach
from graph.postgres import UNREACHABLE
from graph.providers import ModelEntry, Provider, Providers
from graph.settings import PipelineSettings
from graph.streaming import StreamingChatModel

log = logging.getLogger(__name__)

_NO_KEY = "none"
_FRESH_S = 1.0
_PATIENCE_S = 1.0
_FIRST_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class Price:
    """What a million tokens cost: of a prompt, and of an answer."""

    input: float
    output: float


@dataclass(frozen=True)
class Offer:
    """One model of one provider. `context_window` is in tokens, null if nobody set it.

    `provider_id` is null for the environment's. `problem` says why it cannot be asked, if so.
    """

    slug: str
    name: str
    chat: StreamingChatModel
    context_window: int | None = None
    price: Price | None = None
    provider_id: uuid.UUID | None = None
    is_default: bool = False
    is_fallback: bool = False
    problem: str | None = None

    @property
    def id(self) -> str:
        """The model as `slug/model`, which no other is named."""
        return f"{self.slug}/{self.name}"

    @property
    def place(self) -> tuple[object, ...]:
        """The provider, where it is now, and the model: what is found out there holds for it."""
        return (self.provider_id or self.slug, self.chat.openai_api_base, self.name)


class ProviderOffers:
    """The offers of the providers in the database, looked for again after a second.

    A provider whose row has not changed keeps its connections; those of one that is gone, or is
    somewhere else now, are closed once no run uses them. To be used in one event loop.
    """

    def __init__(self, providers: Providers, settings: PipelineSettings) -> None:
        self._providers = providers
        self._settings = settings
        self._built: dict[uuid.UUID, tuple[Provider, StreamingChatModel]] = {}
        self._offers: tuple[Offer, ...] = ()
        self._looked_at: float | None = None
        self._lock = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None

    async def current(self, *, anew: bool = False) -> tuple[Offer, ...]:
        """The offers of all enabled providers, the oldest first, as of a second ago at most.

        Where the database does not say within a second, those that were last known. `anew`: as
        they are now, for who has just changed them. The first time it may take 5 seconds.
        """
        if not anew and self._is_fresh():
            return self._offers
        if anew or self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        # All who ask meanwhile wait for the same look, and none for long.
        patience = _FIRST_PATIENCE_S if self._looked_at is None else _PATIENCE_S
        await asyncio.wait({self._looking}, timeout=patience)
        return self._offers

    def _is_fresh(self) -> bool:
        return self._looked_at is not None and time.monotonic() - self._looked_at < _FRESH_S

    async def _look(self) -> None:
        async with self._lock:
            try:
                rows = await self._providers.list()
            except UNREACHABLE as error:
                log.warning("the providers could not be read: %s", type(error).__name__)
            else:
                await self._take([row for row in rows if row.is_enabled])
            finally:
                self._looked_at = time.monotonic()

    async def _take(self, rows: Sequence[Provider]) -> None:
        before, self._built = self._built, {}
        for row in rows:
            try:
                self._built[row.id] = (row, await self._chat(row, before.get(row.id)))
            except Exception as error:  # noqa: BLE001 - one row must not take the others away
                log.warning("the provider %r is left out: %s", row.slug, type(error).__name__)
        self._offers = tuple(
            _offer(row, entry, chat) for row, chat in self._built.values() for entry in row.models
        )
        kept = {id(chat) for _, chat in self._built.values()}
        for _, chat in before.values():
            if id(chat) not in kept:
                chat.give_up()

    async def _chat(
        self, row: Provider, before: tuple[Provider, StreamingChatModel] | None
    ) -> StreamingChatModel:
        """The connections to a provider: those that there are, unless its address or key differ."""
        if before and (row.base_url, row.api_key) == (before[0].base_url, before[0].api_key):
            return before[1]
        # In a thread: making one takes 40 ms and reads files.
        return await asyncio.to_thread(guarded_chat, self._settings, row)


def guarded_chat(settings: PipelineSettings, provider: Provider) -> StreamingChatModel:
    """Connections to a provider that an admin entered, which may not lead everywhere."""
    reach = Reach(allow_private=settings.may_reach_private)
    # OPENAI_ORG_ID is the operator's, and no business of such a provider.
    update = {"reach": reach, "openai_organization": None}
    return chat_of(settings, provider).model_copy(update=update)


def chat_of(settings: PipelineSettings, provider: Provider) -> StreamingChatModel:
    """Connections to a provider of the operator's own; the model is its first."""
    # Servers on the own machine ask for no key, but the OpenAI client insists on one.
    key = provider.api_key.get_secret_value() if provider.api_key else _NO_KEY
    return chat_at(settings, provider.models[0].name, provider.base_url, key)


def chat_at(settings: PipelineSettings, name: str, base_url: str, key: str) -> StreamingChatModel:
    """The model `name` at `base_url`, with the timeouts of `settings`."""
    return StreamingChatModel(
        model=name,
        base_url=base_url,
        api_key=SecretStr(key),
        timeout=httpx.Timeout(
            settings.llm_first_token_timeout_s, connect=settings.llm_connect_timeout_s
        ),
        connect_timeout_s=settings.llm_connect_timeout_s,
        first_token_timeout_s=settings.llm_first_token_timeout_s,
        idle_timeout_s=settings.llm_idle_timeout_s,
    )


def _offer(row: Provider, entry: ModelEntry, chat: StreamingChatModel) -> Offer:
    return Offer(
        slug=row.slug,
        name=entry.name,
        chat=chat.model_copy(update={"model_name": entry.name}),
        context_window=entry.context_window,
        price=_price(entry),
        provider_id=row.id,
        is_default=row.is_default,
        is_fallback=row.is_fallback,
        problem=row.problem,
    )


def _price(entry: ModelEntry) -> Price | None:
    if entry.input_price is None or entry.output_price is None:
        return None
    return Price(entry.input_price, entry.output_price)
