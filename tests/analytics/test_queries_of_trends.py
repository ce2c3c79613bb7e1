"""Named queries about trends, on data whose answers are known, on both engines; each event twice, as after a crash of its stage."""

from datetime import UTC, date, datetime, timedelta

import pytest
from event_rows import NOON_MS, event, rows

from analytics import queries
from analytics.sink import Sink

NOON = datetime.fromtimestamp(NOON_MS / 1000, UTC)
DAY_MS, WEEK_MS = 86_400_000, 7 * 86_400_000
TODAY = date(2026, 3, 1)


def loaded(warehouse, events):
    sink = Sink(warehouse, "g")
    sink.recover({0: 0})
    sink.write(rows(events))
    sink.write(rows(events, first=len(events)))
    sink.roll()
    return lambda name, **params: queries.run(warehouse, name, **{"since": NOON - timedelta(days=1)} | params).rows


def ended(message, kind="delivered", after_ms=1000, **fields):
    return event(message, kind, after_ms, **{"attempt": 1, "site": "gmail", "source": "s1"} | fields)


def test_deferral_storms(warehouse):
    late = {"reason": "rate-limited", "reply": "421 slow down"}
    ask = loaded(
        warehouse,
        [ended(f"o{n}", after_ms=900_000) for n in range(41)]
        + [ended(f"o{n}", "deferred", 900_000, source="s2", **late) for n in range(41, 51)]  # 10 of 51
        + [ended(f"d{n}", "deferred", n, source=f"s{n % 2}", **late) for n in range(9)]
        + [ended("d0", "deferred", 10, round=1, attempt=2, reason="greylisted", reply="450 wait")]
        + [ended("a", "deferred", 5, site="few", **late)],
    )
    assert ask("deferral_storms") == [(NOON, "gmail", 10, 10, 1.0, 2, "rate-limited", "450 wait")]


def test_worst_domains(warehouse):
    ask = loaded(
        warehouse,
        [ended(f"g{n}", recipient_domain="good.test") for n in range(5)]
        + [ended(f"b{n}", recipient_domain="bad.test") for n in range(2)]
        + [ended(f"x{n}", "bounced", recipient_domain="bad.test", reason="user-unknown") for n in range(5)]
        + [ended("y", "expired", recipient_domain="bad.test", reason="expired")]
        + [ended("z", "bounced", recipient_domain="odd.test", reason="policy", tenant="other")],
    )
    assert ask("worst_domains") == [
        ("bad.test", 8, 5, 1, 0.625, "user-unknown"),
        ("odd.test", 1, 1, 0, 1.0, "policy"),
    ]
    assert ask("worst_domains", tenant="other") == [("odd.test", 1, 1, 0, 1.0, "policy")]


def test_tenant_usage(warehouse):
    ask = loaded(
        warehouse,
        [event(f"m{n}", size=1000) for n in range(3)]
        + [event("m3", tenant="other", size=7), event("m4", after_ms=-DAY_MS, size=5)]
        + [ended("m0"), ended("m1", "deferred"), ended("m1", "bounced", DAY_MS, attempt=2)],
    )
    found = ask("tenant_usage", since=NOON - timedelta(days=2))
    assert found == [
        (TODAY - timedelta(days=1), "shop", 1, 0, 0, 0, 5),
        (TODAY, "other", 1, 0, 0, 0, 7),
        (TODAY, "shop", 3, 1, 0, 2, 3000),
        (TODAY + timedelta(days=1), "shop", 0, 0, 1, 1, 0),
    ]


def test_source_reputation_and_complaint_sources(warehouse):
    ask = loaded(
        warehouse,
        [ended(f"m{n}") for n in range(8)]
        + [ended("m8", "bounced"), ended("m9", "bounced"), ended("m7", "deferred")]
        + [
            ended("m0", "complained", 9000, reason="abuse", detail="Loop/1 192.0.2.1", evidence=f"r{n}")
            for n in range(2)
        ]
        + [ended("q", "complained", 9000, reason="fraud", site="quiet", source="s2", evidence="r9")],
    )
    assert ask("source_reputation") == [
        ("s1", "gmail", 8, 2, 1, 1, 0.2, 0.125),
        ("s2", "quiet", 0, 0, 0, 1, 0.0, 1.0),
    ]
    assert ask("complaint_sources") == [
        ("gmail", "abuse", "Loop/1 192.0.2.1", 1, 8, 0.125),
        ("quiet", "fraud", "", 1, 0, 0.0),
    ]


