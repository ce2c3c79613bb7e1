"""`hours`: cells equal what events say, after any kills, repeats and repairs; the sink rolls what it must, and no life forgets an hour."""

import random
from datetime import date

import pytest
from event_rows import NOON_MS, event, rows

from analytics import rolling, rollups
from analytics.clickhouse import WarehouseError
from analytics.rolling import Rolling
from analytics.rollups import BIN, BIN_MIDDLE, HOURS, rebuild, wrong_cells, wrong_messages
from analytics.rows import columns_of
from analytics.sink import Sink

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
DAY, NEXT = date(2026, 3, 1), date(2026, 3, 2)
ROUTE = {"site": "gmail", "source": "s1", "attempt": 1}


def lives(count, hours=3):
    made = []
    for n in range(count):
        at = n % hours * HOUR_MS
        made += [
            event(f"m{n}", after_ms=at, tenant=f"t{n % 2}", size=10),
            event(f"m{n}", "deferred", at + 500, tenant=f"t{n % 2}", reason="greylisted", **ROUTE),
            event(f"m{n}", "delivered", at + 1000 + n, tenant=f"t{n % 2}", **ROUTE | {"attempt": 2}),
        ]
    return made


def sink_of(warehouse, committed=0, **arguments):
    sink = Sink(warehouse, "g", **arguments)
    sink.recover({0: committed, 1: 0})
    return sink


def totals(warehouse):
    return dict(warehouse.query("SELECT toString(kind), sum(messages) FROM hours FINAL GROUP BY kind").rows)


def test_cells_say_what_events_say(warehouse):
    sink = sink_of(warehouse)
    repeated = lives(60)
    sink.write(rows([*repeated, *repeated, event("", "noted", tenant="")]))
    assert totals(warehouse) == {} and len(wrong_cells(warehouse, DAY)) == 18
    assert sink.roll() == 3 and sink.roll() == 0
    assert wrong_cells(warehouse, DAY) == []
    assert totals(warehouse) == {"accepted": 60, "deferred": 60, "delivered": 60}
    cells = warehouse.query(
        "SELECT sum(places), sum(events), sumIf(bytes, kind = 'accepted'), sumIf(events, tried) FROM hours FINAL"
    )
    assert cells.rows == [(360, 180, 600, 120)]


