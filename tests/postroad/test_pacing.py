"""Never more than the cap in any window, nearly the cap where mail waits; late wake-ups, clock steps and take-overs."""

from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.pacing import HOUR_MS, LINES, SLOTS, Lines, Pace, Window, every_ms, margin, tolerance_ms, unknown_ms

START = 1_790_000_000_000


def most(times: list[float], width: float) -> int:
    """In any window that begins with one of them, its end included."""
    return max(sum(first <= at <= first + width for at in times) for first in times)


@settings(deadline=None)
@given(st.integers(1, 300), st.lists(st.floats(0, 300), min_size=1, max_size=200), st.integers(0, 3))
def test_rates_hold_however_late_messages_wake_up(cap: int, late: list[float], owners: int) -> None:
    every, now, times = every_ms(cap), 0.0, []
    pace = Pace()
    for n in range(1200 // (owners + 1)):
        if owners and n % 100 == 99:  # another worker takes over, which knows of nothing
            pace = Pace(now + unknown_ms(every), now + unknown_ms(every))
        pace.reserve(now, every)
        now += pace.wait(now, every) + (late[n % len(late)] if n % 7 == 0 else 0)
        now += pace.wait(now, every)
        pace.begin(now, every)
        times.append(now)
        if len(times) > 3 * cap + 20:
            break
    assert most(times, 1000) <= cap


@settings(deadline=None)
@given(st.integers(1, 300))
def test_nine_tenths_of_a_rate_are_used_with_wake_ups_a_little_late(cap: int) -> None:
    every, now, times = every_ms(cap), 0.0, []
    pace = Pace()
    while now < 20_000:
        now += pace.wait(now, every)
        pace.begin(now, every)
        times.append(now)
        now += 0.2
    assert len(times) >= 0.9 * cap * 20


@settings(deadline=None)
@given(
    st.integers(1, 400),
    st.lists(st.tuples(st.integers(0, 900_000), st.integers(1, 60)), min_size=1, max_size=60),
    st.sets(st.integers(0, 60)),
)
def test_hours_hold_across_take_overs_that_lose_what_was_under_way(cap, steps, crashes) -> None:
    window, now, times, kept = Window(3_600_000 // SLOTS), START, [], b""
    for n, (pause, wanted) in enumerate(steps):
        now += pause
        if n in crashes:
            window = Window(3_600_000 // SLOTS)
            if kept:
                window.load(kept)
            window.move(now)
            window.counts[-1] += margin(cap)
            kept = window.pack()  # a worker that dies has written one result at least: the limit of what is promised
        window.move(now)
        for _ in range(wanted):
            if window.has_room(cap):
                window.take()
                times.append(now)
                if window.under_way == margin(cap) and n % 2:
                    window.under_way, kept = 0, window.pack()  # settled, all of them
        if n + 1 not in crashes:
            window.under_way, kept = 0, window.pack()
    if times:
        assert most(times, 3_600_000 - 1) <= cap


def test_nine_tenths_of_an_hour_are_used() -> None:
    window, sent = Window(3_600_000 // SLOTS), 0
    for minute in range(60 * 24):
        now = START + minute * 60_000
        window.move(now)
        while window.has_room(1000):
            window.take()
            window.under_way, sent = 0, sent + 1
    assert sent >= 0.9 * 24 * 1000


@settings(deadline=None)
@given(st.integers(1, 100), st.integers(-10 * 86_400_000, 0))
def test_a_clock_that_goes_back_lets_no_more_through(cap: int, step: int) -> None:
    window = Window(3_600_000 // SLOTS)
    window.move(START)
    window.counts[-1] = cap
    window.move(START + step)
    assert not window.has_room(cap)
    assert window.free_at(cap, START + step) > START + step


def test_parked_come_back_one_after_the_other() -> None:
    lines = Lines()
    assert [lines.park(0.0, 100.0, 10.0, False, "acme") for _ in range(3)] == [100.0, 110.0, 120.0]
    assert not lines.is_over(119.0) and lines.is_over(120.0)


def test_lines_of_lanes_and_tenants_are_apart_and_share_what_a_lane_has() -> None:
    lines = Lines()
    for _ in range(1000):
        last = lines.park(0.0, 100.0, 10.0, False, "acme")
    assert last == 100.0 + 999 * 10
    assert [lines.park(0.0, 100.0, 10.0, True, "acme") for _ in range(2)] == [100.0, 110.0]
    assert [lines.park(0.0, 100.0, 10.0, False, "other") for _ in range(3)] == [100.0, 120.0, 140.0], "half of it each"
    assert lines.park(0.0, 100.0, 10.0, False, "acme") == last + 20


def test_lines_are_bounded_whoever_sends() -> None:
    lines = Lines()
    for n in range(10 * LINES):
        lines.park(0.0, 100.0, 10.0, False, f"tenant{n}")
    assert len(lines.told) <= LINES + 1
    assert lines.park(1e9, 1e9, 10.0, False, "late") == 1e9 and len(lines.told) == 1, "those that are over go"


def test_a_place_that_is_given_back_is_the_next_ones() -> None:
    pace = Pace()
    pace.reserve(0, 20.0, urgent=True)
    pace.reserve(0, 20.0)
    pace.give_back(20.0)
    assert pace.next_place(0, 20.0) == 20 and pace.next_place(0, 20.0, urgent=True) == 20
    pace.give_back(20.0, urgent=True)
    assert pace.next_place(0, 20.0) == 0 and pace.next_place(0, 20.0, urgent=True) == 0
    pace.begin(50, 20.0)
    pace.give_back(20.0, urgent=True)
    assert pace.next_place(50, 20.0, urgent=True) == 70 - tolerance_ms(20.0), "never before what has begun"


def test_a_window_takes_off_what_was_given_back_in_the_slot_that_counted_it() -> None:
    window, slot_ms = Window(HOUR_MS // SLOTS), HOUR_MS // SLOTS
    window.move(START)
    slot = window.take()
    window.move(START + 3 * slot_ms)
    window.take()
    window.shift(5 * slot_ms)  # the clock was set ahead
    window.move(START + 9 * slot_ms)
    window.give_back(slot)
    assert (window.used, window.under_way) == (1, 1)
    assert window.counts.index(1) == len(window.counts) - 2
    slot = window.take()
    window.move(START + 3 * HOUR_MS)
    window.give_back(slot)
    assert (window.used, window.under_way) == (0, 1), "it did not count any more"
    slot = window.take()
    window.move(START - 10 * HOUR_MS)
    window.give_back(slot)
    assert window.used == 0


def test_an_urgent_one_has_only_those_before_it_that_have_begun():
    pace, every = Pace(), 20.0
    for _ in range(30):  # a broadcast, 600 ms of it
        pace.reserve(0, every)
    pace.begin(0, every)
    pace.begin(0, every)
    assert pace.next_place(1, every, urgent=True) == 20, "as `wait` has it: 20 of 40 may be caught up with"
    assert pace.wait(1, every) == 19
    pace.reserve(1, every, urgent=True)
    assert pace.next_place(1, every, urgent=True) == 21, "behind its like"
    assert pace.next_place(1, every) == 620, "the broadcast makes room for it"
