"""What authorization costs: one route beside another with less of it, for each kind of caller.

Services with other credentials share one Postgres and are asked in turn over loopback. Printed
are medians, ratios to the local user (nothing to check, all is allowed), how many statements a
request makes, and which tables Postgres reads from end to end for it. `make bench` runs it.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt
import psycopg
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from rich.console import Console
from rich.table import Table

from api.access.principals import group_id, user_id
from api.server import running
from api.settings import Settings
from graph.postgres import embedded_postgres

API_KEY, SECRET = "the-key-of-the-bench", "the-secret-of-the-bench-0123456789"
SIZES = (1_000, 10_000)
USERS, GROUPS = 1_000, 200
# The first has no rule, the second needs a caller, the others their tier in a project.
ROUTES = ("/", "/chat/config", "/projects/{project}", "/projects?limit=50")
OWNER = "user-0"


Key = str | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True, eq=False)
class Case:
    """A caller: the service that they ask, and how they say who they are."""

    name: str
    url: str
    headers: Mapping[str, str]


class Statements:
    """Notes what is sent to Postgres while the block runs."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, Any]] = []

    def __enter__(self) -> "Statements":
        execute = self._execute = psycopg.AsyncCursor.execute

        async def noted(cursor: Any, query: Any, params: Any = None, **more: Any) -> Any:  # noqa: ANN401
            self.sent.append((query, params))
            return await execute(cursor, query, params, **more)

        psycopg.AsyncCursor.execute = noted  # type: ignore[method-assign, assignment]
        return self

    def __exit__(self, *exception: object) -> None:
        psycopg.AsyncCursor.execute = self._execute  # type: ignore[method-assign]

    @property
    def asked(self) -> list[tuple[Any, Any]]:
        """Without those by which the pool checks its connections."""
        return [one for one in self.sent if one[0]]


def main() -> None:
    """Measure with few and with many projects, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=100, help="counted rounds, after ten to warm up")
    rounds = parser.parse_args().n
    with services() as (database, cases):
        made = 0
        for size in SIZES:
            project = fill(database, made, size)
            made = size
            show(size, project, cases, rounds, database)


@contextmanager
def services() -> Iterator[tuple[str, list[Case]]]:
    """The database's URL, and the callers of three services that share it."""
    curve, pair = ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        database = stack.enter_context(embedded_postgres(folder / "postgres"))
        keys = stack.enter_context(published(curve, pair))
        started = partial(start, stack, folder, database)
        by_secret = started(api_key=API_KEY, jwt_secret=SECRET)
        by_keys = started(jwt_jwks_url=keys, jwt_audience="bench")
        owner = token(OWNER)
        yield (
            database,
            [
                Case("local user", started(), {}),
                Case("API_KEY", by_secret, {"X-API-Key": API_KEY}),
                Case("key of one's own, owner", by_secret, own_key(by_secret, owner)),
                Case("token HS256, owner", by_secret, owner),
                Case("token ES256, owner", by_keys, token(OWNER, curve, "ES256")),
                Case("token RS256, owner", by_keys, token(OWNER, pair, "RS256")),
                Case("token HS256, admin", by_secret, token("admin", role="admin")),
                *(
                    Case(f"token HS256, in {n} groups", by_secret, token(f"member-{n}", groups=n))
                    for n in (1, 10, 100)
                ),
            ],
        )


def start(stack: ExitStack, folder: Path, database: str, **credentials: str) -> str:
    """Start a service; gives its address. No model is ever asked."""
    settings = Settings(
        _env_file=None,
        data_dir=folder / uuid.uuid4().hex,
        database_url=database,
        port=0,
        openai_base_url="http://127.0.0.1:9/v1",
        openai_model="none",
        log_level="ERROR",
        **credentials,
    )
    return stack.enter_context(running(settings))


