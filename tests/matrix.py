"""A service with two worlds, all kinds of callers, and all that was answered to them."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import httpx
from callers import token
from conftest import Service
from operations import OPERATIONS, Caller, Operation, expected
from worlds import (
    CONVERSATION,
    DRAFT,
    PERSONAL,
    PROJECT,
    World,
    build,
    fresh,
    new_provider,
    posted,
    unknown,
)

JWT_SECRET = "a-secret-of-tokens-that-is-long-enough"
# Of a token without it, claims are stored again each minute, and the digests would differ.
ISSUED = 1_700_000_000
API_KEY = "the-key-of-the-service"

Cell = tuple[str, str, str]
"""An operation with its number, for some are there more than once; a caller; and whose ids."""

_EXPIRE = "update api_keys set expires_at = now() - interval '1 second' where id = %s"


@dataclass(frozen=True)
class Exchange:
    """What was answered: the status, the headers without the date, and the body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def of(cls, response: httpx.Response) -> "Exchange":
        """A whole answer."""
        headers = (one for one in response.headers.multi_items() if one[0] != "date")
        return cls(response.status_code, tuple(headers), response.content)

    @cached_property
    def _text(self) -> bytes:
        return (repr(self.headers).encode() + self.body).lower()

    def shows(self, word: str) -> bool:
        """Whether `word` is anywhere in it, in capitals or not."""
        return word.lower().encode() in self._text


@dataclass
class Matrix:
    """The service, the callers by name, whose ids there are, and what was logged.

    `before` and `after` are the digests of the tables around all that was refused, `openapi` is
    what an admin was told, `secrets` is what callers send.
    """

    service: Service
    callers: dict[str, Caller]
    clients: dict[str, httpx.Client]
    worlds: Mapping[str, Callable[[], World]]
    secrets: list[str]
    lines: list[str]
    openapi: dict[str, Any]
    users: dict[str, dict[str, Any]]
    answers: dict[Cell, Exchange] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)

    @property
    def own(self) -> World:
        """Alice's world."""
        return self.worlds["own"]()

    @property
    def foreign(self) -> World:
        """Bob's world."""
        return self.worlds["foreign"]()

    def cells(self) -> Iterator[tuple[Cell, Operation, int]]:
        """All cells, each with its operation and the status that it should have."""
        for number, operation in enumerate(OPERATIONS):
            for name, caller in self.callers.items():
                for whose in operation.worlds:
                    if whose == "foreign" and not caller.is_known:
                        # Alice's are foreign to them already.
                        continue
                    status = expected(operation, caller, self.worlds[whose]())
                    yield (f"{number} {operation.name}", name, whose), operation, status

    def run(self) -> None:
        """Send all requests: first what is refused, then what reads and makes, then the rest."""
        cells = list(self.cells())
        allowed = [one for one in cells if one[2] == one[1].ok]
        self.before = digests(self.service)
        self._send_all(one for one in cells if one[2] != one[1].ok)
        self.after = digests(self.service)
        self._send_all(one for one in allowed if not one[1].fresh)
        self._send_all(one for one in allowed if one[1].fresh and not _is_alone(one[1]))
        for cell, operation, _ in allowed:
            if _is_alone(operation):
                self._send(cell, operation, self._fresh(cell, operation))

    def ask(self, caller: str, operation: Operation, world: World, **changed: Any) -> Exchange:
        """The answer to a request."""
        request = {**operation.request(world), **changed}
        return Exchange.of(self.clients[caller].request(**request))

    def _send_all(self, cells: Iterable[tuple[Cell, Operation, int]]) -> None:
        def send(one: tuple[Cell, Operation, int]) -> None:
            cell, operation, status = one
            is_allowed = status == operation.ok and operation.fresh
            world = self._fresh(cell, operation) if is_allowed else self.worlds[cell[2]]()
            self._send(cell, operation, world)

        with ThreadPoolExecutor(6) as pool:
            list(pool.map(send, cells))

    def _send(self, cell: Cell, operation: Operation, world: World) -> None:
        self.answers[cell] = self.ask(cell[1], operation, world)

    def _fresh(self, cell: Cell, operation: Operation) -> World:
        assert operation.fresh is not None
        owner = self.clients["alice" if cell[2] == "own" else "bob"]
        return fresh(operation.fresh, self.worlds[cell[2]](), owner, self.clients["admin"])


def _is_alone(operation: Operation) -> bool:
    # There is one at a time of what it destroys.
    return operation.fresh in ("override", "edit", "grant")


@contextmanager
def prepared(service: Service, model_url: str, lines: list[str]) -> Iterator[Matrix]:
    """The matrix of a service, before any request of it is sent."""
    tokens = {
        "alice": token(JWT_SECRET, "alice", iat=ISSUED, email=f"{PERSONAL}mail@example.com"),
        "bob": token(JWT_SECRET, "bob", iat=ISSUED),
        "carol": token(JWT_SECRET, "carol", iat=ISSUED),
        "dave": token(JWT_SECRET, "dave", iat=ISSUED, groups=["Crew"]),
        "admin": token(JWT_SECRET, "root", iat=ISSUED, role="admin"),
        # Has been here, is in a group, and does nothing else.
        "erin": token(JWT_SECRET, "erin", iat=ISSUED, groups=["Quay"]),
    }
    with ExitStack() as stack:

        def opened(headers: Mapping[str, str]) -> httpx.Client:
            return stack.enter_context(service.client(**headers))

        clients = {name: opened(_bearer(one)) for name, one in tokens.items()}
        users = {name: one.get("/me").json()["user"] for name, one in clients.items()}
        shared = _shared(service, clients["admin"], users["erin"], model_url)
        own = build("own", clients["alice"], shared)
        foreign = build("foreign", clients["bob"], shared)
        _share(clients["alice"], own, "user", users["carol"]["id"], "use")
        _share(clients["alice"], own, "group", users["dave"]["groups"][0]["id"], "edit")
        keys = _keys(service, clients["alice"])
        callers = {**_strangers(tokens, keys), **_known(tokens, keys["good"])}
        for name in callers.keys() - clients.keys():
            clients[name] = opened(callers[name].headers)
        yield Matrix(
            service=service,
            callers=callers,
            clients=clients,
            worlds={"own": lambda: own, "foreign": lambda: foreign, "unknown": unknown},
            secrets=[JWT_SECRET, API_KEY, *keys.values(), *tokens.values()],
            lines=lines,
            openapi=clients["admin"].get("/openapi.json").json(),
            users=users,
        )


