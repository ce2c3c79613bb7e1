"""The SMTP client: one message of one recipient to the first MX host that takes a word about it.

RFC 5321 5.1 (hosts in order, each with its addresses), 4.2 (replies), 3.8 (421), 4.5.3.2 (time-outs); the RFCs of the
connection itself are listed in smtp_session. Nothing here raises on what a network or a host does: every attempt ends,
in bounded time, in a `Result`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from postroad.dns import Resolver
from postroad.egress import Source
from postroad.reply import Envelope, Outcome, Reply, Result, Step, failed
from postroad.smtp_pool import Pool, PoolSettings
from postroad.smtp_session import AioTransport, Failure, Session, SmtpTimeouts, Transport

__all__ = [
    "AioTransport",
    "Client",
    "Envelope",
    "Outcome",
    "Pool",
    "PoolSettings",
    "Reply",
    "Result",
    "ScriptedSession",
    "ScriptedTransport",
    "SmtpTimeouts",
    "Step",
    "Transport",
    "failed",
]

MAX_ADDRESSES = 5  # tried in one attempt: Postfix smtp_mx_address_limit; RFC 5321 5.1 asks for two at least
MAX_HOSTS = 10  # looked up in one attempt, since each may cost a DNS time-out


class Client:
    """Delivers over a pool's connections. `clock`: seconds, for durations only."""

    def __init__(self, pool: Pool, resolver: Resolver, clock: Callable[[], float] = time.monotonic) -> None:
        self.pool = pool
        self._resolver, self._clock = resolver, clock

    async def deliver(
        self, envelope: Envelope, message: bytes, hosts: Sequence[str], source: Source, site: str
    ) -> Result:
        """One attempt: hosts in the given order until one goes as far as MAIL.

        What a host says before MAIL (banner, EHLO) is about the connection and sends the attempt to the next address;
        from MAIL on its reply is the result. No connection of the site free in time: outcome connection-limit. After the
        attempt's deadline no further host is looked up and no further address tried: the last one's reply stands.
        """
        started = self._clock()
        deadline = started + self.pool.timeouts.of("attempt")
        result = Result("dns", "no-address", failed("dns", "no-address", "no MX host has a usable address").reply)
        tried = 0
        for host in hosts[:MAX_HOSTS]:
            if self._clock() >= deadline:
                break
            for address in await self._addresses(host, source):
                if tried == MAX_ADDRESSES or (tried and self._clock() >= deadline):
                    return self._timed(result, started)
                tried += 1
                result = await self._try(envelope, message, host, address, source, site)
                if (
                    result.phase not in ("connect", "banner", "ehlo", "starttls")
                    or result.outcome == "connection-limit"
                ):
                    return self._timed(result, started)
        return self._timed(result, started)

    def _timed(self, result: Result, started: float) -> Result:
        spent = round((self._clock() - started) * 1000)
        # Not dataclasses.replace: it takes longer than the fields
        return Result(
            result.phase,
            result.outcome,
            result.reply,
            result.mx_host,
            result.mx_address,
            result.tls,
            spent,
            result.reused,
        )

    async def _addresses(self, host: str, source: Source) -> Sequence[str]:
        answer = await self._resolver.addresses(host)
        if not source.address:
            return answer.addresses
        return [found for found in answer.addresses if (":" in found) == (":" in source.address)]

    async def _try(
        self, envelope: Envelope, message: bytes, host: str, address: str, source: Source, site: str
    ) -> Result:
        for again in (True, False):
            try:
                session, reused = await self.pool.acquire(site, source, host, address)
            except Failure as failure:
                step = failure.step
                return Result(step.phase, step.outcome, step.reply, host, address)
            try:
                step = await session.send(envelope, message)
            finally:
                self.pool.release(site, source, session)
            result = Result(step.phase, step.outcome, step.reply, host, address, session.tls, 0, reused)
            if not (again and reused and step.phase == "mail" and not session.alive):
                break
            # Gone stale in the pool, as its like will have: nothing was said about this message, so that once more on
            # a new connection cannot deliver it twice.
            self.pool.discard(site, source, address)
        return result


@dataclass(eq=False)
class ScriptedSession:
    """A session that answers from a `ScriptedTransport`'s script."""

    host: str
    address: str
    transport: "ScriptedTransport"
    tls: str = ""
    sent: int = 0
    alive: bool = True

    async def send(self, envelope: Envelope, message: bytes) -> Step:
        """The scripted step; a 421, or a step without a reply, ends the session as a real one would."""
        self.sent += 1
        self.transport.sent.append((self.host, envelope, message))
        step = self.transport.answer(self.host, envelope)
        self.alive = step.outcome in ("replied", "local") and step.reply.code != 421
        return step

    def close(self) -> None:
        """Nothing to close but the mark."""
        self.alive = False


def accept(host: str, envelope: Envelope) -> Step:
    """The answer of a host that takes everything."""
    return Step("done", "replied", Reply(250, "2.0.0", "OK"))


@dataclass
class ScriptedTransport:
    """A transport for tests: `answer` decides each transaction, `refuse` the connections of hosts; both are recorded."""

    answer: Callable[[str, Envelope], Step] = accept
    refuse: dict[str, Step] = field(default_factory=dict)
    sent: list[tuple[str, Envelope, bytes]] = field(default_factory=list)
    connections: list[tuple[str, str]] = field(default_factory=list)  # (source name, host)
    timeouts: SmtpTimeouts = field(default_factory=SmtpTimeouts)

    async def connect(self, source: Source, host: str, address: str, port: int) -> Session:
        """A session at once, or the scripted Failure."""
        self.connections.append((source.name, host))
        if host in self.refuse:
            raise Failure(self.refuse[host])
        return ScriptedSession(host, address, self)
