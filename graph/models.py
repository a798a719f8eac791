"""Which language models there are, which one a run uses, and what it can take."""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

from pydantic import SecretStr

from graph.budget import most_characters
from graph.errors import ModelError, ModelUnusable
from graph.local_model import LentModel, LocalModel, open_local_model
from graph.offers import Offer, Price, ProviderOffers, chat_at, chat_of
from graph.providers import ModelEntry, Provider
from graph.settings import PipelineSettings
from graph.streaming import StreamingChatModel
from graph.tokens import Asked, Count

log = logging.getLogger(__name__)

DEFAULT = "default"
EMBEDDED = "embedded"
_DEFAULT_CONTEXT_WINDOW = 32_768
_LARGE_WINDOW = 1_000_000
_OPENAI_URL = "https://api.openai.com/v1"
_NAMESPACE = uuid.UUID("0b4c2a54-6a0e-4c1b-93d2-58b1a6d0c9e7")
_SHORT = "Hello"
_ASK_TIMEOUT_S = 2.0
_COUNT_TIMEOUT_S = 5.0
_FAILURE_KEPT_S = 60.0
# Loaded before possible: LM Studio names both.
_WINDOW_FIELDS = (
    "max_model_len",
    "loaded_context_length",
    "context_length",
    "max_context_length",
    "context_window",
)


@dataclass(frozen=True)
class Resolved(Offer):
    """The model that a run uses, and the id that was asked for but matched nothing, or null."""

    fell_through: str | None = None