def _shared(
    service: Service, admin: httpx.Client, somebody: dict[str, Any], model_url: str
) -> dict[str, str]:
    """The ids that are the same for all."""
    [version] = admin.get(f"/api/v1/texts/{DRAFT}/history").json()["versions"]
    body = {"message": "Hello", "doc_type": "UNSORTED"}
    assert admin.post("/api/v1/chat/generate", json=body).is_success
    [used] = service.query("select version from text_sets")
    return {
        "somebody": somebody["id"],
        "group_id": somebody["groups"][0]["id"],
        "model_url": model_url,
        "provider_id": new_provider(admin, model_url),
        "service_path": DRAFT,
        "service_version": version["version"],
        "service_used": used["version"],
    }


def _share(owner: httpx.Client, world: World, kind: str, target: str, tier: str) -> None:
    body = {"targetType": kind, "targetId": target, "tier": tier}
    posted(owner, f"/projects/{world.ids['project_id']}/grants", body)


def _keys(service: Service, owner: httpx.Client) -> dict[str, str]:
    made = {name: posted(owner, "/keys", {"name": name}) for name in ("good", "revoked", "expired")}
    assert owner.delete(f"/keys/{made['revoked']['key']['id']}").status_code == 204
    with service.changing() as database:
        database.execute(_EXPIRE, (made["expired"]["key"]["id"],))
    return {name: one["secret"] for name, one in made.items()}


def _strangers(tokens: Mapping[str, str], keys: Mapping[str, str]) -> dict[str, Caller]:
    return {
        name: Caller(headers, is_known=False)
        for name, headers in {
            "nothing": {},
            "wrong key": _key("aw_no-such-key"),
            "malformed token": _bearer("not.a.token"),
            "expired token": _bearer(token(JWT_SECRET, "alice", ends_in_s=-60)),
            "revoked key": _key(keys["revoked"]),
            "expired key": _key(keys["expired"]),
            "contradicting": {**_bearer(tokens["alice"]), **_key(API_KEY)},
        }.items()
    }


def _known(tokens: Mapping[str, str], key: str) -> dict[str, Caller]:
    def alice(headers: dict[str, str]) -> Caller:
        sees = (CONVERSATION, PERSONAL, PROJECT)
        return Caller(headers, tiers={"own": "full"}, owns="own", sees=sees)

    def admin(headers: dict[str, str]) -> Caller:
        both = {"own": "full", "foreign": "full"}
        return Caller(headers, tiers=both, is_admin=True, sees=(PERSONAL, PROJECT))

    return {
        "alice": alice(_bearer(tokens["alice"])),
        "alice's key": alice(_key(key)),
        "bob": Caller(_bearer(tokens["bob"]), tiers={"foreign": "full"}, owns="foreign"),
        "carol": Caller(_bearer(tokens["carol"]), tiers={"own": "use"}, sees=(PROJECT,)),
        "dave": Caller(_bearer(tokens["dave"]), tiers={"own": "edit"}, sees=(PROJECT,)),
        "admin": admin(_bearer(tokens["admin"])),
        "service": admin(_key(API_KEY)),
    }


def _bearer(value: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {value}"}


def _key(value: str) -> dict[str, str]:
    return {"X-API-Key": value}


@contextmanager
def logged() -> Iterator[list[str]]:
    """What a running service logs at DEBUG, its requests too."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Keep()
    ours = [logging.getLogger(name) for name in ("", "api", "graph", "uvicorn", "uvicorn.access")]
    before = [(logger, logger.level, logger.handlers) for logger in ours]
    for logger in ours[1:]:
        logger.setLevel(logging.DEBUG)
    # Uvicorn's hand nothing on to the root, and would print.
    for logger in (ours[0], *ours[3:]):
        logger.handlers = [handler]
    try:
        yield lines
    finally:
        for logger, level, handlers in before:
            logger.setLevel(level)
            logger.handlers = handlers


def digests(service: Service) -> dict[str, Any]:
    """A digest of each table, but for when keys were used."""
    tables = service.query("select tablename from pg_tables where schemaname = 'public'")
    return {
        name: service.query(_DIGEST % _ROWS.get(name, f'"{name}"'))
        for name in sorted(row["tablename"] for row in tables)
        # What is still to be done changes by itself.
        if name not in ("erasures", "processes") and not name.startswith("procrastinate_")
    }


_DIGEST = """
select count(*) as rows, md5(string_agg(line, ' ' order by line)) as digest
from (select (to_jsonb(t) - 'last_used_at')::text as line from %s t) as lines
"""
# Once a minute rows of one day and person become one.
_ROWS = {
    "usage": """(
        select day, user_id, project_id, provider, model, sum(runs) as runs, sum(cost) as cost,
            sum(prompt_tokens) as prompt_tokens, sum(completion_tokens) as completion_tokens
        from usage group by day, user_id, project_id, provider, model
    )"""
}
