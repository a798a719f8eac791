"""The bodies of `/providers`: what admins may enter, and what is shown to whom."""

import uuid
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    JsonValue,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)

from api.schema import CLEAN, NOT_BLANK, ONE_LINE, ONE_WAY, SAFE, CamelModel, example
from graph.models import DEFAULT, EMBEDDED
from graph.providers import ModelEntry, Provider

_MOST_MODELS = 50
_SHOWN = 4
_LEAST_SHOWN = 12


def _free(slug: str) -> str:
    if slug in (DEFAULT, EMBEDDED):
        raise ValueError(f"{slug!r} is the provider of the service's own settings")
    return slug


def _is_header(key: SecretStr) -> SecretStr:
    text = key.get_secret_value().strip()
    if not (text.isascii() and text.isprintable()):
        raise ValueError("must be the key as the provider gave it, on one line of ASCII")
    return SecretStr(text)


def _named(model: object) -> object:
    return {"name": model} if isinstance(model, str) else model


Name = Annotated[str, StringConstraints(max_length=200), CLEAN, ONE_WAY, SAFE, ONE_LINE, NOT_BLANK]
Slug = Annotated[
    str,
    StringConstraints(max_length=60, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$"),
    AfterValidator(_free),
]
BaseUrl = Annotated[str, StringConstraints(max_length=2000, strip_whitespace=True)]
ApiKey = Annotated[SecretStr, Field(max_length=4000), AfterValidator(_is_header)]
ModelName = Annotated[str, StringConstraints(max_length=200), CLEAN, ONE_WAY, ONE_LINE, NOT_BLANK]

_ID = "578f17e1-c2e1-4ab2-a126-de5e8a9546d2"
_URL = "https://llm.acme.example/v1"
_SMALL: JsonValue = {
    "name": "acme-small",
    "contextWindow": 32768,
    "inputPrice": 0.4,
    "outputPrice": 1.6,
}
_LISTED: JsonValue = {
    "id": _ID,
    "name": "Acme",
    "slug": "acme",
    "models": ["acme-small"],
    "isDefault": True,
    "isEnabled": True,
}
_MODEL: JsonValue = {
    "id": "acme/acme-small",
    "model": "acme-small",
    "provider": "Acme",
    "providerSlug": "acme",
    "providerId": _ID,
    "isDefault": True,
}
_ADMIN: JsonValue = {
    "id": _ID,
    "name": "Acme",
    "slug": "acme",
    "baseUrl": _URL,
    "apiKey": "…",
    "models": [_SMALL],
    "isDefault": True,
    "isFallback": False,
    "isEnabled": True,
    "isReadOnly": False,
    "problem": "The key of the provider 'acme' was encrypted with another SECRET_KEY. "
    "An admin must enter it again.",
    "createdAt": "2026-08-14T09:30:00Z",
    "updatedAt": "2026-08-14T09:30:00Z",
}


class ModelBody(CamelModel):
    """A model of a provider; prices are per million tokens, and null is unknown."""

    name: ModelName
    context_window: int | None = Field(None, ge=512, le=2**31 - 1)
    input_price: float | None = Field(None, ge=0, allow_inf_nan=False)
    output_price: float | None = Field(None, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _prices_stand_together(self) -> "ModelBody":
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("inputPrice and outputPrice must be given together")
        return self


ModelBodies = Annotated[
    list[Annotated[ModelBody, BeforeValidator(_named)]],
    Field(min_length=1, max_length=_MOST_MODELS),
]


class ProviderChange(CamelModel):
    """The body of `PATCH /providers/{id}`: what is left out, or null, stays as it is."""

    model_config = example(baseUrl=_URL, apiKey="sk-...")
    name: Name | None = None
    slug: Slug | None = None
    base_url: BaseUrl | None = None
    api_key: ApiKey | None = None
    models: ModelBodies | None = None
    is_default: bool | None = None
    is_fallback: bool | None = None
    is_enabled: bool | None = None

    @field_validator("models")
    @classmethod
    def _differ(cls, models: list[ModelBody] | None) -> list[ModelBody] | None:
        if models and len({model.name for model in models}) < len(models):
            raise ValueError("must name each model once")
        return models

    def changes(self) -> dict[str, Any]:
        """The fields of a `Provider` that the body names."""
        named = {name: getattr(self, name) for name in self.model_fields_set}
        if self.models is not None:
            named["models"] = tuple(ModelEntry(**model.model_dump()) for model in self.models)
        # An empty key keeps the old one too.
        return {name: value for name, value in named.items() if value not in (None, SecretStr(""))}


class NewProvider(ProviderChange):
    """The body of `POST /providers`. Without `apiKey` the endpoint asks for none."""

    model_config = example(
        name="Acme", slug="acme", baseUrl=_URL, apiKey="sk-...", models=["acme-large", _SMALL]
    )
    name: Name
    slug: Slug
    base_url: BaseUrl
    models: ModelBodies


class Trial(CamelModel):
    """The body of `POST /providers/{id}/test`: what to try in place of what is stored."""

    model_config = example(model="acme-small", apiKey="sk-...")
    model: ModelName
    base_url: BaseUrl | None = None
    api_key: ApiKey | None = None

    def key(self) -> SecretStr | None:
        """The key to try, null where the stored one is meant."""
        return self.api_key or None


class ListedProvider(CamelModel):
    """A provider as everybody sees it."""

    id: uuid.UUID
    name: str
    slug: str
    models: list[str]
    is_default: bool
    is_enabled: bool


class ProviderList(CamelModel):
    """The enabled providers, the default first."""

    model_config = example(providers=[_LISTED])
    providers: list[ListedProvider]


class ListedModel(CamelModel):
    """A model that can be asked; `id` is what a question names as `modelId`."""

    id: str
    model: str
    provider: str
    provider_slug: str
    provider_id: uuid.UUID
    is_default: bool


class ModelList(CamelModel):
    """The models of the enabled providers, the default first."""

    model_config = example(models=[_MODEL])
    models: list[ListedModel]


class AdminProvider(CamelModel):
    """A provider as admins see it: `apiKey` masked, `problem` why it cannot be used."""

    id: uuid.UUID
    name: str
    slug: str
    base_url: str
    api_key: str | None
    models: list[ModelBody]
    is_default: bool
    is_fallback: bool
    is_enabled: bool
    is_read_only: bool
    problem: str | None
    created_at: datetime | None
    updated_at: datetime | None


class ProviderAnswer(CamelModel):
    """One provider."""

    model_config = example(provider=_ADMIN)
    provider: AdminProvider


class AdminProviderList(CamelModel):
    """All providers, the default first."""

    model_config = example(providers=[_ADMIN])
    providers: list[AdminProvider]


class TrialAnswer(CamelModel):
    """How a model answered: `status` is the HTTP status, `sample` its words or what failed."""

    model_config = example(ok=True, latencyMs=412, status=200, sample="Hello! How can I")
    ok: bool
    latency_ms: int
    status: int | None
    sample: str


def listed(provider: Provider) -> ListedProvider:
    """The provider as everybody sees it."""
    return ListedProvider(
        id=provider.id,
        name=provider.name,
        slug=provider.slug,
        models=[entry.name for entry in provider.models],
        is_default=provider.is_default,
        is_enabled=provider.is_enabled,
    )


def listed_models(provider: Provider) -> list[ListedModel]:
    """The provider's models as everybody sees them."""
    return [
        ListedModel(
            id=f"{provider.slug}/{entry.name}",
            model=entry.name,
            provider=provider.name,
            provider_slug=provider.slug,
            provider_id=provider.id,
            is_default=provider.is_default and at == 0,
        )
        for at, entry in enumerate(provider.models)
    ]


def shown_to_admins(provider: Provider) -> AdminProvider:
    """The provider as admins see it."""
    return AdminProvider(
        id=provider.id,
        name=provider.name,
        slug=provider.slug,
        base_url=_without_password(provider.base_url),
        api_key=_masked(provider),
        models=[ModelBody(**asdict(entry)) for entry in provider.models],
        is_default=provider.is_default,
        is_fallback=provider.is_fallback,
        is_enabled=provider.is_enabled,
        is_read_only=provider.is_read_only,
        problem=provider.problem,
        created_at=provider.created_at,
        updated_at=provider.updated_at,
    )


def _masked(provider: Provider) -> str | None:
    if not provider.has_key():
        return None
    key = provider.api_key.get_secret_value() if provider.api_key else ""
    if len(key) < _LEAST_SHOWN:
        return "…"
    return f"{'sk-' if key.startswith('sk-') else ''}…{key[-_SHOWN:]}"


def _without_password(url: str) -> str:
    """The address; the operator's own may have a user name and a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
