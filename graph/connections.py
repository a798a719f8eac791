"""HTTP to a model provider: one session an event loop, and what counts as an answer."""

import asyncio
import ipaddress
import json
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context, ContextVar
from functools import cache, partial
from typing import Any
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi
from aiohttp.abc import ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from aiohttp.tracing import Trace
from yarl import URL

from graph.addresses import Reach
from graph.completions import OTHER_PROTOCOL, REPORTED
from graph.errors import ModelForbidden, ModelRefused, ModelReported, ModelUnreachable

log = logging.getLogger(__name__)

AWAY = "The model cannot be reached. Check the provider's base URL, or try again later."
LOST = (aiohttp.ClientError, OSError, HttpProcessingError)
"""What aiohttp raises when a connection is lost or carries no HTTP."""

_KEEPALIVE_S = 30.0
_LEFTOVERS_S = 0.25
_LOOKUP_S = 2.0
_MAX_BODY_BYTES = 16 * 1024 * 1024
_MAX_REFUSAL_BYTES = 4096

Judge = Callable[[], Awaitable[None]]

_Key = tuple[asyncio.AbstractEventLoop, Reach | None]


class Sessions:
    """One client session for each event loop, since its connections belong to the loop.

    And for each reach, so that a connection is used again only by whom it was allowed to.
    """

    def __init__(self) -> None:
        self._open: dict[_Key, aiohttp.ClientSession] = {}
        # Not on first use: it reads files, which LangGraph's server forbids in an event loop.
        self._authorities = _trusted_authorities()

    def current(
        self, url: URL, proxy: str | None, reach: Reach | None = None
    ) -> aiohttp.ClientSession:
        """The running loop's session for `reach`; opened on first use.

        It has the environment's proxy if `proxy` is null, and for good: `url` is always of one
        provider.

        Raises:
            ModelForbidden: `reach` does not allow `url`.
        """
        key = (asyncio.get_running_loop(), reach)
        session = self._open.get(key)
        if session is None or session.closed:
            self._forget_closed_loops()
            session = _open_session(url, proxy or _proxy_for(url), self._authorities, reach)
            self._open[key] = session
        return session

    async def aclose(self) -> None:
        """Close the sessions of the running event loop."""
        running = asyncio.get_running_loop()
        for key in [key for key in self._open if key[0] is running]:
            await self._open.pop(key).close()

    def _forget_closed_loops(self) -> None:
        for key in list(self._open):
            if key[0].is_closed():
                self._open.pop(key).detach()


class _Sent:
    """What the connector did for one request."""

    on_new_connection = False


_sent: ContextVar[_Sent] = ContextVar("sent")


class _Handler(ResponseHandler):
    """One connection. aiohttp resumes its reading after each read, also where it never paused.

    That costs more than the read itself, of which there is one for each token.
    """

    def resume_reading(self, resume_parser: bool = True) -> None:
        if self._reading_paused:
            super().resume_reading(resume_parser)


class _Connector(aiohttp.TCPConnector):
    """Makes connections that `judge` has nothing against, and notes it of the request.

    Each is made and kept in a context of its own: else, for so long, it would hold the context of
    the request that first needed it, and so a whole run.
    """

    def __init__(self, judge: Judge | None, **settings: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(limit=0, keepalive_timeout=_KEEPALIVE_S, **settings)
        handler: type[ResponseHandler] = _Handler
        self._factory = partial(handler, loop=asyncio.get_running_loop())
        self._judge = judge

    async def _create_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - its base's
    ) -> ResponseHandler:
        _sent.get().on_new_connection = True
        if self._judge:
            await self._judge()
        making = asyncio.create_task(
            super()._create_connection(req, traces, timeout), context=Context()
        )
        try:
            return await making
        except asyncio.CancelledError:
            making.add_done_callback(_close)
            raise

    def _release(self, *released: Any, **how: Any) -> None:  # noqa: ANN401 - its base's
        Context().run(super()._release, *released, **how)


def _close(made: asyncio.Task[ResponseHandler]) -> None:
    if not made.cancelled() and not made.exception():
        made.result().close()


class _JudgingResolver(aiohttp.ThreadedResolver):
    """Refuses a name as a whole if one of its addresses is out of reach.

    A provider has no reason for such a name, and what a request gets must not depend on which
    address answers first.
    """

    def __init__(self, reach: Reach) -> None:
        super().__init__()
        self._reach = reach

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        self._reach.check(*(result["host"] for result in found))
        return found


def _open_session(
    url: URL, proxy: str | None, authorities: ssl.SSLContext, reach: Reach | None
) -> aiohttp.ClientSession:
    guard: dict[str, Any] = {}
    judge = None
    if reach:
        _check_url(reach, url)
        if proxy:
            judge = _judge_target(reach, url)
        else:
            guard = {
                "resolver": _JudgingResolver(reach),
                "socket_factory": partial(_judged_socket, reach),
            }
    # trust_env would also read ~/.netrc, and refuse to send our key where that has an entry.
    return aiohttp.ClientSession(
        connector=_Connector(judge, ssl=authorities, **guard),
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy,
        trust_env=False,
    )


