"""Which bearer tokens are taken, what is read from them, and the settings that decide it."""

import asyncio
import hmac
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest
from standins.identity import AUDIENCE, ELSEWHERE, IdentityStandIn, SigningKey, handmade

from api.access.tokens import LONGEST_TOKEN, MOST_GROUPS, Claims, open_tokens
from api.errors import Refusal
from api.settings import Settings, SettingsError, load_settings

SECRET = "a secret of more than thirty-two bytes"
RSA = SigningKey.made("rsa", "RS256")
EC = SigningKey.made("ec")
STRANGER = SigningKey.made("stranger", "RS256")

FORM = "The bearer token is not a well-formed JWT."
ALGORITHM = "The token is signed in a way that this service does not take."
SIGNATURE = "The signature of the token is not valid."
UNKNOWN = "The token is signed with a key that the identity provider does not have."
NOT_YET = "The token is not valid yet: its nbf or iat is in the future."
ISSUER = "The token is from an issuer that this service does not trust."
MEANT_FOR = "The token is meant for another service: see its aud."
NO_DATE = "The iat of the token is no date in seconds."
CRITICAL = "The token asks for extensions (crit) that this service does not know."
SUB = (
    "The sub of the token must be 1 to 255 characters on one line, "
    "without control characters or extra spaces."
)


@pytest.fixture(scope="module")
def provider() -> Iterator[IdentityStandIn]:
    with IdentityStandIn() as standin:
        standin.publish(RSA, EC)
        yield standin


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **values)


def from_provider(provider: IdentityStandIn) -> Settings:
    return settings(jwt_jwks_url=provider.jwks_url, jwt_issuer=provider.url, jwt_audience=AUDIENCE)


SHARED = settings(jwt_secret=SECRET)


def check(chosen: Settings, token: str) -> Claims | tuple[int, str, str]:
    """The claims, or how the token was refused."""

    async def ask() -> Claims | tuple[int, str, str]:
        tokens = open_tokens(chosen)
        assert tokens is not None
        try:
            return await tokens.claims(token)
        except Refusal as refusal:
            return refusal.status, refusal.code, refusal.message
        finally:
            await tokens.aclose()

    return asyncio.run(ask())


def refused(message: str) -> tuple[int, str, str]:
    return 401, "unauthorized", message


