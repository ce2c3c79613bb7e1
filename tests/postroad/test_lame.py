"""Lame hosts."""

import pytest

from postroad.lame import Lame

A, B = "192.0.2.1", "2001:db8::1"


def pause(lame: Lame, now: float, source: str = "s", address: str = A) -> float:
    """Seconds until an address is used again."""
    return next((wait for wait in range(10_000) if not lame.is_lame(source, address, now + wait)), 10_000)


def test_a_pause_doubles_up_to_its_bound() -> None:
    lame = Lame(kept_s=500, first_s=100)
    now, pauses = 0.0, []
    for _ in range(5):
        lame.note("s", A, now)
        pauses.append(pause(lame, now))
        now += pauses[-1]
    assert pauses == [100, 200, 400, 500, 500]


def test_connections_that_fail_together_count_once() -> None:
    lame = Lame(kept_s=500, first_s=100)
    for number in range(20):
        lame.note("s", A, number / 10)
    assert pause(lame, 0) == 100


def test_of_one_source_and_one_address() -> None:
    lame = Lame()
    lame.note("s", A, 0)
    assert lame.is_lame("s", A, 1)
    assert not lame.is_lame("t", A, 1) and not lame.is_lame("s", B, 1)


def test_forgotten_on_success() -> None:
    lame = Lame(kept_s=500, first_s=100)
    lame.note("s", A, 0)
    lame.note("s", A, 100)
    lame.forget("s", A)
    lame.forget("s", B)  # was never known
    assert not lame.is_lame("s", A, 100)
    lame.note("s", A, 101)
    assert pause(lame, 101) == 100


def test_an_old_pause_is_forgotten() -> None:
    lame = Lame(kept_s=500, first_s=100)
    lame.note("s", A, 0)
    lame.note("s", A, 599)
    assert pause(lame, 599) == 200
    lame.note("s", A, 799 + 500)
    assert pause(lame, 799 + 500) == 100


@pytest.mark.parametrize("number", [3, 1000])
def test_memory_is_bounded_and_keeps_the_latest(number: int) -> None:
    lame = Lame(size=3)
    for each in range(number):
        lame.note("s", f"192.0.2.{each}", 0)
    assert len(lame) == 3
    assert lame.is_lame("s", f"192.0.2.{number - 1}", 1)


def test_the_first_pause_is_never_above_the_longest() -> None:
    lame = Lame(kept_s=5)
    lame.note("s", A, 0)
    assert pause(lame, 0) == 5
