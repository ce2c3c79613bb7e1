"""Departure: from which source a message leaves, and when. What has been sent is remembered in `Used`, by partition.

A site#shard has one owner, so its counts are exact while it has it; tables keep them for the next one (see used). Sources are
asked in the order of `egress.ranked`: one that is suspended, over its warm-up plan, or over its hour or day is passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from avro.records import Grade, Message
from postroad.egress import Pool, Source, ranked
from postroad.orders import Orders
from postroad.pacing import DAY_MS, Window, every_ms
from postroad.reply import Envelope, Result
from postroad.reputation import Standings, rate_of_sender, rate_of_source
from postroad.shaping.automatic import Standing, effective
from postroad.shaping.policy import Policy
from postroad.shaping.shares import Shares
from postroad.smtp import Client, Place, Turn
from postroad.used import PATIENCE_MS, WARM_UNKNOWN, Held, Kept, Leave, NotNow, Used

__all__ = ["PATIENCE_MS", "Departures", "Leave", "Wait", "candidates", "place_of", "source_key", "tenant_key"]

YIELDS_MS = 5000  # what has waited for so long beyond its time lets nobody pass any more: it holds a connection
WRITES_MS = 200  # what a take-over charges is written by then
ORDER_MS = 60_000  # an order without an end is asked about again
RESTING_SHOWN = 100  # likewise
WARMING_SHOWN = 20  # sources at sites that metrics tell of


class Wait(NamedTuple):
    """None may leave now: not before `until` (ms)."""

    until: int
    reason: str


def source_key(place: str, source: str) -> str:
    """Of tables."""
    return f"{place}\0{source}"


def tenant_key(place: str, tenant: str) -> str:
    """Of tables."""
    return f"{place}\0\0{tenant}"


def is_urgent(message: Message) -> bool:
    """Whether it goes before a broadcast."""
    return message["stream"] != "broadcast"


def place_of(message: Message) -> str:
    """The site#shard that a message was routed to; empty where it was not."""
    route = message["route"]
    return f"{route['site']}#{route['shard']}" if route else ""