def test_cells_only_grow_and_the_largest_counts(warehouse):
    sink = sink_of(warehouse)
    for at in range(0, 90, 9):
        sink.write(rows(lives(30)[at : at + 9], first=at))
        sink.roll()
        assert wrong_cells(warehouse, DAY) == []
    rollups.roll(warehouse, [(NOON_MS + n * HOUR_MS) // 1000 for n in range(3)])
    assert wrong_cells(warehouse, DAY) == [] and totals(warehouse)["delivered"] == 30


def test_one_record_stored_twice_counts_once(warehouse):
    """A sink that was frozen and revived after a rebalance; before and after ClickHouse merges the two rows."""
    sink = sink_of(warehouse)
    sink.write(rows(lives(20)))
    warehouse.insert("events", columns_of(rows(lives(20)), 0))
    sink.roll()
    assert totals(warehouse)["delivered"] == 20
    warehouse.command("OPTIMIZE TABLE events PARTITION 20260301 FINAL")
    assert wrong_cells(warehouse, DAY) == []


def test_feedback_counts_by_its_evidence(warehouse):
    sink = sink_of(warehouse)
    sink.write(rows([event("m1", "late_bounce", n, evidence=f"r{n % 2}", **ROUTE) for n in range(4)]))
    sink.roll()
    assert warehouse.query("SELECT places, events, messages FROM hours FINAL").rows == [(4, 2, 1)]


@pytest.mark.parametrize("dead_for_s", [10, 10_000_000])
def test_the_next_life_rolls_what_a_killed_one_had_not(warehouse, dead_for_s):
    """Its rows are committed, so Kafka does not give them again; only their time of insertion tells."""
    first = sink_of(warehouse, now=lambda: 1_800_000_000)
    first.write(rows(lives(30)))
    assert totals(warehouse) == {}
    sink_of(warehouse, committed=90, now=lambda: 1_800_000_000 + dead_for_s)
    assert wrong_cells(warehouse, DAY) == [] and totals(warehouse)["delivered"] == 30


def test_a_partition_that_rests_does_not_hide_the_newer_rows_of_another(warehouse):
    sink_of(warehouse, now=lambda: 1_800_000_000).write(rows([event("old", "dropped", -5 * DAY_MS)], partition=1))
    sink_of(warehouse, now=lambda: 1_800_500_000).write(rows(lives(30)))
    sink_of(warehouse, committed=90)
    assert totals(warehouse) == {"accepted": 30, "deferred": 30, "delivered": 30, "dropped": 1}


class Refusing:
    """A ClickHouse that takes rows of events but refuses a rollup as often as it is told."""

    def __init__(self, warehouse, times):
        self.warehouse, self.times = warehouse, times

    def __getattr__(self, name):
        return getattr(self.warehouse, name)

    def command(self, sql, params=None):
        if "INTO hours" in sql and self.times > 0:
            self.times -= 1
            raise WarehouseError("refused")
        self.warehouse.command(sql, params)


def test_an_hour_that_could_not_be_rolled_waits_on(warehouse):
    sink = sink_of(Refusing(warehouse, 1))
    sink.write(rows(lives(30)))
    with pytest.raises(WarehouseError):
        sink.roll()
    assert sink.roll() == 3 and wrong_cells(warehouse, DAY) == []


def test_nothing_more_is_written_while_an_hour_waits_too_long(warehouse):
    """Or a later life would look for it in vain."""
    now = [0.0]
    sink = sink_of(Refusing(warehouse, 10))
    sink._rolling = Rolling(sink._warehouse, lambda: now[0])
    sink.write(rows(lives(10)))
    now[0] = rolling.LATEST_S + 1
    with pytest.raises(WarehouseError):
        sink.write(rows([event("late")], first=30))
    assert warehouse.query("SELECT count() FROM events WHERE message_id = 'late'").rows == [(0,)]
    assert rolling.LATEST_S + 2 * rolling.EVERY_S < rolling.WINDOW_S
    assert [rolling.pause(took) for took in (0.0, 0.1, 1.0, 100.0)] == [5.0, 5.0, 20.0, 60.0]


def test_rebuild_makes_cells_and_messages_smaller_too(warehouse):
    sink = sink_of(warehouse)
    tomorrow = [each | {"at": each["at"] + DAY_MS, "message_id": f"n-{each['message_id']}"} for each in lives(10)]
    sink.write(rows([*lives(30), *tomorrow]))
    sink.roll()
    warehouse.command("ALTER TABLE events DELETE WHERE kind = 'delivered' AND k_offset < 30")
    waiting = "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done"
    while warehouse.query(waiting).rows[0][0]:
        pass
    assert len(wrong_cells(warehouse, DAY)) == 6 and wrong_cells(warehouse, NEXT) == []
    assert len(wrong_messages(warehouse, DAY)) == 10
    rebuild(warehouse, DAY)
    rebuild(warehouse, NEXT)
    assert wrong_cells(warehouse, DAY) == wrong_cells(warehouse, NEXT) == wrong_messages(warehouse, DAY) == []
    assert totals(warehouse)["delivered"] == 30
    assert warehouse.query("SELECT countIf(state = 'deferred'), countIf(ended) FROM messages FINAL").rows == [(10, 30)]


def test_rebuild_fills_tables_that_came_after_the_events(warehouse, monkeypatch):
    monkeypatch.setattr(rollups, "AT_ONCE", 50)  # so a day is done in several parts
    warehouse.insert("events", columns_of(rows(lives(80)), 0))
    rebuild(warehouse, DAY)
    assert wrong_cells(warehouse, DAY) == wrong_messages(warehouse, DAY) == []
    assert totals(warehouse)["delivered"] == 80


def test_bins_are_in_order_and_their_middle_is_near(warehouse):
    dice = random.Random(1)
    values = sorted(
        {
            *range(300),
            *(2**n + d for n in range(5, 42) for d in (-1, 0, 1)),
            *(dice.randrange(2**40) for _ in range(500)),
        }
    )
    found = warehouse.query(
        f"SELECT waited, {BIN} AS bin, {BIN_MIDDLE} AS middle FROM (SELECT toUInt64(arrayJoin({values})) AS waited) ORDER BY waited"
    ).rows
    bins = [bin for _, bin, _ in found]
    assert bins == sorted(bins) and bins[:300:1][:64] == list(range(64))
    assert all(abs(middle - waited) <= 0.016 * waited for waited, _, middle in found)


def test_the_select_names_the_columns_of_the_table(warehouse):
    told = warehouse.query(HOURS.select("0")).columns
    there = [row[0] for row in warehouse.query("DESCRIBE TABLE hours").rows]
    assert tuple(told) == HOURS.keys + HOURS.values and sorted(told) == sorted(there)
