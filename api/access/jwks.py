"""The public keys of an identity provider: fetched when they are needed, kept, and renewed."""

import asyncio
import json
import logging
import math
import ssl
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import httpx
import jwt

from api.errors import Refusal

log = logging.getLogger(__name__)

LIFETIME_S = 600.0
"""Seconds after which kept keys are fetched anew, in the background."""

KEEP_S = 24 * 3600.0
"""Seconds for which kept keys hold while the identity provider is away."""

PAUSE_S = 10.0
"""Seconds between two fetches for unknown keys, and after a fetch that failed."""

TIMEOUT_S = 5.0

_LONGEST_BYTES = 1_000_000
_SHORTEST_RSA_BITS = 2048
_MEMBERS = {"RSA": ("kty", "n", "e"), "EC": ("kty", "crv", "x", "y")}
_ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}


class KeySet:
    """The keys at a JWKS address.

    Nothing is fetched before the first token comes. All callers share one fetch. A fetch that
    fails changes nothing but the time of the next one; one that succeeds replaces all keys.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url
        self._clock = clock
        self._timeout_s = timeout_s
        self._client = httpx.AsyncClient(verify=_authorities(), timeout=timeout_s)
        self._keys: Sequence[jwt.PyJWK] = ()
        self._fetched_at = -math.inf
        self._failure: str | None = "nothing was fetched yet"
        self._fetching: asyncio.Task[None] | None = None
        self._retry_at = -math.inf
        self._search_at = -math.inf

    async def find(self, kid: str | None, algorithm: object) -> jwt.PyJWK:
        """The key with this id, or without an id the only one for this algorithm.

        Raises:
            jwt.InvalidAlgorithmError: `algorithm` is neither RS256 nor ES256.
            Refusal: 401, the provider has no such key; 503, it is away and may have one.
        """
        if algorithm not in _ALGORITHMS.values():
            raise jwt.InvalidAlgorithmError
        now = self._clock()
        age = now - self._fetched_at
        if age >= KEEP_S:
            self._keys = ()
        if age >= LIFETIME_S and now >= self._retry_at:
            self._start_fetching()
        found = self._known(kid, algorithm)
        if found is None:
            await self._search(now)
            found = self._known(kid, algorithm)
        if found is None:
            raise self._refusal(kid)
        return found

    async def probe(self) -> int:
        """Fetch the keys now, and say how many of them can sign tokens.

        Raises:
            ConnectionError: they could not be fetched.
        """
        await self._fetch()
        if self._failure is not None:
            raise ConnectionError(self._failure)
        return len(self._keys)

    async def aclose(self) -> None:
        """Stop fetching, and close the connections to the provider."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait({self._fetching})
        await self._client.aclose()

    def _known(self, kid: str | None, algorithm: object) -> jwt.PyJWK | None:
        fitting = [
            key
            for key in self._keys
            if key.algorithm_name == algorithm and kid in (None, key.key_id)
        ]
        return fitting[0] if len(fitting) == 1 else None

    async def _search(self, now: float) -> None:
        """Wait for a fetch: the one under way, or a new one if the last is long enough ago."""
        if self._fetching is None and now >= max(self._retry_at, self._search_at):
            self._search_at = now + PAUSE_S
            self._start_fetching()
        if self._fetching is not None:
            # Neither cancels the fetch with one of its callers, nor raises what it raised.
            await asyncio.wait({self._fetching})

    def _start_fetching(self) -> None:
        if self._fetching is None:
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                self._keys = _keys_of(await self._download())
            self._fetched_at = self._clock()
            self._note(None)
        except TimeoutError:
            self._note(f"no answer within {self._timeout_s:g} s")
        except httpx.HTTPError as error:
            self._note(type(error).__name__)
        except (ValueError, RecursionError) as error:
            self._note(str(error))
        except Exception as error:
            log.exception("JWT_JWKS_URL: reading the keys failed")
            self._note(type(error).__name__)
        finally:
            self._fetching = None

    async def _download(self) -> bytes:
        # Not compressed: a small answer could become a huge one.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        body = bytearray()
        async with self._client.stream("GET", self._url, headers=headers) as answer:
            if answer.status_code != httpx.codes.OK:
                raise ValueError(f"it answered with status {answer.status_code}")
            async for piece in answer.aiter_raw():
                body += piece
                if len(body) > _LONGEST_BYTES:
                    raise ValueError("its answer is larger than 1 MB")
        return bytes(body)

    def _note(self, failure: str | None) -> None:
        """Keep how the last fetch ended; the log gets a line when that changes, not each time."""
        if failure is not None:
            self._retry_at = self._clock() + PAUSE_S
            if failure != self._failure:
                log.warning("JWT_JWKS_URL: the keys could not be fetched: %s", failure)
        elif not self._keys:
            log.warning("JWT_JWKS_URL: it has no RSA key from 2048 bits on and no P-256 key")
        elif self._failure is not None:
            log.info("JWT_JWKS_URL: fetched %d keys", len(self._keys))
        self._failure = failure

    def _refusal(self, kid: str | None) -> Refusal:
        if self._failure is not None:
            wait_s = math.ceil(max(1, self._retry_at - self._clock()))
            return Refusal(
                503,
                "identity_provider_unavailable",
                "The token cannot be checked: the identity provider does not give its keys. "
                "Try again in a few seconds.",
                headers={"Retry-After": str(wait_s)},
            )
        if kid is None:
            message = "The token must name the key that signed it (kid): there is not just one."
        else:
            message = "The token is signed with a key that the identity provider does not have."
        return Refusal(401, "unauthorized", message)


@cache
def _authorities() -> ssl.SSLContext:
    # Reading them takes some 20 ms.
    return httpx.create_ssl_context()


def _keys_of(body: bytes) -> list[jwt.PyJWK]:
    """The keys that can sign tokens; ValueError if `body` is no key set."""
    try:
        found = json.loads(body)
    except ValueError as error:
        raise ValueError("its answer is no JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("keys"), list):
        raise ValueError("its answer is no key set")
    keys = [_key_of(entry) for entry in found["keys"] if isinstance(entry, dict)]
    return [key for key in keys if key is not None]


def _key_of(entry: dict[str, Any]) -> jwt.PyJWK | None:
    """The key for RS256 or ES256 in an entry; null for keys of any other kind or use."""
    kind = entry.get("kty")
    algorithm = _ALGORITHMS.get(kind) if isinstance(kind, str) else None
    if algorithm is None or not _is_for_signing(entry, algorithm):
        return None
    public = {name: entry.get(name) for name in (*_MEMBERS[str(kind)], "kid")}
    try:
        key = jwt.PyJWK(public, algorithm)
    except jwt.PyJWTError:
        return None
    if algorithm == "RS256" and key.key.key_size < _SHORTEST_RSA_BITS:
        return None
    return key


def _is_for_signing(entry: dict[str, Any], algorithm: str) -> bool:
    operations = entry.get("key_ops")
    return (
        entry.get("use", "sig") == "sig"
        and entry.get("alg", algorithm) == algorithm
        and (operations is None or (isinstance(operations, list) and "verify" in operations))
        # A private key that is published is nobody's.
        and "d" not in entry
        and (algorithm != "ES256" or entry.get("crv") == "P-256")
    )
