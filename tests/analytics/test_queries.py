"""Each named query on a small data set whose answers are known, on both engines."""

from datetime import UTC, datetime, timedelta

import pytest
from event_rows import NOON_MS, event, rows

from analytics import queries
from analytics.rows import columns_of
from analytics.sink import Sink
from postroad import ids

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
SINCE = {"since": NOON - timedelta(hours=1)}

EVENTS = [
    *[event(f"d{n}") for n in range(4)],
    *[event(f"d{n}", "delivered", (n + 1) * 1000, attempt=1, site="gmail") for n in range(3)],
    event("d3", "deferred", 2000, attempt=1, site="slow", reason="greylisted", reply_code=451, reply="451 later"),
    event(
        "d3", "deferred", 3000, attempt=2, round=1, site="slow", reason="greylisted", reply_code=451, reply="451 again"
    ),
    event("d3", "delivered", 100_000, attempt=3, round=2, site="slow"),
    event("b1"),
    event(
        "b1",
        "bounced",
        500,
        attempt=1,
        site="gmail",
        reason="user-unknown",
        enhanced_code="5.1.1",
        reply="550 5.1.1 no",
    ),
    event("x1", tenant="other"),
    event("x1", "dropped", 10, tenant="other", reason="suppressed"),
    event("x2", tenant="other"),
    event("x2", "rejected", 10, tenant="other", reason="bad-address"),
    event("f1", tenant="other"),
    event("f1", "scheduled", 5, tenant="other", due_at=NOON_MS + 60_000),
]


@pytest.fixture
def filled(warehouse):
    """The events, with the repeats that a crashed stage leaves: the same events again at other offsets, a little later."""
    repeats = [
        each | {"at": each["at"] + 7}
        for each in EVENTS
        if each["kind"] in ("accepted", "deferred", "bounced", "dropped")
    ]
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows(EVENTS))
    sink.write(rows(repeats, first=len(EVENTS)))
    sink.roll()
    return warehouse


def ask(warehouse, name, **params):
    return queries.run(warehouse, name, **(SINCE | params if "message" not in params else params)).rows


def test_ends_by_reason(filled):
    shop = [("delivered", "", 4), ("bounced", "user-unknown", 1)]
    assert ask(filled, "ends_by_reason") == [*shop, ("dropped", "suppressed", 1), ("rejected", "bad-address", 1)]
    assert ask(filled, "ends_by_reason", tenant="shop") == shop


def test_ends_by_site(filled):
    assert ask(filled, "ends_by_site") == [
        ("gmail", 4, 3, 1, 0, 0, 0, 0),
        ("", 2, 0, 0, 1, 1, 0, 0),
        ("slow", 1, 1, 0, 0, 0, 0, 0),
    ]


def test_latency(filled):
    assert ask(filled, "latency") == [
        ("(all)", 4, 3000, 100_000, 100_000, 100_000), ("gmail", 3, 2000, 3000, 3000, 3000), ("slow", 1, 100_000, 100_000, 100_000, 100_000),
    ]  # fmt: skip


def test_conservation(filled):
    assert ask(filled, "conservation") == [
        ("(all)", 8, 7, 1, 4, 1, 1, 1, 0, 0, 0, 0), ("shop", 5, 5, 0, 4, 1, 0, 0, 0, 0, 0, 0), ("other", 3, 2, 1, 0, 0, 1, 1, 0, 0, 0, 0),
    ]  # fmt: skip


def test_conservation_shows_what_is_wrong(filled):
    sink = Sink(filled, "g")
    sink.recover({1: 0})
    wrong = [
        event("b1", "delivered", 9000, attempt=2),
        event("d0", "delivered", 9000, attempt=2),
        event("ghost", "expired", 5),
    ]
    sink.write(rows(wrong, partition=1))
    (total, *_) = queries.run(filled, "conservation", tenant="shop", **SINCE).dicts()
    assert (total["accepted"], total["ended"], total["in_flight"], total["two_ends"], total["not_accepted"]) == (
        5,
        5,
        0,
        2,
        1,
    )


def test_conservation_follows_messages_beyond_the_window_they_were_accepted_in(filled):
    window = {"since": NOON, "until": NOON + timedelta(seconds=1)}
    assert ask(filled, "conservation", tenant="shop", **window)[0][:4] == ("(all)", 5, 5, 0)
    assert ask(filled, "conservation", since=NOON + timedelta(seconds=1)) == []
    assert ask(filled, "conservation", since=datetime.fromtimestamp(0, UTC))[0][1] == 8


