"""What an attempt may take: its deadline, and the slowest host there can be."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from smtp_hosts import ENVELOPE, LIMITS, MAIL, SITE, SOURCE

from postroad.dns import AddressAnswer, ScriptedResolver
from postroad.egress import Source
from postroad.smtp import (
    AioTransport,
    Client,
    Pool,
    ScriptedTransport,
    SmtpTimeouts,
    failed,
)
from postroad.smtp_session import Session
from postroad.smtp_wire import CHUNK, Broken


@dataclass
class Tarpits(ScriptedTransport):
    """Hosts that keep every connection for `each` seconds before they turn out to be of no use; `now` is the clock."""

    each: float = 0
    now: float = 0

    async def connect(self, source: Source, host: str, *rest: Any) -> Session:
        self.now += self.each
        self.refuse[host] = failed("ehlo", "timeout", f"{host} says nothing")
        return await super().connect(source, host, *rest)


@pytest.mark.parametrize("scale", [0.02, 1, 10])
async def test_an_attempt_over_tarpits_ends_at_its_deadline(scale: float) -> None:
    transport = Tarpits(each=599 * scale)  # banner and EHLO
    limits = replace(LIMITS, timeouts=SmtpTimeouts(scale=scale))
    resolver = ScriptedResolver(known={f"mx{n}": [f"127.0.0.{n}"] for n in range(1, 6)})
    client = Client(Pool(transport), resolver, clock=lambda: transport.now)
    result = await client.deliver(ENVELOPE, MAIL, list(resolver.known), SOURCE, SITE, limits)
    assert (result.phase, result.outcome, result.reply.temporary) == ("ehlo", "timeout", True)
    assert (result.mx_host, len(transport.connections)) == ("mx2", 2), "the last one's reply stands"
    assert result.duration_ms == pytest.approx(2 * 599_000 * scale)
    in_one = ScriptedResolver(known={"mx": [f"127.0.0.{n}" for n in range(1, 6)]})
    transport.connections.clear()
    await Client(Pool(transport), in_one, clock=lambda: transport.now).deliver(
        ENVELOPE, MAIL, ["mx"], SOURCE, SITE, limits
    )
    assert len(transport.connections) == 2, "of one host too"


async def test_one_address_is_tried_however_slow_dns_was() -> None:
    class Slow(ScriptedResolver):
        async def addresses(self, host: str) -> AddressAnswer:
            transport.now += 1000
            return await super().addresses(host)

    transport, limits = Tarpits(), replace(LIMITS, timeouts=SmtpTimeouts())
    client = Client(Pool(transport), Slow(known={"mx1": ["127.0.0.1"]}), clock=lambda: transport.now)
    result = await client.deliver(ENVELOPE, MAIL, ["mx1", "mx2"], SOURCE, SITE, limits)
    assert (result.mx_host, result.phase, len(transport.connections)) == ("mx1", "ehlo", 1)
    result = await client.deliver(ENVELOPE, MAIL, ["nowhere", "mx1"], SOURCE, SITE, limits)
    assert (result.outcome, result.reply.temporary, len(transport.connections)) == ("no-address", True, 1)


class Latest:
    """A wire to a host that says every word at the last moment, as long as `late`; else at once. `now` is the clock.

    It offers STARTTLS and goes silent inside; then it refuses EHLO and takes HELO. It stands in for `Wire`.
    """

    now = 0.0
    late = False
    connect_s = body_s = 0.0
    first: "Latest"  # the one that the pool keeps
    answered = False
    cipher = "TLSv1.3 X"

    def __init__(self) -> None:
        self.alive, self.offers, self.secure, self.blocks, self.asked = True, False, False, 0, b"banner"
        self.pass_by(Latest.connect_s)

    def pass_by(self, seconds: float) -> None:
        Latest.now += seconds if Latest.late else 0

    def ask(self, data: bytes, replies: int = 1) -> None:
        self.asked = data[:4] if data else b"body"

    async def reply(self, seconds: float) -> tuple[int, str]:
        self.pass_by(seconds)
        verb = self.asked
        if Latest.late and self is Latest.first and verb == b"MAIL":  # RSET was answered: it has gone stale just now
            raise Broken("timeout", "late")
        if verb == b"EHLO" and self.secure:
            raise Broken("timeout", "late")
        if verb == b"EHLO" and not self.offers:
            return (500, "what?") if Latest.late else (250, "mx")
        if verb == b"RCPT" and not Latest.late:
            return 450, "later"
        codes = {b"banner": (220, "mx"), b"EHLO": (250, "mx\nSTARTTLS"), b"STAR": (220, "go"), b"DATA": (354, "go")}
        return codes.get(verb, (250, "OK"))

    async def start_tls(self, context: object, host: str, seconds: float) -> None:
        self.pass_by(seconds)
        self.secure = True

    def write(self, data: bytes) -> None:
        self.blocks += 1

    async def drained(self, seconds: float) -> None:
        self.pass_by(Latest.body_s if self.blocks == 1 else 0)

    def abort(self) -> None:
        self.alive = False

    def close(self, closed: Callable[[], None]) -> None:
        self.alive = False
        closed()


@pytest.mark.parametrize("scale", [0.02, 1, 10])
async def test_nothing_takes_longer_than_the_time_outs_say(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The slowest host there can be, after the deadline has just not been reached: the sum of `longest`, to the second."""
    timeouts = SmtpTimeouts(scale=scale)
    limits = replace(LIMITS, timeouts=timeouts)
    opened: list[Latest] = []

    async def create_connection(*_: object, **__: object) -> tuple[None, Latest]:
        wire = Latest()
        wire.offers = Latest.late and len(opened) == 1
        opened.append(wire)
        return None, wire

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", create_connection)
    monkeypatch.setattr(Latest, "now", 0.0)
    monkeypatch.setattr(Latest, "connect_s", timeouts.of("connect"))
    monkeypatch.setattr(Latest, "body_s", timeouts.of("body"))
    resolver = ScriptedResolver(known={"mx": ["127.0.0.2"]})
    client = Client(Pool(AioTransport()), resolver, clock=lambda: Latest.now)
    result = await client.deliver(ENVELOPE, MAIL, ["mx"], SOURCE, SITE, limits)
    assert (result.phase, Latest.now) == ("rcpt", 0), "a connection is in the pool, its next word is RSET"
    monkeypatch.setattr(Latest, "first", opened[0], raising=False)
    monkeypatch.setattr(Latest, "late", True)
    result = await client.deliver(ENVELOPE, bytes(2 * CHUNK), ["mx"], SOURCE, SITE, limits)
    assert result.delivered and len(opened) == 3
    assert Latest.now == pytest.approx(timeouts.longest - timeouts.of("attempt"))
    client.pool.close()
