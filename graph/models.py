"""Which language models there are, which one a run uses, and what it can take."""

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary

import httpx
from pydantic import SecretStr

from graph.errors import ModelError
from graph.local_model import LocalModel
from graph.settings import PipelineSettings
from graph.streaming import StreamingChatModel
from graph.tokens import Asked, Count

log = logging.getLogger(__name__)

DEFAULT = "default"
EMBEDDED = "embedded"
DEFAULT_CONTEXT_WINDOW = 32_768
_OPENAI_URL = "https://api.openai.com/v1"
_NO_KEY = "none"
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
class Resolved:
    """The model that a run uses, and the id that was asked for but matched nothing, or null."""

    name: str
    slug: str
    chat: StreamingChatModel
    fell_through: str | None = None

    @property
    def id(self) -> str:
        """The model as `slug/model`, which no other is named."""
        return f"{self.slug}/{self.name}"


@dataclass(frozen=True)
class Offer:
    """One model of one provider. `context_window` is in tokens, null if nobody set it."""

    slug: str
    name: str
    chat: StreamingChatModel
    context_window: int | None = None
    is_fallback: bool = False

    def is_named(self, wanted: str) -> bool:
        """Whether `wanted` is this model, as `model` or `slug/model`."""
        return wanted in (self.name, f"{self.slug}/{self.name}")


class Models:
    """The models that can be asked; the first of `offers` is the default.

    `local` is the embedded model behind one of them; it is closed with the rest by `aclose`.
    """

    def __init__(self, offers: list[Offer], local: LocalModel | None = None) -> None:
        self._offers = offers
        self._local = local
        self._windows: dict[tuple[str, str], tuple[int, float]] = {}
        self._tokenizers: dict[tuple[str, str], tuple[bool, float]] = {}
        # One lock a loop: LangGraph's server may run each run in a loop of its own.
        self._asking: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    def resolve(self, wanted: str | None, preferred: str | None) -> Resolved:
        """The request's model, else the project's, else the default; says what fell through."""
        fell_through = None
        for name in filter(None, (wanted, preferred)):
            for offer in self._offers:
                if offer.is_named(name):
                    return Resolved(offer.name, offer.slug, offer.chat, fell_through)
            fell_through = fell_through or name
        default = self._offers[0]
        return Resolved(default.name, default.slug, default.chat, fell_through)

    def fallback(self, resolved: Resolved) -> Resolved | None:
        """What is asked where `resolved` cannot be reached; null for none, or if it is that."""
        for offer in self._offers:
            if offer.is_fallback and (offer.slug, offer.name) != (resolved.slug, resolved.name):
                return Resolved(offer.name, offer.slug, offer.chat)
        return None

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

    async def context_window(self, resolved: Resolved) -> int:
        """Tokens that prompt and answer may have together.

        The setting, else what the endpoint says (asked once, within 2 s), else 32,768; a failure
        to ask counts for a minute. An embedded model that has died is started again first.

        Raises:
            ModelUnreachable: the embedded model cannot be started.
        """
        await self._revive(resolved)
        if window := self._offer(resolved).context_window or self._known_window(resolved):
            return window
        async with self._asking.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            return self._known_window(resolved) or await self._ask_window(resolved)

    async def tokenizer(self, resolved: Resolved) -> Count | None:
        """What counts with the model's own tokenizer, in a thread; null if that is not offered.

        The endpoint is tried once, within 2 s; a failure to reach it counts for a minute.
        """
        key = (resolved.slug, resolved.name)
        offered, until = self._tokenizers.get(key, (False, 0.0))
        if time.monotonic() >= until:
            offered, until = self._tokenizers[key] = await _tokenizes(resolved.chat)
        if not offered:
            return None
        ask = partial(resolved.chat.count_tokens, timeout_s=_COUNT_TIMEOUT_S)
        return Asked(ask, asyncio.get_running_loop())

    async def ping(self, resolved: Resolved) -> None:
        """Ask the endpoint for its models, within 2 s.

        Raises:
            ModelError: it does not answer, or refuses.
        """
        await self._revive(resolved)
        await resolved.chat.list_models(_ASK_TIMEOUT_S)

    async def aclose(self) -> None:
        """Close the connections of the running event loop, and the embedded model."""
        for offer in self._offers:
            await offer.chat.aclose()
        if self._local:
            await asyncio.to_thread(self._local.close)

    async def _revive(self, resolved: Resolved) -> None:
        if self._local and resolved.slug == EMBEDDED and not self._local.alive():
            log.warning("the embedded model has died; starting it again")
            await asyncio.to_thread(self._local.restart_if_dead)

    def _offer(self, resolved: Resolved) -> Offer:
        key = (resolved.slug, resolved.name)
        return next(offer for offer in self._offers if (offer.slug, offer.name) == key)

    def _known_window(self, resolved: Resolved) -> int | None:
        window, until = self._windows.get((resolved.slug, resolved.name), (None, 0.0))
        return window if time.monotonic() < until else None

    async def _ask_window(self, resolved: Resolved) -> int:
        try:
            entries = await resolved.chat.list_models(_ASK_TIMEOUT_S)
            window = _window(entries, resolved.name) or DEFAULT_CONTEXT_WINDOW
            until = math.inf
        except ModelError as error:
            log.warning("the context window of %r could not be asked: %s", resolved.name, error)
            window, until = DEFAULT_CONTEXT_WINDOW, time.monotonic() + _FAILURE_KEPT_S
        self._windows[resolved.slug, resolved.name] = (window, until)
        return window


def open_models(settings: PipelineSettings) -> Models:
    """The models that `settings` name; the embedded one if they name none, started here.

    Blocks for about a second for the embedded model.

    Raises:
        ValueError: LOCAL_MODEL_PATH is no GGUF file.
        ModelUnreachable: the embedded model cannot be started.
    """
    if settings.openai_base_url or settings.openai_api_key:
        return Models([_endpoint(settings)])
    log_path = settings.data_dir / "local-model.log"
    local = LocalModel(settings.local_model_path, log_path=log_path)
    local.restart_if_dead()
    if settings.local_model_path is None:
        log.warning(
            "%s answers: a small model for demonstration. Set OPENAI_BASE_URL, OPENAI_API_KEY and "
            "OPENAI_MODEL, or LOCAL_MODEL_PATH, for a better one.",
            local.name,
        )
    chat = _chat(settings, local.name, local.base_url, local.api_key)
    return Models([Offer(EMBEDDED, local.name, chat, settings.openai_context_window)], local)


def _endpoint(settings: PipelineSettings) -> Offer:
    name = settings.openai_model or ""
    key = settings.openai_api_key.get_secret_value().strip() if settings.openai_api_key else ""
    # Servers on the own machine ask for no key, but the OpenAI client insists on one.
    chat = _chat(settings, name, settings.openai_base_url or _OPENAI_URL, key or _NO_KEY)
    return Offer(DEFAULT, name, chat, settings.openai_context_window)


def _chat(settings: PipelineSettings, name: str, base_url: str, key: str) -> StreamingChatModel:
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
