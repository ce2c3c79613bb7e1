"""The resolver against a name server on loopback, over real sockets."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.dns import (
    CNAME_MAX,
    NEGATIVE_TTL_MAX_S,
    TEMPORARY_TTL_S,
    AddressAnswer,
    DnsResolver,
    MxAnswer,
    ScriptedResolver,
    decode_mx,
    encode,
)

SOA = "example. {ttl} IN SOA ns.example. root.example. 1 2 3 4 {minimum}"
ZONE = {
    ("example.org.", "MX"): [
        "example.org. 300 IN MX 20 mx2.example.org.",
        "example.org. 300 IN MX 10 MX1.example.org.",
    ],
    ("mx1.example.org.", "A"): ["mx1.example.org. 60 IN A 127.0.0.2"],
    ("mx1.example.org.", "AAAA"): ["mx1.example.org. 50 IN AAAA ::1"],
    ("null.example.", "MX"): ["null.example. 300 IN MX 0 ."],
    ("implicit.example.", "A"): ["implicit.example. 90 IN A 127.0.0.3"],
    ("short.example.", "MX"): ["short.example. 0 IN MX 10 mx1.example.org."],
    ("long.example.", "MX"): ["long.example. 10000000 IN MX 10 mx1.example.org."],
    ("xn--bcher-kva.example.", "MX"): ["xn--bcher-kva.example. 300 IN MX 10 mx1.example.org."],
    ("alias.example.", "MX"): ["alias.example. 30 IN CNAME example.org.", "example.org. 300 IN MX 10 mx1.example.org."],
    ("many.example.", "MX"): [
        f"many.example. 300 IN MX 10 mx{number}.a-long-name.example.org." for number in range(99)
    ],
    # MX hosts that are CNAMEs (RFC 2181 10.3)
    ("to-alias.example.", "MX"): ["to-alias.example. 300 IN MX 10 mx-alias.example."],
    ("mx-alias.example.", "A"): [
        "mx-alias.example. 30 IN CNAME mx1.example.org.",
        "mx1.example.org. 60 IN A 127.0.0.2",
    ],
    ("mx-alias.example.", "AAAA"): ["mx-alias.example. 20 IN CNAME mx1.example.org."],
    # chains that a server gives in pieces
    ("piece.example.", "MX"): ["piece.example. 30 IN CNAME piece2.example."],
    ("piece2.example.", "MX"): ["piece2.example. 25 IN CNAME example.org."],
    ("to-nowhere.example.", "MX"): ["to-nowhere.example. 30 IN CNAME missing.example."],
    ("alias-of-a.example.", "MX"): ["alias-of-a.example. 30 IN CNAME implicit.example."],
    ("alias-of-null.example.", "MX"): ["alias-of-null.example. 30 IN CNAME null.example."],
    ("alias-that-fails.example.", "MX"): ["alias-that-fails.example. 30 IN CNAME fails.example."],
    ("circle1.example.", "MX"): ["circle1.example. 30 IN CNAME circle2.example."],
    ("circle2.example.", "MX"): ["circle2.example. 30 IN CNAME circle1.example."],
    ("self.example.", "MX"): ["self.example. 30 IN CNAME self.example."],
    ("round.example.", "MX"): [
        "round.example. 30 IN CNAME round2.example.",
        "round2.example. 30 IN CNAME round.example.",
    ],
    **{(f"long{n}.example.", "MX"): [f"long{n}.example. 30 IN CNAME long{n + 1}.example."] for n in range(20)},
    ("endless.example.", "MX"): ["endless.example. 4294967295 IN MX 10 mx1.example.org."],
    ("four.example.", "A"): ["four.example. 60 IN A 127.0.0.4"],
    ("six.example.", "AAAA"): ["six.example. 60 IN AAAA ::1"],
}
EMPTY = {"empty.example.", "far-empty.example.", "bare-empty.example."}


class NameServer(asyncio.DatagramProtocol):
    """Answers from ZONE; names beginning with `fails` get SERVFAIL, `refuses` REFUSED, `silent` nothing. What is not there
    has no SOA where the name begins with `bare`, and a very long one where it does with `far`. `broken`: SERVFAIL to all."""

    broken = False

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def answer(self, wire: bytes) -> dns.message.Message | None:
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name, kind = question.name.to_text().lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked[f"{name} {kind}"] += 1
        response = dns.message.make_response(query)
        if name.startswith("silent"):
            return None
        if self.broken or name.startswith(("fails", "refuses")):
            response.set_rcode(dns.rcode.REFUSED if name.startswith("refuses") else dns.rcode.SERVFAIL)
            return response
        for line in ZONE.get((name, kind), ()):
            rrset = dns.rrset.from_text_list(line.split()[0], *line.split(maxsplit=4)[1:4], [line.split(maxsplit=4)[4]])  # type: ignore[arg-type]
            response.find_rrset(response.answer, rrset.name, rrset.rdclass, rrset.rdtype, create=True).update(rrset)
        if not response.answer:
            known = name in EMPTY or any(name == each for each, _ in ZONE)
            response.set_rcode(dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN)
            if name.startswith("bare"):
                return response
            long = name.startswith("far")
            soa = SOA.format(ttl=1_000_000 if long else 3600, minimum=1_000_000 if long else 40).split(maxsplit=4)
            response.authority.append(dns.rrset.from_text(soa[0], int(soa[1]), soa[2], soa[3], soa[4]))
        return response

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        response = self.answer(data)
        if response is not None:
            wire = response.to_wire(max_size=65_535)
            if len(wire) > 512:
                response.answer.clear()
                response.flags |= dns.flags.TC
                wire = response.to_wire()
            self.transport.sendto(wire, addr)

    async def tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        response = self.answer(await reader.readexactly(size))
        if response is not None:
            wire = response.to_wire(max_size=65_535)
            writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
        writer.close()


class Clock:
    """Milliseconds that a test moves."""

    now = 1_790_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def server() -> AsyncIterator[tuple[NameServer, str]]:
    while True:
        transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(NameServer, ("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        try:
            tcp = await asyncio.start_server(protocol.tcp, "127.0.0.1", port)
            break
        except OSError:  # free for UDP, taken for TCP by another program
            transport.close()
    yield protocol, f"127.0.0.1:{port}"
    tcp.close()
    transport.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(server: tuple[NameServer, str], clock: Clock) -> DnsResolver:
    return DnsResolver([server[1]], timeout_s=0.3, cache_size=100, now_ms=clock)


def ttl(answer: MxAnswer | AddressAnswer, clock: Clock) -> float:
    return (answer.expires_at - clock.now) / 1000


async def test_hosts_in_order_of_preference(resolver: DnsResolver, clock: Clock) -> None:
    answer = await resolver.mx("Example.ORG.")
    assert (answer.kind, answer.hosts) == ("hosts", ((10, "mx1.example.org"), (20, "mx2.example.org")))
    assert ttl(answer, clock) == 300
    addresses = await resolver.addresses("mx1.example.org")
    assert (addresses.kind, addresses.addresses) == ("addresses", ("127.0.0.2", "::1"))
    assert ttl(addresses, clock) == 50


@pytest.mark.parametrize(
    ("domain", "kind", "hosts", "seconds"),
    [
        ("null.example", "null-mx", (), 300),
        ("implicit.example", "hosts", ((0, "implicit.example"),), 40),
        ("empty.example", "no-domain", (), 40),
        ("missing.example", "no-domain", (), 40),  # RFC 2308 5: the lesser of the SOA's TTL and minimum
        ("fails.example", "temporary", (), TEMPORARY_TTL_S),
        ("refuses.example", "temporary", (), TEMPORARY_TTL_S),
        ("silent.example", "temporary", (), TEMPORARY_TTL_S),
        ("short.example", "hosts", ((10, "mx1.example.org"),), 1),
        ("long.example", "hosts", ((10, "mx1.example.org"),), 86_400),
        ("bücher.example", "hosts", ((10, "mx1.example.org"),), 300),
        ("alias.example", "hosts", ((10, "mx1.example.org"),), 30),
        ("piece.example", "hosts", ((10, "mx1.example.org"), (20, "mx2.example.org")), 25),
        ("alias-of-a.example", "hosts", ((0, "implicit.example"),), 30),
        ("alias-of-null.example", "null-mx", (), 30),
        ("to-nowhere.example", "no-domain", (), 30),
        ("alias-that-fails.example", "temporary", (), TEMPORARY_TTL_S),
        ("circle1.example", "temporary", (), TEMPORARY_TTL_S),
        ("self.example", "temporary", (), TEMPORARY_TTL_S),
        ("round.example", "temporary", (), TEMPORARY_TTL_S),
        ("long0.example", "temporary", (), TEMPORARY_TTL_S),
        ("far-empty.example", "no-domain", (), NEGATIVE_TTL_MAX_S),
        ("far-missing.example", "no-domain", (), NEGATIVE_TTL_MAX_S),
        ("bare-missing.example", "no-domain", (), 300),
        ("endless.example", "hosts", ((10, "mx1.example.org"),), 1),  # RFC 2181 8: the highest bit makes it none
    ],
)
async def test_answers(
    resolver: DnsResolver,
    clock: Clock,
    domain: str,
    kind: str,
    hosts: tuple[tuple[int, str], ...],
    seconds: int,
) -> None:
    answer = await resolver.mx(domain)
    assert (answer.kind, answer.hosts, ttl(answer, clock)) == (kind, hosts, seconds)


async def test_an_mx_host_that_is_an_alias_is_followed(resolver: DnsResolver, clock: Clock) -> None:
    ((_, host),) = (await resolver.mx("to-alias.example")).hosts
    answer = await resolver.addresses(host)
    assert (answer.kind, answer.addresses, ttl(answer, clock)) == ("addresses", ("127.0.0.2", "::1"), 20)


@pytest.mark.parametrize(
    ("host", "addresses"), [("four.example", ("127.0.0.4",)), ("six.example", ("::1",)), ("empty.example", ())]
)
async def test_hosts_of_one_family(resolver: DnsResolver, host: str, addresses: tuple[str, ...]) -> None:
    answer = await resolver.addresses(host)
    assert (answer.kind, answer.addresses) == ("addresses" if addresses else "none", addresses)


async def test_a_chain_in_pieces_is_asked_for_so_often_and_no_longer(
    resolver: DnsResolver, server: tuple[NameServer, str]
) -> None:
    assert (await resolver.mx("circle1.example")).kind == (await resolver.mx("long0.example")).kind == "temporary"
    assert server[0].asked.total() == 2 * CNAME_MAX


async def test_what_is_not_there_is_remembered_as_long_as_its_soa_says(
    resolver: DnsResolver, server: tuple[NameServer, str], clock: Clock
) -> None:
    for asked, later in ((1, 0), (1, 39_999), (2, 1)):
        clock.now += later
        assert (await resolver.mx("missing.example")).kind == "no-domain"
        assert server[0].asked["missing.example. MX"] == asked


async def test_a_failure_is_remembered_for_seconds_only(
    resolver: DnsResolver, server: tuple[NameServer, str], clock: Clock
) -> None:
    server[0].broken = True
    assert (await resolver.mx("example.org")).kind == "temporary"
    assert (await resolver.addresses("mx1.example.org")).kind == "temporary"
    server[0].broken = False
    assert (await resolver.mx("example.org")).kind == "temporary"
    clock.now += TEMPORARY_TTL_S * 1000
    assert (await resolver.mx("example.org")).kind == "hosts"
    assert (await resolver.addresses("mx1.example.org")).kind == "addresses"


async def test_large_answers_come_over_tcp(resolver: DnsResolver) -> None:
    assert len((await resolver.mx("many.example")).hosts) == 99


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "a..b",
        "x" * 64 + ".example",
        "a." * 200 + "example",
        "nul\0.example",
        "sp ace.example",
        "\\046.example",
        "é" * 70,
        "\udce9.example",
        "[127.0.0.1]",
        "xn--\u00e9.example",
    ],
)
async def test_hostile_names_are_no_domains(resolver: DnsResolver, server: tuple[NameServer, str], name: str) -> None:
    assert (await resolver.mx(name)).kind == "no-domain"
    assert (await resolver.addresses(name)).kind == "none"
    assert not server[0].asked


async def test_an_address_is_its_own_answer(resolver: DnsResolver, server: tuple[NameServer, str]) -> None:
    assert (await resolver.addresses("127.0.0.9")).addresses == ("127.0.0.9",)
    assert not server[0].asked


async def test_cache_lasts_as_long_as_the_ttl(
    resolver: DnsResolver, server: tuple[NameServer, str], clock: Clock
) -> None:
    for _ in range(2):
        await resolver.mx("example.org")
    clock.now += 299_999
    await resolver.mx("EXAMPLE.org")
    assert server[0].asked["example.org. MX"] == 1
    clock.now += 1
    await resolver.mx("example.org")
    assert server[0].asked["example.org. MX"] == 2


async def test_askers_of_one_name_share_a_query_and_one_may_leave(
    resolver: DnsResolver, server: tuple[NameServer, str]
) -> None:
    askers = [asyncio.create_task(resolver.mx("example.org")) for _ in range(20)]
    await asyncio.sleep(0)
    askers[0].cancel()
    answers = await asyncio.gather(*askers[1:])
    assert {answer.kind for answer in answers} == {"hosts"}
    assert server[0].asked["example.org. MX"] == 1


async def test_cache_is_bounded(server: tuple[NameServer, str], clock: Clock) -> None:
    resolver = DnsResolver([server[1]], timeout_s=1, cache_size=2, now_ms=clock)
    for domain in ("example.org", "null.example", "example.org", "long.example", "example.org", "null.example"):
        await resolver.mx(domain)
    assert server[0].asked["example.org. MX"] == 1  # used all the time
    assert server[0].asked["null.example. MX"] == 2


async def test_a_second_server_helps_a_dead_one_out(server: tuple[NameServer, str], clock: Clock) -> None:
    resolver = DnsResolver(["127.0.0.1:1", server[1]], timeout_s=1, now_ms=clock)
    assert (await resolver.mx("example.org")).kind == "hosts"


@pytest.mark.parametrize("text", ["127.0.0.1", "localhost:53", "127.0.0.1:dns", ""])
def test_servers_are_written_as_address_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="address:port"):
        DnsResolver([text])


@given(st.lists(st.tuples(st.integers(0, 65_535), st.text(max_size=20))), st.integers(0, 2**62))
def test_answers_as_bytes(hosts: list[tuple[int, str]], expires_at: int) -> None:
    answer = MxAnswer("hosts", tuple(hosts), expires_at)
    assert decode_mx(encode(answer)) == answer


async def test_scripted_resolver() -> None:
    resolver = ScriptedResolver({"a.example": [(20, "b"), (10, "a")], "b.example": "temporary"}, {"a": ["127.0.0.2"]})
    assert (await resolver.mx("a.example")).hosts == ((10, "a"), (20, "b"))
    assert (await resolver.mx("b.example")).kind == "temporary"
    assert (await resolver.mx("c.example")).kind == "no-domain"
    assert (await resolver.addresses("a")).addresses == ("127.0.0.2",)
    assert resolver.asked == ["a.example", "b.example", "c.example", "a"]
