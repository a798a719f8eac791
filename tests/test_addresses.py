"""A base URL that leads where it may not is refused before anything is connected to."""

import asyncio
import errno
import re
import socket
import threading
import time
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Awaitable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any

import aiohttp
import httpx
import pytest
from pydantic import SecretStr

from api import chat, drafting, legacy
from graph import connections
from graph.addresses import FORBIDDEN, PRIVATE, Reach
from graph.errors import ModelError, ModelForbidden
from graph.streaming import StreamingChatModel

PUBLIC_ONLY = Reach(allow_private=False)
PRIVATE_TOO = Reach(allow_private=True)
PUBLIC_ADDRESS = "8.8.8.8"

AWAY = f"ModelUnreachable: {connections.AWAY}"
NO_PRIVATE = f"ModelForbidden: {PRIVATE}"
NO_HOST = f"ModelForbidden: {FORBIDDEN}"
SPELLING = "Write an address in the base URL as 192.0.2.1 or [2001:db8::1]."
FORM = "The base URL must look like https://host/v1 or http://host:8080/v1."
CHARACTERS = "The base URL may hold only printable ASCII, no spaces or backslashes."
QUERY = "The base URL may hold no query and no fragment."
PASSWORD = "The base URL may hold no user name and no password."
LENGTH = "The base URL may have at most 2,048 characters."
NAME = "The base URL's host must be a name or an address."


# Stand-ins


class Listener(ThreadingHTTPServer):
    """On one port of all addresses of this machine: notes who connects, and offers no models.

    `redirect` is a status and a location to answer with instead. It does for a proxy, too.
    """

    daemon_threads = True
    address_family = socket.AF_INET6

    def __init__(self) -> None:
        self.redirect: tuple[int, str] | None = None
        self._peers: list[tuple[str, int]] = []
        super().__init__(("::", 0), _Handler)

    def server_bind(self) -> None:
        """As TCPServer does, for IPv4 too; without a look-up of the own name."""
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "listener", self.server_address[1]

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, peer = super().get_request()
        self._peers.append(peer[:2])
        return connection, peer

    def connections(self) -> int:
        """How many there were since this was last asked; one of its own marks the end."""
        with socket.create_connection(("127.0.0.1", self.server_port), timeout=5) as last:
            # With the host: a connection of IPv6 may have the same port.
            mark = ("::ffff:127.0.0.1", last.getsockname()[1])
            while mark not in self._peers:
                time.sleep(0.0005)
        count = self._peers.index(mark)
        self._peers.clear()
        return count


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, location = self.server.redirect or (200, "")
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", "12")
        self.end_headers()
        self.wfile.write(b'{"data": []}')

    do_POST = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def _listener() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def listener(_listener: Listener) -> Listener:
    """With no connections so far."""
    _listener.connections()
    return _listener