def test_warmup_progress(warehouse):
    ask = loaded(
        warehouse,
        [ended(f"m{n}") for n in range(2)]
        + [ended(f"n{n}", after_ms=2 * DAY_MS) for n in range(3)]
        + [ended("n3", "deferred", 2 * DAY_MS), ended("n3", "bounced", 2 * DAY_MS + 5, attempt=2)]
        + [ended("k", site="other", after_ms=2 * DAY_MS)],
    )
    later = TODAY + timedelta(days=2)
    assert ask("warmup_progress") == [
        ("s1", "gmail", TODAY, 1, 2, 2, 0, 0),
        ("s1", "gmail", later, 3, 4, 3, 1, 1),
        ("s1", "other", later, 3, 1, 1, 0, 0),
    ]


def test_suppression_growth(warehouse):
    def entry(n, what, rule, **fields):
        return event("", "noted", n, reason=f"suppression-{what}", rule=rule, recipient=f"r{n}@a.test", **fields)

    ask = loaded(
        warehouse,
        [entry(n, "added", "tenant:hard-bounce", evidence=f"e{n}") for n in range(3)]
        + [entry(4, "removed", "tenant"), entry(5, "added", "global:complaint", tenant="")]
        + [event("", "noted", 9, reason="report-forged")],
    )
    assert ask("suppression_growth") == [
        (TODAY, "", "global:complaint", 1, 0),
        (TODAY, "shop", "tenant", 0, 1),
        (TODAY, "shop", "tenant:hard-bounce", 3, 0),
    ]


def test_campaign_funnel(warehouse):
    ask = loaded(
        warehouse,
        [event(f"m{n}", tags=["july", "news"]) for n in range(4)]
        + [event("p", tags=["july"]), event("q")]
        + [event(f"m{n}", "cleared", 1, tags=["july", "news"]) for n in range(3)]
        + [ended("m0", tags=["july", "news"]), ended("m1", "bounced", tags=["july", "news"])]
        + [event("p", "dropped", 1, tags=["july"])],
    )
    july = ("july", 5, 3, 0, 1, 1, 0, 1, 0, 0, 0, 0)
    assert ask("campaign_funnel") == [july, ("news", 4, 3, 0, 1, 1, 0, 0, 0, 0, 0, 0)]
    assert ask("campaign_funnel", tag="july") == [july]


def test_cohort_by_hour(warehouse):
    before = NOON_MS - 3 * 3_600_000
    ask = loaded(
        warehouse,
        [ended(f"m{n}", after_ms=1000 * (n + 1)) for n in range(3)]
        + [ended("m0", "complained", 9000, evidence="r")]
        + [ended("n0", "bounced", 4 * 3_600_000, accepted_at=before)],
    )
    assert ask("cohort_by_hour") == [(9, 1, 0, 1, 0, 0.0, 0, 0), (12, 3, 3, 0, 1, 1.0, 2000, 3000)]


@pytest.mark.parametrize(("now", "told"), [(34, True), (35, False), (70, False), (140, False), (141, True)])
def test_anomalies(warehouse, now, told):
    """The mean of this hour of the four weeks before is 70; the next hour's mail does not count."""
    events = [ended(f"m{n}") for n in range(now)]
    for week, count in enumerate((60, 80, 60, 80), start=1):
        events += [ended(f"w{week}-{n}", after_ms=-week * WEEK_MS) for n in range(count)]
        events += [ended(f"v{week}-{n}", after_ms=-week * WEEK_MS + 3_600_000) for n in range(count)]
    found = loaded(warehouse, events)("anomalies", since=NOON, until=NOON + timedelta(hours=1))
    assert found == ([(NOON, "gmail", "delivered", now, 70.0, round(now / 70, 2), 4)] if told else [])


@pytest.mark.parametrize(("now", "told"), [(19, False), (20, True)])
def test_what_never_was_is_an_anomaly_from_20_on(warehouse, now, told):
    events = [ended(f"m{n}", "complained") for n in range(now)]
    found = loaded(warehouse, [*events, ended("old", after_ms=-2 * WEEK_MS)])("anomalies", since=NOON)
    assert found == ([(NOON, "gmail", "complained", 20, 0.0, 0.0, 2)] if told else [])


def test_nothing_is_unusual_in_the_first_week(warehouse):
    ask = loaded(warehouse, [ended(f"m{n}") for n in range(50)])
    assert ask("anomalies", since=NOON, until=NOON + timedelta(days=6)) == []
    ((_, _, _, messages, usual, *_),) = ask("anomalies", since=NOON, until=NOON + timedelta(days=8))
    assert (messages, usual) == (0, 50), "a week later nothing came"
