"""Departure: from which source a message leaves, and when. All of a worker's memory of what it has sent is here.

A site#shard has one owner, so its counts are exact while it has it; tables keep them for the next one (see pacing). Sources are
asked in the order of `egress.ranked`: one that is suspended, over its warm-up plan, or over its hour or day is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, cast

from avro.records import Message
from postroad.egress import Pool, Source, ranked
from postroad.orders import Orders
from postroad.pacing import DAY_MS, HOUR_MS, SLOTS, Pace, Window, every_ms, margin, unknown_ms
from postroad.shaping.automatic import Standing, effective
from postroad.shaping.limits import Limits, TenantLimits, split
from postroad.shaping.policy import Policy
from postroad.shaping.warmup import Plan
from postroad.smtp import Client, Place
from postroad.smtp import Pool as Connections

PATIENCE_MS = 1100  # of one a second too: a place that is nearer is waited for, a later one parks the message
YIELDS_MS = 5000  # what has waited for so long beyond its time lets nobody pass any more: it holds a connection
WARM_UNKNOWN = 100  # one in so many of a day's plan may be under way: a crash leaves no more than these uncounted
ORDER_MS = 60_000  # an order without an end is asked about again
MANY = 10_000  # rates in memory before those that have passed are let go


class Wait(NamedTuple):
    """None may leave now: not before `until` (ms)."""

    until: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Resolved:
    """What the policy says of a source at a site#shard."""

    limits: Limits
    plan: Plan | None
    warm_to: tuple[int, int]  # shard, shards


@dataclass(slots=True)
class Leave:
    """A message may leave: what it counts in. `due`: ms of the pace's clock."""

    source: Source
    limits: Limits
    version: str
    due: float
    rates: list[tuple[str, Pace, float]] = field(default_factory=list)
    windows: list[tuple[str, Window]] = field(default_factory=list)
    warm: Window | None = None
    open: bool = True
    urgent: bool = False  # goes before what is not, at the site's connections and in its rates

    def done(self) -> None:
        """Its result is written down, or will never be known."""
        if self.open:
            self.open = False
            for _, window in self.windows:
                window.under_way -= 1
            if self.warm is not None:
                self.warm.under_way -= 1


@dataclass(slots=True)
class _Partition:
    since: float
    paces: dict[str, Pace] = field(default_factory=dict)
    windows: dict[str, tuple[Window, Window]] = field(default_factory=dict)
    warm: dict[str, Window] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)  # until the standing says so
    places: set[str] = field(default_factory=set)


def source_key(place: str, source: str) -> str:
    """Of tables."""
    return f"{place}\0{source}"


def tenant_key(place: str, tenant: str) -> str:
    """Of tables."""
    return f"{place}\0\0{tenant}"


def place_of(message: Message) -> str:
    """The site#shard that a message was routed to; empty where it was not."""
    route = message["route"]
    return f"{route['site']}#{route['shard']}" if route else ""