@pytest.fixture(autouse=True)
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that are connected to; no packet leaves for any but this machine's own."""
    seen: list[str] = []
    connect = BaseSelectorEventLoop.sock_connect

    async def watched(self: BaseSelectorEventLoop, sock: socket.socket, address: Any) -> None:
        seen.append(address[0])
        found = ip_address(address[0].partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        if not found.is_loopback and not found.is_unspecified:
            raise OSError(errno.ENETUNREACH, "nothing leaves this machine")
        await connect(self, sock, address)

    monkeypatch.setattr(BaseSelectorEventLoop, "sock_connect", watched)
    return seen


class Names:
    """A name server that says what it is told to, and knows no other name.

    It answers each question about a name with the next of `answers`, the last for ever. Numbers
    mean what they mean to the machine. `delay_s` comes before each answer.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {"localhost": [["127.0.0.1"]]}
        self.asked: list[str] = []
        self.delay_s = 0.0
        self._real = socket.getaddrinfo

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        time.sleep(self.delay_s)
        answers = self.answers.get(name.rstrip("."))
        if answers:
            found = answers.pop(0) if len(answers) > 1 else answers[0]
            return [_info(address, port) for address in found]
        return self._real(_digits(host, name), port, *args, **kwargs)


def _digits(host: Any, name: str) -> Any:
    try:
        ip_address(name)
    except ValueError:
        try:
            socket.inet_aton(name)
        except OSError:
            raise socket.gaierror(socket.EAI_NONAME, "unknown") from None
    return host


def _info(address: str, port: int) -> tuple[Any, ...]:
    if ":" in address:
        return socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    names = Names()
    names.answers["public.example"] = [[PUBLIC_ADDRESS]]
    monkeypatch.setattr(socket, "getaddrinfo", names.getaddrinfo)
    return names


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="module")
def openai_clients() -> dict[str, Any]:
    """What ChatOpenAI would otherwise make for each model, which takes long; never used."""
    return {"http_client": httpx.Client(), "http_async_client": httpx.AsyncClient()}


class Ask:
    """Asks models at a base URL."""

    def __init__(self, clients: dict[str, Any]) -> None:
        self._clients = clients

    def model(self, base_url: str, reach: Reach | None) -> StreamingChatModel:
        return StreamingChatModel(
            model="m", base_url=base_url, api_key=SecretStr("k"), reach=reach, **self._clients
        )

    def __call__(self, base_url: str, reach: Reach | None) -> list[str]:
        """What is told for the list of models and for an answer, each once."""
        return asyncio.run(self._ask(base_url, reach))

    async def _ask(self, base_url: str, reach: Reach | None) -> list[str]:
        try:
            model = self.model(base_url, reach)
        except Exception as error:  # noqa: BLE001 - of whatever HTTP client the OpenAI client has
            return [type(error).__name__]
        try:
            told = [await tell(model.list_models(5)), await tell(anext(aiter(model.astream("?"))))]
        finally:
            await model.aclose()
        return list(dict.fromkeys(told))


async def tell(work: Awaitable[Any]) -> str:
    try:
        return repr(await work)
    except ModelError as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture
def ask(openai_clients: dict[str, Any]) -> Ask:
    return Ask(openai_clients)


# Addresses

PUBLIC_ADDRESSES = [
    "1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.1", "126.255.255.255", "128.0.0.1",
    "169.253.255.255", "169.255.0.1", "172.15.255.255", "172.32.0.1", "192.0.1.1",
    "192.167.255.255", "192.169.0.1", "198.17.255.255", "198.20.0.1", "223.255.255.255",
    "168.63.129.15", "2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00:1450::1",
    "3fff:1000::1", "2620:4f:8000::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1",
    "2a00::5efe:8.8.8.8", "2a00::200:5efe:808:808",
]  # fmt: skip
PRIVATE_ADDRESSES = [
    "127.0.0.1", "127.255.255.255", "10.0.0.0", "10.255.255.255", "172.16.0.1",
    "172.31.255.255", "192.168.0.1", "192.168.255.255", "100.64.0.1", "100.127.255.255", "::1",
    "fc00::1", "fd12:3456::1", "fdff::1", "::ffff:127.0.0.1", "::ffff:a00:1",
    "::ffff:192.168.1.1", "64:ff9b::10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::",
    "2002:c0a8:101::1", "2a00::5efe:10.0.0.1", "2a00::200:5efe:7f00:1", "fd00::5efe:8.8.8.8",
    "fd00::1%eth0", "::1%lo",
]  # fmt: skip
FORBIDDEN_ADDRESSES = [
    "0.0.0.0", "0.1.2.3", "169.254.0.1", "169.254.169.254", "169.254.170.2", "169.254.255.255",
    "100.100.100.200", "168.63.129.16", "192.0.0.1", "192.0.0.192", "192.0.2.1", "192.88.99.1",
    "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "::", "::2", "::127.0.0.1", "::8.8.8.8",
    "::ffff:0:8.8.8.8", "64:ff9b:1::1", "64:ff9b:1::808:808", "100::1", "2001::1",
    "2001:0:808:808::1", "2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1",
    "3fff:fff::1", "4000::1", "5f00::1", "fe80::1", "febf::1", "fe80::1%eth0",
    "fe80::a9fe:a9fe", "fec0::1", "ff02::1", "ff0e::1", "fd00:ec2::254", "fd00:ec2::23",
    "fd20:ce::254", "fd00:c1::a9fe:a9fe", "fd00:42::42", "fd00:a9fe:a9fe::1",
    "fd00:100::100:200", "::ffff:0.0.0.0", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe",
    "::ffff:100.100.100.200", "64:ff9b::169.254.169.254", "64:ff9b::a83f:8110",
    "64:ff9b::0.0.0.0", "2002:a9fe:a9fe::1", "2002:6464:64c8::", "2a00::5efe:169.254.169.254",
    "fd00::200:5efe:a9fe:a9fe", "localhost", "127.1", "0177.0.0.1", "0x7f000001", "2130706433",
]  # fmt: skip


def told(reach: Reach, *addresses: str) -> str | None:
    try:
        reach.check(*addresses)
    except ModelForbidden as error:
        return str(error)
    return None


def test_each_address_is_public_private_or_forbidden() -> None:
    wanted = (
        dict.fromkeys(PUBLIC_ADDRESSES, (None, None))
        | dict.fromkeys(PRIVATE_ADDRESSES, (PRIVATE, None))
        | dict.fromkeys(FORBIDDEN_ADDRESSES, (FORBIDDEN, FORBIDDEN))
    )
    found = {one: (told(PUBLIC_ONLY, one), told(PRIVATE_TOO, one)) for one in wanted}
    assert found == wanted


@pytest.mark.parametrize(
    ("addresses", "wanted"),
    [
        (("8.8.8.8", "2606:4700::1111"), (None, None)),
        (("8.8.8.8", "10.0.0.1"), (PRIVATE, None)),
        (("10.0.0.1", "8.8.8.8", "169.254.169.254"), (FORBIDDEN, FORBIDDEN)),
        ((), (FORBIDDEN, FORBIDDEN)),
    ],
)
def test_the_worst_of_several_addresses_counts(
    addresses: tuple[str, ...], wanted: tuple[str | None, str | None]
) -> None:
    assert (told(PUBLIC_ONLY, *addresses), told(PRIVATE_TOO, *addresses)) == wanted


# Base URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://api.openai.com/v1",
        "HTTPS://API.OpenAI.com:443/v1/",
        "http://llama_server:8080",
        "https://xn--bcher-kva.example/a%20b/@v1",
        "https://models.example./v1",
        "http://8.8.8.8/v1",
        "http://[2606:4700::1111]:8080/v1",
        "http://localhost/v1",
    ],
)
def test_a_plain_base_url_may_be_saved(url: str) -> None:
    PUBLIC_ONLY.check_url(url)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("http://127.0.0.1/v1", PRIVATE),
        ("http://169.254.169.254/v1", FORBIDDEN),
        ("http://[::ffff:169.254.169.254]/v1", FORBIDDEN),
        ("http://0x8.8.8.8/v1", SPELLING),
        ("http://134744072/v1", SPELLING),
        ("http://8.8.8.8./v1", SPELLING),
        ("http://8.8.8.0x/v1", SPELLING),
        ("http://8.8.8.256/v1", SPELLING),
        ("http://[8.8.8.8]/v1", SPELLING),
        ("http://[fe80::1%25eth0]/v1", FORM),
        ("http://[::1]x/v1", FORM),
        ("http://x[::1]/v1", FORM),
        ("http://[::1/v1", FORM),
        ("http://::1/v1", FORM),
        ("http://x:y/v1", FORM),
        ("http://x:0/v1", FORM),
        ("http://x:65536/v1", FORM),
        ("http:///v1", FORM),
        ("http:x/v1", FORM),
        ("//x/v1", FORM),
        ("x/v1", FORM),
        ("", FORM),
        ("ftp://x/v1", FORM),
        ("file:///etc/passwd", FORM),
        ("http://user:password@x/v1", PASSWORD),
        ("http://user@x/v1", PASSWORD),
        ("http://@x/v1", PASSWORD),
        ("http://x/v1?key=k", QUERY),
        ("http://x?@y/v1", QUERY),
        ("http://x/v1#", QUERY),
        ("http://x/v 1", CHARACTERS),
        (" http://x/v1", CHARACTERS),
        ("http://x/v1\n", CHARACTERS),
        ("http://x\t/v1", CHARACTERS),
        ("http://x\x00/v1", CHARACTERS),
        ("http:\\\\x\\v1", CHARACTERS),
        ("http://bücher.example/v1", CHARACTERS),
        ("http://１２７.0.0.1/v1", CHARACTERS),
        ("http://127。0。0。1/v1", CHARACTERS),
        ("http://x%2e.example/v1", NAME),
        ("http://x../v1", NAME),
        ("http://.x/v1", NAME),
        ("http://x,y/v1", NAME),
        (f"http://x/{'a' * 2048}", LENGTH),
    ],
)
def test_another_base_url_is_refused_with_a_sentence(url: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        PUBLIC_ONLY.check_url(url)


# What reaches this machine (True: it does if nobody guards)

LOOPBACK = [
    ("http://127.0.0.1", True, NO_PRIVATE),
    ("https://127.0.0.1", True, NO_PRIVATE),
    ("http://127.0.0.2", True, NO_PRIVATE),
    ("http://127.255.255.254", True, NO_PRIVATE),
    ("http://0.0.0.0", True, NO_HOST),
    ("http://0", False, SPELLING),
    ("http://0x0", True, SPELLING),
    ("http://127.1", False, SPELLING),
    ("http://127.0.1", False, SPELLING),
    ("http://2130706433", False, SPELLING),
    ("http://0x7f000001", True, SPELLING),
    ("http://0X7F000001", True, SPELLING),
    ("http://0x7f.0.0.1", True, SPELLING),
    ("http://0x7f.1", True, SPELLING),
    ("http://0x7f.0x0.0x0.0x1", True, SPELLING),
    ("http://127.0x0.0.1", True, SPELLING),
    ("http://0x7f.0.00.01", True, SPELLING),
    ("http://0177.0.0.1", False, None),
    ("http://0177.1", False, SPELLING),
    ("http://017700000001", False, SPELLING),
    ("http://127.0.0.01", False, None),
    ("http://127.0.0.1.", False, SPELLING),
    ("http://[::]", True, NO_HOST),
    ("http://[::1]", True, NO_PRIVATE),
    ("http://[0:0:0:0:0:0:0:1]", True, NO_PRIVATE),
    ("http://[0000::0001]", True, NO_PRIVATE),
    ("http://[::1%25lo]", False, FORM),
    ("http://[::ffff:127.0.0.1]", True, NO_PRIVATE),
    ("http://[::ffff:7f00:1]", True, NO_PRIVATE),
    ("http://[0:0:0:0:0:FFFF:7F00:0001]", True, NO_PRIVATE),
    ("http://[::ffff:0.0.0.0]", True, NO_HOST),
    ("http://localhost", True, NO_PRIVATE),
    ("http://localhost.", True, NO_PRIVATE),
    ("http://LOCALHOST", True, NO_PRIVATE),
    ("http://localhost..", True, NAME),
    ("http://127。0。0。1", True, NO_PRIVATE),
    ("http://127．0｡0．1", True, NO_PRIVATE),
    ("http://localhost。", True, NO_PRIVATE),
    ("http://１２７.0.0.1", False, None),
    ("http://①②⑦.0.0.1", False, None),
    ("http://ⓛocalhost", False, None),
    ("http://%31%32%37.0.0.1", False, SPELLING),
    ("http://127%2e0%2e0%2e1", False, NAME),
    ("http://127.0.0.1%00.public.example", False, NAME),
    ("http://127.0.0.1@public.example", False, PASSWORD),
    ("http://public.example@127.0.0.1", False, PASSWORD),
    ("http://public.example:80@127.0.0.1", False, PASSWORD),
    ("http://public.example%23@127.0.0.1", False, PASSWORD),
    ("http://public.example\\@127.0.0.1", False, PASSWORD),
    ("http:///127.0.0.1", False, FORM),
    ("http:127.0.0.1", False, FORM),
    ("//127.0.0.1", True, FORM),
    ("ws://127.0.0.1", True, FORM),
    ("ftp://127.0.0.1", False, FORM),
    ("http:\\\\127.0.0.1", False, FORM),
    ("http://127.0.0.1\t", False, None),
]  # fmt: skip
ELSEWHERE = [
    ("http://169.254.169.254", NO_HOST),
    ("http://2852039166", SPELLING),
    ("http://0xa9fea9fe", SPELLING),
    ("http://0xA9.254.0251.254", SPELLING),
    ("http://169.16689662", SPELLING),
    ("http://[::ffff:169.254.169.254]", NO_HOST),
    ("http://[::ffff:a9fe:a9fe]", NO_HOST),
    ("http://[64:ff9b::a9fe:a9fe]", NO_HOST),
    ("http://[64:ff9b:1::a9fe:a9fe]", NO_HOST),
    ("http://[2002:a9fe:a9fe::]", NO_HOST),
    ("http://[2001:0:a9fe:a9fe::1]", NO_HOST),
    ("http://[2a00::5efe:169.254.169.254]", NO_HOST),
    ("http://[::169.254.169.254]", NO_HOST),
    ("http://[fe80::a9fe:a9fe]", NO_HOST),
    ("http://[fe80::1%25eth0]", FORM),
    ("http://[fd00:ec2::254]", NO_HOST),
    ("http://100.100.100.200", NO_HOST),
    ("http://168.63.129.16", NO_HOST),
    ("http://192.0.0.192", NO_HOST),
    ("http://255.255.255.255", NO_HOST),
    ("http://224.0.0.1", NO_HOST),
    ("http://169。254。169。254", NO_HOST),
]


def expected(sentence: str | None) -> list[str]:
    """What `Ask` tells; null for a URL that the OpenAI client itself does not take."""
    if sentence is None:
        return ["InvalidURL"]
    return [sentence if sentence.startswith("ModelForbidden") else f"ModelForbidden: {sentence}"]


@pytest.mark.parametrize(("url", "sentence"), [(url, sentence) for url, _, sentence in LOOPBACK])
def test_no_spelling_of_this_machine_is_connected_to(
    ask: Ask, listener: Listener, attempts: list[str], url: str, sentence: str | None
) -> None:
    assert ask(f"{url}:{listener.server_port}/v1", PUBLIC_ONLY) == expected(sentence)
    assert (listener.connections(), attempts) == (0, [])


@pytest.mark.parametrize("reach", [PUBLIC_ONLY, PRIVATE_TOO])
@pytest.mark.parametrize(("url", "sentence"), ELSEWHERE)
def test_no_spelling_of_a_metadata_address_is_connected_to(
    ask: Ask, attempts: list[str], url: str, sentence: str, reach: Reach
) -> None:
    assert ask(f"{url}/v1", reach) == expected(sentence)
    assert attempts == []


def test_without_a_guard_many_of_them_are(ask: Ask, listener: Listener) -> None:
    async def connects(url: str) -> bool:
        try:
            model = ask.model(f"{url}:{listener.server_port}/v1", None)
        except Exception:  # noqa: BLE001 - as in Ask
            return False
        await tell(model.list_models(5))
        await model.aclose()
        return listener.connections() > 0

    async def all_of_them() -> list[tuple[str, bool]]:
        return [(url, await connects(url)) for url, *_ in LOOPBACK]

    assert asyncio.run(all_of_them()) == [(url, connected) for url, connected, _ in LOOPBACK]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "[::ffff:7f00:1]", "localhost", "in.example"]
)
def test_where_private_addresses_are_allowed_this_machine_is_reached(
    ask: Ask, listener: Listener, names: Names, host: str
) -> None:
    names.answers["in.example"] = [["::1", "127.0.0.1"]]

    async def models() -> str:
        model = ask.model(f"http://{host}:{listener.server_port}/v1", PRIVATE_TOO)
        try:
            return await tell(model.list_models(5))
        finally:
            await model.aclose()

    assert (asyncio.run(models()), listener.connections()) == ("[]", 1)


# Names


@pytest.mark.parametrize("reach", [PUBLIC_ONLY, PRIVATE_TOO])
@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["fe80::1"],
        ["::ffff:169.254.169.254"],
        ["100.100.100.200"],
        ["0.0.0.0"],
        [PUBLIC_ADDRESS, "169.254.169.254"],
        ["169.254.169.254", PUBLIC_ADDRESS],
        ["2606:4700::1111", PUBLIC_ADDRESS, "fe80::1"],
    ],
)
def test_a_name_with_a_forbidden_address_is_refused_as_a_whole(
    ask: Ask, attempts: list[str], names: Names, addresses: list[str], reach: Reach
) -> None:
    names.answers["evil.example"] = [addresses]
    assert ask("http://evil.example/v1", reach) == [NO_HOST]
    assert attempts == []


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.1"], ["::1"], ["10.0.0.1"], ["100.64.0.1"], [PUBLIC_ADDRESS, "127.0.0.1"]],
)
def test_a_name_with_a_private_address_is_refused_as_a_whole(
    ask: Ask, listener: Listener, attempts: list[str], names: Names, addresses: list[str]
) -> None:
    names.answers["evil.example"] = [addresses]
    assert ask(f"http://evil.example:{listener.server_port}/v1", PUBLIC_ONLY) == [NO_PRIVATE]
    assert (listener.connections(), attempts) == (0, [])


@pytest.mark.parametrize("second", ["127.0.0.1", "169.254.169.254"])
def test_a_name_is_judged_by_the_answer_that_is_connected_to(
    ask: Ask, listener: Listener, attempts: list[str], names: Names, second: str
) -> None:
    names.answers["evil.example"] = [[PUBLIC_ADDRESS], [second]]

    async def twice() -> list[str]:
        model = ask.model(f"http://evil.example:{listener.server_port}/v1", PUBLIC_ONLY)
        told = [await tell(model.list_models(5))]
        for session in model._sessions._open.values():
            assert isinstance(session.connector, aiohttp.TCPConnector)
            session.connector.clear_dns_cache()
        told.append(await tell(model.list_models(5)))
        await model.aclose()
        return told

    names.asked.clear()
    assert asyncio.run(twice()) == [AWAY, NO_PRIVATE if second == "127.0.0.1" else NO_HOST]
    # One look-up a connection: there is none between the judging and the connecting.
    assert names.asked == ["evil.example", "evil.example"]
    assert (listener.connections(), attempts) == (0, [PUBLIC_ADDRESS])


@pytest.mark.parametrize(
    ("host", "addresses"),
    [("127.0.0.1", []), ("[::1]", []), ("two.example", ["127.0.0.1", "::1"])],
)
def test_each_socket_is_judged_even_if_nothing_was_before(
    ask: Ask,
    listener: Listener,
    attempts: list[str],
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    addresses: list[str],
) -> None:
    names.answers["two.example"] = [addresses]
    monkeypatch.setattr(Reach, "check_url", lambda *_: None)
    monkeypatch.setattr(connections._JudgingResolver, "resolve", aiohttp.ThreadedResolver.resolve)
    assert ask(f"http://{host}:{listener.server_port}/v1", PUBLIC_ONLY) == [NO_PRIVATE]
    assert (listener.connections(), attempts) == (0, [])


# Redirects


@pytest.mark.parametrize("host", ["169.254.169.254", "127.0.0.1"])
@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (301, "Moved Permanently"),
        (302, "Found"),
        (303, "See Other"),
        (307, "Temporary Redirect"),
        (308, "Permanent Redirect"),
    ],
)
def test_a_redirect_is_not_followed(
    ask: Ask, listener: Listener, attempts: list[str], status: int, phrase: str, host: str
) -> None:
    with Listener() as first:
        thread = threading.Thread(target=first.serve_forever, args=(0.01,))
        thread.start()
        first.redirect = (status, f"http://{host}:{listener.server_port}/v1/models")
        told = ask(f"http://127.0.0.1:{first.server_port}/v1", PRIVATE_TOO)
        first.shutdown()
        thread.join()
    assert told == [f"ModelRefused: {status} {phrase}. Check the provider."]
    assert (listener.connections(), set(attempts)) == (0, {"127.0.0.1"})


# Proxies


@pytest.fixture
def proxy(listener: Listener, names: Names, monkeypatch: pytest.MonkeyPatch) -> Listener:
    """The operator's own, at a private address."""
    names.answers["proxy.example"] = [["127.0.0.1"]]
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, f"http://proxy.example:{listener.server_port}")
    return listener


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("localhost.", NO_PRIVATE),
        ("10.0.0.1", NO_PRIVATE),
        ("169.254.169.254", NO_HOST),
        ("0xa9fea9fe", SPELLING),
        ("2852039166", SPELLING),
        ("[::ffff:a9fe:a9fe]", NO_HOST),
        ("in.example", NO_PRIVATE),
        ("mixed.example", NO_HOST),
    ],
)
def test_a_proxy_is_not_asked_for_what_is_out_of_reach(
    ask: Ask, proxy: Listener, names: Names, host: str, sentence: str, scheme: str
) -> None:
    names.answers["in.example"] = [["10.0.0.1"]]
    names.answers["mixed.example"] = [[PUBLIC_ADDRESS, "169.254.169.254"]]
    assert ask(f"{scheme}://{host}/v1", PUBLIC_ONLY) == expected(sentence)
    assert proxy.connections() == 0


