"""The settings that the pipeline needs; the service adds its own in `api/settings.py`."""

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
from pydantic import (
    AfterValidator,
    DirectoryPath,
    Field,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

ROOT = Path(__file__).resolve().parent.parent


def _is_address(value: str) -> str:
    try:
        httpx.URL(value)
        parts = urlsplit(value)
        has_host = bool((parts.hostname or "").encode("idna")) and parts.port != 0
    except (ValueError, httpx.InvalidURL):
        has_host = False
    # Without what the parsers say, which may quote a password.
    if not has_host or parts.scheme not in ("http", "https") or " " in value:
        raise ValueError("must be an address as https://example.com/v1 or http://127.0.0.1:8080")
    return value


Address = Annotated[str, AfterValidator(_is_address)]


_LEAST_KEY = 16
_DAY_S = 24 * 3600


def _is_database(url: str) -> bool:
    # It takes time, which only those who set a database should wait for.
    from psycopg import ProgrammingError  # noqa: PLC0415
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415

    try:
        ports = str(conninfo_to_dict(url).get("port", "5432")).split(",")
    except ProgrammingError:
        return False
    is_sound = all(port.isdecimal() and 0 < int(port) < 65536 for port in ports)
    return is_sound and url.startswith(("postgresql://", "postgres://"))


def _parts(keys: SecretStr) -> list[str]:
    return [key.strip() for key in keys.get_secret_value().split(",")]


class PipelineSettings(BaseSettings):
    """From the environment and `.env`; an empty value counts as not set."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    data_dir: Path = Field(Path("data"), description="Where everything embedded keeps its files.")
    prompts_dir: DirectoryPath = Field(ROOT / "prompts", description="One Markdown file a prompt.")
    templates_dir: DirectoryPath = Field(
        ROOT / "templates", description="`<phase>/<TYPE>/` with template.md and example.md."
    )
    database_url: SecretStr | None = Field(
        None, description="A Postgres 14 or newer instead of the embedded one."
    )
    chroma_url: Address | None = Field(
        None, description="A Chroma server (Rust front end) instead of the embedded one."
    )
    openai_base_url: Address | None = Field(
        None, description="Any OpenAI-compatible endpoint instead of the embedded model."
    )
    openai_api_key: SecretStr | None = Field(None, description="The key for that endpoint.")
    openai_model: str | None = Field(None, description="The model to ask there.")
    openai_context_window: int | None = Field(
        None, ge=512, description="Tokens that the model takes; asked from the endpoint if unset."
    )
    local_model_path: Path | None = Field(
        None, description="Another GGUF file for the embedded model."
    )
    secret_key: SecretStr | None = Field(
        None,
        description="Encrypts the keys of providers; made and kept in the data folder if unset. "
        "Of several with commas between them, the first encrypts and all decrypt.",
    )
    allow_private_providers: bool | None = Field(
        None,
        description="Whether providers that admins enter may be at loopback and private addresses. "
        "If unset, they may as long as no credentials are set.",
    )
    embedding_base_url: Address | None = Field(
        None, description="Any OpenAI-compatible endpoint instead of the embedded embeddings."
    )
    embedding_api_key: SecretStr | None = Field(None, description="The key for that endpoint.")
    embedding_model: str | None = Field(None, description="The embedding model to ask there.")
    rerank_base_url: Address | None = Field(
        None, description="An endpoint with `/rerank` (Cohere, Jina, vLLM, …) that orders passages."
    )
    rerank_api_key: SecretStr | None = Field(None, description="The key for that endpoint.")
    rerank_model: str | None = Field(None, description="The re-ranking model to ask there.")
    tavily_api_key: SecretStr | None = Field(
        None, description="Turns the modes `web` and `deep` on."
    )
    tavily_base_url: Address | None = Field(None, description="Another address of Tavily.")
    llm_connect_timeout_s: float = Field(
        10, gt=0, le=_DAY_S, description="Seconds to reach the model."
    )
    llm_first_token_timeout_s: float = Field(
        60, gt=0, le=_DAY_S, description="Seconds from the request to the model's first token."
    )
    llm_idle_timeout_s: float = Field(
        30, gt=0, le=_DAY_S, description="Seconds between two reads from the model."
    )

    @field_validator("database_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not _is_database(value.get_secret_value()):
            raise ValueError(
                "must be an address as postgresql://user:password@host:5432/name, with signs in "
                "its parts percent-encoded"
            )
        return value

    @field_validator("secret_key")
    @classmethod
    def _is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and min(map(len, _parts(value))) < _LEAST_KEY:
            raise ValueError(f"each key must have at least {_LEAST_KEY} characters")
        return value

    @property
    def secret_keys(self) -> list[SecretStr]:
        """The keys of SECRET_KEY, the one that encrypts first; empty if it is unset."""
        return [SecretStr(key) for key in _parts(self.secret_key)] if self.secret_key else []

    @property
    def embeds_model(self) -> bool:
        """Whether the embedded language model answers, since no endpoint is named."""
        return not (self.openai_base_url or self.openai_api_key)

    @property
    def may_reach_private(self) -> bool:
        """Whether providers that admins enter may be at loopback and private addresses."""
        return self.allow_private_providers is not False

    @model_validator(mode="after")
    def _endpoints_name_their_model(self) -> "PipelineSettings":
        if (self.openai_base_url or self.openai_api_key) and not self.openai_model:
            raise ValueError("OPENAI_MODEL must name a model when OPENAI_BASE_URL or a key is set")
        if bool(self.embedding_base_url) != bool(self.embedding_model):
            raise ValueError("EMBEDDING_MODEL and EMBEDDING_BASE_URL must be set together")
        if bool(self.rerank_base_url) != bool(self.rerank_model):
            raise ValueError("RERANK_MODEL and RERANK_BASE_URL must be set together")
        return self