class Departures:
    """One per process. `clock`: seconds, never steps back. `rests`: what was taken over rests first (tests do without)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, rests: bool = True) -> None:
        self._clock, self._rests = clock, rests
        self._partitions: dict[int, _Partition] = {}
        self._version = ""
        self._resolved: dict[tuple[str, int, str], _Resolved] = {}
        self._tenants: dict[tuple[str, str, int], TenantLimits | None] = {}

    # what the policy says

    def _of(self, policy: Policy, site: str, shard: int, source: str) -> _Resolved:
        if policy.version != self._version:
            self._version = policy.version
            self._resolved.clear()
            self._tenants.clear()
        key = (site, shard, source)
        if (found := self._resolved.get(key)) is None:
            if len(self._resolved) > MANY:
                self._resolved.clear()
            whole = policy.limits(site, source)
            found = _Resolved(share(whole, shard), policy.warmup(source), (shard, whole.shards))
            self._resolved[key] = found
        return found

    def _tenant(self, policy: Policy, site: str, shard: int, tenant: str) -> TenantLimits | None:
        key = (tenant, site, shard)
        if key not in self._tenants:
            if len(self._tenants) > MANY:
                self._tenants.clear()
            whole = policy.tenant(tenant, site)
            self._tenants[key] = whole.share(shard, policy.limits(site).shards) if whole else None
        return self._tenants[key]

    # memory

    def _partition(self, number: int) -> _Partition:
        found = self._partitions.get(number)
        if found is None:
            found = self._partitions[number] = _Partition(self._now() if self._rests else -1e12)
        return found

    def _now(self) -> float:
        return self._clock() * 1000

    def _pace(self, own: _Partition, key: str, every: float, state: Any) -> Pace:
        pace = own.paces.get(key)
        if pace is None:
            if len(own.paces) > MANY:
                now = self._now()
                own.paces = {name: each for name, each in own.paces.items() if not each.is_over(now)}
            now, kept = self._now(), state.rate_limits.get(key) or 0.0
            # of a clock that was wrong: no rate is paid off later than this
            ahead = min(max(0.0, kept - state.now), PATIENCE_MS + 2 * unknown_ms(every))
            start = max(now + ahead if ahead else 0.0, own.since + unknown_ms(every))
            pace = own.paces[key] = Pace(start, start)
        return pace

    def _windows(
        self, own: _Partition, key: str, caps: tuple[int | None, int | None], state: Any
    ) -> tuple[Window, Window]:
        found = own.windows.get(key)
        if found is None:
            found = own.windows[key] = Window(HOUR_MS // SLOTS), Window(DAY_MS // SLOTS)
            raw = state.windows.get(key)
            if raw:
                found[1].load(raw[found[0].load(raw) :])
            for window, cap in zip(found, caps, strict=True):
                window.move(state.now)
                if self._rests and cap is not None:
                    window.counts[-1] += margin(cap)  # what its last owner had under way
        return found

    def _warm(self, own: _Partition, key: str, state: Any) -> Window:
        found = own.warm.get(key)
        if found is None:
            found = own.warm[key] = Window(DAY_MS, 0)
            if kept := state.warmup.get(key):
                found.head, found.counts = kept.day, [kept.used]
        found.move(state.now)
        return found

    # choice

    def leave(
        self, message: Message, pool: Pool, place: str, policy: Policy, orders: Orders, state: Any
    ) -> Leave | Wait:
        """The source that takes the message and the place it has taken there; or why it waits, and until when."""
        route = message["route"]
        assert route is not None  # the caller has looked
        site, shard, tenant, own = route["site"], route["shard"], message["tenant"], self._partition(state.partition)
        own.places.add(place)
        counted: list[tuple[str, Window, int]] = []
        limits = self._tenant(policy, site, shard, tenant)
        key = tenant_key(place, tenant)
        standing: Standing | None = state.shaping.get(key)
        if standing is not None and standing.is_suspended(state.now):
            return self.later(own, key, standing.suspended_until, every_ms(100), state, "tenant-suspended")
        rates: list[tuple[str, float]] = []
        if limits is not None:
            until = self._count(own, key, (limits.per_hour, limits.per_day), state, counted)
            if until > state.now:
                return self.later(own, key, until, every_ms(limits.per_second or 100), state, "tenant-limit")
            if limits.per_second is not None:
                rates.append((key, every_ms(limits.per_second)))
        soonest: Wait | None = None
        for source in candidates(pool, message["message_id"]):
            found = self._usable(message, source, place, policy, orders, own, counted, state)
            if isinstance(found, Leave):
                found.urgent = message["stream"] != "broadcast"
                return self._place(
                    found, own, [*rates, (source_key(place, source.name), every_ms(found.limits.per_second))], state
                )
            if soonest is None or found.until < soonest.until:
                soonest = found
        if soonest is None:
            return Wait(state.now + ORDER_MS, "egress-source")
        return self.later(own, source_key(place, ""), soonest.until, every_ms(100), state, soonest.reason)

    def _usable(
        self, message: Message, source: Source, place: str, policy: Policy, orders: Orders, own: _Partition,
        counted: list[tuple[str, Window, int]], state: Any,
    ) -> Leave | Wait:  # fmt: skip
        route, now = message["route"], state.now
        assert route is not None  # as in `leave`
        order = orders.suspended(route["site"], message["tenant"], source.name, now)
        if order is not None:
            return Wait(order.get("until") or now + ORDER_MS, "suspended")
        key = source_key(place, source.name)
        standing: Standing | None = state.shaping.get(key)
        if standing is not None and standing.is_suspended(now):
            return Wait(standing.suspended_until, "source-suspended")
        if own.refused and own.refused.get(key, 0) > now:
            return Wait(own.refused[key], "source-suspended")
        resolved = self._of(policy, route["site"], route["shard"], source.name)
        limits, warm = resolved.limits, None
        if limits.connections < 1:
            return Wait(now, "rerouted")  # a shard that the file does not have any more
        if standing is not None:
            limits = effective(limits, standing, now)
        mine = list(counted)
        if (until := self._count(own, key, (limits.per_hour, limits.per_day), state, mine)) > now:
            return Wait(until, "rate-limit")
        if resolved.plan is not None:
            allowance = resolved.plan.allowance(now // DAY_MS, *resolved.warm_to)
            if allowance is not None:
                warm, tomorrow = self._warm(own, key, state), (now // DAY_MS + 1) * DAY_MS
                kept = state.warmup.get(key)
                bounced = kept.bounced if kept is not None and kept.day == warm.head else 0
                if warm.used >= allowance or resolved.plan.paused(warm.used, bounced, 0):
                    return Wait(tomorrow, "warm-up")
                if not warm.has_room(allowance, WARM_UNKNOWN):
                    return Wait(now + 1000, "warm-up")
        return Leave(source, limits, policy.version, 0.0, [], [(name, window) for name, window, _ in mine], warm)

    def _count(
        self, own: _Partition, key: str, caps: tuple[int | None, int | None], state: Any,
        counted: list[tuple[str, Window, int]],
    ) -> int:  # fmt: skip
        """Now, or when the windows of a key have room (ms)."""
        if caps == (None, None):
            return 0
        until = 0
        for window, cap in zip(self._windows(own, key, caps, state), caps, strict=True):
            window.move(state.now)
            if cap is not None and not window.has_room(cap):
                until = max(until, window.free_at(cap, state.now))
            counted.append((key, window, cap or 0))
        return until

    def _place(self, found: Leave, own: _Partition, rates: list[tuple[str, float]], state: Any) -> Leave | Wait:
        now = self._now()
        paces = [(key, self._pace(own, key, every, state), every) for key, every in rates]
        due = max(pace.next_place(now, found.urgent) for _, pace, _ in paces)
        if due - now > PATIENCE_MS:
            _, pace, every = max(paces, key=lambda each: each[1].next_place(now))
            return Wait(state.now + round(pace.park(due, every) - now), "rate-limit")
        for _, pace, every in paces:
            pace.reserve(now, every, found.urgent)
        for _, window in found.windows:
            window.take()
        if found.warm is not None:
            found.warm.take()
        found.due, found.rates = due, paces
        return found

    def later(self, own: _Partition, key: str, until: int, every: float, state: Any, reason: str) -> Wait:
        """Behind all of `key` that were told before, and not before `until`: each later than the last."""
        now, pace = self._now(), own.paces.setdefault(f"{key}\0{reason}", Pace())
        return Wait(state.now + round(pace.park(now + max(0, until - state.now), every) - now), reason)

    def crowded(self, message: Message, place: str, policy: Policy, ahead: int, state: Any) -> Wait:
        """When a message comes back that has `ahead` others of its site before it, none of which it may pass."""
        route, own = message["route"], self._partition(state.partition)
        if route is None:
            return Wait(state.now, "crowded")
        every = every_ms(max(0.001, self._of(policy, route["site"], route["shard"], route["source"]).limits.per_second))
        return self.later(own, source_key(place, ""), state.now + round(ahead * every), every, state, "crowded")

    # on the way

    async def begin(self, found: Leave) -> None:
        """Return when the message may begin at every rate: its place is taken here, however late it has woken up."""
        for _, pace, _ in found.rates:
            pace.urgent += found.urgent
        try:
            while (wait := max(self._waits(found))) > 0:
                await asyncio.sleep(wait / 1000)
        finally:
            for _, pace, _ in found.rates:
                pace.urgent -= found.urgent
        now = self._now()
        for _, pace, every in found.rates:
            pace.begin(now, every)

    def _waits(self, found: Leave) -> list[float]:
        now = self._now()
        waits = [found.due - now, *(pace.wait(now, every) for _, pace, every in found.rates)]
        if not found.urgent and now - found.due < YIELDS_MS:
            waits += [every for _, pace, every in found.rates if pace.urgent]
        return waits

    def client(self, shared: Client, found: Leave, pool: Connections) -> Client:
        """The client for one message: it takes its place in the rates when it has a connection, not before."""
        return Client(cast(Connections, _Turn(pool, self, found)), shared._resolver, lame=shared._lame)

    def refuse(self, partition: int, key: str, until: int) -> None:
        """The site has turned a source away; settle writes the standing a moment later."""
        self._partition(partition).refused[key] = until

    def kept(self, found: Leave, partition: int, now: int) -> tuple[list[tuple[str, float]], list[tuple[str, bytes]]]:
        """What tables keep for the next owner: rates (ms), windows."""
        clock, own = self._now(), self._partition(partition)
        rates = [(key, now + pace.actual - clock) for key, pace, _ in found.rates]
        names = dict.fromkeys(key for key, _ in found.windows)
        return rates, [
            (key, b"".join(window.pack() for window in own.windows[key])) for key in names if key in own.windows
        ]

    def lost(self, partition: int) -> set[str]:
        """Another worker gets a partition: its places, nothing of which is remembered."""
        own = self._partitions.pop(partition, None)
        return own.places if own else set()


class _Turn:
    """A pool's `acquire` and then the message's place in the rates."""

    def __init__(self, pool: Connections, departures: Departures, found: Leave) -> None:
        self._pool, self._departures, self._found = pool, departures, found
        self.release, self.discard = pool.release, pool.discard

    async def acquire(self, place: Place, host: str, address: str, limits: Limits, laps: Any = None) -> Any:
        session, reused = await self._pool.acquire(place, host, address, limits, laps, self._found.urgent)
        try:
            await self._departures.begin(self._found)
        except BaseException:
            self._pool.release(place, session)
            raise
        return session, reused


def candidates(pool: Pool, message_id: str) -> list[Source]:
    """The sources of a pool as a message tries them; ranked only where there is a choice."""
    if len(pool.sources) == 1:
        return list(pool.sources) if pool.sources[0].weight > 0 else []
    return ranked(pool, message_id)


def share(whole: Limits, shard: int) -> Limits:
    """`Limits.share`, its rate in whole messages a second where there are enough: thirds of a message cannot be kept to."""
    part = whole.share(shard)
    if whole.shards > 1 and whole.per_second >= whole.shards and part.connections:
        return replace(part, per_second=float(split(int(whole.per_second), shard, whole.shards)))
    return part
