"""Where a webhook may go: public addresses, and networks that the operator allows. Nothing else of what a name resolves to.

`check_url` looks at what is written down, for the person who writes it. What counts is `Guard.socket`: it is asked for the socket of
every connection with the very address that is then connected, whatever the name said a moment ago (DNS rebinding), however the address
is spelled (0x7f.1, 2130706433, [::ffff:127.0.0.1]).
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

URL_MAX = 2048
# Not public though registries say so: of protocols (RFC 6890), of 6to4 relays, the platform's own host in Azure.
REFUSED_V4 = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32")))
PUBLIC_V6 = ip_network(
    "2000::/3"
)  # all that was ever given out (RFC 4291 2.4); site-local, NAT64 of one's own and the like lie outside
TUNNELS_V6 = tuple(
    map(ip_network, ("2001::/23", "2002::/16"))
)  # Teredo (RFC 4380) and others of its block, 6to4 (RFC 3056)
NAT64 = ip_network("64:ff9b::/96")  # RFC 6052: the IPv4 address in its last 32 bits


@dataclass(frozen=True)
class Rules:
    """What the settings say of webhooks. `networks`: allowed though they are not public; `http`: without TLS too; `secret_keys`: seal the
    endpoints' secrets (sealing.py)."""

    networks: tuple[str, ...] = ()
    http: bool = False
    timeout_s: float = 15.0
    dns_servers: tuple[str, ...] = ()
    secret_keys: tuple[str, ...] = field(default=(), repr=False)


class BadUrl(ValueError):
    """No webhook can have this URL; the text says why."""


class Refused(OSError):
    """A connection to an address that is not public."""


class Guard:
    """`networks`: allowed though they are not public, as text; `http`: without TLS too."""

    def __init__(self, networks: Sequence[str] = (), http: bool = False):
        self.networks, self.http = [ip_network(each) for each in networks], http

    def check_url(self, url: str) -> None:
        """Raises BadUrl for what is never sent to."""
        try:
            parts = urlsplit(url)
            _ = parts.port  # of a number that is none: ValueError
        except ValueError as error:
            raise BadUrl(f"no URL: {error}") from None
        if len(url) > URL_MAX or not url.isascii() or not url.isprintable() or " " in url:
            raise BadUrl(f"a URL has at most {URL_MAX} printable ASCII characters")
        if parts.scheme != "https" and not (self.http and parts.scheme == "http"):
            raise BadUrl("a webhook's URL begins with https://" + (" or http://" if self.http else ""))
        if not parts.hostname or "@" in parts.netloc or parts.fragment:
            raise BadUrl("a webhook's URL has a host, and neither a user nor a fragment")
        try:
            self.check(parts.hostname)
        except Refused as error:
            raise BadUrl(str(error.strerror)) from None
        except ValueError:
            pass  # a name: what it resolves to is looked at when it is connected

    def check(self, address: str) -> None:
        """Raises Refused for an address that is neither public nor allowed; ValueError for what is no address."""
        found = bare(ip_address(address.partition("%")[0]))
        if not any(found in network for network in self.networks) and not is_public(found):
            raise Refused(
                errno.EACCES, f"{address} is not a public address; the setting webhook_networks allows others"
            )

    def socket(self, address: tuple[Any, ...]) -> socket.socket:
        """The socket for a connection to `address`, an entry of `getaddrinfo`. Raises Refused."""
        family, kind, protocol, _, place = address
        try:
            self.check(place[0])
        except Refused:  # which one a name has in the operator's own DNS is not the tenant's to know
            text = "what its name leads to is not a public address; the setting webhook_networks allows others"
            raise Refused(errno.EACCES, text) from None
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def bare(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address inside an IPv6 one that is only another spelling of it: mapped (RFC 4291) and NAT64."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in NAT64:
            return IPv4Address(address.packed[-4:])
    return address


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether it is an address of one host of the public Internet."""
    if address.is_multicast or address.is_reserved or not address.is_global:
        return False
    if isinstance(address, IPv4Address):
        return not any(address in network for network in REFUSED_V4)
    return address in PUBLIC_V6 and not any(address in network for network in TUNNELS_V6)