def test_timeline(filled):
    found = queries.run(filled, "timeline", message="d3").dicts()
    assert [(row["kind"], row["attempt"], row["reason"]) for row in found] == [
        ("accepted", 0, ""), ("deferred", 1, "greylisted"), ("deferred", 2, "greylisted"), ("delivered", 3, ""),
    ]  # fmt: skip
    assert [row["at"] for row in found] == [NOON + timedelta(seconds=s) for s in (0, 2, 3, 100)]
    assert queries.run(filled, "timeline", message="' OR 1 = 1 --").rows == []


@pytest.mark.parametrize("rolled", [True, False])
def test_a_timeline_reads_few_days_and_misses_nothing(warehouse, rolled):
    """Of a message whose id says when it was accepted; what came back weeks after the end is in it, and what a slow stage told again."""
    id, day = ids.message_id(NOON_MS, "shop", "s1", "0:0", "ann@example.org"), 86_400_000
    told = [
        event(id, after_ms=-50),
        event(id, "deferred", 1000, attempt=1),
        event(id, "delivered", 3 * day, attempt=2),
        event(id, "routed", 3 * day + 3_600_000),
        event(id, "late_bounce", 30 * day, attempt=2, evidence="r1"),
        event(id, "complained", 60 * day, attempt=2, evidence="r2"),
    ]
    if rolled:
        sink = Sink(warehouse, "g")
        sink.recover({0: 0})
        sink.write(rows([*told, event("other", "complained", 61 * day, evidence="r2")]))
    else:  # rows of before there was a table of messages
        warehouse.insert("events", columns_of(rows(told), 0))
    found = [row["kind"] for row in queries.run(warehouse, "timeline", message=id).dicts()]
    assert found == [each["kind"] for each in told]
    almost = id[:-1] + ("0" if id[-1] != "0" else "4")
    assert queries.run(warehouse, "timeline", message=almost).rows == []


def test_bounce_reasons_by_site(filled):
    assert ask(filled, "bounce_reasons_by_site") == [("gmail", "user-unknown", "5.1.1", 1, "550 5.1.1 no")]


def test_deliverability_by_site(filled):
    assert ask(filled, "deliverability_by_site") == [(NOON, "gmail", 3, 1, 0, 0.75), (NOON, "slow", 1, 0, 0, 1.0)]


def test_deferrals(filled):
    assert ask(filled, "deferrals") == [("slow", "greylisted", 451, 2, 1, "451 again")]


def test_attempts_per_delivery(filled):
    assert ask(filled, "attempts_per_delivery") == [(1, 3), (3, 1)]


def test_the_window_is_closed_at_its_beginning_and_open_at_its_end(filled):
    assert ask(filled, "attempts_per_delivery", since=NOON + timedelta(seconds=2), until="2026-03-01T12:00:03Z") == [
        (1, 1)
    ]


@pytest.mark.parametrize("name", queries.names())
def test_no_query_fails_on_an_empty_table_or_a_hostile_tenant(warehouse, name):
    params = {"message": "'; DROP TABLE events --"} if name == "timeline" else {"tenant": "') OR 1 = 1 --\\"}
    assert queries.run(warehouse, name, **params).rows == []


@pytest.mark.parametrize("name", queries.names())
def test_a_header_names_parameters_columns_and_an_example(name):
    header = queries.describe(name)
    assert "Parameters:" in header and "Columns:" in header and f'"{name}"' in header


def test_wrong_use_is_an_error_that_says_what_there_is(warehouse):
    with pytest.raises(ValueError, match="latency"):
        queries.run(warehouse, "latencies")
    with pytest.raises(ValueError, match=r"tenent.*since, tenant, until"):
        queries.run(warehouse, "latency", tenent="shop")
    with pytest.raises(ValueError, match=r"message .* missing"):
        queries.run(warehouse, "timeline")
    with pytest.raises(ValueError, match="not a time"):
        queries.run(warehouse, "latency", since="yesterday")
    with pytest.raises(ValueError, match="no zone"):
        queries.run(warehouse, "latency", since="2026-03-01T12:00:00")


def test_a_date_alone_is_its_midnight_in_utc():
    from analytics.queries import moment

    assert moment("2026-01-31") == datetime(2026, 1, 31, tzinfo=UTC)
    assert moment("2026-01-31T10:00:00+01:00") == datetime(2026, 1, 31, 9, tzinfo=UTC)
    with pytest.raises(ValueError, match="is not a time"):
        moment("yesterday")


