"""`messages`: the newest step of each message, in whatever order and however often the steps come, and the same in Python and in SQL."""

import random
from datetime import UTC, date, datetime, timedelta

from event_rows import NOON_MS, event, rows

from analytics import messages
from analytics.rollups import wrong_messages
from analytics.rows import columns_of
from analytics.sink import Sink

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
DAY = date(2026, 3, 1)
ROUTE = {"site": "gmail", "pool": "shared", "source": "s1"}
LIFE = [
    event("m1"),
    event("m1", "validated", 2),
    event("m1", "scheduled", 5, due_at=NOON_MS + 60_000),
    event("m1", "validated", 60_010, round=1),
    event("m1", "routed", 60_020, round=1, **ROUTE),
    event("m1", "deferred", 61_000, round=1, attempt=1, reason="greylisted", reply_code=451, due_at=NOON_MS + 90_000, **ROUTE),
    event("m1", "routed", 90_000, round=2, attempt=1, **ROUTE),
    event("m1", "delivered", 91_234, round=2, attempt=2, reply_code=250, tags=["news"], size=77, **ROUTE),
]  # fmt: skip
FEEDBACK = [
    event("m1", "complained", 99_000, round=2, attempt=2, evidence="r1", **ROUTE),
    event("", "noted", tenant=""),
]


def kept(warehouse, what="message_id, state, ended, attempt"):
    return warehouse.query(f"SELECT {what} FROM messages FINAL ORDER BY message_id").rows


def write(warehouse, records):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    assert sink.write(records) == []


def test_the_row_follows_the_message_step_by_step(warehouse):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    seen = []
    for record in rows(LIFE):
        sink.write([record])
        ((_, state, ended, _),) = kept(warehouse)
        seen.append((state, ended))
    assert seen == [(each["kind"], int(each is LIFE[-1])) for each in LIFE]


def test_order_repeats_and_feedback_do_not_matter(warehouse):
    for seed in range(3):
        records = rows([*LIFE, *FEEDBACK, *LIFE])
        random.Random(seed).shuffle(records)
        for at in range(0, len(records), 5):
            write(warehouse, sorted(records[at : at + 5], key=lambda record: record[1]))
        assert kept(warehouse) == [("m1", "delivered", 1, 2)]
    assert wrong_messages(warehouse, DAY) == []


def test_it_has_what_the_end_says(warehouse):
    write(warehouse, rows(LIFE))
    (row,) = warehouse.query("SELECT *, latency_ms FROM messages FINAL").dicts()
    assert (row["accepted_at"], row["state_at"], row["state_ms"]) == (NOON, NOON + timedelta(seconds=91), 234)
    assert (row["latency_ms"], row["size"], list(row["tags"]), row["reply_code"]) == (91_234, 77, ["news"], 250)
    assert (row["site"], row["pool"], row["source"], row["round"]) == ("gmail", "shared", "s1", 2)
    assert not any("ann@" in str(value) for value in row.values()), "no address is in it"


def test_python_and_sql_agree_about_versions(warehouse):
    hostile = [
        event("h1", "deferred", round=5000, attempt=10**9),
        event("h2", "delivered", -5_000, attempt=1),
        event("h3", "routed", 10**12 // 8),
        event("h3", "routed", 10**12 // 8 + 1),
    ]
    write(warehouse, rows([*LIFE, *hostile, *FEEDBACK]))
    in_sql = warehouse.query(
        f"SELECT {', '.join(messages.COLUMNS)} FROM ({messages.select('1')}) ORDER BY message_id"
    ).dicts()
    in_table = warehouse.query(f"SELECT {', '.join(messages.COLUMNS)} FROM messages FINAL ORDER BY message_id").dicts()
    assert in_sql == in_table and [row["message_id"] for row in in_sql] == ["h1", "h2", "h3", "m1"]


def test_what_is_no_step_makes_no_row():
    columns = messages.columns_of(columns_of(rows(FEEDBACK), 0))
    assert set(columns) == set(messages.COLUMNS) and not any(map(len, columns.values()))


def test_feedback_has_when_it_came(warehouse):
    for _ in range(2):
        write(warehouse, rows([*LIFE, *FEEDBACK]))
    found = warehouse.query("SELECT message_id, toString(kind), evidence, at FROM feedback FINAL").rows
    assert found == [("m1", "complained", "r1", NOON + timedelta(seconds=99))]
    again = warehouse.query(f"SELECT {', '.join(messages.FEEDBACK_COLUMNS)} FROM ({messages.feedback('1')})").rows
    assert len(again) == 1 and set(messages.FEEDBACK_COLUMNS) == set(
        messages.feedback_of(columns_of(rows(FEEDBACK), 0))
    )


def test_a_row_that_was_lost_on_the_way_comes_with_the_repeat(warehouse):
    """Killed between the two inserts: the events are there, uncommitted, and the next life is given them again."""
    warehouse.insert("events", columns_of(rows(LIFE), 0))
    assert kept(warehouse) == [] and wrong_messages(warehouse, DAY) == ["m1"]
    write(warehouse, rows(LIFE))
    assert kept(warehouse) == [("m1", "delivered", 1, 2)]
    assert warehouse.query("SELECT count() FROM events").rows == [(len(LIFE),)]


def test_messages_of_very_many_days_fit_in_one_batch(warehouse):
    """A server refuses one insert into over 100 partitions: here all steps are of one day, the messages of 230."""
    old = [event(f"m{n}", "expired", n * 86_400_000, accepted_at=NOON_MS - n * 86_400_000) for n in range(230)]
    write(warehouse, rows(old))
    assert warehouse.query("SELECT count(), uniqExact(toDate(accepted_at)) FROM messages").rows == [(230, 230)]