class Models:
    """The models that can be asked: `offers` of the environment, and those of `rows`.

    The first one is the default, unless one of the rows is. `environment` is the provider of
    `offers`. `local` is the embedded model behind it; it is closed with the rest by `aclose`.
    """

    def __init__(
        self,
        offers: Sequence[Offer],
        environment: Provider,
        *,
        local: LocalModel | None = None,
        rows: ProviderOffers | None = None,
    ) -> None:
        self.environment = environment
        self._own = self._offers = tuple(offers)
        self._local = local
        self._rows = rows
        self._windows: dict[tuple[object, ...], tuple[int, float]] = {}
        self._tokenizers: dict[tuple[object, ...], tuple[bool, float]] = {}
        # One lock a loop: LangGraph's server may run each run in a loop of its own.
        self._asking: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    async def refresh(self, *, anew: bool = False) -> None:
        """Learn what admins have changed: to be called before `resolve`.

        The rows are read if the last look is older than a second, or `anew` in any case. Takes a
        second at most; where the database is away, what was known stays.
        """
        if self._rows is not None:
            rows = await self._rows.current(anew=anew)
            default = [offer for offer in rows if offer.is_default]
            others = [offer for offer in rows if not offer.is_default]
            self._offers = (*default, *self._own, *others)

    def resolve(self, wanted: str | None, preferred: str | None) -> Resolved:
        """The request's model, else the project's, else the default; says what fell through."""
        fell_through = None
        for name in filter(None, (wanted, preferred)):
            if offer := self._named(name):
                return _resolved(offer, fell_through)
            fell_through = fell_through or name
        return _resolved(self._offers[0], fell_through)

    def fallback(self, resolved: Resolved) -> Resolved | None:
        """The model to ask where `resolved` cannot be reached; null if there is no other."""
        usable = (offer for offer in self._offers if offer.is_fallback and not offer.problem)
        offer = next(usable, None)
        if offer is None or offer.id == resolved.id:
            return None
        return _resolved(offer, resolved.fell_through)

    def bound(
        self,
        resolved: Resolved,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> StreamingChatModel:
        """The model with the settings of one call, on the same connections; null keeps its own.

        A temperature that the model is known to refuse is left out.
        """
        changes: dict[str, Any] = {}
        if temperature is not None:
            changes |= _allowed_temperature(resolved.name, temperature)
        if max_tokens is not None:
            changes["max_tokens"] = max_tokens
        return resolved.chat.model_copy(update=changes) if changes else resolved.chat

    def price(self, slug: str, name: str) -> Price | None:
        """What the tokens of this model cost, null where nobody said, or it is gone."""
        found = (offer for offer in self._offers if (offer.slug, offer.name) == (slug, name))
        return next((offer.price for offer in found), None)

    async def context_window(self, resolved: Resolved) -> int:
        """Tokens that prompt and answer may have together.

        The setting, else what the endpoint says (asked once, within 2 s), else 32,768; a failure
        to ask counts for a minute. An embedded model that has died is started again first.

        Raises:
            ModelUnreachable: the embedded model cannot be started.
            ModelUnusable: the provider's key cannot be read.
        """
        await self._make_ready(resolved)
        if window := resolved.context_window or self._known_window(resolved):
            return window
        async with self._asking.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            return self._known_window(resolved) or await self._ask_window(resolved)

    def most_recalled(self, wanted: str | None, preferred: str | None) -> int:
        """How many characters of a conversation the prompt of a run can hold, whoever answers it.

        Nobody is asked: of a model whose window is not known yet, it is a large one.
        """
        chosen = self.resolve(wanted, preferred)
        windows = [
            one.context_window or self._known_window(one) or _LARGE_WINDOW
            for one in (chosen, self.fallback(chosen))
            if one
        ]
        return most_characters(max(windows))

    async def tokenizer(self, resolved: Resolved) -> Count | None:
        """What counts with the model's own tokenizer, in a thread; null if that is not offered.

        The endpoint is tried once, within 2 s; a failure to reach it counts for a minute.
        """
        offered, until = self._tokenizers.get(resolved.place, (False, 0.0))
        if time.monotonic() >= until:
            offered, until = self._tokenizers[resolved.place] = await _tokenizes(resolved.chat)
        if not offered:
            return None
        ask = partial(resolved.chat.count_tokens, timeout_s=_COUNT_TIMEOUT_S)
        return Asked(ask, asyncio.get_running_loop())

    async def ping(self, resolved: Resolved) -> None:
        """Ask the endpoint for its models, within 2 s.

        Raises:
            ModelError: it does not answer, or refuses.
        """
        await self._make_ready(resolved)
        await resolved.chat.list_models(_ASK_TIMEOUT_S)

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and the embedded model."""
        for offer in self._offers:
            await offer.chat.aclose()
        if self._local:
            await asyncio.to_thread(self._local.close)

    async def _make_ready(self, resolved: Resolved) -> None:
        if resolved.problem:
            raise ModelUnusable(resolved.problem)
        if self._local and resolved.slug == EMBEDDED and not self._local.alive():
            log.warning("the embedded model has died; starting it again")
            await asyncio.to_thread(self._local.restart_if_dead)

    def _named(self, wanted: str) -> Offer | None:
        """The model `slug/model`; else the first whose name is all of `wanted`."""
        # An id with a slug is never ambiguous, whatever names with a slash others have.
        by_id = (offer for offer in self._offers if offer.id == wanted)
        by_name = (offer for offer in self._offers if offer.name == wanted)
        return next(by_id, None) or next(by_name, None)

    def _known_window(self, resolved: Resolved) -> int | None:
        window, until = self._windows.get(resolved.place, (None, 0.0))
        return window if time.monotonic() < until else None

    async def _ask_window(self, resolved: Resolved) -> int:
        try:
            entries = await resolved.chat.list_models(_ASK_TIMEOUT_S)
            window = _window(entries, resolved.name) or _DEFAULT_CONTEXT_WINDOW
            until = math.inf
        except ModelError as error:
            log.warning("the context window of %r could not be asked: %s", resolved.name, error)
            window, until = _DEFAULT_CONTEXT_WINDOW, time.monotonic() + _FAILURE_KEPT_S
        self._windows[resolved.place] = (window, until)
        return window


def open_models(
    settings: PipelineSettings,
    rows: ProviderOffers | None = None,
    lent: LentModel | None = None,
) -> Models:
    """The models that `settings` name, the embedded one if they name none, and those of `rows`.

    Blocks for about a second for the embedded model, which is started here unless it is `lent`.

    Raises:
        ValueError: LOCAL_MODEL_PATH is no GGUF file.
        ModelUnreachable: the embedded model cannot be started.
    """
    if not settings.embeds_model:
        return _at_endpoint(settings, rows)
    local = None if lent else open_local_model(settings)
    model = lent or local
    assert model is not None
    entry = ModelEntry(model.name, settings.openai_context_window)
    # Its address and key are its own affair: both are others after each start.
    provider = _environment("Embedded model", EMBEDDED, "", entry)
    chat = chat_at(settings, model.name, model.base_url, model.api_key)
    return _models(provider, chat, rows, local)


def _at_endpoint(settings: PipelineSettings, rows: ProviderOffers | None) -> Models:
    key = settings.openai_api_key.get_secret_value().strip() if settings.openai_api_key else ""
    entry = ModelEntry(settings.openai_model or "", settings.openai_context_window)
    base_url = settings.openai_base_url or _OPENAI_URL
    provider = _environment("Environment", DEFAULT, base_url, entry, SecretStr(key) or None)
    return _models(provider, chat_of(settings, provider), rows)


def _environment(
    name: str, slug: str, base_url: str, entry: ModelEntry, key: SecretStr | None = None
) -> Provider:
    provider_id = uuid.uuid5(_NAMESPACE, slug)
    return Provider(name, slug, base_url, (entry,), key, is_read_only=True, id=provider_id)


def _models(
    provider: Provider,
    chat: StreamingChatModel,
    rows: ProviderOffers | None,
    local: LocalModel | None = None,
) -> Models:
    [entry] = provider.models
    offer = Offer(provider.slug, entry.name, chat, entry.context_window)
    return Models([offer], provider, local=local, rows=rows)


def _resolved(offer: Offer, fell_through: str | None) -> Resolved:
    return Resolved(**vars(offer), fell_through=fell_through)


async def _tokenizes(chat: StreamingChatModel) -> tuple[bool, float]:
    """Whether the endpoint counts tokens, and until when that is to be believed."""
    try:
        # Some that know no `/tokenize` answer it all the same.
        return 0 < await chat.count_tokens(_SHORT, _ASK_TIMEOUT_S) <= len(_SHORT), math.inf
    except ModelError as error:
        log.info("tokens are estimated, since the model's endpoint does not count them: %s", error)
        return False, time.monotonic() + _FAILURE_KEPT_S if error.transient else math.inf


def _allowed_temperature(model: str, temperature: float) -> dict[str, Any]:
    """What ChatOpenAI would make of `temperature`; a copy does not go through its validators."""
    validate = cast(
        Callable[[dict[str, Any]], dict[str, Any]], StreamingChatModel.validate_temperature
    )
    values = validate({"model": model, "temperature": temperature})
    return {"temperature": values["temperature"]} if "temperature" in values else {}


def _window(entries: list[dict[str, Any]], name: str) -> int | None:
    """The context window of model `name` in a `/models` answer; a lone entry is it in any case."""
    named = [entry for entry in entries if entry.get("id") == name]
    for entry in named or (entries if len(entries) == 1 else []):
        meta = entry.get("meta")
        loaded = meta.get("n_ctx") if isinstance(meta, dict) else None
        for window in (*map(entry.get, _WINDOW_FIELDS), loaded):
            if type(window) is int and window > 0:
                return window
    return None