def test_queue(warehouse):
    """What has ended, is held or was let go does not count; a step told twice does once; the last reply is the last one's."""
    told = [
        event("w1", "routed", 100, site="slow"),
        event(
            "w1",
            "deferred",
            2000,
            attempt=1,
            site="slow",
            reply_code=451,
            reply="first",
            reason="greylisted",
            due_at=NOON_MS + 60_000,
        ),
        event("w2", "routed", 1000, site="slow"),
        event(
            "w2",
            "deferred",
            3000,
            attempt=1,
            site="slow",
            reply_code=452,
            reply="second",
            reason="rate-limited",
            due_at=NOON_MS + 50_000,
        ),
        event("w2", "routed", 5000, round=1, attempt=1, site="slow"),
        event("w2", "scheduled", 5000, round=1, attempt=1, site="slow", reason="rate-limit", due_at=NOON_MS + 70_000),
        event("d1", "deferred", 3000, attempt=1, site="slow", reply_code=450, reply="gone", due_at=NOON_MS + 90_000),
        event("d1", "delivered", 4000, round=1, attempt=2, site="slow"),
        event("n1", "scheduled", 10, reason="dns", due_at=NOON_MS + 1_000, tenant="other"),
        event("h1", "held", 10),
        event("r1", "routed", 10, site="quick"),
    ]
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows([*told, *told]))
    found = ask(warehouse, "queue")
    assert [row[:3] for row in found] == [("slow", 2, 1), ("", 1, 0), ("quick", 1, 0)]
    slow = found[0]
    assert slow[3:5] == (NOON, NOON + timedelta(seconds=60))
    assert slow[5:] == ("rate-limit", 452, "second", NOON + timedelta(seconds=3))
    assert [row[0] for row in ask(warehouse, "queue", tenant="other")] == [""]
    assert [row[0] for row in ask(warehouse, "queue", site="quick")] == ["quick"]


def test_phases_and_policy_are_kept(warehouse):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    wrong = event("x", phases={"connect": "soon"})
    rejected = sink.write(rows([event("p", "deferred", shaping="abc", phases={"connect": 12, "rcpt": 1 << 40}), wrong]))
    assert [each.offset for each in rejected] == [1]
    (row,) = queries.run(warehouse, "timeline", message="p").dicts()
    assert (row["shaping"], row["phases"], row["phase_ms"]) == ("abc", ["connect", "rcpt"], [12, (1 << 32) - 1])


LATE = {"site": "gmail", "reason": "user-unknown", "bounce_class": "hard", "round": 0, "attempt": 1}
BACK = [
    event("d0", "late_bounce", 5000, evidence="r1", **LATE),
    event("d0", "late_bounce", 6000, evidence="r2", **LATE),
    event("d0", "complained", 7000, evidence="r3", site="gmail", reason="abuse", attempt=1),
    event("", "noted", 1, tenant="", reason="report-forged", evidence="r4"),
]


def test_what_came_back_is_told_apart_from_the_end(filled):
    before = [ask(filled, name) for name in ("conservation", "ends_by_site", "latency", "ends_by_reason", "queue")]
    sink = Sink(filled, "g")
    sink.recover({0: 100})
    sink.write(rows(BACK, first=100))
    sink.roll()
    assert [
        ask(filled, name) for name in ("conservation", "ends_by_site", "latency", "ends_by_reason", "queue")
    ] == before
    assert ask(filled, "feedback") == [
        ("gmail", "complained", "abuse", "", 1, 1),
        ("gmail", "late_bounce", "user-unknown", "hard", 2, 1),
    ]
    told = [(row[2], row[-1]) for row in ask(filled, "timeline", message="d0")]
    assert told == [
        ("accepted", ""),
        ("delivered", ""),
        ("late_bounce", "r1"),
        ("late_bounce", "r2"),
        ("complained", "r3"),
    ]


def test_a_span_that_ends_before_it_begins_is_said_so(warehouse):
    with pytest.raises(ValueError, match="is after until"):
        queries.run(warehouse, "latency", since="2026-03-01", until="2026-02-01")


def test_each_query_has_its_summary_in_a_line():
    for name in queries.names():
        summary = queries.summary(name)
        assert 10 < len(summary) < 200 and "\n" not in summary and not summary.endswith(".")
