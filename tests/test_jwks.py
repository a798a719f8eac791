"""The keys of an identity provider that rotates them, is slow, is away, or answers nonsense."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from standins.identity import ELSEWHERE, IdentityStandIn, JwksAnswer, SigningKey

from api.access.jwks import KEEP_S, LIFETIME_S, PAUSE_S, KeySet
from api.access.tokens import Tokens, open_tokens
from api.errors import Refusal
from api.settings import Settings

OLD, NEW = SigningKey.made("old"), SigningKey.made("new")
RSA, OTHER_RSA = SigningKey.made("rsa", "RS256"), SigningKey.made("rsa-2", "RS256")
NAMELESS = SigningKey.made(None)
SHORT = SigningKey("short", "RS256", rsa.generate_private_key(65537, 1024))
CURVE = SigningKey("curve", "ES256", ec.generate_private_key(ec.SECP384R1()))

OK = 200
UNKNOWN, AWAY = 401, 503
DROP = JwksAnswer(drop=True)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Checker:
    """Tokens of `provider`, checked."""

    def __init__(self, provider: IdentityStandIn, tokens: Tokens, clock: Clock) -> None:
        self.provider, self.tokens, self.clock = provider, tokens, clock

    async def refusal(self, token: str) -> Refusal | None:
        """How `token` is refused; None where it is taken."""
        try:
            await self.tokens.claims(token)
        except Refusal as refusal:
            return refusal
        return None

    async def check(self, *keys: SigningKey, **headers: object) -> list[int]:
        """The status for a token of each key, checked at the same time."""
        tokens = [key.sign(self.provider.claims(), **headers) for key in keys]
        refusals = await asyncio.gather(*map(self.refusal, tokens))
        return [OK if refusal is None else refusal.status for refusal in refusals]

    async def until_fetched(self, number: int, status: int, key: SigningKey) -> None:
        """Wait until `key` gives `status`, after fetch `number`."""
        for _ in range(500):
            if await self.check(key) == [status] and len(self.provider.fetches) >= number:
                return
            await asyncio.sleep(0.01)
        raise TimeoutError


@pytest.fixture(scope="module")
def running_provider() -> Iterator[IdentityStandIn]:
    with IdentityStandIn() as standin:
        yield standin


@pytest.fixture
def provider(running_provider: IdentityStandIn) -> IdentityStandIn:
    running_provider.reset()
    return running_provider


@asynccontextmanager
async def opened(provider: IdentityStandIn, timeout_s: float = 5) -> AsyncIterator[Checker]:
    clock = Clock()
    chosen = Settings(_env_file=None, jwt_jwks_url=provider.jwks_url)
    tokens = open_tokens(chosen, clock=clock, timeout_s=timeout_s)
    assert tokens is not None
    try:
        yield Checker(provider, tokens, clock)
    finally:
        await tokens.aclose()


def play(
    provider: IdentityStandIn,
    scenario: Callable[[Checker], Awaitable[None]],
    timeout_s: float = 5,
) -> None:
    """Run `scenario` with the tokens of `provider`, from an empty cache on."""

    async def run() -> None:
        async with opened(provider, timeout_s) as checker:
            await scenario(checker)

    asyncio.run(run())


def test_nothing_is_fetched_before_a_token_comes_and_then_once(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        assert provider.fetches == []
        provider.publish(OLD)
        assert await checker.check(*[OLD] * 50) == [OK] * 50
        checker.clock.now += LIFETIME_S - 1
        assert await checker.check(OLD) == [OK]
        assert len(provider.fetches) == 1

    play(provider, scenario)


def test_rotated_keys_hold_at_once(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        assert await checker.check(OLD, NEW) == [OK, UNKNOWN]
        provider.publish(NEW)
        assert await checker.check(NEW) == [OK]
        assert await checker.check(OLD, NEW) == [UNKNOWN, OK]
        assert len(provider.fetches) == 2

    play(provider, scenario)


def test_a_withdrawn_key_ends_with_the_next_fetch(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        assert await checker.check(OLD) == [OK]
        provider.publish()
        checker.clock.now += LIFETIME_S
        assert await checker.check(OLD) == [OK]
        await checker.until_fetched(2, UNKNOWN, OLD)

    play(provider, scenario)


def test_keys_are_renewed_in_the_background(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        assert await checker.check(OLD) == [OK]
        provider.answer(JwksAnswer(hang=True))
        checker.clock.now += LIFETIME_S
        async with asyncio.timeout(20):
            assert await checker.check(*[OLD] * 50) == [OK] * 50

    play(provider, scenario, timeout_s=60)
    assert len(provider.fetches) <= 2


def test_unknown_keys_do_not_make_fetches(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        provider.answer(JwksAnswer(delay_s=0.05))
        fifty = [checker.check(OLD, kid=f"made-up-{n}") for n in range(50)]
        assert await asyncio.gather(*fifty) == [[UNKNOWN]] * 50
        assert len(provider.fetches) == 1
        fifty = [checker.check(OLD, kid=f"made-up-{n}") for n in range(50)]
        assert await asyncio.gather(*fifty) == [[UNKNOWN]] * 50
        assert await checker.check(*[NEW] * 50) == [UNKNOWN] * 50
        checker.clock.now += PAUSE_S - 1
        assert await checker.check(NEW) == [UNKNOWN]
        assert len(provider.fetches) == 2
        checker.clock.now += 1
        provider.publish(NEW)
        assert await checker.check(*[NEW] * 50) == [OK] * 50
        assert len(provider.fetches) == 3

    play(provider, scenario)


def test_a_provider_may_be_away_at_the_start(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        provider.answer(DROP)
        refusal = await checker.refusal(OLD.sign(provider.claims()))
        assert refusal is not None
        assert (refusal.status, refusal.code, refusal.headers, refusal.message) == (
            503,
            "identity_provider_unavailable",
            {"Retry-After": "10"},
            "The token cannot be checked: the identity provider does not give its keys. "
            "Try again in a few seconds.",
        )
        assert await checker.check(*[OLD] * 50, NEW) == [AWAY] * 51
        assert len(provider.fetches) == 1
        provider.answer(JwksAnswer())
        checker.clock.now += PAUSE_S
        assert await checker.check(OLD, NEW) == [OK, UNKNOWN]

    play(provider, scenario)


def test_known_keys_hold_for_a_day_while_the_provider_is_away(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        assert await checker.check(OLD) == [OK]
        provider.answer(DROP)
        checker.clock.now += LIFETIME_S
        assert await checker.check(NEW, OLD, NEW) == [AWAY, OK, AWAY]
        assert len(provider.fetches) == 2
        checker.clock.now += KEEP_S - LIFETIME_S - 1
        assert await checker.check(OLD, NEW) == [OK, AWAY]
        checker.clock.now += 1
        assert await checker.check(OLD) == [AWAY]
        provider.answer(JwksAnswer())
        checker.clock.now += PAUSE_S
        assert await checker.check(OLD, NEW) == [OK, UNKNOWN]

    play(provider, scenario)


@pytest.mark.parametrize("answer", [JwksAnswer(hang=True), JwksAnswer(drip=True)])
def test_a_slow_provider_is_not_waited_for(provider: IdentityStandIn, answer: JwksAnswer) -> None:
    async def scenario(checker: Checker) -> None:
        provider.answer(answer)
        async with asyncio.timeout(20):
            assert await checker.check(*[OLD] * 50) == [AWAY] * 50
        assert len(provider.fetches) == 1

    play(provider, scenario, timeout_s=0.2)


def test_a_caller_who_leaves_does_not_end_the_fetch_of_others(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        provider.answer(JwksAnswer(delay_s=0.1))
        first, second = (asyncio.create_task(checker.check(OLD)) for _ in range(2))
        await asyncio.sleep(0.02)
        first.cancel()
        assert await second == [OK]
        assert first.cancelled()
        assert len(provider.fetches) == 1

    play(provider, scenario)


def test_closing_ends_a_fetch(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.answer(JwksAnswer(hang=True))
        waiting = asyncio.create_task(checker.check(OLD))
        await asyncio.sleep(0.05)
        await checker.tokens.aclose()
        assert await waiting == [AWAY]

    play(provider, scenario)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (JwksAnswer(body=b"<html>Sign in</html>"), "its answer is no JSON"),
        (JwksAnswer(body=b"\xff"), "its answer is no JSON"),
        (JwksAnswer(body=b""), "its answer is no JSON"),
        (JwksAnswer(body=b"[]"), "its answer is no key set"),
        (JwksAnswer(body=b'{"keys": {}}'), "its answer is no key set"),
        (JwksAnswer(body=b"[" * 100_000), "maximum recursion depth exceeded"),
        (JwksAnswer(body=b" " * 1_000_001), "its answer is larger than 1 MB"),
        (JwksAnswer(status=500), "it answered with status 500"),
        (JwksAnswer(status=404), "it answered with status 404"),
        (JwksAnswer(status=302, headers={"Location": ELSEWHERE}), "it answered with status 302"),
        (
            JwksAnswer(body=gzip.compress(b"{}"), headers={"Content-Encoding": "gzip"}),
            "its answer is no JSON",
        ),
        (DROP, "RemoteProtocolError"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_an_answer_that_is_no_key_set_changes_nothing(
    provider: IdentityStandIn, answer: JwksAnswer, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(OLD)
        assert await checker.check(OLD) == [OK]
        caplog.clear()
        provider.answer(answer)
        assert await checker.check(NEW, OLD) == [AWAY, OK]
        checker.clock.now += PAUSE_S
        assert await checker.check(NEW, OLD) == [AWAY, OK]

    play(provider, scenario)
    [line] = caplog.messages
    assert line.startswith(f"JWT_JWKS_URL: the keys could not be fetched: {told}")
    assert ELSEWHERE not in provider.fetches


def test_a_token_without_a_key_id_needs_just_one_key(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(RSA, NAMELESS)
        nameless_rsa = SigningKey(None, "RS256", RSA.private)
        assert await checker.check(NAMELESS, nameless_rsa) == [OK, OK]
        provider.publish(RSA, OTHER_RSA, NAMELESS, OLD)
        assert await checker.check(OTHER_RSA, RSA, OLD) == [OK, OK, OK]
        refusal = await checker.refusal(nameless_rsa.sign(provider.claims()))
        assert refusal is not None
        assert (refusal.status, refusal.headers, refusal.message) == (
            401,
            {},
            "The token must name the key that signed it (kid): there is not just one.",
        )
        assert await checker.check(NAMELESS) == [UNKNOWN]

    play(provider, scenario)


@pytest.mark.parametrize(
    "entry",
    [
        RSA.jwk(use="enc"),
        RSA.jwk(alg="RS512"),
        RSA.jwk(alg="RSA-OAEP"),
        RSA.jwk(key_ops=["encrypt"], use=None),
        RSA.jwk(d="AQAB"),
        RSA.jwk(n=5),
        RSA.jwk(n=None),
        RSA.jwk(n="é!"),
        RSA.jwk(e="AQ"),
        RSA.jwk(kty="EC"),
        RSA.jwk(kty=["RSA"]),
        RSA.jwk(kid=5),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "rsa", "alg": "RS256"},
        SHORT.jwk(kid="rsa"),
        CURVE.jwk(kid="rsa"),
        CURVE.jwk(kid="rsa", alg=None),
        OLD.jwk(kid="rsa", crv="P-384", alg=None),
        OLD.jwk(kid="rsa", x="AA"),
        "rsa",
        None,
        5,
        [],
        {},
    ],
)
def test_keys_that_sign_no_tokens_are_passed_over(provider: IdentityStandIn, entry: Any) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(entry, OLD)
        assert await checker.check(RSA, OLD) == [UNKNOWN, OK]
        assert await checker.check(OLD, kid="rsa") == [UNKNOWN]

    play(provider, scenario)


def test_members_that_are_not_needed_may_be_missing(provider: IdentityStandIn) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(
            RSA.jwk(use=None, alg=None, x5c=["MII"], x5t="x"),
            OLD.jwk(use=None, key_ops=["verify"]),
            RSA.jwk(use="enc", alg="RSA-OAEP"),
        )
        assert await checker.check(RSA, OLD) == [OK, OK]

    play(provider, scenario)


def test_a_set_without_a_key_that_can_be_used_is_told(
    provider: IdentityStandIn, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(checker: Checker) -> None:
        provider.publish(SHORT)
        caplog.clear()
        assert await checker.check(OLD) == [UNKNOWN]

    play(provider, scenario)
    assert caplog.messages == ["JWT_JWKS_URL: it has no RSA key from 2048 bits on and no P-256 key"]


def test_a_probe_says_how_many_keys_there_are_or_why_there_are_none(
    provider: IdentityStandIn,
) -> None:
    async def probe() -> int:
        keys = KeySet(provider.jwks_url)
        try:
            return await keys.probe()
        finally:
            await keys.aclose()

    provider.publish(OLD, NEW)
    assert asyncio.run(probe()) == 2
    provider.answer(JwksAnswer(status=500))
    with pytest.raises(ConnectionError, match="^it answered with status 500$"):
        asyncio.run(probe())