class Departures:
    """One per process. `clock`: seconds, never steps. `rests`: what was taken over rests first (tests do without). `complaints`: of
    the mail of a source that is named, how much it has sent of late and how much of that was complained about;
    `standings`: of reputation (control.standings)."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        rests: bool = True,
        complaints: Callable[[str], tuple[int, int]] = lambda source: (0, 0),
        standings: Mapping[str, Grade] = MappingProxyType({}),
    ) -> None:
        self._clock, self._rests, self._complaints, self._standings = clock, rests, complaints, standings
        self._partitions: dict[int, Used] = {}
        self._shares = Shares()
        self._resting: dict[tuple[str, str, str], int] = {}  # why, site, source -> until (ms)

    # memory

    def _partition(self, number: int) -> Used:
        found = self._partitions.get(number)
        if found is None:
            found = self._partitions[number] = Used(self._now() if self._rests else -1e12, self._rests)
        return found

    def _now(self) -> float:
        return self._clock() * 1000

    # choice

    def leave(
        self, message: Message, pool: Pool, place: str, policy: Policy, orders: Orders, state: Any
    ) -> Leave | Wait:
        """The source that takes the message and the place it has taken there; or why it waits, and until when."""
        route = message["route"]
        assert route is not None  # the caller has looked
        site, shard, tenant, own = route["site"], route["shard"], message["tenant"], self._partition(state.partition)
        own.places[place] = clock = self._now()
        own.follow(state.now, clock)
        self._shares.follow(policy)
        counted: list[tuple[str, Window, int]] = []
        limits = self._shares.of_tenant(policy, site, shard, tenant)
        key = tenant_key(place, tenant)
        standing: Standing | None = state.shaping.get(key)
        if standing is not None and standing.is_suspended(state.now):
            return self.later(own, key, standing.suspended_until, every_ms(100), message, state, "tenant-suspended")
        rates: list[tuple[str, float]] = []
        slow, per_second = rate_of_sender(self._standings, message, state.now), limits.per_second if limits else None
        if slow < 1:
            whole = self._shares.of_source(policy, site, shard, route["source"]).limits
            per_second = slow * (per_second or whole.per_second)
        if per_second:
            rates.append((key, every_ms(per_second)))
        held: Held | None = None
        if limits is not None:
            until = self._count(own, key, (limits.per_hour, limits.per_day), state, counted)
            if until > state.now:
                return self.later(own, key, until, every_ms(limits.per_second or 100), message, state, "tenant-limit")
            if limits.connections:
                held = own.held.setdefault(key, Held())
                if held.count >= limits.connections:
                    until, every = state.now + round(held.each_ms), held.each_ms / limits.connections
                    return self.later(own, key, until, every, message, state, "tenant-connections")
        soonest: Wait | None = None
        sources = candidates(pool, message["message_id"])
        for source in Standings(self._standings).ordered(sources, site, state.now):
            found = self._usable(message, source, place, policy, orders, own, counted, state)
            if isinstance(found, Leave):
                found.urgent, found.held, found.own = is_urgent(message), held, own
                rates.append((source_key(place, source.name), every_ms(found.limits.per_second)))
                return self._place(found, own, rates, message, state)
            if soonest is None or found.until < soonest.until:
                soonest = found
        if soonest is None:
            return Wait(state.now + ORDER_MS, "egress-source")
        return self.later(own, source_key(place, ""), soonest.until, every_ms(100), message, state, soonest.reason)

    def _usable(
        self, message: Message, source: Source, place: str, policy: Policy, orders: Orders, own: Used,
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
            self.note_rest("source-suspended", route["site"], source.name, standing.suspended_until)
            return Wait(standing.suspended_until, "source-suspended")
        if self._resting:
            self._resting.pop(("source-suspended", route["site"], source.name), None)
        if own.refused and own.refused.get(key, 0) > now:
            return Wait(own.refused[key], "source-suspended")
        resolved = self._shares.of_source(policy, route["site"], route["shard"], source.name)
        limits, warm = resolved.limits, None
        if limits.connections < 1:
            return Wait(now, "rerouted")  # a shard that the file does not have any more
        if standing is not None:
            limits = effective(limits, standing, now)
        if (left := rate_of_source(self._standings, source.name, route["site"], now)) < 1:
            limits = replace(limits, per_second=limits.per_second * left)
        mine = list(counted)
        if (until := self._count(own, key, (limits.per_hour, limits.per_day), state, mine)) > now:
            return Wait(until, "rate-limit")
        if resolved.plan is not None:
            allowance = resolved.plan.allowance(now // DAY_MS, *resolved.warm_to)
            if allowance is not None:
                warm, tomorrow = own.warm_of(key, allowance, state), (now // DAY_MS + 1) * DAY_MS
                kept = state.warmup.get(key)
                bounced = kept.bounced if kept is not None and kept.day == warm.head else 0
                if warm.used >= allowance:
                    return Wait(tomorrow, "warm-up")
                sent, complained = self._complaints(source.name)
                if resolved.plan.paused(warm.used, bounced, 0) or resolved.plan.paused(sent, 0, complained):
                    self.note_rest("warm-up-paused", route["site"], source.name, tomorrow)
                    return Wait(tomorrow, "warm-up-paused")
                if self._resting:
                    self._resting.pop(("warm-up-paused", route["site"], source.name), None)
                if not own.is_written("warmup", key, state):
                    return Wait(now + WRITES_MS, "taken-over")
                if not warm.has_room(allowance, WARM_UNKNOWN):
                    return Wait(now + 1000, "warm-up")
        return Leave(source, limits, policy.version, 0.0, [], [(name, window) for name, window, _ in mine], warm)

    def _count(
        self, own: Used, key: str, caps: tuple[int | None, int | None], state: Any,
        counted: list[tuple[str, Window, int]],
    ) -> int:  # fmt: skip
        """When the windows of a key have room (ms); 0: now."""
        if caps == (None, None):
            return 0
        pair, until = own.windows_of(key, caps, state), 0
        if not own.is_written("windows", key, state):
            until = int(state.now) + WRITES_MS
        for window, cap in zip(pair, caps, strict=True):
            if cap is not None and not window.has_room(cap):
                until = max(until, window.free_at(cap, state.now))
            counted.append((key, window, cap or 0))
        return until

    def _place(
        self, found: Leave, own: Used, rates: list[tuple[str, float]], message: Message, state: Any
    ) -> Leave | Wait:
        now = self._now()
        paces = [(key, own.pace(key, every, now, state), every) for key, every in rates]
        due = max(pace.next_place(now, every, found.urgent) for _, pace, every in paces)
        if due - now > PATIENCE_MS:
            key, _, every = max(paces, key=lambda each: each[1].next_place(now, each[2], found.urgent))
            return self.later(own, key, state.now + round(due - now), every, message, state, "rate-limit")
        found.due, found.rates, found.began = due, paces, now
        found.take()
        return found

    def later(self, own: Used, key: str, until: int, every: float, message: Message, state: Any, reason: str) -> Wait:
        """Not before `until`, and behind all of its lane and tenant that were told before for the same key and reason."""
        now, line = self._now(), own.line(f"{key}\0{reason}")
        at = line.park(now, now + max(0, until - state.now), every, is_urgent(message), message["tenant"])
        return Wait(state.now + round(at - now), reason)

    def crowded(self, message: Message, place: str, policy: Policy, ahead: int, state: Any) -> Wait:
        """When a message comes back that has `ahead` others of its site before it, none of which it may pass."""
        route, own = message["route"], self._partition(state.partition)
        if route is None:
            return Wait(state.now, "crowded")
        self._shares.follow(policy)
        limits = self._shares.of_source(policy, route["site"], route["shard"], route["source"]).limits
        if limits.connections < 1:
            return Wait(state.now, "rerouted")  # as in `_usable`
        every = every_ms(limits.per_second)
        until = state.now + round(ahead * every)
        return self.later(own, source_key(place, ""), until, every, message, state, "crowded")

    # on the way

    async def begin(self, found: Leave) -> None:
        """Return when the message may begin at every rate: its place is taken here, however late it has woken up. Raises NotNow
        where others have gone before it, or its place was used at another host, and the next one is far: a connection is not held
        so long."""
        for _, pace, _ in found.rates:
            pace.urgent += found.urgent
        try:
            while (wait := max(self._waits(found))) > 0:
                if wait > PATIENCE_MS:
                    raise NotNow(wait)
                await asyncio.sleep(wait / 1000)
        finally:
            for _, pace, _ in found.rates:
                pace.urgent -= found.urgent
        now, found.has_begun = self._now(), True
        for _, pace, every in found.rates:
            pace.begin(now, every)

    def _waits(self, found: Leave) -> list[float]:
        now = self._now()
        waits = [found.due - now, *(pace.wait(now, every) for _, pace, every in found.rates)]
        if not found.urgent and now - found.due < YIELDS_MS:
            waits += [every for _, pace, every in found.rates if pace.urgent]
        return waits

    async def deliver(
        self, client: Client, found: Leave, message: Message, envelope: Envelope, content: bytes, state: Any
    ) -> Result | Wait:
        """`Client.deliver`; the message takes its place in the rates when it has a connection, not before. Wait: that is not soon.
        Where it does not leave, also for want of a connection, its places are others'."""
        route, place = message["route"], place_of(message)
        assert route is not None  # as in `leave`
        turn = Turn(found.urgent, partial(self.begin, found))
        try:
            if not found.urgent:
                await self._leave_one_free(client, found, place)
            result = await client.deliver(envelope, content, route["hosts"], found.source, place, found.limits, turn)
        except NotNow as late:
            found.left(self._now())
            found.give_back()
            own, (key, _, every) = found.own or self._partition(state.partition), found.rates[-1]
            until = state.now + round(self._now() - found.began + late.wait)
            return self.later(own, key, until, every, message, state, "rate-limit")
        finally:
            found.left(self._now())
        if result.outcome == "connection-limit":
            found.give_back()
        return result

    async def _leave_one_free(self, client: Client, found: Leave, place: str) -> None:
        """What waits for its rate does not wait with the last connection: an urgent one would have to wait for that, and then for its
        rate as well."""
        at = Place(place, found.source)
        while 0 < (wait := max(self._waits(found))) <= PATIENCE_MS and client.pool.free(at, found.limits) <= 1:
            await asyncio.sleep(wait / 1000)

    def refuse(self, found: Leave, until: int) -> None:
        """The site has turned a source away; settle writes the standing a moment later."""
        if found.own is not None:
            found.own.refused[found.rates[-1][0]] = until

    def kept(self, found: Leave, now: int) -> tuple[list[tuple[str, float]], list[tuple[str, bytes]]]:
        """What tables keep for the next owner: rates (ms), windows. Nothing of a partition that has a new owner, who has charged it."""
        if (own := found.own) is None or own.is_lost:
            return [], []
        clock = self._now()
        rates = [(key, now + pace.actual - clock) for key, pace, _ in found.rates]
        names = dict.fromkeys(key for key, _ in found.windows)
        return rates, [(key, own.packed(key)) for key in names if key in own.windows]

    def charges(self, partition: int) -> Iterable[tuple[Kept, str, Any]]:
        """What tables have to keep before mail may leave that waits for it: see `Used.charges`."""
        own = self._partitions.get(partition)
        return own.charges() if own else ()

    def warming(self, day: int) -> list[tuple[str, str, int, int]]:
        """(source, site, used, allowance) on a UTC day, in this process; most used first. Other threads may ask."""
        sums: dict[tuple[str, str], tuple[int, int]] = {}
        for own in list(self._partitions.values()):
            for key, (window, allowance) in list(own.warm.items()):
                place, _, source = key.partition("\0")
                if window.head == day and allowance:
                    used, allowed = sums.get(which := (source, place.rpartition("#")[0]), (0, 0))
                    sums[which] = used + window.used, allowed + allowance
        most = sorted(sums.items(), key=lambda each: each[1][0] / each[1][1], reverse=True)
        return [(*which, *figures) for which, figures in most[:WARMING_SHOWN]]

    def note_rest(self, why: str, site: str, source: str, until: int) -> None:
        """A source sends nothing to a site until then (ms); `why` as for `resting`."""
        self._resting[why, site, source] = until

    def resting(self, why: str, now: int) -> list[tuple[str, str]]:
        """(site, source) that rest at `now` (ms), as found in this process: "source-suspended" by the rules of shaping, or
        "warm-up-paused". Other threads may ask."""
        found = list(self._resting.items())
        for key, until in found:
            if until <= now:
                self._resting.pop(key, None)
        return sorted((site, source) for (what, site, source), until in found if what == why and until > now)[
            :RESTING_SHOWN
        ]

    def lost(self, partition: int) -> list[str]:
        """Another worker gets a partition: the places used of late, nothing of which is remembered."""
        own = self._partitions.pop(partition, None)
        if own is None:
            return []
        own.is_lost = True
        return list(own.places)


def candidates(pool: Pool, message_id: str) -> list[Source]:
    """The sources of a pool as a message tries them; ranked only where there is a choice."""
    if len(pool.sources) == 1:
        return list(pool.sources) if pool.sources[0].weight > 0 else []
    return ranked(pool, message_id)
