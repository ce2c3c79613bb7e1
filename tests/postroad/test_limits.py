"""Rates and quotas: never exceeded in any window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.limits import DAY_MS, DayQuota, DayUse, Limit, believed, reserve

START = 1_790_000_000_000
LIMITS = st.builds(Limit, st.floats(0.01, 2000), st.integers(1, 50))


def never_exceeded(times: list[int], limit: Limit, slack_ms: int = 0) -> bool:
    """In every window that begins with one of them there are at most burst + rate * width."""
    for first in range(len(times)):
        for last in range(first, len(times)):
            width = times[last] - times[first] + slack_ms
            if last - first + 1 > limit.burst + limit.per_second * width / 1000 + 1e-6:
                return False
    return True


@given(LIMITS, st.lists(st.integers(0, 500), min_size=1, max_size=60))
def test_reserved_places_never_exceed_and_never_lie_in_the_past(limit: Limit, gaps: list[int]) -> None:
    now, tat, times = START, None, []
    for gap in gaps:
        now += gap
        due, tat = reserve(tat, now, limit)
        assert due >= now
        times.append(due)
    assert times == sorted(times)
    assert never_exceeded(times, limit, slack_ms=1)  # due times are whole milliseconds


def test_the_full_rate_is_used() -> None:
    limit, tat, taken = Limit(100, 10), None, 0
    for now in range(START, START + 10_000):
        due, then = reserve(tat, now, limit)
        if due == now:
            tat, taken = then, taken + 1
    assert 1000 <= taken <= 1010


def test_burst_then_pace() -> None:
    limit = Limit(10, 3)
    tat: float | None = None
    due = []
    for _ in range(5):
        at, tat = reserve(tat, START, limit)
        due.append(at - START)
    assert due == [0, 0, 0, 100, 200]


def test_day_quota_runs_over_into_the_next_days() -> None:
    quota, use, due = DayQuota(2), None, []
    day = START // DAY_MS
    for _ in range(5):
        at, use = quota.reserve(use, START)
        due.append(at)
    assert due == [START, START, (day + 1) * DAY_MS, (day + 1) * DAY_MS, (day + 2) * DAY_MS]
    assert use == DayUse(day + 2, 1)
    later = (day + 5) * DAY_MS + 7
    assert quota.reserve(use, later) == (later, DayUse(day + 5, 1))


@pytest.mark.parametrize(
    "make", [lambda: Limit(0), lambda: Limit(float("inf")), lambda: Limit(1, 0), lambda: DayQuota(0)]
)
def test_limits_that_let_nothing_through(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]


def test_a_tat_of_a_clock_that_was_wrong_counts_as_now() -> None:
    assert believed(START + 60_000, START, 60_000) == START + 60_000
    assert believed(START + 60_001, START, 60_000) == START
    assert believed(0.0, START, 60_000) == 0
