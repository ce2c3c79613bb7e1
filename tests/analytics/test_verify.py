"""Rows against the records that they come from: whatever differs is found, named and put right, on both engines."""

import time
from datetime import date

from event_rows import NOON_MS, event, rows

from analytics.retention import days_of, retain
from analytics.rolling import WINDOW_S
from analytics.rollups import delete, rebuild
from analytics.rows import columns_of
from analytics.sink import Sink
from analytics.verify import COLUMNS, Comparison, Difference, Report, compare_derived

DAY = 86_400_000


def topic(count=60, partition=0):
    """Records of two days, with everything in them that a column can hold."""
    full = {
        "tags": ["a", "ü'\\"], "metadata": {"k": "v"}, "phases": {"rcpt": 3}, "due_at": NOON_MS, "possible_duplicate": True,
        "reply": "250 \n\t'ok'\\", "site": "big",
    }  # fmt: skip
    return rows(
        [event(f"m{n}", after_ms=n * 7 + n % 2 * DAY, **(full if n % 3 else {})) for n in range(count)], partition
    )


def stored(warehouse, records):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0, 1: 0})
    sink.write(records)


def compare(warehouse, records, day=None, repair=False):
    """As of a topic that has these records from offset 0 to 99 of two partitions."""
    comparison = Comparison(warehouse, Report({0: (0, 100), 1: (0, 100)}), day, repair)
    for at in range(0, len(records), 25):
        comparison.look(records[at : at + 25])
    comparison.finish()
    return comparison.report


def test_what_the_sink_has_written_is_equal(warehouse):
    records = [*topic(), *topic(10, 1)]
    stored(warehouse, records)
    report = compare(warehouse, records)
    assert report.ok and (report.records, report.rows) == (70, 70)
    assert set(COLUMNS) == set(columns_of(records[:1], 0)) - {"ingested_at"}
    assert compare(warehouse, records[::2], date(2026, 3, 1)).ok  # of one day alone


def spoil(warehouse, records):
    """One row missing, two wrong (one of them at another time), one twice, two that nobody wrote."""
    stored(warehouse, [record for record in records if record[1] != 5])
    for offset, change in ((10, {"site": "other"}), (20, {"at": NOON_MS - 60_001})):
        warehouse.command(f"ALTER TABLE events DELETE WHERE k_partition = 0 AND k_offset = {offset}")
        while warehouse.query(
            "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done"
        ).rows[0][0]:
            pass
        partition, _, old = records[offset]
        warehouse.insert("events", columns_of([(partition, offset, {**old, **change})], 0))
    warehouse.command("SYSTEM STOP MERGES")
    warehouse.insert("events", columns_of([records[30]], 1))
    warehouse.insert("events", columns_of([(0, 80, event("stranger")), (1, 3, event("other stranger"))], 0))


def test_every_difference_is_named_and_put_right(warehouse):
    records = topic()
    try:
        spoil(warehouse, records)
        found = compare(warehouse, records)
    finally:
        warehouse.command("SYSTEM START MERGES")
    assert not found.ok and found.counts == {"missing": 1, "wrong": 2, "twice": 1, "extra": 2}
    assert (
        Difference("missing", (0, 5)) in found.differences
        and Difference("extra", (0, 80), "accepted of stranger") in found.differences
    )
    assert Difference("wrong", (0, 10), "differs in site") in found.differences
    assert next(each for each in found.differences if each.place == (0, 20)).detail == "differs in ts, ts_ms"
    put_right = compare(warehouse, records, repair=True)
    assert put_right.counts == found.counts or put_right.counts["twice"] == 0  # merged meanwhile
    after = compare(warehouse, records)
    assert after.ok and after.rows == len(records)
    assert warehouse.query("SELECT count() FROM events").rows == [(len(records),)]


def test_a_day_alone_is_rebuilt_and_no_other_is_touched(warehouse):
    records = topic()
    first = [record for record in records if record[2]["at"] < NOON_MS + DAY // 2]
    assert compare(warehouse, first, date(2026, 3, 1), repair=True).counts == {"missing": len(first)}
    assert compare(warehouse, first, date(2026, 3, 1)).ok
    assert days_of(warehouse) == [date(2026, 3, 1)]


def test_a_record_that_cannot_be_stored_is_no_row(warehouse):
    records = topic(6)
    records[2][2]["kind"] = "of a newer release"
    stored(warehouse, records)
    report = compare(warehouse, records)
    assert report.ok and (report.records, report.unstorable, report.rows) == (5, 1, 5)


def derived(warehouse, records, later_s=WINDOW_S + 1):
    """What is said of hours and messages, `later_s` after the last row has come."""
    report = compare(warehouse, records)
    assert report.ok and report.accepted
    compare_derived(warehouse, report, lambda: time.time() + later_s)
    return report


def test_cells_and_messages_that_are_not_as_the_events_say_are_named(warehouse):
    records = topic()
    stored(warehouse, records)
    early = derived(warehouse, records, later_s=0)
    assert early.ok and early.behind > 0  # the sink has time to roll them
    assert set(derived(warehouse, records).counts) == {"cell"}
    for day in (date(2026, 3, 1), date(2026, 3, 2)):
        rebuild(warehouse, day)
    report = derived(warehouse, records)
    assert report.ok and report.behind == 0
    delete(warehouse, "messages", "message_id = 'm7'")
    delete(warehouse, "events", "k_offset = 8")
    stored(warehouse, [(0, 8, {**records[8][2], "kind": "routed", "site": "x"})])
    found = Report({0: (0, 0)}, days={date(2026, 3, 1)}, accepted={date(2026, 3, 1)})
    compare_derived(warehouse, found, lambda: time.time() + WINDOW_S + 1)
    assert Difference("message", None, "m7") in found.differences and "feedback" not in found.counts
    assert any("routed" in each.detail and " x " in each.detail for each in found.differences if each.kind == "cell")


def test_feedback_that_is_not_in_its_table_is_named(warehouse):
    records = [*topic(4), (0, 4, event("m1", "complained", evidence="r1"))]
    stored(warehouse, records)
    for day in (date(2026, 3, 1), date(2026, 3, 2)):
        rebuild(warehouse, day)
    assert derived(warehouse, records).ok
    delete(warehouse, "feedback", "message_id = 'm1'")
    assert derived(warehouse, records).differences == [Difference("feedback", None, "m1")]


def test_old_days_go_and_no_other(warehouse):
    stored(warehouse, topic())
    both = [date(2026, 3, 1), date(2026, 3, 2)]
    later = (NOON_MS + 31 * DAY) / 1000
    assert days_of(warehouse) == both and retain(warehouse, 31, now=lambda: later) == []
    assert retain(warehouse, 30, now=lambda: later, dry_run=True) == both[:1] and days_of(warehouse) == both
    assert retain(warehouse, 30, now=lambda: later) == both[:1]
    assert days_of(warehouse) == both[1:] and retain(warehouse, 30, now=lambda: later) == []
