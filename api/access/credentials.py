"""Who is calling: from the headers of a request, anew each time."""

import hmac
from collections.abc import Iterable

from starlette.datastructures import Headers

from api.access.keys import owner_of
from api.access.principals import LOCAL_USER, SERVICE, Principal
from api.access.tokens import open_tokens
from api.access.users import Users
from api.errors import Refusal
from api.settings import Settings
from graph.postgres import Pool

_BEARER = "bearer "


class Credentials:
    """Knows callers by `X-API-Key` or `Authorization: Bearer`; without credentials, one user."""

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._settings = settings
        self._users = Users(pool)
        self._tokens = open_tokens(settings)
        self._pool = pool

    async def identify(self, headers: Headers) -> Principal:
        """The caller. Whoever shows several credentials must be the same with each.

        Raises:
            Refusal: 401 (403 in the drafting API), there are none, or one is wrong; 503, the
                identity provider that could tell is away.
        """
        if not self._settings.needs_credentials:
            return LOCAL_USER
        keys = _different(headers.getlist("x-api-key"))
        tokens = _different(_bearers(headers.getlist("authorization")))
        if len(keys) > 1 or len(tokens) > 1:
            raise _refused(_TWO)
        callers = [await self._by_key(key) for key in keys]
        callers += [await self._by_token(token) for token in tokens]
        if not callers:
            raise _refused(_NONE)
        if len({caller.id for caller in callers}) > 1:
            raise _refused(_TWO)
        return callers[-1]

    async def _by_key(self, key: str) -> Principal:
        expected = self._settings.api_key
        # As bytes, the way they came: Starlette reads headers as Latin-1, and clients send UTF-8.
        sent = key.encode("latin-1")
        if expected and hmac.compare_digest(sent, expected.get_secret_value().encode()):
            return SERVICE
        owner = await owner_of(self._pool, key)
        if owner is None:
            raise _refused(_BAD_KEY)
        return owner

    async def _by_token(self, token: str) -> Principal:
        if self._tokens is None:
            raise _refused(_NO_TOKENS)
        return await self._users.principal(await self._tokens.claims(token))

    async def aclose(self) -> None:
        """Close the connections to the identity provider."""
        if self._tokens is not None:
            await self._tokens.aclose()


def _bearers(values: Iterable[str]) -> list[str]:
    # Another scheme is not ours: a proxy in front may ask for it.
    return [value[len(_BEARER) :].strip() for value in values if value.lower().startswith(_BEARER)]


def _different(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _refused(sentence: str) -> Refusal:
    return Refusal(401, "unauthorized", sentence)


_NONE = (
    "This service needs credentials. Send a key as X-API-Key, or a token as Authorization: Bearer."
)
_TWO = "The credentials of this request are of two different callers. Send one of them."
_BAD_KEY = "The key in X-API-Key is unknown, has expired or was revoked."
_NO_TOKENS = "Tokens are not accepted here. Send a key as X-API-Key."
