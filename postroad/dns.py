"""Where a domain's mail goes: MX hosts and their addresses, from a cache that keeps the time limits of DNS.

RFC 1035 and 2181 (DNS), 2308 (negative answers), 5321 5.1 (MX, implicit MX, CNAME), 7505 (null MX). A name server that does
not answer, or that says SERVFAIL, is temporary: never a reason to reject an address; so is a CNAME that leads round in a circle.

An MX record that names a CNAME breaks RFC 2181 10.3, and yet is followed, as every large receiver's senders do: its owner
wants the mail. `site.order` and `site.drop_ourselves` say in which order the hosts are tried, and which are not.
"""

import asyncio
import ipaddress
import json
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

MIN_TTL_S = 1
MAX_TTL_S = 86_400  # a longer one is not believed: RFC 2181 8 allows 68 years
NEGATIVE_TTL_MAX_S = 10_800  # what a domain has not, it may have soon: RFC 2308 5 found one to three hours good
TEMPORARY_TTL_S = 5  # a dead name server is asked again after this; RFC 2308 7.1 allows up to 5 minutes
CNAME_MAX = 8  # asked one after another, where a server gives a chain in pieces
CONCURRENCY = 200  # queries at once: more would look like a flood, and each holds a socket
EDNS_PAYLOAD = 1232  # DNS flag day 2020: fits any path unfragmented

_NAME = re.compile(r"[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*\.?")

MxKind = Literal["hosts", "null-mx", "no-domain", "temporary"]
AddressKind = Literal["addresses", "none", "temporary"]


@dataclass(frozen=True, slots=True)
class MxAnswer:
    """The MX hosts of a domain, (preference, name) in order of preference; names lower case, no final dot.

    `hosts` is empty unless kind is "hosts". `expires_at`: ms UTC, after which to ask again.
    """

    kind: MxKind
    hosts: tuple[tuple[int, str], ...]
    expires_at: int


@dataclass(frozen=True, slots=True)
class AddressAnswer:
    """The IP addresses of a host, IPv4 first. "temporary": at least one query failed and the other gave nothing."""

    kind: AddressKind
    addresses: tuple[str, ...]
    expires_at: int


def encode(answer: MxAnswer) -> bytes:
    """An answer as bytes, for a table."""
    return json.dumps([answer.kind, answer.expires_at, answer.hosts], separators=(",", ":")).encode()


def decode_mx(data: bytes) -> MxAnswer:
    """An MxAnswer back from `encode`."""
    kind, expires_at, hosts, *_ = json.loads(data)  # a later version may have added more
    return MxAnswer(kind, tuple((preference, name) for preference, name in hosts), expires_at)


class Resolver(Protocol):
    """Answers without exceptions, in bounded time."""

    async def mx(self, domain: str) -> MxAnswer:
        """Where mail for a domain goes (A-label form)."""

    async def addresses(self, host: str) -> AddressAnswer:
        """The A and AAAA records of a host; an IP address is its own answer."""


A = TypeVar("A", MxAnswer, AddressAnswer)


class _Cache(Generic[A]):
    """The latest answers, least recently used first, and the queries under way: one flight a name."""

    def __init__(self, size: int, now_ms: Callable[[], int]) -> None:
        self._size, self._now_ms = size, now_ms
        self._answers: OrderedDict[str, A] = OrderedDict()
        self._flights: dict[str, asyncio.Task[A]] = {}

    async def get(self, name: str, ask: Callable[[str], Awaitable[A]]) -> A:
        answer = self._answers.get(name)
        if answer is not None and answer.expires_at > self._now_ms():
            self._answers.move_to_end(name)
            return answer
        flight = self._flights.get(name)
        if flight is None:
            flight = asyncio.create_task(self._fly(name, ask))
            self._flights[name] = flight
        return await asyncio.shield(flight)  # who gives up waiting does not end the query for the others

    async def _fly(self, name: str, ask: Callable[[str], Awaitable[A]]) -> A:
        try:
            answer = await ask(name)
            self._answers[name] = answer
            self._answers.move_to_end(name)
            if len(self._answers) > self._size:
                self._answers.popitem(last=False)
            return answer
        finally:
            del self._flights[name]


