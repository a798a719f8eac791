"""Model providers: listed for everybody, entered, changed and tried by admins."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import asdict, replace

from fastapi import APIRouter, Depends, Response

from api.access.audit import Action, note
from api.access.principals import Principal
from api.access.rules import Caller, GuardedRoute, admin
from api.dependencies import Parts, Service
from api.errors import Refusal, invalid, not_found
from api.provider_models import (
    AdminProviderList,
    ModelList,
    NewProvider,
    ProviderAnswer,
    ProviderChange,
    ProviderList,
    Trial,
    TrialAnswer,
    listed,
    listed_models,
    shown_to_admins,
)
from graph.addresses import Reach
from graph.offers import chat_of, guarded_chat
from graph.postgres import Connection
from graph.providers import (
    DefaultDisabled,
    KeyRequired,
    Noted,
    Provider,
    ProviderError,
    SlugTaken,
    refuse_other_host,
)
from graph.trials import try_model

router = APIRouter(prefix="/providers", tags=["providers"], route_class=GuardedRoute)

_ADMIN = [Depends(admin)]
_REFUSALS: dict[type[ProviderError], tuple[int, str]] = {
    SlugTaken: (409, "slug_taken"),
    DefaultDisabled: (409, "default_disabled"),
    KeyRequired: (400, "api_key_required"),
}


@router.get("")
async def list_providers(service: Service, caller: Caller) -> ProviderList:
    """The enabled providers, the default first, without addresses and keys."""
    return ProviderList(providers=[listed(one) for one in await _all(service) if one.is_enabled])


@router.get("/models")
async def list_models(service: Service, caller: Caller) -> ModelList:
    """The models that a question can name; exactly one is the default."""
    enabled = [one for one in await _all(service) if one.is_enabled]
    return ModelList(models=[model for one in enabled for model in listed_models(one)])


@router.get("/admin", dependencies=_ADMIN)
async def list_for_admins(service: Service) -> AdminProviderList:
    """All providers with what is set for them; keys are masked."""
    return AdminProviderList(providers=[shown_to_admins(one) for one in await _all(service)])


@router.post("", status_code=201, dependencies=_ADMIN)
async def create_provider(body: NewProvider, service: Service, caller: Caller) -> ProviderAnswer:
    """Enter a provider; the next question can use it."""
    _require_reach(service, body.base_url)
    noted = _noted(caller, "provider.created")
    try:
        stored = await service.providers.insert(Provider(**body.changes()), noted=noted)
    except ProviderError as error:
        raise _refusal(error) from error
    await service.models.refresh(anew=True)
    return ProviderAnswer(provider=shown_to_admins(stored))


@router.patch("/{provider_id}", dependencies=_ADMIN)
async def change_provider(
    provider_id: uuid.UUID, body: ProviderChange, service: Service, caller: Caller
) -> ProviderAnswer:
    """Change what the body names; without `apiKey`, or with an empty one, the key stays."""
    _refuse_read_only(service, provider_id)
    _require_reach(service, body.base_url)
    changes = body.changes()
    noted = _noted(caller, "provider.changed", fields=sorted(changes))
    try:
        stored = await service.providers.update(provider_id, noted=noted, **changes)
    except ProviderError as error:
        raise _refusal(error) from error
    if stored is None:
        raise not_found("provider")
    await service.models.refresh(anew=True)
    return ProviderAnswer(provider=shown_to_admins(stored))


@router.delete("/{provider_id}", status_code=204, dependencies=_ADMIN)
async def delete_provider(provider_id: uuid.UUID, service: Service, caller: Caller) -> Response:
    """Forget a provider and its key. Runs that use it go on."""
    _refuse_read_only(service, provider_id)
    noted = _noted(caller, "provider.deleted")
    if not await service.providers.delete(provider_id, noted=noted):
        raise not_found("provider")
    await service.models.refresh(anew=True)
    return Response(status_code=204)


@router.post("/{provider_id}/test", dependencies=_ADMIN)
async def try_provider(provider_id: uuid.UUID, body: Trial, service: Service) -> TrialAnswer:
    """Ask a model for a few words, within 15 s; address and key of the body are not stored."""
    own = service.models.environment
    is_own = own.id == provider_id
    provider = own if is_own else await service.providers.get(provider_id)
    if provider is None:
        raise not_found("provider")
    if body.base_url != own.base_url:
        _require_reach(service, body.base_url)
    is_as_set = body.base_url in (None, own.base_url) and not (body.key() and own.base_url)
    if is_own and is_as_set:
        # Its connections are the service's, and are not closed.
        chat = service.models.resolve(f"{own.slug}/{own.models[0].name}", None).chat
        return TrialAnswer(**asdict(await try_model(chat, body.model)))
    try:
        tried = _with(provider, body)
    except ProviderError as error:
        raise _refusal(error) from error
    if tried.problem:
        return TrialAnswer(ok=False, latency_ms=0, status=None, sample=tried.problem)
    make = chat_of if is_own and tried.base_url == own.base_url else guarded_chat
    chat = await asyncio.to_thread(make, service.settings, tried)
    try:
        return TrialAnswer(**asdict(await try_model(chat, body.model)))
    finally:
        await chat.aclose()


async def _all(service: Parts) -> list[Provider]:
    """All providers: the default one, then the environment's, then by age."""
    rows = await service.providers.list()
    has_default = any(row.is_default for row in rows)
    own = replace(service.models.environment, is_default=not has_default)
    return sorted([own, *rows], key=lambda one: not one.is_default)


def _refuse_read_only(service: Parts, provider_id: uuid.UUID) -> None:
    if provider_id == service.models.environment.id:
        raise Refusal(
            409,
            "read_only",
            "This provider is made by the service's settings. Change OPENAI_BASE_URL, "
            "OPENAI_API_KEY and OPENAI_MODEL (or LOCAL_MODEL_PATH) and start the service again.",
        )


def _require_reach(service: Parts, base_url: str | None) -> None:
    if base_url is None:
        return
    try:
        Reach(allow_private=service.settings.may_reach_private).check_url(base_url)
    except ValueError as error:
        raise invalid("baseUrl", str(error)) from error


def _noted(caller: Principal, action: Action, fields: Sequence[str] | None = None) -> Noted:
    async def noted(connection: Connection, provider: Provider) -> None:
        changed: dict[str, Sequence[str]] = {} if fields is None else {"fields": fields}
        target = ("provider", provider.id)
        await note(
            connection,
            caller,
            action,
            target=target,
            project_id=None,
            slug=provider.slug,
            **changed,
        )

    return noted


def _refusal(error: ProviderError) -> Refusal:
    status, code = _REFUSALS[type(error)]
    return Refusal(status, code, str(error))


def _with(provider: Provider, body: Trial) -> Provider:
    """The provider with the address and key to be tried.

    Raises:
        KeyRequired: the stored key would go where it may not.
    """
    base_url = body.base_url or provider.base_url
    if key := body.key():
        return replace(provider, base_url=base_url, api_key=key, problem=None)
    refuse_other_host(provider, base_url)
    return replace(provider, base_url=base_url)
