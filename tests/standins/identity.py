"""Stand in for an identity provider: signs tokens, and publishes its keys over real HTTP."""

import asyncio
import base64
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from standins.loopback import Journal, Recorded, forever, serving

__all__ = ["IdentityStandIn", "JwksAnswer", "SigningKey", "handmade"]

AUDIENCE = "archwright"
PATH = "/.well-known/jwks.json"
ELSEWHERE = "/elsewhere.json"


@dataclass(frozen=True)
class SigningKey:
    """A key pair of the provider; `kid` None is a key without an id."""

    kid: str | None
    algorithm: Literal["RS256", "ES256"]
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

    @classmethod
    def made(cls, kid: str | None, algorithm: Literal["RS256", "ES256"] = "ES256") -> Self:
        """The same pair for the same id each time: RSA pairs take long to make."""
        return cls(kid, algorithm, _pair(str(kid), algorithm))

    def jwk(self, **members: object) -> dict[str, Any]:
        """The public half as it is published; `members` are added, None takes one out."""
        public = self.private.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            entry = RSAAlgorithm.to_jwk(public, as_dict=True)
        else:
            entry = ECAlgorithm.to_jwk(public, as_dict=True)
        entry.pop("key_ops", None)
        entry |= {"kid": self.kid, "use": "sig", "alg": self.algorithm} | members
        return {name: value for name, value in entry.items() if value is not None}

    def pem(self) -> bytes:
        """The public half, as everybody can have it."""
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, claims: Mapping[str, Any], **headers: Any) -> str:
        """A token with these claims; `headers` are added to its header."""
        named = {"kid": self.kid} if self.kid is not None else {}
        return jwt.encode(dict(claims), self.private, self.algorithm, {**named, **headers})


@dataclass(frozen=True)
class JwksAnswer:
    """What a fetch of the keys gets in place of the published ones. Times are seconds.

    body: sent as it is; None sends the published keys.
    drop: break the connection off; hang: never answer; drip: send blanks without end.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_s: float = 0.0
    drop: bool = False
    hang: bool = False
    drip: bool = False


class IdentityStandIn:
    """An identity provider on loopback; use it as a context manager."""

    def __init__(self) -> None:
        self.url = ""
        self._journal = Journal()
        self._open = ExitStack()
        self._entries: list[Any] = []
        self._answer = JwksAnswer()

    def __enter__(self) -> Self:
        self.url = self._open.enter_context(serving(self._app()))
        return self

    def __exit__(self, *exception: object) -> None:
        self._journal.close()
        self._open.close()

    @property
    def jwks_url(self) -> str:
        """Where the keys are."""
        return self.url + PATH

    @property
    def fetches(self) -> list[str]:
        """The paths that were asked for, oldest first."""
        return [request.path for request in self._journal.requests]

    def publish(self, *keys: SigningKey | object) -> None:
        """From now on these are the keys: pairs, or entries as they are to be sent."""
        self._entries = [key.jwk() if isinstance(key, SigningKey) else key for key in keys]

    def answer(self, answer: JwksAnswer) -> None:
        """Answer all fetches so from now on."""
        self._answer = answer

    def reset(self) -> None:
        """Publish nothing, answer as it should be, and forget what was asked."""
        self._entries = []
        self._answer = JwksAnswer()
        self._journal.reset()

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Claims that are in order, valid for five minutes; None takes one out."""
        now = int(time.time())
        full = {"iss": self.url, "sub": "u-1", "aud": AUDIENCE, "iat": now, "exp": now + 300}
        return {name: value for name, value in (full | claims).items() if value is not None}

    def _app(self) -> web.Application:
        app = web.Application()
        app.router.add_get(PATH, self._journal.recorded(self._keys))
        app.router.add_get(ELSEWHERE, self._journal.recorded(self._published))
        return app

    async def _keys(self, request: web.Request, recorded: Recorded) -> web.StreamResponse:
        answer = self._answer
        await asyncio.sleep(answer.delay_s)
        if answer.drop and request.transport is not None:
            request.transport.abort()
        if answer.hang:
            await forever()
        if answer.drip:
            return await _dripping(request)
        if answer.body is None and answer.status == 200:
            return await self._published(request, recorded)
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    async def _published(self, request: web.Request, recorded: Recorded) -> web.StreamResponse:
        return web.json_response({"keys": self._entries})


def handmade(header: object, claims: object, signature: bytes = b"") -> str:
    """A token of any header, claims and signature, as no library makes it."""
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


@cache
def _pair(name: str, algorithm: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if algorithm == "RS256":
        return rsa.generate_private_key(65537, 2048)
    return ec.generate_private_key(ec.SECP256R1())


async def _dripping(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)
