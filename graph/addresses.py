"""Where a model provider may be whose address was given over HTTP, not by the operator."""

import re
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from graph.errors import ModelForbidden

FORBIDDEN = (
    "The provider's base URL leads to an address that is not allowed here. Ask the operator, or "
    "use a public one."
)
PRIVATE = (
    "The provider's base URL leads to a private address, which is not allowed here. Use a public "
    "one, or ask the operator to set ALLOW_PRIVATE_PROVIDERS."
)

Address = IPv4Address | IPv6Address


class _Standing(IntEnum):
    """Of an address, from good to bad."""

    PUBLIC = 0
    PRIVATE = 1
    FORBIDDEN = 2


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(map(ip_network, texts))


# What IANA's special-purpose address registries (RFC 6890) call not globally reachable. Not
# `is_global`, whose tables differ between the patch releases of Python. Exceptions inside
# 192.0.0.0/24 and 2001::/23 are left out: they are relays and anycast, no hosts.
_PRIVATE = _networks(
    *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"),
    *("::1/128", "fc00::/7"),
)
_FORBIDDEN = _networks(
    *("0.0.0.0/8", "169.254.0.0/16", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *("2001::/23", "2001:db8::/32", "3fff::/20"),
)
# Of IPv6 no more than this is handed out to hosts. Link-local, multicast, IPv4-compatible and
# local NAT64 addresses are all outside.
_UNICAST = IPv6Network("2000::/3")
# What clouds tell their own machines, where it is neither link-local nor in _FORBIDDEN: Alibaba,
# Azure; AWS, Google, Oracle, Scaleway, Linode and Alibaba with IPv6.
_METADATA = _networks(
    *("100.100.100.200/32", "168.63.129.16/32", "fd00:ec2::/32", "fd20:ce::/64"),
    *("fd00:c1::a9fe:a9fe/128", "fd00:42::42/128", "fd00:a9fe:a9fe::/64", "fd00:100::100:200/128"),
)
# IPv4-mapped and NAT64 (RFC 6052): nothing but an IPv4 address.
_CARRIERS = _networks("::ffff:0:0/96", "64:ff9b::/96")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)

_MAX_URL_CHARS = 2048
_URL = re.compile(r"https?://(\[[0-9a-f:.]+]|[^][/:]+)(?::([0-9]{1,5}))?(?:/.*)?", re.IGNORECASE)
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.IGNORECASE)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.IGNORECASE)
_UNWRITTEN = re.compile(r"[^\x21-\x7e]|\\")


@dataclass(frozen=True)
class Reach:
    """Public addresses, and private ones (loopback, RFC 1918 and the like) if `allow_private`.

    Link-local and metadata addresses, and all that is no host's, are out of reach in any case.
    """

    allow_private: bool

    def check(self, *addresses: str) -> None:
        """Raise ModelForbidden unless all `addresses`, as `getaddrinfo` gives them, are allowed."""
        worst = max(map(_standing_of, addresses), default=_Standing.FORBIDDEN)
        if worst is _Standing.FORBIDDEN:
            raise ModelForbidden(FORBIDDEN)
        if worst is _Standing.PRIVATE and not self.allow_private:
            raise ModelForbidden(PRIVATE)

    def check_url(self, url: str) -> None:
        """Raise ValueError, with a sentence, unless `url` is a plain base URL.

        A host that is an address must be allowed. A name is not resolved: `check` is for what it
        leads to, when it is connected to.
        """
        host = _host_of(url)
        if address := _literal(host):
            try:
                self.check(str(address))
            except ModelForbidden as error:
                raise ValueError(str(error)) from None
        elif not _NAME.fullmatch(host):
            raise ValueError("The base URL's host must be a name or an address.")


def _standing_of(text: str) -> _Standing:
    try:
        # Without the zone: it says through which interface, not to whom.
        return _standing(ip_address(text.partition("%")[0]))
    except ValueError:
        return _Standing.FORBIDDEN


def _standing(address: Address) -> _Standing:
    """The worse of what the address is by itself and of the IPv4 addresses that it embeds."""
    return max([_by_itself(address), *map(_by_itself, _embedded(address))])


def _by_itself(address: Address) -> _Standing:
    if _is_in(_CARRIERS, address):
        return _Standing.PUBLIC
    if _is_in(_METADATA, address) or _is_in(_FORBIDDEN, address):
        return _Standing.FORBIDDEN
    if _is_in(_PRIVATE, address):
        return _Standing.PRIVATE
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return _Standing.FORBIDDEN
    return _Standing.PUBLIC


def _embedded(address: Address) -> list[IPv4Address]:
    # Teredo and IPv4-compatible addresses are forbidden whatever they embed.
    if isinstance(address, IPv4Address):
        return []
    number = int(address)
    found = [address.sixtofour] if address.sixtofour else []
    if _is_in(_CARRIERS, address) or number >> 32 & 0xFFFF_FFFF in _ISATAP:
        found.append(IPv4Address(number & 0xFFFF_FFFF))
    return found


def _is_in(networks: tuple[IPv4Network | IPv6Network, ...], address: Address) -> bool:
    return any(address in network for network in networks)


def _host_of(url: str) -> str:
    """The host as it is written; raises ValueError for all that parsers understand differently."""
    if len(url) > _MAX_URL_CHARS:
        raise ValueError(f"The base URL may have at most {_MAX_URL_CHARS:,} characters.")
    if _UNWRITTEN.search(url):
        raise ValueError("The base URL may hold only printable ASCII, no spaces or backslashes.")
    if "?" in url or "#" in url:
        raise ValueError("The base URL may hold no query and no fragment.")
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise ValueError("The base URL may hold no user name and no password.")
    parts = _URL.fullmatch(url)
    if not parts or not 0 < int(parts[2] or 80) < 65536:
        raise ValueError("The base URL must look like https://host/v1 or http://host:8080/v1.")
    return parts[1]


def _literal(host: str) -> Address | None:
    """The address that `host` is, null for a name; raises ValueError for another spelling of one.

    A name whose last label is a number is an address to `inet_aton`, as 127.1, 0x7f000001 or
    0177.0.0.1, and to browsers.
    """
    if not host.startswith("[") and not _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        return None
    try:
        return ip_address(host) if not host.startswith("[") else IPv6Address(host[1:-1])
    except ValueError:
        raise ValueError(
            "Write an address in the base URL as 192.0.2.1 or [2001:db8::1]."
        ) from None
