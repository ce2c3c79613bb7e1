"""The SMTP client: one message of one recipient to the first MX host that takes a word about it.

RFC 5321 5.1 (hosts in order, each with its addresses), 4.2 (replies), 3.8 (421), 4.5.3.2 (time-outs); the RFCs of the
connection itself are listed in smtp_session. Nothing here raises on what a network or a host does: every attempt ends,
in bounded time, in a `Result`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from postroad.dns import Resolver
from postroad.egress import Source
from postroad.lame import Lame
from postroad.reply import BEFORE_MAIL, Envelope, Outcome, Reply, Result, Step, failed
from postroad.shaping.limits import Limits
from postroad.smtp_pool import Place, Pool
from postroad.smtp_scripted import ScriptedSession, ScriptedTransport
from postroad.smtp_session import Failure, Laps, Transport
from postroad.smtp_timeouts import SmtpTimeouts
from postroad.smtp_transport import AioTransport

__all__ = [
    "AT_ONCE",
    "AioTransport",
    "Client",
    "Envelope",
    "Failure",
    "Laps",
    "Outcome",
    "Place",
    "Pool",
    "Reply",
    "Result",
    "ScriptedSession",
    "ScriptedTransport",
    "SmtpTimeouts",
    "Step",
    "Transport",
    "Turn",
    "failed",
]

MAX_ADDRESSES = 5  # tried in one attempt: Postfix smtp_mx_address_limit; RFC 5321 5.1 asks for two at least
MAX_HOSTS = 10  # looked up in one attempt, since each may cost a DNS time-out


async def _at_once() -> None:
    pass


class Turn(NamedTuple):
    """When a message may begin. `urgent`: it gets the next connection, before those that wait and are not. `begin`: awaited on each
    connection that it gets, before the first word about it, as long as its rates ask; what it raises ends the attempt, and the
    connection is kept for others."""

    urgent: bool = False
    begin: Callable[[], Awaitable[None]] = _at_once


AT_ONCE = Turn()


class Client:
    """Delivers over a pool's connections. `clock`: seconds, for durations and pauses only. `lame`: asked which addresses to
    try last, and told which took no connection."""

    def __init__(
        self,
        pool: Pool,
        resolver: Resolver,
        clock: Callable[[], float] = time.monotonic,
        lame: Lame | None = None,
    ) -> None:
        self.pool = pool
        self._resolver, self._clock, self._lame = resolver, clock, Lame() if lame is None else lame

    async def deliver(
        self, envelope: Envelope, message: bytes, hosts: Sequence[str], source: Source, site: str, limits: Limits,
        turn: Turn = AT_ONCE,
    ) -> Result:  # fmt: skip
        """One attempt: hosts in the given order (lame addresses last) until one has taken a word about the message.

        What a host says before MAIL (banner, EHLO, STARTTLS) is about the connection and sends the attempt to the next
        address, and so do a 421 and a broken connection before the body; else the reply is the result. No connection of
        the place free in time: outcome connection-limit. After the attempt's deadline no further host is looked up and no
        further address tried: the last one's reply stands. `site`: name#shard, whose share of the limits is given.
        """
        started, laps, place = self._clock(), Laps(self._clock), Place(site, source)
        deadline = started + limits.timeouts.of("attempt")
        result = Result("dns", "no-address", failed("dns", "no-address", "no MX host has a usable address").reply)
        tried, lame = 0, list[tuple[str, str]]()
        for host in (*hosts[:MAX_HOSTS], None):  # at last the lame ones
            if host is not None and self._clock() >= deadline:
                continue
            for name, address in lame if host is None else await self._addresses(host, source, lame, laps):
                if tried == MAX_ADDRESSES or (tried and self._clock() >= deadline):
                    return self._timed(result, started, laps)
                tried += 1
                result = await self._try(envelope, message, name, address, place, limits, laps, turn)
                if not self._goes_on(result):
                    return self._timed(result, started, laps)
        return self._timed(result, started, laps)

    def _timed(self, result: Result, started: float, laps: Laps) -> Result:
        spent = round((self._clock() - started) * 1000)
        # Not dataclasses.replace: it takes longer than the fields
        return Result(
            result.phase, result.outcome, result.reply, result.mx_host, result.mx_address, result.tls, spent,
            result.reused, laps.ms,
        )  # fmt: skip

    @staticmethod
    def _goes_on(result: Result) -> bool:
        """Whether the next host is asked at once: this one has said nothing about the message, and does not have it."""
        if result.phase in BEFORE_MAIL:
            return result.outcome != "connection-limit"
        return result.phase in ("mail", "rcpt", "data") and result.reply.code in (0, 421)

    async def _addresses(
        self, host: str, source: Source, lame: list[tuple[str, str]], laps: Laps
    ) -> list[tuple[str, str]]:
        """Those of a host that the source can reach, with its name; the lame ones go aside."""
        laps.start()
        answer = await self._resolver.addresses(host)
        laps.lap("dns")
        now, found = self._clock(), list[tuple[str, str]]()
        for address in answer.addresses:
            if not source.address or (":" in address) == (":" in source.address):
                aside = self._lame.is_lame(source.name, address, now)
                (lame if aside else found).append((host, address))
        return found

    async def _try(
        self, envelope: Envelope, message: bytes, host: str, address: str, place: Place, limits: Limits, laps: Laps,
        turn: Turn,
    ) -> Result:  # fmt: skip
        for again in (True, False):
            try:
                session, reused = await self.pool.acquire(place, host, address, limits, laps, turn.urgent)
            except Failure as failure:
                step = failure.step
                if step.outcome not in ("replied", "connection-limit", "tls-failed"):
                    self._lame.note(place.source.name, address, self._clock())
                return Result(step.phase, step.outcome, step.reply, host, address)
            if not reused:
                self._lame.forget(place.source.name, address)
            keep = True
            try:
                await turn.begin()
                step = await session.send(envelope, message, laps)
            except asyncio.CancelledError:
                keep = False  # its site may be another worker's by now
                raise
            finally:
                self.pool.release(place, session, keep)
            result = Result(step.phase, step.outcome, step.reply, host, address, session.tls, 0, reused)
            if not (again and reused and step.phase == "mail" and not session.alive):
                break
            # Gone stale in the pool, as its like will have: nothing was said about this message, so that once more on
            # a new connection cannot deliver it twice.
            self.pool.discard(place, address)
        return result
