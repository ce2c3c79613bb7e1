"""What the sites of one partition of send have used of their limits: exact in memory while it has one owner, kept in tables for
the next one.

What an owner that died had under way nobody has counted: `margin` at most, and no more than the effects that it has begun and left
without a result (`View.in_doubt`; none after a clean hand-over). The next one charges that, and writes the charge down before anything
leaves (`is_written`, `charges`): owners that die one after another each pay for what they may have sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from postroad.egress import Source
from postroad.pacing import DAY_MS, HOUR_MS, SLOTS, UNKNOWN, Lines, Pace, Window, margin, unknown_ms
from postroad.shaping.limits import Limits

PATIENCE_MS = 1100  # of one a second too: a place that is nearer is waited for, a later one parks the message
WARM_UNKNOWN = 100  # one in so many of a day's plan may be under way
MANY = 10_000  # rates in memory before those that have passed are let go
STEP_MS = 1000  # a wall clock that gains more than this was set
STALE_MS = HOUR_MS  # no view of a message's state is so old
SWEEP_MS = HOUR_MS  # between two looks for what is over
PLACE_MS = 2 * HOUR_MS  # a place that is not used for so long has no connection any more: they idle for an hour at most

Kept = Literal["windows", "warmup"]  # tables of send


class Warm(NamedTuple):
    """A source that warms up at a place: what it has sent on a UTC day, and may."""

    window: Window
    allowance: int


@dataclass(slots=True)
class Held:
    """Connections that one tenant's messages use at a place. `each_ms`: how long one of late did."""

    count: int = 0
    each_ms: float = 100.0

    def leave(self, took_ms: float) -> None:
        """One is not used any more."""
        self.count -= 1
        self.each_ms += (took_ms - self.each_ms) / 8


