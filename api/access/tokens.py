"""Checks bearer tokens (JWT), and reads from them who is calling."""

import logging
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jwt

from api.access.jwks import TIMEOUT_S, KeySet
from api.errors import Refusal
from api.settings import Settings
from graph.sanitizing import clean, one_line, one_way

log = logging.getLogger(__name__)

LONGEST_TOKEN = 16 * 1024
MOST_GROUPS = 200

_LONGEST_ID = 255
_LONGEST_NAME = 200
_LONGEST_EMAIL = 254
_SECRET_BYTES = 32

_REASONS: dict[type[jwt.PyJWTError], str] = {
    jwt.ExpiredSignatureError: "The token has expired. Sign in again.",
    jwt.ImmatureSignatureError: "The token is not valid yet: its nbf or iat is in the future.",
    jwt.InvalidIssuerError: "The token is from an issuer that this service does not trust.",
    jwt.InvalidAudienceError: "The token is meant for another service: see its aud.",
    jwt.InvalidIssuedAtError: "The iat of the token is no date in seconds.",
    jwt.InvalidAlgorithmError: "The token is signed in a way that this service does not take.",
    jwt.InvalidSignatureError: "The signature of the token is not valid.",
    jwt.DecodeError: "The bearer token is not a well-formed JWT.",
}


@dataclass(frozen=True, slots=True)
class Claims:
    """What a checked token says of its bearer.

    `issuer` is "" for a token without `iss`; `name` is never empty; `groups` are one-line names
    in the token's order, each once.
    """

    issuer: str
    subject: str
    name: str
    email: str | None
    groups: tuple[str, ...]
    is_admin: bool
    issued_at: datetime | None


class SharedSecret:
    """The one key of tokens that are signed with JWT_SECRET."""

    def __init__(self, secret: bytes) -> None:
        # HMAC itself fills a short key with zeros; PyJWT would warn of it for each token.
        filled = urlsafe_b64encode(secret.ljust(_SECRET_BYTES, b"\0")).decode()
        self._key = jwt.PyJWK({"kty": "oct", "k": filled}, "HS256")

    async def find(self, kid: str | None, algorithm: object) -> jwt.PyJWK:
        """The secret, whatever key and algorithm the token names; it is for HS256 alone."""
        return self._key

    async def aclose(self) -> None:
        """Nothing is open."""


