"""What a partition has used: clocks that are set, owners that die one after another, a day's plan."""

from typing import Any

from postroad.departure import Departures
from postroad.pacing import DAY_MS, HOUR_MS, SLOTS, Window, margin
from postroad.used import STALE_MS, WARM_UNKNOWN, Held, Used

START = 1_790_000_000_000
CAPS = (100, None)


class Table(dict[str, Any]):
    """As a table of a view."""


class State:
    """What `Used` asks of a view."""

    def __init__(self, now: int = START) -> None:
        self.now, self.windows, self.warmup, self.rate_limits = now, Table(), Table(), Table()
        self.in_doubt: int | None = None  # nobody knows

    def write(self, used: Used) -> None:
        """As settle does."""
        for table, key, value in used.charges():
            getattr(self, table)[key] = Warmed(*value) if table == "warmup" else value


class Warmed(tuple[int, int, int]):
    """As tables.warmup.Warmed."""

    def __new__(cls, *values: int) -> "Warmed":
        return tuple.__new__(cls, values)

    day = property(lambda self: self[0])
    used = property(lambda self: self[1])
    bounced = property(lambda self: self[2])


def may_go(used: Used, state: State) -> bool:
    hour, _ = used.windows_of("k", CAPS, state)
    return used.is_written("windows", "k", state) and hour.has_room(100)


def test_owners_that_die_before_they_write_a_result_send_no_more_than_the_cap_together() -> None:
    state, sent = State(), 0
    for life in range(200):
        used = Used(0.0, rests=True)
        if not may_go(used, state):
            state.write(used)
            used = Used(0.0, rests=True) if life % 3 == 0 else used  # this one dies when it has just written the charge
        while may_go(used, state):
            used.windows["k"][0].take()
            sent += 1
        state.now += 1000
    assert 0 < sent <= 100


def test_the_first_owner_writes_that_there_was_nothing_and_pays_nothing() -> None:
    state, used = State(), Used(0.0, rests=True)
    assert not may_go(used, state) and not may_go(used, state)
    state.write(used)
    assert may_go(used, state) and used.windows["k"][0].used == 0
    assert list(used.charges()) == [], "once"


def test_a_successor_pays_what_may_have_been_under_way() -> None:
    state, used = State(), Used(0.0, rests=True)
    may_go(used, state)
    state.write(used)
    for _ in range(7):
        used.windows["k"][0].take()
    state.windows["k"] = used.packed("k")
    heir = Used(0.0, rests=True)
    assert not may_go(heir, state)
    state.write(heir)
    assert may_go(heir, state) and heir.windows["k"][0].used == 7 + margin(100)


def test_a_plan_too_is_charged_and_written_first() -> None:
    state, sent, lives = State(), 0, 0
    while lives < 30:
        used, lives = Used(0.0, rests=True), lives + 1
        window = used.warm_of("k", 1000, state)
        if not used.is_written("warmup", "k", state):
            state.write(used)
        while used.is_written("warmup", "k", state) and window.has_room(1000, WARM_UNKNOWN):
            window.take()
            sent += 1
    assert 0 < sent <= 1000
    assert used.warm["k"].allowance == 1000


def test_clean_hand_overs_charge_nothing_however_many_and_wait_for_nothing() -> None:
    state, sent = State(), 0
    state.in_doubt = 0
    while sent < 100:
        used = Used(0.0, rests=True)
        assert may_go(used, state)
        window = used.windows["k"][0]
        window.take()
        sent, window.under_way = sent + 1, 0
        state.windows["k"] = used.packed("k")
    assert not may_go(Used(0.0, rests=True), state)