@pytest.mark.parametrize(
    ("host", "delay_s"),
    [("public.example", 0), ("unknown.example", 0), ("8.8.8.8", 0), ("slow.example", 0.1)],
)
def test_a_proxy_is_asked_for_the_rest_and_may_be_private_itself(
    ask: Ask,
    proxy: Listener,
    attempts: list[str],
    names: Names,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    delay_s: float,
) -> None:
    names.answers["slow.example"] = [["10.0.0.1"]]
    names.delay_s = delay_s
    monkeypatch.setattr(connections, "_LOOKUP_S", 0.05)
    told = ask(f"http://{host}/v1", PUBLIC_ONLY)
    assert told[0] == "[]"
    assert (proxy.connections(), set(attempts)) == (1, {"127.0.0.1"})


# What is told, what it costs, and who it is for


def test_the_apis_tell_it_as_a_failure_to_connect_that_no_repetition_helps() -> None:
    error = ModelForbidden(PRIVATE)
    codes = (chat.code_of(error), drafting.code_of(error), legacy.code_of(error))
    assert codes == ("LLM_CONNECTION_ERROR", ("STREAM_ERROR", False), "LLM_001")
    assert not error.transient


def test_a_kept_connection_is_not_judged_again(
    ask: Ask, listener: Listener, attempts: list[str], names: Names
) -> None:
    async def thrice() -> list[str]:
        model = ask.model(f"http://localhost:{listener.server_port}/v1", PRIVATE_TOO)
        told = [await tell(model.list_models(5)) for _ in range(3)]
        await model.aclose()
        return told

    names.asked.clear()
    assert asyncio.run(thrice()) == ["[]", "[]", "[]"]
    assert (attempts, names.asked) == (["127.0.0.1"], ["localhost"])


