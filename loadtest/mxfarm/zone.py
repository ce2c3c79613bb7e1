"""The authoritative name server of the farm, UDP and TCP, on dnspython's zone and message classes.

RFC 1035; RFC 2308 (negative answers carry the SOA), RFC 4592 (wildcards), RFC 6891 (EDNS size), RFC 7505 (null MX).
One zone, the root, holds everything: no name leaves the machine.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Mapping

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset
import dns.zone

from loadtest.mxfarm import sites as table
from loadtest.mxfarm.sites import Site

TTL = 60  # seconds
NEGATIVE_TTL = 5  # seconds
UDP_SIZE = 1232  # bytes; DNS flag day 2020
TCP_IDLE = 30  # seconds

_IN = dns.rdataclass.IN


def absolute(name: str) -> dns.name.Name:
    """The name as DNS spells it; U-labels become A-labels (IDNA 2008)."""
    return dns.name.from_text(name, dns.name.root, idna_codec=dns.name.IDNA_2008)


def txt_data(text: str) -> dns.rdata.Rdata:
    """A TXT record of any length, in strings of at most 255 bytes."""
    data = text.encode()
    strings = [data[i : i + 255] for i in range(0, len(data), 255)] or [b""]
    return dns.rdtypes.ANY.TXT.TXT(_IN, dns.rdatatype.TXT, strings)


class ZoneData:
    """All names of the farm: those of the sites, and TXT records ({name: text}) such as DKIM keys."""

    def __init__(self, sites: Iterable[Site], txt: Mapping[str, str]) -> None:
        self._zone = dns.zone.Zone(dns.name.root, relativize=False)
        self._names: set[dns.name.Name] = set()
        self.soa = self._add(".", "SOA", f"ns.test. hostmaster.test. 1 3600 600 86400 {NEGATIVE_TTL}", NEGATIVE_TTL)
        self._add(".", "NS", "ns.test.")
        self._add("ns.test", "A", "127.0.0.1")
        addresses: dict[str, list[str]] = {}
        for site in sites:
            addresses[site.name] = [host.address for host in site.hosts if host.listens]
            for host in site.hosts:
                self._add(host.name, "A", host.address)
                for domain in site.domains:
                    self._add(domain, "MX", f"{host.preference} {host.name}.")
        for domain in table.NULL_MX:
            self._add(domain, "MX", "0 .")
        for domain in table.DANGLING_MX:
            self._add(domain, "MX", "10 mx1.no-such-host.test.")
        for domain in table.NO_MAIL:
            self._add(domain, "TXT", '"v=spf1 -all"')
        for domain, name in table.IMPLICIT_MX.items():
            for address in addresses.get(name, []):
                self._add(domain, "A", address)
        for name, text in txt.items():
            self._put(absolute(name), txt_data(text), TTL)

    def _add(self, name: str, rdtype: str, text: str, ttl: int = TTL) -> dns.rrset.RRset:
        return self._put(absolute(name), dns.rdata.from_text(_IN, rdtype, text), ttl)

    def _put(self, name: dns.name.Name, rdata: dns.rdata.Rdata, ttl: int) -> dns.rrset.RRset:
        self._zone.find_rdataset(name, rdata.rdtype, create=True).add(rdata, ttl)
        self._names.add(name)
        while name != dns.name.root:  # names above exist too: NOERROR without data, not NXDOMAIN
            name = name.parent()
            self._names.add(name)
        return dns.rrset.from_rdata(name, ttl, rdata)

    def find(self, name: dns.name.Name, rdtype: dns.rdatatype.RdataType) -> dns.rrset.RRset | None:
        """The records of a name, None where it has none of this type; KeyError where there is no such name."""
        source = name
        if source not in self._names:
            while source not in self._names:
                source = source.parent()
            source = dns.name.Name((b"*", *source.labels))
            if source not in self._names:
                raise KeyError(name)
        rdataset = self._zone.get_rdataset(source, rdtype)
        return dns.rrset.from_rdata_list(name, rdataset.ttl, list(rdataset)) if rdataset else None


class NameServer:
    """Answers queries from `zone`, which may be replaced at any time; none at all while `answering` is false."""

    def __init__(self, zone: ZoneData) -> None:
        self.zone = zone
        self.answering = True
        self._servfail = [absolute(name) for name in table.SERVFAIL]
        self._unanswered = [absolute(name) for name in table.UNANSWERED]
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    def answer(self, wire: bytes, limit: int | None = None) -> bytes | None:
        """The reply to one query; None: none is given. `limit` is the most that UDP carries, longer ones get TC."""
        if not self.answering or len(wire) < 12 or wire[2] & 0x80:  # too short, or a response itself
            return None
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            broken = dns.message.Message(int.from_bytes(wire[:2], "big"))
            broken.flags = dns.flags.QR
            broken.set_rcode(dns.rcode.FORMERR)
            return broken.to_wire()
        response = dns.message.make_response(query, recursion_available=True, our_payload=UDP_SIZE)
        response.flags |= dns.flags.AA
        if query.opcode() != dns.opcode.QUERY:
            response.set_rcode(dns.rcode.NOTIMP)
        elif len(query.question) != 1 or query.question[0].rdclass != _IN:
            response.set_rcode(dns.rcode.REFUSED)
        elif not self._fill(response, query.question[0]):
            return None
        size = 65_535 if limit is None else max(512, min(query.payload if query.edns >= 0 else 512, limit))
        return response.to_wire(max_size=size, prefer_truncation=True)

    def _fill(self, response: dns.message.Message, question: dns.rrset.RRset) -> bool:
        name = question.name
        if any(name.is_subdomain(silent) for silent in self._unanswered):
            return False
        if any(name.is_subdomain(failing) for failing in self._servfail):
            response.set_rcode(dns.rcode.SERVFAIL)
            return True
        try:
            found = self.zone.find(name, question.rdtype)
        except KeyError:
            found = None
            response.set_rcode(dns.rcode.NXDOMAIN)
        if found:
            response.answer.append(found)
        else:
            response.authority.append(self.zone.soa)
        return True

    async def open(self, host: str, port: int) -> int:
        """Listen on UDP and TCP of one port, a free one if 0; returns it. OSError where it is taken."""
        loop = asyncio.get_running_loop()
        for left in reversed(range(20 if port == 0 else 1)):
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), local_addr=(host, port))
            bound: int = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._serve_tcp, host, bound)
                return bound
            except OSError:
                self._udp.close()
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def close(self) -> None:
        if self._udp:
            self._udp.close()
        if self._tcp:
            self._tcp.close()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, TimeoutError, ConnectionError):
                while True:
                    async with asyncio.timeout(TCP_IDLE):
                        length = int.from_bytes(await reader.readexactly(2), "big")
                        wire = await reader.readexactly(length)
                        if reply := self.answer(wire):
                            writer.write(len(reply).to_bytes(2, "big") + reply)
                            await writer.drain()
        finally:
            writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if reply := self._server.answer(data, UDP_SIZE):
            self._transport.sendto(reply, addr)  # type: ignore[attr-defined]  # asyncio types connection_made too widely