@dataclass(frozen=True, slots=True)
class _Found:
    """The records of one query: None where the query failed; `exists` is False for NXDOMAIN. `name`: what the CNAMEs lead to."""

    records: Sequence[object] | None
    ttl_s: int
    exists: bool = True
    name: str = ""


class DnsResolver:
    """Resolver over dnspython. `servers`: "host:port" (IPv6 in brackets); none: those of the system."""

    def __init__(
        self,
        servers: Sequence[str] = (),
        timeout_s: float = 5,
        cache_size: int = 100_000,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._resolver = dns.asyncresolver.Resolver(configure=not servers)
        if servers:
            self._resolver.nameservers = [_server(each) for each in servers]
        self._resolver.timeout = max(timeout_s / 3, 0.05)  # one try of one server; the life time has room for three
        self._resolver.lifetime = timeout_s
        self._resolver.use_edns(0, 0, EDNS_PAYLOAD)
        self._now_ms = now_ms
        self._free = asyncio.Semaphore(CONCURRENCY)
        self._mx = _Cache[MxAnswer](cache_size, now_ms)
        self._addresses = _Cache[AddressAnswer](cache_size, now_ms)

    async def mx(self, domain: str) -> MxAnswer:
        """As Resolver. What cannot be a domain name has no mail: "no-domain"."""
        name = _ask_for(domain)
        if name is None:
            return MxAnswer("no-domain", (), self._expiry(MAX_TTL_S))
        return await self._mx.get(name, self._ask_mx)

    async def addresses(self, host: str) -> AddressAnswer:
        """As Resolver."""
        if _is_address(host):
            return AddressAnswer("addresses", (host,), self._expiry(MAX_TTL_S))
        name = _ask_for(host)
        if name is None:
            return AddressAnswer("none", (), self._expiry(MAX_TTL_S))
        return await self._addresses.get(name, self._ask_addresses)

    def _expiry(self, ttl_s: int) -> int:
        return self._now_ms() + min(max(ttl_s, MIN_TTL_S), MAX_TTL_S) * 1000

    async def _ask_mx(self, domain: str) -> MxAnswer:
        found = await self._query(domain, "MX")
        if found.records is None:
            return MxAnswer("temporary", (), self._expiry(TEMPORARY_TTL_S))
        hosts = sorted(
            (int(record.preference), record.exchange.to_text(omit_final_dot=True).lower())  # type: ignore[attr-defined]
            for record in found.records
        )
        if hosts:
            named = tuple((preference, name) for preference, name in hosts if name not in ("", "."))
            return MxAnswer("hosts" if named else "null-mx", named, self._expiry(found.ttl_s))
        if not found.exists:
            return MxAnswer("no-domain", (), self._expiry(found.ttl_s))
        implicit = await self.addresses(found.name)  # RFC 5321 5.1: the domain itself, preference 0
        if implicit.kind == "addresses":
            expiry = min(implicit.expires_at, self._expiry(found.ttl_s))
            return MxAnswer("hosts", ((0, found.name),), expiry)
        return MxAnswer("temporary" if implicit.kind == "temporary" else "no-domain", (), implicit.expires_at)

    async def _ask_addresses(self, host: str) -> AddressAnswer:
        answers = await asyncio.gather(self._query(host, "A"), self._query(host, "AAAA"))
        addresses = tuple(str(record.address) for found in answers for record in found.records or ())  # type: ignore[attr-defined]
        failed = any(found.records is None for found in answers)
        if failed:  # what is known now is used, and asked again soon
            kind: AddressKind = "addresses" if addresses else "temporary"
            return AddressAnswer(kind, addresses, self._expiry(TEMPORARY_TTL_S))
        # The family that a host does not have may have a short negative TTL; that is no reason to ask for the other
        ttl_s = min(found.ttl_s for found in answers if found.records or not addresses)
        return AddressAnswer("addresses" if addresses else "none", addresses, self._expiry(ttl_s))

    async def _query(self, name: str, kind: str) -> _Found:
        """The records at the end of the CNAMEs: a resolver gives the whole chain, an authoritative server what is its own."""
        qname, ttl_s, ends = dns.name.from_text(name), MAX_TTL_S, time.monotonic() + self._resolver.lifetime
        async with self._free:
            for _ in range(CNAME_MAX):
                try:
                    answer = await self._resolver.resolve(
                        qname, kind, raise_on_no_answer=False, search=False, lifetime=max(ends - time.monotonic(), 0.01)
                    )
                except dns.resolver.NXDOMAIN as error:
                    response = error.response(qname)  # type: ignore[no-untyped-call]  # dnspython left it untyped
                    return _Found((), min(ttl_s, _ttl(response), NEGATIVE_TTL_MAX_S), exists=False)
                except (dns.exception.DNSException, OSError, EOFError):
                    break
                if answer.rrset is not None:
                    return _Found(tuple(answer), min(ttl_s, _ttl(answer.response)))
                known = any(rrset.rdtype == dns.rdatatype.SOA for rrset in answer.response.authority)
                if known or answer.canonical_name == qname:
                    end = answer.canonical_name.to_text(omit_final_dot=True).lower()
                    return _Found((), min(ttl_s, _ttl(answer.response), NEGATIVE_TTL_MAX_S), name=end)
                qname = answer.canonical_name
                ttl_s = min(ttl_s, *(alias.ttl for alias in answer.chaining_result.cnames))
        return _Found(None, TEMPORARY_TTL_S)


def _ttl(response: dns.message.Message) -> int:
    """The TTL of an answer, the shortest along its CNAMEs; of a negative one its SOA's, or its minimum (RFC 2308 5). Without
    a SOA it is that of dnspython, some minutes. What has the highest bit set is none (RFC 2181 8)."""
    if not isinstance(response, dns.message.QueryMessage):
        return MIN_TTL_S
    try:
        ttl = response.resolve_chaining().minimum_ttl
    except dns.exception.DNSException:
        return MIN_TTL_S
    return ttl if ttl < 1 << 31 else MIN_TTL_S


def _server(text: str) -> dns.nameserver.Do53Nameserver:
    host, _, port = text.rpartition(":")
    if not (_is_address(host.strip("[]")) and port.isdigit()):
        raise ValueError(f"DNS server {text!r}: write it as address:port, for example 127.0.0.1:53")
    return dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _ask_for(name: str) -> str | None:
    """The name to ask for: A-labels, lower case, no final dot; None for what cannot be a host or domain name."""
    try:
        text = name if name.isascii() else dns.name.from_text(name, idna_codec=dns.name.IDNA_2008_Practical).to_text()
        if not _NAME.fullmatch(text):
            return None
        return dns.name.from_text(text).to_text(omit_final_dot=True).lower()
    except (dns.exception.DNSException, UnicodeError):
        return None


@dataclass
class ScriptedResolver:
    """A resolver for tests: what is not listed does not exist. A kind in place of hosts gives that answer."""

    hosts: Mapping[str, Sequence[tuple[int, str]] | MxKind] = field(default_factory=dict)
    known: Mapping[str, Sequence[str]] = field(default_factory=dict)
    expires_at: int = 2**62
    asked: list[str] = field(default_factory=list)

    async def mx(self, domain: str) -> MxAnswer:
        """The scripted hosts of a domain."""
        self.asked.append(domain)
        entry = self.hosts.get(domain, "no-domain")
        if isinstance(entry, str):
            return MxAnswer(entry, (), self.expires_at)
        return MxAnswer("hosts", tuple(sorted(entry)), self.expires_at)

    async def addresses(self, host: str) -> AddressAnswer:
        """The scripted addresses of a host; an IP address is its own answer."""
        self.asked.append(host)
        found = (host,) if _is_address(host) else tuple(self.known.get(host, ()))
        return AddressAnswer("addresses" if found else "none", found, self.expires_at)