def _check_url(reach: Reach, url: URL) -> None:
    try:
        reach.check_url(str(url))
    except ValueError as error:
        raise ModelForbidden(str(error)) from None


def _judged_socket(reach: Reach, target: aiohttp.AddrInfoType) -> socket.socket:
    """The socket for the very address that is about to be connected to, resolved or written."""
    family, kind, protocol, _, address = target
    reach.check(address[0])
    return socket.socket(family, kind, protocol)


def _judge_target(reach: Reach, url: URL) -> Judge:
    """What judges `url` before each connection to a proxy, which resolves it once more itself."""

    async def judge() -> None:
        # What is not found here is left to the proxy, which is the operator's.
        with suppress(OSError):
            async with asyncio.timeout(_LOOKUP_S):
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(url.raw_host, url.port, type=socket.SOCK_STREAM)
            reach.check(*(str(address[0]) for *_, address in found))

    return judge


@cache
def _trusted_authorities() -> ssl.SSLContext:
    # The system's, for a company's own authority, and certifi's, as in the OpenAI client: Python
    # from python.org knows none on macOS.
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _proxy_for(url: URL) -> str | None:
    """The environment's proxy for `url`; loopback needs none."""
    host = url.host or ""
    if _is_loopback(host) or proxy_bypass(host):
        return None
    proxy = getproxies().get(url.scheme)
    return proxy if proxy and proxy.startswith(("http://", "https://")) else None


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def request(
    session: aiohttp.ClientSession,
    method: str,
    url: URL,
    headers: dict[str, str],
    body: bytes | None,
    limits: aiohttp.ClientTimeout,
) -> aiohttp.ClientResponse:
    """The response to one request, of any status; redirects are not followed."""

    async def send() -> aiohttp.ClientResponse:
        return await session.request(
            method, url, headers=headers, data=body, timeout=limits, allow_redirects=False
        )

    sent = _Sent()
    _sent.set(sent)
    try:
        return await send()
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
        if sent.on_new_connection:
            raise
    # A kept connection that breaks before a byte of the answer was most likely closed while idle,
    # just as we wrote: the request was not seen. aiohttp repeats no POST, so this does, once.
    return await send()


async def expect_success(response: aiohttp.ClientResponse) -> None:
    """Raise ModelRefused for another status than 2xx; what the provider says of it is dropped."""
    if 200 <= response.status < 300:
        return
    log.debug("the model's endpoint answered %d", response.status)
    try:
        with suppress(*LOST):
            async with asyncio.timeout(1):
                await response.content.read(_MAX_REFUSAL_BYTES)
    finally:
        response.close()
    raise ModelRefused(response.status)


async def expect_events(response: aiohttp.ClientResponse) -> None:
    """Raise ModelReported or ModelUnreachable for a success that is no event stream."""
    if response.content_type == "text/event-stream":
        return
    log.debug("the model's endpoint answered with %r", response.content_type)
    if not response.content_type.endswith("json"):
        response.close()
        raise ModelUnreachable(OTHER_PROTOCOL)
    body = await json_body(response)
    if isinstance(body, dict) and body.get("error"):
        raise ModelReported(REPORTED)
    raise ModelUnreachable(OTHER_PROTOCOL)


async def json_body(response: aiohttp.ClientResponse) -> Any:  # noqa: ANN401 - any JSON
    """The response's body, 16 MiB at most; raises ModelUnreachable for what is no JSON."""
    body = bytearray()
    try:
        while data := await response.content.readany():
            body += data
            if len(body) > _MAX_BODY_BYTES:
                raise ModelUnreachable(OTHER_PROTOCOL)
        return json.loads(body)
    except LOST as error:
        raise ModelUnreachable(AWAY) from error
    except (ValueError, RecursionError) as error:
        raise ModelUnreachable(OTHER_PROTOCOL) from error
    finally:
        response.close()


def entries(body: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON
    """The models in a `/models` body: OpenAI's object, or the bare list that some send."""
    found = body.get("data") if isinstance(body, dict) else body
    if not isinstance(found, list):
        raise ModelUnreachable(OTHER_PROTOCOL)
    return [entry for entry in found if isinstance(entry, dict)]


def token_count(body: Any) -> int:  # noqa: ANN401 - any JSON
    """The number of tokens in a `/tokenize` body; raises ModelUnreachable for anything else."""
    tokens = body.get("tokens") if isinstance(body, dict) else None
    if not isinstance(tokens, list):
        raise ModelUnreachable(OTHER_PROTOCOL)
    return len(tokens)


async def read_leftovers(response: aiohttp.ClientResponse) -> None:
    """Read what follows `[DONE]`, so that the connection can be used again."""
    with suppress(*LOST):
        async with asyncio.timeout(_LEFTOVERS_S):
            while await response.content.readany():
                pass


def unread(content: aiohttp.StreamReader) -> bytes:
    """The bytes that came before the connection was lost, and that nobody has read."""
    # aiohttp raises what broke a stream before it hands out the bytes that came ahead of it.
    return b"".join(content._buffer)[content._buffer_offset :]


def is_awaited(content: aiohttp.StreamReader) -> bool:
    """Whether a read waits and nothing has come for it yet."""
    return content._waiter is not None
