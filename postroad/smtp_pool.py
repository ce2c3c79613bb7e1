"""Open SMTP connections kept for the next message, and never more of them, nor more new ones a minute, than a site allows.

What counts is what the receiver sees: a connection counts until the host has closed it, and new ones are spaced so evenly
that their number in any minute holds also where a site has just come from another worker, which nobody tells us.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from postroad.egress import Source
from postroad.reply import Step, failed
from postroad.shaping.limits import Limits
from postroad.smtp_session import Failure, Laps, Session, Transport

WAIT_S = 2  # for a connection to come free, before connection-limit
FULL_S = 3  # after that a place is full, as long as no connection comes free
CLOSING_S = 30  # how long `close_site` waits for connections in use
REMEMBERED = 50_000  # sites whose last new connection is known, and hosts whose TLS is broken
CALM = 40  # new connections a minute from which on 5 % of them is a reserve of two

_K = TypeVar("_K")
_V = TypeVar("_V")


class Place(NamedTuple):
    """Where limits hold: a site (or "name#shard", its part of one worker) as seen from one source."""

    site: str
    source: Source


@dataclass(slots=True, eq=False)
class _Idle:
    address: str
    session: Session
    timer: asyncio.TimerHandle


@dataclass(slots=True, eq=False)
class _Waiter:
    address: str
    future: "asyncio.Future[_Grant]"
    urgent: bool = False


@dataclass(slots=True)
class _Grant:
    """What an asker gets: a session to use again, a free place to open one, or (refused) neither."""

    session: Session | None = None
    refused: bool = False


@dataclass(slots=True, eq=False)
class _Spot:
    """The connections of one place."""

    place: Place
    limits: Limits  # the latest
    open: int = 0  # connections in use, idle, being opened or being closed
    closing: int = 0
    held: bool = False  # a decision is being made: what comes free meanwhile is part of it
    idle: list[_Idle] = field(default_factory=list)  # the longest idle first
    waiters: deque[_Waiter] = field(default_factory=deque)
    full_until: float = 0
    lost: bool = False  # another worker has it by now, and connections of ours are still in use
    alarm: asyncio.TimerHandle | None = None  # when the next connection may begin


def spacing(per_minute: int) -> tuple[float, float]:
    """Seconds between new connections, and how many may begin at once (a part of one: so much of it may a late one be caught
    up with), for a cap that holds in any 60 s.

    It holds also across two owners of a site who know nothing of each other: from 40 on since 95 % come evenly and 2 % at
    once, twice; below, the pool lets the first one wait as well.
    """
    return 60 / (0.95 * per_minute), max(1.0, 0.02 * per_minute) if per_minute >= CALM else 1.0


class Pool:
    """Connections by place. Every `acquire` that returned is followed by one `release`. `clock`: seconds."""

    def __init__(
        self,
        transport: Transport,
        port: int = 25,
        clock: Callable[[], float] = time.monotonic,
        wait_s: float = WAIT_S,
        full_s: float = FULL_S,
    ) -> None:
        self._transport, self._port, self._clock = transport, port, clock
        self._wait_s, self._full_s = wait_s, full_s
        self._sites: dict[str, dict[str, _Spot]] = {}  # by source name
        self._begun: dict[str, dict[str, float]] = {}  # when a place's even spacing has caught up with what was begun
        self._left: dict[str, dict[str, float]] = {}  # the same of sites that were closed: they may come back
        self._broken_tls: dict[tuple[str, str], float] = {}  # site and address -> until
        self._given_away: dict[str, asyncio.Event] = {}  # set when its last connection is closed
        self._shut = False

    @property
    def connections(self) -> dict[str, int]:
        """Open connections by site, of those that have any."""
        return {site: open for site in self._sites if (open := self.connections_for(site))}

    def connections_for(self, site: str) -> int:
        """Open connections of a site, those that are being opened or closed among them."""
        return sum(spot.open for spot in self._sites.get(site, {}).values())

    async def acquire(
        self, place: Place, host: str, address: str, limits: Limits, laps: Laps | None = None, urgent: bool = False
    ) -> tuple[Session, bool]:
        """A session to the address and whether it was used before; `urgent` before those that wait and are not. Raises Failure (connection-limit among others)."""
        spot = self._spot(place, limits)
        grant = self._grant(spot, address, opens=not spot.waiters)
        if grant is None:
            grant = await self._wait(spot, address, urgent)
        if grant.refused:
            raise Failure(_full(place, spot.limits))
        if grant.session is not None:
            return grant.session, True
        try:
            return await self._open(spot, host, address, limits, laps or Laps(self._clock)), False
        except BaseException:
            self._freed(spot)
            raise

    def release(self, place: Place, session: Session, keep: bool = True) -> None:
        """Give a session back: kept while it is alive and within the limits, else closed. Not to `keep`: of a delivery that was
        cancelled, for its site may be another worker's by now."""
        spot = self._sites[place.site][place.source.name]
        limits, surplus = spot.limits, spot.open - spot.closing > spot.limits.connections
        spent = session.sent >= limits.messages_per_connection or limits.idle_s <= 0
        lost = spot.lost or place.site in self._given_away
        if not (keep and session.alive) or spent or surplus or self._shut or lost:
            self._close(spot, session)
            return
        timer = asyncio.get_running_loop().call_later(limits.idle_s, self._expire, spot, session)
        spot.idle.append(_Idle(session.address, session, timer))
        self._serve(spot)

    def is_full(self, place: Place, limits: Limits) -> bool:
        """Somebody has waited in vain lately, and still no connection is free: asking now would be in vain too."""
        spot, now = self._sites.get(place.site, {}).get(place.source.name), self._clock()
        if spot is not None and spot.idle:
            return False
        pause = self._may_begin(place, limits) - now
        if spot is None or not spot.open:
            return pause > self._wait_s
        return now < spot.full_until and (spot.open >= limits.connections or pause > 0)

    def free(self, place: Place, limits: Limits) -> int:
        """How many connections of a place are idle or may yet be opened; below zero where some wait for one."""
        spot = self._sites.get(place.site, {}).get(place.source.name)
        return limits.connections - (spot.open - len(spot.idle) + len(spot.waiters) if spot else 0)

    def discard(self, place: Place, address: str) -> None:
        """Close the idle connections of a place to an address: one of them turned out to be stale."""
        spot = self._sites.get(place.site, {}).get(place.source.name)
        for idle in list(spot.idle) if spot else ():
            if spot and idle.address == address:
                self._close_idle(spot, idle)

    async def close_site(self, site: str, wait_s: float = CLOSING_S) -> int:
        """Close a site's connections, for its partition goes to another worker: return when all sockets are closed.

        Those in use are not aborted: they close when they are released, and are waited for that long; how many are left
        is returned. Meanwhile nobody gets a connection to the site; afterwards it may come back.
        """
        gone = self._given_away.setdefault(site, asyncio.Event())
        for spot in list(self._sites.get(site, {}).values()):
            for waiter in list(spot.waiters):
                self._refuse(spot, waiter)
            for idle in list(spot.idle):
                self._close_idle(spot, idle)
        try:
            if site in self._sites:
                async with asyncio.timeout(wait_s):
                    await gone.wait()
        except TimeoutError:
            pass
        finally:
            self._given_away.pop(site, None)
            if (begun := self._begun.pop(site, None)) is not None:
                _remember(self._left, site, {**self._left.get(site, {}), **begun})
            for spot in self._sites.get(site, {}).values():
                spot.lost = True
        return self.connections_for(site)

    def close(self) -> None:
        """Close what is idle; sessions in use close when they are released."""
        self._shut = True
        for spots in list(self._sites.values()):
            for spot in list(spots.values()):
                for idle in list(spot.idle):
                    self._close_idle(spot, idle)

    # opening

    async def _open(self, spot: _Spot, host: str, address: str, limits: Limits, laps: Laps) -> Session:
        place, key = spot.place, (spot.place.site, address)
        broken = self._broken_tls.get(key, 0) > self._clock()
        starttls = limits.tls == "required" or (limits.tls == "opportunistic" and not broken)
        try:
            return await self._transport.connect(place.source, host, address, self._port, limits, starttls, laps)
        except Failure as failure:
            step = failure.step
            # Plain text after STARTTLS may be an attack: no mail to such a host now
            if step.phase != "starttls" or step.outcome in ("replied", "protocol-error") or limits.tls == "required":
                raise
        _remember(self._broken_tls, key, self._clock() + limits.broken_tls_s)
        pause = self._may_begin(place, limits) - self._clock()
        if pause > self._wait_s:
            raise Failure(step)
        self._begin(place, limits)
        await asyncio.sleep(max(0, pause))
        return await self._transport.connect(place.source, host, address, self._port, limits, False, laps)

    def _may_begin(self, place: Place, limits: Limits) -> float:
        """When a new connection may begin. A place that comes back waits before the first one: its other owner may just have begun
        one, and were some at once again, many moves in a minute would add up."""
        every, at_once = spacing(max(1, limits.new_per_minute))
        begun = self._begun.get(place.site, {}).get(place.source.name)
        if begun is None:
            left = self._left.get(place.site, {}).get(place.source.name)
            waits = left is not None or limits.new_per_minute < CALM
            begun = max(left or 0, self._clock() + every * at_once) if waits else 0
            sources = self._begun.get(place.site, {})
            sources[place.source.name] = begun
            _remember(self._begun, place.site, sources)
        return begun - (at_once - 1) * every

    def _begin(self, place: Place, limits: Limits) -> None:
        every, _ = spacing(max(1, limits.new_per_minute))
        begun = self._begun[place.site]
        begun[place.source.name] = max(self._clock(), begun[place.source.name]) + every

    # places

    def _spot(self, place: Place, limits: Limits) -> _Spot:
        """With the limits of now: what is idle and over them is closed."""
        if self._shut or place.site in self._given_away or limits.connections < 1 or limits.new_per_minute < 1:
            raise Failure(_full(place, limits))
        spots = self._sites.setdefault(place.site, {})
        spot = spots.get(place.source.name)
        if spot is None:
            spot = spots[place.source.name] = _Spot(place, limits)
        spot.limits, spot.lost = limits, False
        if (surplus := spot.open - spot.closing - limits.connections) > 0:
            for idle in spot.idle[:surplus]:
                self._close_idle(spot, idle)
        if spot.waiters:  # there may be more room than before
            self._serve(spot)
        return spot

    def _grant(self, spot: _Spot, address: str, opens: bool) -> _Grant | None:
        """A session to use again, or where it `opens` (nobody waits for longer to do so) a place to open one."""
        spot.held = True
        try:
            if (session := self._reuse(spot, address)) is not None:
                return _Grant(session)
            return self._room(spot) if opens else None
        finally:
            spot.held = False

    def _reuse(self, spot: _Spot, address: str) -> Session | None:
        limits = spot.limits
        for idle in reversed(list(spot.idle)):  # the freshest: the others may go stale and be closed
            if idle.address == address:
                if idle.session.alive and idle.session.sent < limits.messages_per_connection:
                    idle.timer.cancel()
                    spot.idle.remove(idle)
                    return idle.session
                self._close_idle(spot, idle)
        return None

    def _room(self, spot: _Spot) -> _Grant | None:
        limits, now = spot.limits, self._clock()
        at = self._may_begin(spot.place, limits)
        if now < at:
            if spot.alarm is None:
                spot.alarm = asyncio.get_running_loop().call_later(at - now, self._ring, spot)
            return None
        if spot.open >= limits.connections and spot.idle and not spot.closing:
            self._close_idle(spot, spot.idle[0])  # another host has it and does not need it now
        if spot.open >= limits.connections:
            return None
        spot.open += 1
        self._begin(spot.place, limits)
        return _Grant()

    def _ring(self, spot: _Spot) -> None:
        spot.alarm = None
        self._serve(spot)

    async def _wait(self, spot: _Spot, address: str, urgent: bool) -> _Grant:
        loop = asyncio.get_running_loop()
        waiter = _Waiter(address, loop.create_future(), urgent)
        before = sum(other.urgent for other in spot.waiters) if urgent else len(spot.waiters)  # they stand in front
        spot.waiters.insert(before, waiter)
        timer = loop.call_later(self._wait_s, self._refuse, spot, waiter)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter in spot.waiters:
                spot.waiters.remove(waiter)
            elif not waiter.future.cancelled():  # cancelled after it had been served: the next one may have it
                grant = waiter.future.result()
                if grant.session is not None:
                    self._close(spot, grant.session)
                elif not grant.refused:
                    self._freed(spot)
            self._forget(spot)
            raise
        finally:
            timer.cancel()

    def _refuse(self, spot: _Spot, waiter: _Waiter) -> None:
        if not waiter.future.done():
            spot.full_until = self._clock() + self._full_s
            spot.waiters.remove(waiter)
            waiter.future.set_result(_Grant(refused=True))
            self._forget(spot)

    def _serve(self, spot: _Spot) -> None:
        """In turn; those behind one that may not open a connection yet get what is idle to their hosts."""
        opens = True
        for waiter in list(spot.waiters):
            if not opens and not spot.idle:
                return
            grant = None if waiter.future.done() else self._grant(spot, waiter.address, opens)  # done: cancelled
            if grant is None and not waiter.future.done():
                opens = False
                continue
            spot.waiters.remove(waiter)
            if grant is not None:
                waiter.future.set_result(grant)

    # closing

    def _expire(self, spot: _Spot, session: Session) -> None:
        for idle in spot.idle:
            if idle.session is session:
                return self._close_idle(spot, idle)

    def _close_idle(self, spot: _Spot, idle: _Idle) -> None:
        if idle in spot.idle:  # closing one may have led to closing another
            idle.timer.cancel()
            spot.idle.remove(idle)
            self._close(spot, idle.session)

    def _close(self, spot: _Spot, session: Session) -> None:
        spot.closing += 1
        session.close(lambda: self._closed(spot))

    def _closed(self, spot: _Spot) -> None:
        spot.closing -= 1
        self._freed(spot)

    def _freed(self, spot: _Spot) -> None:
        spot.open -= 1
        if not spot.held:
            self._serve(spot)
            self._forget(spot)

    def _forget(self, spot: _Spot) -> None:
        site, source = spot.place.site, spot.place.source.name
        if spot.open or spot.waiters:
            return
        if spot.alarm is not None:
            spot.alarm.cancel()
            spot.alarm = None
        spots = self._sites.get(site, {})
        if spots.get(source) is spot:
            del spots[source]
            if not spots:
                del self._sites[site]
                if site in self._given_away:
                    self._given_away[site].set()


def _full(place: Place, limits: Limits) -> Step:
    text = f"{limits.connections} connections and {limits.new_per_minute} new ones a minute to {place.site} are in use"
    return failed("connect", "connection-limit", text)


def _remember(known: dict[_K, _V], key: _K, value: _V) -> None:
    """Put it last, and let the first go where there are too many."""
    known.pop(key, None)
    known[key] = value
    if len(known) > REMEMBERED:
        del known[next(iter(known))]