class Tokens:
    """Checks tokens against the keys, the issuer and the audience of this service."""

    def __init__(
        self, keys: SharedSecret | KeySet, *, issuer: str | None, audience: str | None
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience

    async def claims(self, token: str) -> Claims:
        """What `token` says, once its signature, times, issuer and audience have been checked.

        Raises:
            Refusal: 401, something is wrong with the token; 503, its key cannot be fetched.
        """
        if len(token) > LONGEST_TOKEN:
            raise _refused(f"The token is longer than {LONGEST_TOKEN} characters.")
        try:
            return _claims(await self._checked(token))
        except jwt.MissingRequiredClaimError as error:
            raise _refused(f"The token has no {error.claim}.") from None
        except jwt.PyJWTError as error:
            raise _refused(_reason(error)) from None

    async def aclose(self) -> None:
        """Close the connections to the identity provider."""
        await self._keys.aclose()

    async def _checked(self, token: str) -> dict[str, Any]:
        if not token.isascii():
            raise jwt.DecodeError
        header = jwt.get_unverified_header(token)
        if "crit" in header:
            raise _refused("The token asks for extensions (crit) that this service does not know.")
        key = await self._keys.find(header.get("kid"), header.get("alg"))
        return jwt.decode(
            token,
            key,
            algorithms=[key.algorithm_name],
            issuer=self._issuer,
            audience=self._audience,
            options={
                "require": ["exp", "sub"],
                "verify_aud": self._audience is not None,
                # `_identity` asks more of it; and nothing here reads the jti.
                "verify_sub": False,
                "verify_jti": False,
            },
        )


def open_tokens(
    settings: Settings,
    *,
    clock: Callable[[], float] = time.monotonic,
    timeout_s: float = TIMEOUT_S,
) -> Tokens | None:
    """What checks tokens as the settings say; null where they take none.

    Asks nobody yet. Logs a warning of each setting that is weaker than it should be. `clock` gives
    the seconds by which the identity provider's keys age, `timeout_s` bounds each fetch of them.
    """
    keys: SharedSecret | KeySet
    if settings.jwt_secret is not None:
        secret = settings.jwt_secret.get_secret_value().encode()
        if len(secret) < _SECRET_BYTES:
            log.warning(
                "JWT_SECRET: %d bytes can be guessed; take %d or more", len(secret), _SECRET_BYTES
            )
        keys = SharedSecret(secret)
    elif settings.jwt_jwks_url is not None:
        if settings.jwt_audience is None:
            log.warning(
                "JWT_AUDIENCE: it is not set, so tokens that the identity provider made for other "
                "services are taken too"
            )
        keys = KeySet(settings.jwt_jwks_url, clock=clock, timeout_s=timeout_s)
    else:
        return None
    return Tokens(keys, issuer=settings.jwt_issuer, audience=settings.jwt_audience)


def _claims(payload: dict[str, Any]) -> Claims:
    subject = _identity(payload, "sub")
    email = _email(payload)
    return Claims(
        issuer="" if payload.get("iss") is None else _identity(payload, "iss"),
        subject=subject,
        name=_name(payload.get("name")) or email or subject,
        email=email,
        groups=_groups(payload.get("groups")),
        is_admin=payload.get("role") == "admin",
        issued_at=_issued_at(payload.get("iat")),
    )


def _name(value: object) -> str:
    return one_line(one_way(value), _LONGEST_NAME) if isinstance(value, str) else ""


def _identity(payload: dict[str, Any], claim: str) -> str:
    """A claim that identifies somebody: refused, not cleaned, or two could become one."""
    value = payload[claim]
    if not isinstance(value, str) or not value or one_line(value, _LONGEST_ID) != value:
        raise _refused(
            f"The {claim} of the token must be 1 to {_LONGEST_ID} characters on one line, "
            "without control characters or extra spaces."
        )
    return value


def _email(payload: dict[str, Any]) -> str | None:
    """The address, by which others share with its bearer: not one that anybody could enter."""
    # Some providers write it as a text.
    if payload.get("email_verified") in (False, "false"):
        return None
    return _line(payload.get("email"), _LONGEST_EMAIL)


def _groups(value: object) -> tuple[str, ...]:
    """The names in `groups`.

    What is no list, or too long a one, is refused: the provider is set up wrongly, and to go on
    with some of it would take rights away by chance. An entry that is no name is left out: it may
    be one person's, and can only give rights that it does not have then.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _refused("The groups of the token must be a list of names.")
    names = dict.fromkeys(name for one in value if (name := _line(one, _LONGEST_ID)))
    if len(names) > MOST_GROUPS:
        raise _refused(f"The token has more than {MOST_GROUPS} groups; have it name fewer.")
    return tuple(names)


def _line(value: object, limit: int) -> str | None:
    """`value` on one line; null where it is no text, too long, or has control characters."""
    if not isinstance(value, str) or clean(value) != value:
        return None
    line = one_line(value, limit + 1)
    return line if 0 < len(line) <= limit else None


def _issued_at(value: Any) -> datetime | None:  # noqa: ANN401 - any JSON
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(float(value), UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        raise _refused(_REASONS[jwt.InvalidIssuedAtError]) from None


def _reason(error: jwt.PyJWTError) -> str:
    fitting = (text for kind, text in _REASONS.items() if isinstance(error, kind))
    return next(fitting, "The token is not valid.")


def _refused(message: str) -> Refusal:
    return Refusal(401, "unauthorized", message)
