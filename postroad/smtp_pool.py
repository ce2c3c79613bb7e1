"""Open SMTP connections kept for the next message, and no more of them to a site than it allows."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from postroad.egress import Source
from postroad.reply import failed
from postroad.smtp_session import Failure, Session, SmtpTimeouts, Transport

Key = tuple[str, str]  # egress source, host address


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """Bounds of a pool; seconds. A site (or its shard) has `connections` at most, idle ones counted."""

    connections: int = 10  # KumoMTA's shipped default for a site is of this order; Outlook and Google ask for 5
    messages: int = 100  # on one connection; then it is closed
    idle_s: float = 60  # RFC 5321 4.5.3.2.7 lets a host close after 300 s; most close earlier
    wait_s: float = 2  # for a connection to come free, before connection-limit
    full_s: float = 3  # after that the site is full, as long as no connection comes free


@dataclass(slots=True, eq=False)
class _Idle:
    key: Key
    session: Session
    since: float


@dataclass(slots=True, eq=False)
class _Waiter:
    key: Key
    future: "asyncio.Future[_Grant]"


@dataclass(slots=True)
class _Grant:
    """What an asker gets: a session to use again, a free place to open one, or (refused) neither."""

    session: Session | None = None
    refused: bool = False


@dataclass(slots=True)
class _Site:
    open: int = 0  # connections in use, idle, or being opened
    idle: list[_Idle] = field(default_factory=list)  # the longest idle first
    waiters: deque[_Waiter] = field(default_factory=deque)
    full_until: float = 0


class Pool:
    """Connections per site. Every `acquire` that returned is followed by one `release`."""

    def __init__(
        self,
        transport: Transport,
        settings: PoolSettings | None = None,
        port: int = 25,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport, self._port, self._clock = transport, port, clock
        self._settings = settings or PoolSettings()
        self._sites: dict[str, _Site] = {}
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def timeouts(self) -> SmtpTimeouts:
        """Those of its connections."""
        return self._transport.timeouts

    @property
    def connections(self) -> dict[str, int]:
        """Open connections by site."""
        return {name: site.open for name, site in self._sites.items()}

    async def acquire(self, site: str, source: Source, host: str, address: str) -> tuple[Session, bool]:
        """A session to the address and whether it was used before. Raises Failure (connection-limit among others)."""
        place = self._sites.setdefault(site, _Site())
        key = (source.name, address)
        grant = self._grant(place, key) if not place.waiters else None
        if grant is None:
            grant = await self._wait(site, place, key)
        if grant.refused:
            raise Failure(failed("connect", "connection-limit", f"{self._settings.connections} to {site} are in use"))
        if grant.session is not None:
            return grant.session, True
        try:
            return await self._transport.connect(source, host, address, self._port), False
        except BaseException:
            self._freed(site, place)
            raise

    def release(self, site: str, source: Source, session: Session) -> None:
        """Give a session back: kept while it is alive and below its number of messages, else closed."""
        place = self._sites[site]
        if session.alive and session.sent < self._settings.messages:
            place.idle.append(_Idle((source.name, session.address), session, self._clock()))
            self._serve(place)
            self._arm()
        else:
            session.close()
            self._freed(site, place)

    def is_full(self, site: str) -> bool:
        """Somebody has waited in vain lately, and still no connection is free: asking now would be in vain too."""
        place = self._sites.get(site)
        if place is None or place.idle or place.open < self._settings.connections:
            return False
        return self._clock() < place.full_until

    def discard(self, site: str, source: Source, address: str) -> None:
        """Close the idle connections from a source to an address: one of them turned out to be stale."""
        place = self._sites.get(site)
        if place is not None:
            key = (source.name, address)
            self._close_idle(site, place, [idle for idle in place.idle if idle.key == key])

    def sweep(self) -> None:
        """Close connections that are idle for too long or that the host has closed. The pool calls it by itself."""
        oldest = self._clock() - self._settings.idle_s
        for name, place in list(self._sites.items()):
            stale = [idle for idle in place.idle if idle.since <= oldest or not idle.session.alive]
            self._close_idle(name, place, stale)

    def close(self) -> None:
        """Close what is idle and stop sweeping; sessions in use close when they are released."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        self._settings = PoolSettings(self._settings.connections, 0, 0, self._settings.wait_s)
        self.sweep()

    def _close_idle(self, site: str, place: _Site, stale: list[_Idle]) -> None:
        place.idle = [idle for idle in place.idle if idle not in stale]
        for idle in stale:
            idle.session.close()
            self._freed(site, place)

    def _arm(self) -> None:
        if self._sweeper is None and self._settings.idle_s:
            self._sweeper = asyncio.get_running_loop().call_later(self._settings.idle_s / 4, self._sweep_and_arm)

    def _sweep_and_arm(self) -> None:
        self._sweeper = None
        self.sweep()
        if any(place.idle for place in self._sites.values()):
            self._arm()

    def _grant(self, place: _Site, key: Key) -> _Grant | None:
        for at in range(len(place.idle) - 1, -1, -1):  # the freshest: the others may go stale and be closed
            if place.idle[at].key == key:
                session = place.idle.pop(at).session
                if session.alive:
                    return _Grant(session)
                place.open -= 1
        if place.open >= self._settings.connections and place.idle:
            place.idle.pop(0).session.close()  # another host or source has it and does not need it now
            place.open -= 1
        if place.open >= self._settings.connections:
            return None
        place.open += 1
        return _Grant()

    async def _wait(self, site: str, place: _Site, key: Key) -> _Grant:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(key, loop.create_future())
        place.waiters.append(waiter)
        timer = loop.call_later(self._settings.wait_s, self._refuse, place, waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.cancelled():
                if waiter in place.waiters:
                    place.waiters.remove(waiter)
            else:  # cancelled after it had been served: the next one may have it
                grant = waiter.future.result()
                if grant.session is not None:
                    grant.session.close()
                if not grant.refused:
                    self._freed(site, place)
            raise
        finally:
            timer.cancel()

    def _refuse(self, place: _Site, waiter: _Waiter) -> None:
        if not waiter.future.done():
            place.full_until = self._clock() + self._settings.full_s
            place.waiters.remove(waiter)
            waiter.future.set_result(_Grant(refused=True))

    def _serve(self, place: _Site) -> None:
        while place.waiters:
            if place.waiters[0].future.done():  # cancelled
                place.waiters.popleft()
                continue
            grant = self._grant(place, place.waiters[0].key)
            if grant is None:
                return
            waiter = place.waiters.popleft()
            waiter.future.set_result(grant)

    def _freed(self, site: str, place: _Site) -> None:
        place.open -= 1
        self._serve(place)
        if not place.open and not place.waiters and self._sites.get(site) is place:
            del self._sites[site]