@contextmanager
def published(curve: ec.EllipticCurvePrivateKey, pair: rsa.RSAPrivateKey) -> Iterator[str]:
    """The address at which both public keys are."""
    keys = [
        {**ECAlgorithm.to_jwk(curve.public_key(), as_dict=True), "kid": "ES256"},
        {**RSAAlgorithm.to_jwk(pair.public_key(), as_dict=True), "kid": "RS256"},
    ]
    body = json.dumps({"keys": [{**key, "use": "sig"} for key in keys]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/keys"
        server.shutdown()


def token(
    subject: str, key: Key = SECRET, algorithm: str = "HS256", groups: int = 0, **claims: str
) -> dict[str, str]:
    """The header of somebody in so many groups."""
    names = [f"group-{number}" for number in range(groups)]
    said = {"sub": subject, "aud": "bench", "exp": time.time() + 36_000, "groups": names, **claims}
    signed = jwt.encode(said, key, algorithm, headers={"kid": algorithm})
    return {"Authorization": f"Bearer {signed}"}


def own_key(url: str, owner: Mapping[str, str]) -> dict[str, str]:
    """The header with a key that the owner makes."""
    connection = HTTPConnection(urlsplit(url).netloc)
    headers = {**owner, "Content-Type": "application/json"}
    connection.request("POST", "/keys", '{"name": "bench"}', headers)
    return {"X-API-Key": json.load(connection.getresponse())["secret"]}


def fill(database: str, made: int, size: int) -> str:
    """Projects up to `size`, three people's and three groups' grants in each; gives one's id."""
    users = [user_id(f"jwt::user-{number}") for number in range(USERS)]
    groups = [group_id(f"group-{number}") for number in range(GROUPS)]
    projects = [uuid.uuid4() for _ in range(size - made)]
    with psycopg.connect(database, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "insert into users (id, subject, name) values (%s, %s, 'x') on conflict do nothing",
            [(one, f"jwt::user-{number}") for number, one in enumerate(users)],
        )
        cursor.executemany(
            "insert into groups (id, name) values (%s, %s) on conflict do nothing",
            [(one, f"group-{number}") for number, one in enumerate(groups)],
        )
        cursor.executemany(
            "insert into projects (id, owner_id, name, is_private) values (%s, %s, 'x', true)",
            [(one, users[number % USERS]) for number, one in enumerate(projects)],
        )
        grant = "insert into grants (id, project_id, {}, tier) values (%s, %s, %s, 'use')"
        for column, ids in (("user_id", users), ("group_id", groups)):
            cursor.executemany(
                grant.format(column),
                [
                    (uuid.uuid4(), one, ids[(number * 7 + more * 13) % len(ids)])
                    for number, one in enumerate(projects)
                    for more in range(1, 4)
                ],
            )
        # Owned by OWNER, and open to all who are in the first group.
        cursor.execute(
            "insert into grants (id, project_id, group_id, tier) values (%s, %s, %s, 'use') "
            "on conflict do nothing",
            (uuid.uuid4(), projects[0], groups[0]),
        )
        cursor.execute("analyze")
    return str(projects[0])


def show(size: int, project: str, cases: Sequence[Case], rounds: int, database: str) -> None:
    """Ask all in turn, and print what it took."""
    paths = [route.format(project=project) for route in ROUTES]
    open_connections = {case: HTTPConnection(urlsplit(case.url).netloc) for case in cases}
    times: dict[tuple[int, int], list[float]] = {}
    for number in range(10 + rounds):
        for row, case in enumerate(cases):
            for column, path in enumerate(paths):
                took = timed(open_connections[case], path, case.headers)
                if number >= 10:
                    times.setdefault((row, column), []).append(took)
    table = Table("caller", *ROUTES, title=f"{size:,} projects: ms, × local user, statements")
    scans: dict[str, list[str]] = {}
    for row, case in enumerate(cases):
        cells = []
        for column, path in enumerate(paths):
            median = statistics.median(times[row, column])
            ratio = median / statistics.median(times[0, column])
            asked = statements_of(open_connections[case], path, case.headers)
            cells.append(f"{median:.1f} × {ratio:.1f}, {len(asked)}")
            for table_name in scanned(database, asked):
                scans.setdefault(f"{ROUTES[column]} {table_name}", []).append(case.name)
        table.add_row(case.name, *cells)
    console = Console(width=120)
    console.print(table)
    for what, callers in scans.items():
        console.print(f"read from end to end: {what} for {', '.join(callers)}", highlight=False)
    console.print()


def timed(connection: HTTPConnection, path: str, headers: Mapping[str, str]) -> float:
    """Milliseconds of a request, which must be answered."""
    began = time.perf_counter()
    connection.request("GET", path, headers=dict(headers))
    answer = connection.getresponse()
    body = answer.read()
    took = (time.perf_counter() - began) * 1000
    if answer.status != 200:
        raise SystemExit(f"GET {path} was answered with {answer.status}: {body[:200]!r}")
    return took


def statements_of(
    connection: HTTPConnection, path: str, headers: Mapping[str, str]
) -> list[tuple[Any, Any]]:
    """What one request asks Postgres; the fewest of several, as others ask meanwhile."""
    found = []
    for _ in range(5):
        with Statements() as statements:
            timed(connection, path, headers)
        found.append(statements.asked)
    return min(found, key=len)


def scanned(database: str, asked: Sequence[tuple[Any, Any]]) -> list[str]:
    """The large tables that Postgres would read from end to end for these statements."""
    tables = []
    with psycopg.connect(database) as connection:
        for query, params in asked:
            if isinstance(query, str) and query.lstrip().startswith("select"):
                cursor = connection.execute(f"explain (format json) {query}", params)
                [[[plan]]] = cursor.fetchall()
                tables += [node for node in sequential(plan["Plan"]) if node in _LARGE]
    return sorted(set(tables))


def sequential(plan: Mapping[str, Any]) -> Iterator[str]:
    """The tables under sequential scans of a plan."""
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from sequential(part)


_LARGE = {"projects", "grants", "users", "groups", "memberships"}


if __name__ == "__main__":
    main()
