"""Expand under load: a column and a rollup come while a sink of the old release goes on writing; no total changes."""

import itertools
import shutil
import threading
import time

from event_rows import event, rows

from analytics.migrate import FOLDER, migrate
from analytics.sink import Sink

EXPAND = """
ALTER TABLE events ADD COLUMN colour String AFTER evidence;
CREATE TABLE IF NOT EXISTS by_hour (hour DateTime('UTC'), tenant String, kind String, n UInt64)
ENGINE = ReplacingMergeTree(n) PARTITION BY toYYYYMM(hour) ORDER BY (hour, tenant, kind);
"""
FILL = """
INSERT INTO by_hour (hour, tenant, kind, n)
SELECT toStartOfHour(ts), tenant, toString(kind), uniqExact(message_id, round, attempt) FROM events GROUP BY toStartOfHour(ts), tenant, kind
"""
FROM_EVENTS = """
SELECT toStartOfHour(ts), tenant, toString(kind), uniqExact(message_id, round, attempt) FROM events
GROUP BY toStartOfHour(ts), tenant, kind
"""
FROM_CELLS = "SELECT hour, tenant, kind, max(n) FROM by_hour GROUP BY hour, tenant, kind"
AT_ONCE = 50


def of_the_topic(number):
    """Record `number`: two tenants, three kinds, some hours."""
    kind = ("accepted", "delivered", "bounced")[number % 3]
    return event(f"m{number // 3}", kind, after_ms=number * 60_000, tenant=f"t{number % 2}")


def test_a_column_and_a_rollup_come_under_a_sink_that_does_not_know_them(warehouse, tmp_path):
    sink, written, stop, first = Sink(warehouse, "old release"), [], threading.Event(), threading.Event()
    sink.recover({0: 0})

    def write():
        for start in itertools.count(0, AT_ONCE):
            if stop.is_set():
                return
            batch = rows([of_the_topic(number) for number in range(start, start + AT_ONCE)], first=start)
            assert sink.write(batch) == []
            written.extend(batch)
            first.set()

    old = threading.Thread(target=write)
    old.start()
    try:
        assert first.wait(30)
        release = tmp_path / "newer release"
        shutil.copytree(FOLDER, release)
        (release / "900_expand.sql").write_text(EXPAND)
        before = len(written)
        assert migrate(warehouse, release) == ["900_expand"]
        warehouse.command(FILL)  # a first time while rows still come: cells only grow
        enough = len(written) + 3 * AT_ONCE
        while len(written) < enough and old.is_alive():
            time.sleep(0.01)
    finally:
        stop.set()
        old.join()
    assert len(written) >= before + 3 * AT_ONCE  # the old sink went on
    assert migrate(warehouse) == []  # the old release starts again beside the new table
    warehouse.command(FILL)
    assert warehouse.query("SELECT count(), uniqExact(k_offset), countIf(colour = '') FROM events").rows == [
        (len(written),) * 3
    ]
    cells = sorted(warehouse.query(FROM_CELLS).rows)
    assert cells == sorted(warehouse.query(FROM_EVENTS).rows) and sum(n for *_, n in cells) == len(written)
    newer = rows([of_the_topic(len(written))], first=len(written))
    sink.recover({0: 0})
    assert sink.write([*written[-5:], *newer]) == []  # and recovers, in the newer layout
    assert warehouse.query("SELECT count(), uniqExact(k_offset) FROM events").rows == [(len(written) + 1,) * 2]
