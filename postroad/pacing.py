"""Caps as the receiver sees them: never more than N in any window of w, and nearly N where mail waits.

Rates (w = 1 s) by GCRA (ITU-T I.371) with 0.95 N and a burst of one: N + 1 messages then take 1.05 w. Of these 5 % two are given
to wake-ups that come late (`TOLERANCE`), three are left to the network. Hours and days by counts in `Window`.

What an owner that died has sent and not written down is bounded and charged to its successor: a rate begins a window later, a
window with `margin` places taken; so many messages at most are under way in it (used.py).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

USED = 0.95  # share of a rate
TOLERANCE = 0.02  # of the window: how far a late one may be caught up with
UNKNOWN = 20  # one in so many places of a window may be under way, and is lost to a take-over
SLOTS = 30  # of a window: one more is counted, so at least 30 / 31 of it are used
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LINES = 64  # of those that were told when to come back: one for each lane and tenant
_HEAD = struct.Struct(">qH")


def every_ms(per_second: float) -> float:
    """Between two messages of a rate."""
    return 1000 / (USED * per_second)


def tolerance_ms(every: float) -> float:
    """What a late wake-up may catch up: of a second, or, for rates below one, of the time that one takes."""
    return TOLERANCE * max(1000.0, every * USED)


def unknown_ms(every: float) -> float:
    """How long a rate that was taken over rests: as long as what its last owner did may still count."""
    return max(1000.0, every)


@dataclass(slots=True)
class Pace:
    """One rate. Times are milliseconds of a clock that never steps. Places are given out in order (`reserve`) and taken where
    the message begins (`begin`), however late it wakes up."""

    reserved: float = 0.0
    actual: float = 0.0
    urgent_reserved: float = 0.0
    urgent: int = 0  # urgent ones that wait to begin: the others let them pass

    def next_place(self, now: float, every: float, urgent: bool = False) -> float:
        """When the next one may go; one that is urgent only behind those that have begun, as soon as `wait` lets it, and behind its like."""
        return max(max(self.actual - tolerance_ms(every), self.urgent_reserved) if urgent else self.reserved, now)

    def reserve(self, now: float, every: float, urgent: bool = False) -> None:
        """Give it away."""
        self.reserved = max(self.reserved, now) + every
        if urgent:
            self.urgent_reserved = max(self.urgent_reserved, now) + every

    def give_back(self, every: float, urgent: bool = False) -> None:
        """One that has reserved does not come: the next has its place."""
        self.reserved = min(self.reserved, max(self.actual, self.reserved - every))
        if urgent:
            self.urgent_reserved = min(self.urgent_reserved, max(self.actual, self.urgent_reserved - every))

    def wait(self, now: float, every: float) -> float:
        """How long a message has to wait that would begin now."""
        return max(0.0, self.actual - tolerance_ms(every) - now)

    def begin(self, now: float, every: float) -> None:
        """It begins now; `wait` has said 0."""
        self.actual = max(self.actual, now) + every

    def is_over(self, now: float) -> bool:
        """Whether it says nothing any more."""
        return max(self.reserved, self.actual) <= now


@dataclass(slots=True)
class Lines:
    """When those come back that do not wait for their turn: each lane (urgent or not) and tenant stands in a line of its own,
    so that nobody's blast is in front of others. The lines of a lane share what there is."""

    told: dict[tuple[bool, str], float] = field(default_factory=dict)

    def park(self, now: float, earliest: float, every: float, urgent: bool, tenant: str) -> float:
        """When to come back: at `earliest`, and behind those of the same line. `every`: between two of the lane."""
        who = urgent, tenant
        if who not in self.told and len(self.told) >= LINES:
            self.told = {line: until for line, until in self.told.items() if until > now}
            if len(self.told) >= LINES:
                who = urgent, ""
        lines = 1 + sum(until > now and line != who and line[0] == urgent for line, until in self.told.items())
        self.told[who] = max(self.told.get(who, earliest - lines * every) + lines * every, earliest)
        return self.told[who]

    def is_over(self, now: float) -> bool:
        """Whether all of them have come back."""
        return all(until <= now for until in self.told.values())


@dataclass(slots=True)
class Window:
    """Messages by slot of `slot_ms`; those of the current slot and of `slots` before it count. `slots` 0: a UTC day, say.

    `under_way`: taken and not yet settled.
    """

    slot_ms: int
    slots: int = SLOTS
    head: int = 0
    counts: list[int] = field(default_factory=list)  # the current slot last
    under_way: int = 0
    _shifted: int = 0  # slots, by `shift`

    def move(self, now_ms: int) -> None:
        """To the slot of now. A clock that went back leaves the counts as they are, one that was wrong by a window or more has
        them all count from now on: fewer go, never more."""
        at = now_ms // self.slot_ms
        if not self.counts or self.head - at > self.slots + 1:
            self.head, self.counts = at, [sum(self.counts)]
        elif at > self.head:
            passed = min(at - self.head, self.slots + 1)
            self.counts = [*self.counts, *[0] * passed][-(self.slots + 1) :]
            self.head = at

    def shift(self, ms: int) -> None:
        """The clock was set ahead by so much: what counts grows no older by it, nor younger by more than a slot."""
        slots = -(-ms // self.slot_ms)
        self.head += slots
        self._shifted += slots

    @property
    def used(self) -> int:
        """Places taken, after `move`."""
        return sum(self.counts)

    def has_room(self, cap: int, unknown: int = UNKNOWN) -> bool:
        """Whether one more may go, after `move`. One in `unknown` may be under way."""
        return self.under_way < margin(cap, unknown) and sum(self.counts) < cap

    def take(self) -> int:
        """One goes; the slot for `give_back`."""
        self.counts[-1] += 1
        self.under_way += 1
        return self.head - self._shifted

    def give_back(self, slot: int) -> None:
        """One that was under way has not gone."""
        self.under_way -= 1
        at = min(len(self.counts), len(self.counts) - self.head + self._shifted + slot) - 1
        if at >= 0 and self.counts[at]:
            self.counts[at] -= 1

    def free_at(self, cap: int, now_ms: int) -> int:
        """When one may go, after `move`: now, soon, or when enough slots have passed (ms)."""
        left = sum(self.counts)
        if left < cap:
            return now_ms + (0 if self.under_way < margin(cap) else 1000)
        for passed, count in enumerate(self.counts):
            left -= count
            if left < cap:
                oldest = self.head - len(self.counts) + 1 + passed
                return max(now_ms + 1, (oldest + self.slots + 1) * self.slot_ms)
        return now_ms + (self.slots + 1) * self.slot_ms  # a cap of 0

    def pack(self) -> bytes:
        """For a table."""
        return _HEAD.pack(self.head, len(self.counts)) + struct.pack(f">{len(self.counts)}I", *self.counts)

    def load(self, raw: bytes) -> int:
        """Take over what `pack` has written at the start of `raw`; the bytes it took."""
        head, length = _HEAD.unpack_from(raw)
        n = int(length)
        self.head = head
        self.counts = list(struct.unpack_from(f">{n}I", raw, _HEAD.size))
        return _HEAD.size + 4 * n


def margin(cap: int, unknown: int = UNKNOWN) -> int:
    """How many messages of a window may be under way: what a crash leaves uncounted."""
    return max(1, cap // unknown)
