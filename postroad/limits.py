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