def test_a_copy_with_a_reach_does_not_use_the_connections_of_one_without(
    ask: Ask, listener: Listener, attempts: list[str]
) -> None:
    async def both() -> list[str]:
        model = ask.model(f"http://127.0.0.1:{listener.server_port}/v1", None)
        held = model.model_copy(update={"reach": PUBLIC_ONLY})
        told = [await tell(one.list_models(5)) for one in (model, held, model)]
        await held.aclose()
        assert model._sessions._open == {}
        return told

    assert asyncio.run(both()) == ["[]", NO_PRIVATE, "[]"]
    assert attempts == ["127.0.0.1"]


def test_nothing_else_than_astream_is_offered_within_a_reach(
    listener: Listener, attempts: list[str]
) -> None:
    # With clients of ChatOpenAI's own, which would connect.
    model = Ask({}).model(f"http://127.0.0.1:{listener.server_port}/v1", PUBLIC_ONLY)
    message = "^a model with a reach answers through astream only$"
    with pytest.raises(NotImplementedError, match=message):
        model.invoke("?")
    with pytest.raises(NotImplementedError, match=message):
        list(model.stream("?"))
    with pytest.raises(NotImplementedError, match=message):
        asyncio.run(model.ainvoke("?"))
    assert listener.connections() == 0
