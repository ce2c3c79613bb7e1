"""Retry times."""

import pytest

from postroad.retry import DEFAULT, PUT_OFF_MS, RetrySchedule, next_try, put_off


def test_pauses_grow_then_stay() -> None:
    exact = RetrySchedule(jitter=0)
    pauses = [next_try(0, attempt, "m", exact) // 60_000 for attempt in range(1, 8)]
    assert pauses == [5, 15, 60, 120, 240, 240, 240]


def test_jitter_spreads_within_its_share_and_is_repeatable() -> None:
    times = [next_try(0, 1, f"m{number}") for number in range(1000)]
    assert 270_000 <= min(times) < 273_000 and 327_000 < max(times) <= 330_000
    assert times == [next_try(0, 1, f"m{number}") for number in range(1000)]
    assert next_try(0, 5, "m") != next_try(0, 6, "m")


def test_greylisting_is_tried_again_soon_then_as_usual() -> None:
    exact = RetrySchedule(jitter=0)
    assert [next_try(0, attempt, "m", exact, greylisted=True) // 1000 for attempt in range(1, 6)] == [
        60,
        270,
        600,
        7_200,
        14_400,
    ]


def test_attempt_zero_counts_as_the_first() -> None:
    assert next_try(0, 0, "m") == next_try(0, 1, "m", DEFAULT)


@pytest.mark.parametrize("bad", [{"delays_s": ()}, {"delays_s": (0,)}, {"jitter": 1}, {"greylist_s": (-1,)}])
def test_schedules_that_make_no_sense(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        RetrySchedule(**bad)  # type: ignore[arg-type]


def test_put_off_for_longer_each_time_but_not_beyond_its_end() -> None:
    pauses = [put_off(0, round, 10**9) for round in range(12)]
    assert pauses[:9] == [PUT_OFF_MS * 2**n for n in range(9)]
    assert set(pauses[8:]) == {256 * PUT_OFF_MS}
    assert put_off(0, 5, 10) == 10
