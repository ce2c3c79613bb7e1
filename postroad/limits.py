"""Limits as pure functions: rates by GCRA (the generic cell rate algorithm, ITU-T I.371) and quotas by UTC day.

The whole state of a rate is one number, the theoretical arrival time (TAT): when the last one let through would be
paid off. Times are milliseconds UTC.
"""

import math
from dataclasses import dataclass

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `burst` at once and `per_second` in the long run: in any window of w seconds <= burst + per_second * w."""

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not (self.per_second > 0 and math.isfinite(self.per_second)):
            raise ValueError(f"a limit needs a rate above 0 a second, not {self.per_second}")
        if self.burst < 1:
            raise ValueError(f"a limit needs a burst of at least 1, not {self.burst}: nothing could ever go")

    @property
    def interval_ms(self) -> float:
        """The time one of them takes."""
        return 1000 / self.per_second

    @property
    def tolerance_ms(self) -> float:
        """How far ahead of time a burst may run."""
        return (self.burst - 1) * self.interval_ms


def believed(tat_ms: float, now_ms: int, ahead_max_ms: float) -> float:
    """A TAT; one more than `ahead_max_ms` ahead was written under a clock that was wrong, and counts as now."""
    return tat_ms if tat_ms <= now_ms + ahead_max_ms else float(now_ms)


def reserve(tat_ms: float | None, now_ms: int, limit: Limit) -> tuple[int, float]:
    """Take the next free place, in the future if need be: (when it is due, the TAT to keep)."""
    tat = float(now_ms) if tat_ms is None or tat_ms < now_ms else tat_ms
    return max(now_ms, math.ceil(tat - limit.tolerance_ms)), tat + limit.interval_ms


Key = tuple[int, str]  # partition, name of the rate


class Rates:
    """Rates of many keys in memory. Who cannot go soon is told when to come back, each later than the last.

    A TAT that has passed says nothing, so such entries go once there are many.
    """

    AHEAD_MAX_MS = 3_600_000
    SLACK_MS = 1000  # between the clocks of two workers
    MANY = 10_000

    def __init__(self) -> None:
        self._used: dict[Key, float] = {}
        self._parked: dict[Key, float] = {}  # of the places that the parked come back to
        self._room = self.MANY

    def take(self, key: Key, kept: float, now_ms: int, limit: Limit, patience_ms: int) -> tuple[int, bool]:
        """The time (ms) of a place at most `patience_ms` ahead; else when to come back (False). `kept`: the TAT that an
        earlier owner of the partition has left, or 0."""
        ahead_max = patience_ms + limit.tolerance_ms + limit.interval_ms + self.SLACK_MS  # nobody goes further ahead
        used = [believed(tat, now_ms, ahead_max) for tat in (self._used.get(key, 0.0), kept)]
        due, tat = reserve(max(used), now_ms, limit)
        may_go = due - now_ms <= patience_ms
        if may_go:
            self._used[key] = tat
        else:
            parked = believed(self._parked.get(key, 0.0), now_ms, self.AHEAD_MAX_MS)
            due, self._parked[key] = reserve(max(parked, tat), now_ms, limit)
        if len(self) > self._room:
            for tats in (self._used, self._parked):
                for passed in [key for key, tat in tats.items() if tat <= now_ms]:
                    del tats[passed]
            self._room = max(self.MANY, 2 * len(self))
        return due, may_go

    def used(self, key: Key) -> float | None:
        """The TAT to keep for the next owner."""
        return self._used.get(key)

    def __len__(self) -> int:
        return len(self._used) + len(self._parked)


@dataclass(frozen=True, slots=True)
class DayUse:
    """How many places of a UTC day (days since 1970) are taken; the day being filled may lie ahead of today."""

    day: int
    used: int


@dataclass(frozen=True, slots=True)
class DayQuota:
    """At most `per_day` in one UTC day."""

    per_day: int

    def __post_init__(self) -> None:
        if self.per_day < 1:
            raise ValueError(
                f"a day's quota is at least 1, not {self.per_day}; deactivate a tenant that may send nothing"
            )

    def reserve(self, use: DayUse | None, now_ms: int) -> tuple[int, DayUse]:
        """Take the next free place: (when it is due: now, or the first moment of a later day; the state to keep)."""
        today = now_ms // DAY_MS
        if use is None or use.day < today:
            use = DayUse(today, 0)
        elif use.used >= self.per_day:
            use = DayUse(use.day + 1, 0)
        return max(now_ms, use.day * DAY_MS), DayUse(use.day, use.used + 1)