def shared(headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token signed with the secret: `u-1`, valid for five minutes; None takes a claim out."""
    full = {"sub": "u-1", "exp": int(time.time()) + 300, **claims}
    kept = {name: value for name, value in full.items() if value is not None}
    return jwt.encode(kept, SECRET, "HS256", headers)


def hmac_signed(header: dict[str, Any], claims: dict[str, Any], secret: bytes) -> str:
    unsigned = handmade(header, claims).rpartition(".")[0]
    signature = hmac.digest(secret, unsigned.encode(), "sha256")
    return handmade(header, claims, signature)


# --- what is read from a token


@pytest.mark.parametrize("key", [RSA, EC], ids=lambda key: key.algorithm)
def test_a_token_of_the_provider_says_who_it_is(provider: IdentityStandIn, key: SigningKey) -> None:
    claims = provider.claims(
        name="Ada  King\n", email="ada@example.com", groups=["ops", "dev", "ops"], role="admin"
    )
    assert check(from_provider(provider), key.sign(claims)) == Claims(
        issuer=provider.url,
        subject="u-1",
        name="Ada King",
        email="ada@example.com",
        groups=("ops", "dev"),
        is_admin=True,
        issued_at=datetime.fromtimestamp(claims["iat"], UTC),
    )


@pytest.mark.parametrize(
    ("claims", "name", "email"),
    [
        ({}, "u-1", None),
        ({"email": " a@b.c "}, "a@b.c", "a@b.c"),
        ({"name": " \x00 ", "email": "a@b.c"}, "a@b.c", "a@b.c"),
        ({"name": "A\x1b[0mB", "email": 5}, "A[0mB", None),
        ({"name": "\u202eA\u200f B"}, "A B", None),
        ({"name": ["A"], "email": "a\x00@b.c"}, "u-1", None),
        ({"name": "n" * 300, "email": "e" * 255}, "n" * 200, None),
        ({"email": "a@b.c", "email_verified": True}, "a@b.c", "a@b.c"),
        ({"email": "a@b.c", "email_verified": False}, "u-1", None),
        ({"email": "a@b.c", "email_verified": "false"}, "u-1", None),
    ],
)
def test_name_and_email_are_optional_and_clean(
    claims: dict[str, Any], name: str, email: str | None
) -> None:
    expected = Claims("", "u-1", name, email, (), is_admin=False, issued_at=None)
    assert check(SHARED, shared(**claims)) == expected


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], ()),
        (["b", " a  a ", "b"], ("b", "a a")),
        (["a\x00", "\ud800", "", "  ", 5, None, ["x"], {"x": 1}, "g" * 256, "ok"], ("ok",)),
        ([f"g{n}" for n in range(MOST_GROUPS)] + ["g0"], tuple(f"g{n}" for n in range(200))),
    ],
)
def test_groups_are_names_each_once(groups: list[Any], expected: tuple[str, ...]) -> None:
    found = check(SHARED, shared(groups=groups))
    assert isinstance(found, Claims)
    assert found.groups == expected


@pytest.mark.parametrize("groups", ["ops", {"ops": True}, 5, True])
def test_groups_that_are_no_list_are_refused(groups: object) -> None:
    message = "The groups of the token must be a list of names."
    assert check(SHARED, shared(groups=groups)) == refused(message)


def test_too_many_groups_are_refused() -> None:
    token = shared(groups=[f"g{n}" for n in range(MOST_GROUPS + 1)])
    message = "The token has more than 200 groups; have it name fewer."
    assert check(SHARED, token) == refused(message)


@pytest.mark.parametrize("role", ["Admin", "admin ", ["admin"], {"admin": True}, True, 1, "user"])
def test_only_the_role_admin_is_admin(role: object) -> None:
    found = check(SHARED, shared(role=role))
    assert isinstance(found, Claims)
    assert found.is_admin is False


def test_any_audience_and_issuer_will_do_where_none_is_set() -> None:
    found = check(SHARED, shared(aud=["someone"], iss="https://example.com"))
    assert isinstance(found, Claims)
    assert found.issuer == "https://example.com"


def test_a_list_of_audiences_must_have_ours(provider: IdentityStandIn) -> None:
    token = EC.sign(provider.claims(aud=["other", AUDIENCE]))
    assert isinstance(check(from_provider(provider), token), Claims)


# --- what is refused


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"iss": "https://evil.example"}, ISSUER),
        ({"iss": None}, "The token has no iss."),
        ({"aud": "other"}, MEANT_FOR),
        ({"aud": ["other", AUDIENCE + "x"]}, MEANT_FOR),
        ({"aud": None}, "The token has no aud."),
        ({"exp": 0}, "The token has expired. Sign in again."),
        ({"exp": None}, "The token has no exp."),
        ({"exp": "soon"}, FORM),
        ({"exp": 1e400}, FORM),
        ({"nbf": 1 << 40}, NOT_YET),
        ({"iat": 1 << 40}, NOT_YET),
        ({"iat": "yesterday"}, NO_DATE),
        ({"iat": -1e300}, NO_DATE),
        ({"sub": None}, "The token has no sub."),
        ({"sub": ""}, SUB),
        ({"sub": " \t"}, SUB),
        ({"sub": " u-1"}, SUB),
        ({"sub": "u-1\x00"}, SUB),
        ({"sub": "u-1\n"}, SUB),
        ({"sub": "\ud800"}, SUB),
        ({"sub": "u" * 256}, SUB),
    ],
)
def test_a_claim_that_is_not_in_order_is_refused(
    provider: IdentityStandIn, claims: dict[str, Any], message: str
) -> None:
    token = EC.sign(provider.claims(**claims))
    assert check(from_provider(provider), token) == refused(message)


@pytest.mark.parametrize("sub", [5, ["u-1"], {"a": 1}, True])
def test_a_subject_that_is_no_text_is_refused(sub: object) -> None:
    claims = {"sub": sub, "exp": int(time.time()) + 300}
    token = hmac_signed({"alg": "HS256"}, claims, SECRET.encode())
    assert check(SHARED, token) == refused(SUB)


def test_no_leeway_is_given() -> None:
    now = int(time.time())
    assert check(SHARED, shared(exp=now)) == refused("The token has expired. Sign in again.")
    assert check(SHARED, shared(nbf=now + 5)) == refused(NOT_YET)
    assert isinstance(check(SHARED, shared(nbf=now, iat=now, exp=now + 60)), Claims)


@pytest.mark.parametrize(
    "alg", ["none", "None", "NONE", "nOnE", "", " none", None, ["none"], 0, "HS512", "PS256"]
)
@pytest.mark.parametrize("kind", ["secret", "provider"])
def test_an_unsigned_token_is_refused(provider: IdentityStandIn, kind: str, alg: object) -> None:
    chosen = SHARED if kind == "secret" else from_provider(provider)
    token = handmade({"alg": alg, "kid": "rsa"}, provider.claims(role="admin"))
    assert check(chosen, token) == refused(ALGORITHM)
    assert check(chosen, handmade({"kid": "rsa"}, provider.claims())) == refused(ALGORITHM)


def test_a_public_key_is_no_secret(provider: IdentityStandIn) -> None:
    for key in (RSA, EC):
        header = {"alg": "HS256", "kid": key.kid}
        token = hmac_signed(header, provider.claims(role="admin"), key.pem())
        assert check(from_provider(provider), token) == refused(ALGORITHM)


def test_the_secret_signs_hs256_alone(provider: IdentityStandIn) -> None:
    for token in (RSA.sign(provider.claims()), EC.sign(provider.claims())):
        assert check(SHARED, token) == refused(ALGORITHM)
    strong = jwt.encode({"sub": "u", "exp": 1 << 40}, SECRET * 2, "HS512")
    assert check(settings(jwt_secret=SECRET * 2), strong) == refused(ALGORITHM)


def test_a_key_signs_its_own_algorithm_alone(provider: IdentityStandIn) -> None:
    swapped = [EC.sign(provider.claims(), kid="rsa"), RSA.sign(provider.claims(), kid="ec")]
    assert [check(from_provider(provider), token) for token in swapped] == [refused(UNKNOWN)] * 2


def test_a_forged_signature_is_refused(provider: IdentityStandIn) -> None:
    real, other = RSA.sign(provider.claims()), RSA.sign(provider.claims(sub="u-2"))
    head, body, signature = real.split(".")
    forged = [
        STRANGER.sign(provider.claims(), kid="rsa"),
        f"{head}.{other.split('.')[1]}.{signature}",
        f"{head}.{body}.{signature[:40]}",
        f"{head}.{body}.",
        jwt.encode(provider.claims(), "another secret, also of thirty-two bytes"),
    ]
    assert [check(from_provider(provider), token) for token in forged[:4]] == [
        refused(SIGNATURE)
    ] * 4
    assert check(SHARED, forged[4]) == refused(SIGNATURE)
    head, body, _ = EC.sign(provider.claims()).split(".")
    assert check(from_provider(provider), f"{head}.{body}.MEUCIQ") == refused(SIGNATURE)


@pytest.mark.parametrize("header", ["jku", "x5u", "jwk", "x5c"])
def test_a_token_does_not_bring_its_own_key(provider: IdentityStandIn, header: str) -> None:
    value = {"jwk": STRANGER.jwk(), "x5c": ["MII"]}.get(header, provider.url + ELSEWHERE)
    for kid, message in (("rsa", SIGNATURE), ("stranger", UNKNOWN)):
        token = STRANGER.sign(provider.claims(), **{header: value, "kid": kid})
        assert check(from_provider(provider), token) == refused(message)
    assert ELSEWHERE not in provider.fetches


@pytest.mark.parametrize(
    ("crit", "message"),
    [
        (["b64"], CRITICAL),
        (["exp"], "The token is not valid."),
        ([], "The token is not valid."),
        (None, "The token is not valid."),
    ],
)
def test_critical_extensions_are_refused(crit: object, message: str) -> None:
    claims = {"sub": "u-1", "exp": int(time.time()) + 300}
    header = {"alg": "HS256", "crit": crit, "b64": True}
    assert check(SHARED, hmac_signed(header, claims, SECRET.encode())) == refused(message)


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "a.b", "a.b.c", "a.b.c.d.e", "Bearer x", "{}", "\x00", "é.é.é", "\ud800",
        handmade([], {}), handmade("x", {}), handmade({"alg": "HS256"}, {}) + "!",
        f"{'W1tb' * 3000}.e30.e30",
    ],
)  # fmt: skip
def test_what_is_no_token_is_refused(token: str) -> None:
    assert check(SHARED, token) == refused(FORM)


def test_a_payload_that_is_no_object_is_refused() -> None:
    for payload in ([], "x", 5, None):
        token = hmac_signed({"alg": "HS256"}, payload, SECRET.encode())  # type: ignore[arg-type]
        assert check(SHARED, token) == refused(FORM)


def test_a_huge_token_is_refused_before_it_is_read() -> None:
    assert check(SHARED, "a" * LONGEST_TOKEN) == refused(FORM)
    long = "The token is longer than 16384 characters."
    assert check(SHARED, "a" * (LONGEST_TOKEN + 1)) == refused(long)
    assert check(SHARED, shared(name="n" * LONGEST_TOKEN)) == refused(long)


# --- settings


def test_without_keys_no_tokens_are_taken() -> None:
    assert open_tokens(settings(api_key="key")) is None


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"jwt_secret": SECRET, "jwt_jwks_url": "http://x"}, ["JWT_SECRET", "JWT_JWKS_URL"]),
        ({"jwt_issuer": "x"}, ["JWT_ISSUER", "JWT_SECRET", "JWT_JWKS_URL"]),
        ({"jwt_audience": "x", "api_key": "k"}, ["JWT_AUDIENCE", "JWT_SECRET", "JWT_JWKS_URL"]),
        ({"jwt_secret": " "}, ["JWT_SECRET"]),
        ({"jwt_secret": RSA.pem().decode()}, ["JWT_SECRET", "JWT_JWKS_URL"]),
        ({"jwt_secret": '{"kty": "oct"}'}, ["JWT_SECRET"]),
        ({"jwt_jwks_url": "idp.example/keys"}, ["JWT_JWKS_URL"]),
    ],
)
def test_settings_that_clash_stop_the_start(values: dict[str, Any], names: list[str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(**values)
    line = str(caught.value)
    assert [name for name in names if name not in line] == []
    assert "\n" not in line
    assert RSA.pem().decode().splitlines()[1] not in line


@pytest.mark.parametrize(
    "values", [{"jwt_secret": SECRET}, {"jwt_jwks_url": "https://idp.example/keys"}]
)
def test_keys_of_tokens_are_credentials(values: dict[str, Any]) -> None:
    chosen = settings(host="0.0.0.0", **values)
    assert chosen.needs_credentials
    chosen.refuse_open_door()


def test_a_short_secret_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "api.access.tokens")
    token = hmac_signed({"alg": "HS256"}, {"sub": "u-1", "exp": 1 << 40}, b"short")
    # A warning of PyJWT's would be an error here, as every warning is in this suite.
    assert isinstance(check(settings(jwt_secret="short"), token), Claims)
    assert caplog.messages == ["JWT_SECRET: 5 bytes can be guessed; take 32 or more"]
    check(SHARED, shared())
    assert len(caplog.messages) == 1


def test_keys_without_an_audience_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "api.access.tokens")
    open_tokens(settings(jwt_jwks_url="https://idp.example/keys"))
    assert [(one.levelno, one.getMessage().split(":")[0]) for one in caplog.records] == [
        (logging.WARNING, "JWT_AUDIENCE")
    ]