@dataclass(slots=True)
class Used:
    """Of one partition. `since`: ms of the clock that never steps, when it was taken over; `rests`: it rests first, and charges."""

    since: float
    rests: bool
    paces: dict[str, Pace] = field(default_factory=dict)
    lines: dict[str, Lines] = field(default_factory=dict)  # of those that are parked, by key and reason
    windows: dict[str, tuple[Window, Window]] = field(default_factory=dict)  # hour, day
    warm: dict[str, Warm] = field(default_factory=dict)
    held: dict[str, Held] = field(default_factory=dict)
    refused: dict[str, int] = field(default_factory=dict)  # until the standing says so
    places: dict[str, float] = field(default_factory=dict)  # used last, ms of the clock
    is_lost: bool = False  # another worker has the partition, or this one anew
    _swept: float = 0.0
    _doubt: int | None = None  # effects that the last owner left without a result; None: nobody knows
    _apart: float | None = None  # of the wall clock, before the one that never steps
    _unwritten: dict[tuple[Kept, str], Any] = field(default_factory=dict)  # what the table had before the charge
    _to_write: set[tuple[Kept, str]] = field(default_factory=set)

    def follow(self, wall: int, clock: float) -> None:
        """A wall clock that was set ahead takes with it what hours and days have counted: nothing has got older."""
        apart = wall - clock
        if self._apart is None or apart < self._apart - STALE_MS:
            self._apart = apart  # set back: `Window.move` keeps the counts
        elif (step := apart - self._apart) > STEP_MS:
            self._apart = apart
            for pair in self.windows.values():
                for window in pair:
                    window.shift(round(step))
        if clock - self._swept > SWEEP_MS:
            self._swept = clock
            self._forget(wall, clock)

    def _forget(self, wall: int, clock: float) -> None:
        """What says nothing any more goes. A day after the take-over nothing counts that was under way then."""
        self.rests = self.rests and clock - self.since <= DAY_MS
        self.places = {place: at for place, at in self.places.items() if clock - at <= PLACE_MS}
        self.refused = {key: until for key, until in self.refused.items() if until > wall}
        self.lines = {key: lines for key, lines in self.lines.items() if not lines.is_over(clock)}
        self.held = {key: held for key, held in self.held.items() if held.count}
        for pair in self.windows.values():
            for window in pair:
                window.move(wall)
        waits = {key for _, key in self._unwritten}
        self.windows = {
            key: pair for key, pair in self.windows.items()
            if key in waits or any(window.used or window.under_way for window in pair)
        }  # fmt: skip
        self.warm = {
            key: warm for key, warm in self.warm.items()
            if key in waits or warm.window.under_way or warm.window.head >= wall // DAY_MS
        }  # fmt: skip

    def line(self, key: str) -> Lines:
        """Of those that are parked for one reason."""
        return self.lines.get(key) or self.lines.setdefault(key, Lines())

    def _charge(self, cap: int, unknown: int, is_known: bool, state: Any) -> int:
        """What the last owner may have sent of a cap and not written down. `is_known`: tables have something of it."""
        if not self.rests:
            return 0
        if self._doubt is None:
            self._doubt = getattr(state, "in_doubt", None)
            if self._doubt is None:
                return margin(cap, unknown) if is_known else 0
        return min(margin(cap, unknown), self._doubt)

    def pace(self, key: str, every: float, clock: float, state: Any) -> Pace:
        """The rate of a key."""
        pace = self.paces.get(key)
        if pace is None:
            if len(self.paces) > MANY:
                self.paces = {name: each for name, each in self.paces.items() if not each.is_over(clock)}
            kept = state.rate_limits.get(key) or 0.0
            # of a clock that was wrong: no rate is paid off later than this
            ahead = min(max(0.0, kept - state.now), PATIENCE_MS + 2 * unknown_ms(every))
            start = max(clock + ahead if ahead else 0.0, self.since + unknown_ms(every))
            pace = self.paces[key] = Pace(start, start)
        return pace

    def windows_of(self, key: str, caps: tuple[int | None, int | None], state: Any) -> tuple[Window, Window]:
        """Hour and day of a key, now."""
        found = self.windows.get(key)
        if found is None:
            found = self.windows[key] = Window(HOUR_MS // SLOTS), Window(DAY_MS // SLOTS)
            raw = state.windows.get(key)
            if raw:
                found[1].load(raw[found[0].load(raw) :])
            for window, cap in zip(found, caps, strict=True):
                window.move(state.now)
                if cap is not None:
                    window.counts[-1] += self._charge(cap, UNKNOWN, bool(raw), state)
            if self.rests and self._doubt != 0:
                self._unwritten["windows", key] = raw
        for window in found:
            window.move(state.now)
        return found

    def warm_of(self, key: str, allowance: int, state: Any) -> Window:
        """The day of a source that warms up, now."""
        known = self.warm.get(key)
        window = known.window if known is not None else Window(DAY_MS, 0)
        if known is None:
            if kept := state.warmup.get(key):
                window.head, window.counts = kept.day, [kept.used]
            window.move(state.now)
            window.counts[-1] += self._charge(allowance, WARM_UNKNOWN, bool(kept) and kept.day == window.head, state)
            if self.rests and self._doubt != 0:
                self._unwritten["warmup", key] = kept
        window.move(state.now)
        self.warm[key] = Warm(window, allowance)
        return window

    def is_written(self, table: Kept, key: str, state: Any) -> bool:
        """Whether tables know of what was charged for a key: before, nothing may leave."""
        if (table, key) not in self._unwritten:
            return True
        if getattr(state, table).get(key) == self._unwritten[table, key]:
            self._to_write.add((table, key))
            return False
        del self._unwritten[table, key]
        return True

    def charges(self) -> Iterator[tuple[Kept, str, Any]]:
        """What is to be written first: table, key, and bytes of windows, or (day, used, bounced) of a warm-up."""
        while self._to_write:
            table, key = self._to_write.pop()
            if table == "windows":
                yield table, key, self.packed(key)
            else:
                window, kept = self.warm[key].window, self._unwritten.get((table, key))
                bounced = kept.bounced if kept and kept.day == window.head else 0
                yield table, key, (window.head, window.used, bounced)

    def packed(self, key: str) -> bytes:
        """Hour and day of a key, for the table."""
        return b"".join(window.pack() for window in self.windows[key])


class NotNow(Exception):
    """A message has a connection, and its rates ask it to wait for longer (ms) than one may be held."""

    def __init__(self, wait: float) -> None:
        super().__init__(f"{wait:.0f} ms")
        self.wait = wait


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
    held: Held | None = None  # the tenant's connections, one of which is this message's
    began: float = 0.0
    own: Used | None = None  # where it counts
    has_begun: bool = False  # a host may have heard of it
    slots: list[int] = field(default_factory=list)  # of its windows, the one that it is counted in

    @property
    def is_lost(self) -> bool:
        """Its partition has gone to another worker, or has begun anew: what it counts in says nothing any more."""
        return self.own is not None and self.own.is_lost

    def take(self) -> None:
        """Its place everywhere."""
        for _, pace, every in self.rates:
            pace.reserve(self.began, every, self.urgent)
        if self.windows:
            self.slots = [window.take() for _, window in self.windows]
        if self.warm is not None:
            self.slots.append(self.warm.take())
        if self.held is not None:
            self.held.count += 1

    def left(self, now: float) -> None:
        """It uses no connection any more."""
        if self.held is not None:
            self.held.leave(now - self.began)
            self.held = None

    def done(self) -> None:
        """Its result is written down, or will never be known."""
        if self.held is not None:
            self.held.count -= 1  # it has had no connection
            self.held = None
        if self.open:
            self.open = False
            for _, window in self.windows:
                window.under_way -= 1
            if self.warm is not None:
                self.warm.under_way -= 1

    def give_back(self) -> None:
        """It does not leave now, and no host has heard of it: its places are others'."""
        if self.held is not None:
            self.held.count -= 1
            self.held = None
        if self.open:
            self.open = False
            windows = [window for _, window in self.windows] + ([] if self.warm is None else [self.warm])
            for window, slot in zip(windows, self.slots, strict=True):
                window.give_back(slot)
            for _, pace, every in () if self.has_begun else self.rates:
                pace.give_back(every, self.urgent)
