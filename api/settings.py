"""All settings of the service, from the environment and `.env`."""

import logging
import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from dotenv import dotenv_values
from dotenv.parser import Binding, parse_stream
from pydantic import (
    AfterValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from graph.settings import ROOT, Address, PipelineSettings

log = logging.getLogger(__name__)

LOCALHOST = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"
LOOPBACK_NAMES = ["127.0.0.1", "localhost", "::1"]
PAGE = ROOT / "web/page/dist"
"""Where the page for browsers is, if it was made."""

_HEADER = r"[!#-'*+.0-9A-Z^-z|~-]+ *=[ !#-+.-:<-\[\]-~-]*"
_KEY_OF_A_PAIR = r"-----BEGIN |ssh-|ecdsa-|\{"


_MOST_COUNTED = 10**15
_LONGEST_S = 366 * 24 * 3600
_LIKENESS = 0.85


class SettingsError(Exception):
    """A setting is wrong; the message is one line that names it."""


def _is_rates(value: str) -> str:
    # It takes time, which only those who set a limit should wait for.
    from limits import parse_many  # noqa: PLC0415

    try:
        rates = parse_many(value)
    except ValueError as error:
        raise ValueError("must be as 60/minute, or several as 60/minute;1000/hour") from error
    if not all(0 < rate.amount <= _MOST_COUNTED for rate in rates):
        raise ValueError(f"must allow at least 1 and at most {_MOST_COUNTED}")
    if not all(rate.get_expiry() <= _LONGEST_S for rate in rates):
        raise ValueError("must be for at most a year")
    return value


Rates = Annotated[str, AfterValidator(_is_rates)]


class Settings(PipelineSettings):
    """The pipeline's settings and those of HTTP, access, limits and logs."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(1, ge=1, description="Processes that serve.")
    api_key: SecretStr | None = Field(
        None, description="The value of `X-API-Key` that every call must then have."
    )
    jwt_secret: SecretStr | None = Field(
        None, description="The secret with which bearer tokens are signed (HS256)."
    )
    jwt_jwks_url: Address | None = Field(
        None, description="Where the keys of bearer tokens are published (RS256, ES256)."
    )
    jwt_issuer: str | None = Field(None, description="The `iss` that a token must then have.")
    jwt_audience: str | None = Field(None, description="The `aud` that a token must then have.")
    allow_anonymous: bool = Field(
        False, description="Serve without credentials on other addresses than loopback."
    )
    cors_origin_regex: str = Field(LOCALHOST, description="Origins of pages that may call.")
    chat_max_message_length: int = Field(
        20_000, ge=1, description="Characters of a message or history entry."
    )
    chat_max_history_messages: int = Field(100, ge=0, description="Entries of `history`.")
    chat_on_disconnect: Literal["continue", "cancel"] = Field(
        "continue", description="What a run does when its last reader hangs up."
    )
    chat_on_crash: Literal["rerun", "fail"] = Field(
        "rerun", description="What becomes of a turn whose process ended before its answer."
    )
    max_body_mb: int = Field(10, ge=1, description="MB of a request's body.")
    max_upload_mb: int = Field(50, ge=1, description="MB of an uploaded file.")
    run_retention_minutes: float = Field(
        60,
        gt=0,
        le=_LONGEST_S // 60,
        description="Minutes for which an ended run's stream can be resumed.",
    )
    max_user_requests: Rates | None = Field(
        None, description="Requests of one caller, as 60/minute or 60/minute;1000/hour."
    )
    max_project_requests: Rates | None = Field(
        None, description="Requests about one project, in the same notation."
    )
    max_user_tokens: Rates | None = Field(
        None, description="Tokens of prompts and answers of one caller, as 200000/day."
    )
    max_project_tokens: Rates | None = Field(
        None, description="Tokens of prompts and answers in one project, in the same notation."
    )
    max_user_parallel_runs: int | None = Field(
        None, ge=1, description="Answers that one caller may have generated at the same time."
    )
    max_project_parallel_runs: int | None = Field(
        None, ge=1, description="Answers generated in one project at the same time."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="What goes to the log."
    )
    log_format: Literal["text", "json"] = Field("text", description="One line a record.")
    otel_exporter_otlp_endpoint: Address | None = Field(
        None, description="An OpenTelemetry collector, to which traces of runs are sent."
    )
    otel_exporter_otlp_headers: SecretStr | None = Field(
        None, description="What it is sent beside them, as `name=value,name=value`."
    )
    otel_service_name: str = Field("archwright", description="The service's name in traces.")

    @field_validator("api_key", "jwt_secret")
    @classmethod
    def _has_characters(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().strip():
            raise ValueError("must have characters that are no white space")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _is_no_published_key(cls, value: SecretStr | None) -> SecretStr | None:
        # PyJWT takes no such secret: who has a public key could sign tokens with it.
        if value is not None and re.match(_KEY_OF_A_PAIR, value.get_secret_value().lstrip()):
            raise ValueError(
                "must be a shared secret; for tokens signed with a key pair set JWT_JWKS_URL"
            )
        return value

    @field_validator("otel_exporter_otlp_headers")
    @classmethod
    def _are_headers(cls, value: SecretStr | None) -> SecretStr | None:
        # The libraries that read them would put a wrong one into the log, with its value.
        for header in value.get_secret_value().split(",") if value else ():
            plain = unquote(header)
            is_text = plain.isascii() and plain.isprintable()
            if not (is_text and re.fullmatch(_HEADER, header.strip())):
                raise ValueError("must be as name=value or name=value,name=value, URL-encoded")
        return value

    @field_validator("cors_origin_regex")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        return value

    @model_validator(mode="after")
    def _tokens_have_one_kind_of_key(self) -> "Settings":
        if self.jwt_secret and self.jwt_jwks_url:
            raise ValueError("JWT_SECRET and JWT_JWKS_URL exclude each other; set one of them")
        if (self.jwt_issuer or self.jwt_audience) and not (self.jwt_secret or self.jwt_jwks_url):
            raise ValueError("JWT_ISSUER and JWT_AUDIENCE need JWT_SECRET or JWT_JWKS_URL")
        return self

    @property
    def needs_credentials(self) -> bool:
        """Whether callers must show a key or a token; otherwise everybody is the local user."""
        return bool(self.api_key or self.jwt_secret or self.jwt_jwks_url)

    @property
    def may_reach_private(self) -> bool:
        """Whether providers that admins enter may be at loopback and private addresses."""
        if self.allow_private_providers is None:
            return not self.needs_credentials
        return self.allow_private_providers

    def refuse_open_door(self) -> None:
        """Refuse to serve everybody on an address that others can reach.

        Raises:
            SettingsError: no credentials are set and `host` is not loopback.
        """
        if self.needs_credentials or self.allow_anonymous or self.host in LOOPBACK_NAMES:
            return
        raise SettingsError(
            f"HOST: {self.host} can be reached by others, and no credentials are set. Set API_KEY, "
            "JWT_SECRET or JWT_JWKS_URL, or ALLOW_ANONYMOUS=true if that is what you want."
        )


def load_settings(**overrides: object) -> Settings:
    """The settings, `overrides` first, then the environment, then `.env`.

    Raises:
        SettingsError: one line that names the setting, or the line of `.env`, that is wrong.
    """
    _refuse_unreadable(Path(".env"))
    try:
        return Settings.model_validate(
            Settings(**{k: v for k, v in overrides.items() if v is not None})  # type: ignore[arg-type]
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        reason = first["msg"].removeprefix("Value error, ")
        raise SettingsError(f"{name}: {reason}" if name else reason) from error


def warn_of_misspelt() -> None:
    """Warn of names in `.env` that are nearly a setting's; others may be there on purpose.

    And of the name that other servers have for the number of their processes.
    """
    known = [name.upper() for name in Settings.model_fields]
    names = dotenv_values(".env", interpolate=False)
    if "WEB_CONCURRENCY" in {*os.environ, *names}:
        log.warning("WEB_CONCURRENCY is not read: set WORKERS for several processes")
    for name in names:
        near = get_close_matches(name.upper(), known, 1, _LIKENESS)
        if near and near != [name.upper()]:
            log.warning(".env: there is no setting %s; the nearest is %s", name, near[0])


def _refuse_unreadable(path: Path) -> None:
    # What cannot be read would be passed over: a lost quote would take a key's lock off the door.
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8") as file:
            wrong = next((_line_of(one) for one in parse_stream(file) if one.error), None)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: it is no text in UTF-8. Save it as such.") from error
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    if wrong:
        raise SettingsError(
            f"{path}: line {wrong} cannot be read. A line is NAME=value, and a quote that opens "
            "must close."
        )


def _line_of(binding: Binding) -> int:
    # It begins with the empty lines above it.
    text = binding.original.string
    return binding.original.line + text[: -len(text.lstrip())].count("\n")