def test_a_clean_restart_does_not_stop_a_cap_of_one_nor_charge_a_plan() -> None:
    state = State()
    state.in_doubt = 0
    state.warmup["k"] = Warmed(START // DAY_MS, 7, 0)
    for _ in range(50):
        used = Used(0.0, rests=True)
        hour, _ = used.windows_of("one", (1, None), state)
        assert used.is_written("windows", "one", state) and hour.has_room(1)
        assert used.warm_of("k", 1000, state).used == 7 and used.is_written("warmup", "k", state)


def test_what_was_begun_and_has_no_result_is_charged_first_owner_or_not() -> None:
    state, used = State(), Used(0.0, rests=True)
    state.in_doubt = 3
    assert not may_go(used, state), "written first"
    state.write(used)
    assert may_go(used, state) and used.windows["k"][0].used == 3
    assert used.warm_of("k", 1000, state).used == 3
    state.in_doubt = 90
    assert Used(0.0, rests=True).windows_of("k", CAPS, state)[0].used == 3 + margin(100), (
        "no more than may be under way"
    )


def test_owners_that_die_with_effects_begun_send_no_more_than_the_cap() -> None:
    state, sent = State(), 0
    state.in_doubt = 0
    for _ in range(200):
        used = Used(0.0, rests=True)
        if not may_go(used, state):
            state.write(used)
        while may_go(used, state):
            used.windows["k"][0].take()
            sent, state.in_doubt = sent + 1, state.in_doubt + 1  # begun, and never a result
    assert 0 < sent <= 100


def test_what_is_over_is_forgotten_what_counts_is_not() -> None:
    used, state = Used(0.0, rests=False), State()
    used.follow(state.now, 0.0)
    for n in range(20):
        used.windows_of(f"k{n}", CAPS, state)[0].take()
        used.warm_of(f"k{n}", 100, state)
        used.refused[f"k{n}"] = state.now + 1000
        used.held[f"k{n}"] = Held(n % 2)
        used.places[f"p{n}"] = 0.0
        used.line(f"k{n}").park(0.0, 100.0, 10.0, False, "acme")
        if n:
            for window in used.windows[f"k{n}"]:
                window.under_way = 0
    state.now += 3 * HOUR_MS
    used.places["new"] = 2.0 * HOUR_MS
    used.follow(state.now, 3.0 * HOUR_MS)
    assert list(used.places) == ["new"] and not used.refused and not used.lines and len(used.held) == 10
    hour, _ = used.windows_of("busy", CAPS, state)
    hour.take()
    hour.under_way = 0
    state.now += 2 * DAY_MS
    used.follow(state.now, 3.0 * HOUR_MS + 2 * DAY_MS)
    assert list(used.windows) == ["k0"], "one of it is under way"
    assert not used.warm


def test_a_charge_that_waits_to_be_written_is_not_forgotten() -> None:
    used, state = Used(0.0, rests=True), State()
    used.follow(state.now, 0.0)
    assert not may_go(used, state)
    state.now += 2 * DAY_MS
    used.follow(state.now, 2.0 * DAY_MS)
    state.write(used)
    assert may_go(used, state)


def test_what_bounced_that_day_is_kept_with_the_charge() -> None:
    state = State()
    today = START // DAY_MS
    state.warmup["k"] = Warmed(today, 200, 9)
    used = Used(0.0, rests=True)
    used.warm_of("k", 1000, state)
    assert not used.is_written("warmup", "k", state)
    state.write(used)
    assert state.warmup["k"] == (today, 210, 9)


def full() -> tuple[Used, State]:
    state, used = State(), Used(0.0, rests=False)
    used.follow(state.now, 0.0)
    hour, _ = used.windows_of("k", CAPS, state)
    hour.counts[-1] = 100
    return used, state


def test_a_clock_that_is_set_ahead_makes_no_room() -> None:
    used, state = full()
    for clock, step in ((10_000, 2 * HOUR_MS), (20_000, 30 * DAY_MS), (30_000, 5 * 60_000)):
        state.now += step
        used.follow(state.now, clock)
        assert not may_go(used, state)


def test_after_it_was_set_ahead_an_hour_takes_an_hour() -> None:
    used, state = full()
    step = 7 * HOUR_MS + 12_345
    state.now += step
    used.follow(state.now, 0.0)
    clock = 0
    while not may_go(used, state):
        clock += 60_000
        state.now += 60_000
        used.follow(state.now, clock)
    assert HOUR_MS <= clock <= HOUR_MS + 3 * HOUR_MS // SLOTS


def test_views_that_are_late_are_no_steps() -> None:
    used, _ = full()
    head = used.windows["k"][0].head
    for clock, late in ((10_000, 9_000), (600_000, 599_000), (600_000, 0), (700_000, 600_000), (700_001, 0)):
        used.follow(START + clock - late, clock)
    assert used.windows["k"][0].head == head


def test_back_and_ahead_again() -> None:
    used, state = full()
    state.now -= 10 * STALE_MS
    used.follow(state.now, 1000)
    assert not may_go(used, state)
    state.now += 2 * HOUR_MS
    used.follow(state.now, 2000)
    assert not may_go(used, state)


def test_a_window_is_shifted_by_whole_slots_never_less_than_the_step() -> None:
    window = Window(HOUR_MS // SLOTS)
    window.move(START)
    head = window.head
    window.shift(1)
    assert window.head == head + 1
    window.shift(4 * HOUR_MS // SLOTS)
    assert window.head == head + 5


def test_time_of_a_tenants_connection_follows_what_they_took() -> None:
    held = Held(1)
    for _ in range(50):
        held.count += 1
        held.leave(2000)
    assert held.count == 1 and 1900 < held.each_ms <= 2000


def test_warming_tells_of_today_by_site_over_all_shards_the_fullest_first() -> None:
    departures, state = Departures(rests=False), State()
    day = START // DAY_MS
    for partition, (key, sent) in enumerate((("a.test#0\0one", 30), ("a.test#1\0one", 20), ("b.test#0\0two", 90))):
        window = departures._partition(partition).warm_of(key, 100, state)
        for _ in range(sent):
            window.take()
    assert departures.warming(day) == [("two", "b.test", 90, 100), ("one", "a.test", 50, 200)]
    assert departures.warming(day + 1) == []
    for n in range(30):
        departures._partition(9).warm_of(f"s{n}.test#0\0x", 10, state)
    assert len(departures.warming(day)) == 20
