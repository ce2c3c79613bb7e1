"""Demo data: both engines make the same rows, mail is conserved in it, and the named queries find what is wrong."""

from datetime import UTC, datetime, timedelta

import pytest
from event_rows import event, rows

from analytics import grafana, queries, reference
from analytics.demo import UsedDatabase, load
from analytics.sink import Sink
from postroad import ids
from postroad.bounces import REASONS

END = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
DAYS, MESSAGES = 5, 20_000
# cityHash64 of what both engines must agree about
CONTENT = """SELECT count(), sum(cityHash64(message_id, toString(kind), toUInt32(ts), ts_ms, attempt, recipient, site, source, reason, reply,
    duration_ms, toUInt32(due_at), size)) FROM events"""
made = {}


def every_panel_finds_rows(warehouse):
    """As Grafana would ask, over the whole of the data."""
    given = {"tenant": "harbour-books", "site": "lark.test", "source": "out-2"}

    def asked(sql):
        for name, at in (("from", END - timedelta(days=6)), ("to", END)):
            sql = sql.replace(f"$__{name}Time", f"toDateTime({int(at.timestamp())}, 'UTC')")
        for name, value in given.items():
            sql = sql.replace(f"${{{name}:sqlstring}}", f"'{value}'")
        assert "$" not in sql
        return warehouse.query(sql)

    for dashboard in grafana.DASHBOARDS:
        for panel in dashboard.panels:
            found = asked(panel.sql)
            assert found.rows, f"{dashboard.name}: {panel.title}"
            assert panel.kind != "timeseries" or found.columns[0] == "time"
            assert any(any(isinstance(value, int | float) and value for value in row) for row in found.rows), (
                panel.title
            )
        if dashboard.variable is not None:
            name, sql = dashboard.variable
            assert (given[name],) in asked(sql).rows


def test_a_month_and_what_is_to_be_found_in_it(request, warehouse):
    loaded = load(warehouse, days=DAYS, messages=MESSAGES, seed=3, end=END)
    assert loaded.messages == MESSAGES and loaded.events > 6 * MESSAGES
    assert loaded.month.end == END.replace(minute=0)

    doc = reference.DOC.read_text("utf-8")
    assert reference.demo_arguments(doc) == {"days": DAYS, "messages": MESSAGES, "seed": 3, "end": END}
    assert reference.with_answers(doc, warehouse) == doc, "run: python -m analytics.reference --answers"

    every_panel_finds_rows(warehouse)

    total = queries.run(warehouse, "conservation", since=END - timedelta(days=30)).dicts()[0]
    assert total["accepted"] == MESSAGES == total["ended"] + total["in_flight"]
    assert total["two_ends"] == total["not_accepted"] == 0 and total["in_flight"] < 100
    assert total["delivered"] > 0.95 * MESSAGES and total["bounced"] and total["dropped"] and total["rejected"]

    truth = {incident.name: incident for incident in loaded.month.incidents}
    storm = truth["storm"]
    storms = queries.run(warehouse, "deferral_storms", since=storm.begins, until=storm.ends).dicts()
    assert {row["site"] for row in storms} == {storm.site} and len(storms) >= 6
    blocked = truth["block"]
    (worst, *_) = queries.run(
        warehouse, "deferrals", since=blocked.begins, until=blocked.ends + timedelta(hours=2)
    ).dicts()
    assert (worst["site"], worst["reason"]) == (blocked.site, "blocked")
    slow = truth["slow"]
    by_site = [
        row
        for row in queries.run(warehouse, "latency", since=slow.begins, until=slow.ends).dicts()[1:]
        if row["messages"] > 20
    ]
    assert max(by_site, key=lambda row: row["p50_ms"])["site"] == slow.site
    bought = truth["bought list"]
    usage = queries.run(
        warehouse, "ends_by_reason", tenant=bought.tenant, since=bought.begins, until=bought.ends
    ).dicts()
    unknown = next(row for row in usage if row["reason"] == "user-unknown")
    assert unknown["messages"] > 0.15 * sum(row["messages"] for row in usage)

    found = warehouse.query(
        "SELECT message_id, accepted_at, accepted_ms FROM events WHERE kind = 'accepted' ORDER BY k_offset LIMIT 500"
    ).rows
    assert len({row[0] for row in found}) == 500
    for message_id, at, ms in found:
        assert ids.accepted_at(message_id) == int(at.replace(tzinfo=UTC).timestamp()) * 1000 + ms
    reasons = {row[0] for row in warehouse.query("SELECT DISTINCT reason FROM events WHERE site != ''").rows}
    assert reasons - {"", "abuse"} <= set(REASONS)

    made[request.node.callspec.params["empty"]] = warehouse.query(CONTENT).rows
    assert len(set(map(str, made.values()))) == 1, "both engines make the same"


def test_events_of_mail_are_not_mixed_with_it(warehouse):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows([event()]))
    with pytest.raises(UsedDatabase, match="1 events of mail"):
        load(warehouse, days=1, messages=24, end=END)
    load(warehouse, days=1, messages=100, end=END, into_used=True)
    with pytest.raises(UsedDatabase, match="already"):
        load(warehouse, days=1, messages=100, end=END, into_used=True)


@pytest.mark.parametrize(("days", "messages"), [(0, 100), (2, 47)])
def test_too_little_is_told(warehouse, days, messages):
    with pytest.raises(ValueError, match="a day at least"):
        load(warehouse, days=days, messages=messages, end=END)
