"""Mail counted by class, site and source, with bounded labels; and what rests."""

import re
import time

from faust.types import TP
from prometheus_client import CollectorRegistry

from agents import describe
from agents.exporter import Counters
from agents.mail import NAMED_AFTER, SITES_MAX, SOURCES_MAX, Mail, Resting
from postroad.departure import Departures
from tests.deploy.known import TOLD, source
from topics.metrics import Metrics


def message(site="big.test", source="one"):
    return {"stream": "transactional", "route": {"site": site, "source": source} if site else None}


def value(collector, name, **labels):
    registry = CollectorRegistry()
    registry.register(collector)
    return registry.get_sample_value(name, labels)


def test_steps_by_class_site_and_source():
    mail = Mail()
    for _ in range(NAMED_AFTER):
        mail.step("delivered", message())
    mail.step("bounced", message(), "two")
    mail.step("expired", message())
    mail.accepted(message())
    where = {"class": "transactional", "site": "big.test"}
    assert value(mail, "postroad_mail_delivered_total", source="one", **where) == 1, "the rest before it had a name"
    assert (
        value(mail, "postroad_mail_delivered_total", **{**where, "site": "other", "source": "one"}) == NAMED_AFTER - 1
    )
    assert value(mail, "postroad_mail_bounced_total", source="two", **where) == 1
    assert value(mail, "postroad_mail_accepted_total", **{"class": "transactional"}) == 1
    assert len(mail.steps) == 4, "what is no step of these is not counted"


def test_labels_are_bounded_and_nothing_is_lost():
    mail, rounds = Mail(), 2 * NAMED_AFTER
    for n in range(4 * SITES_MAX):
        for _ in range(rounds):
            mail.step("deferred", message(f"s{n}.test", f"source{n}"))
    assert len({site for _, _, site, _ in mail.steps}) == SITES_MAX + 1
    assert len({source for _, _, _, source in mail.steps}) == SOURCES_MAX + 1
    assert sum(mail.steps.values()) == 4 * SITES_MAX * rounds


def test_what_rests_is_told_until_its_time():
    departures, now = Departures(), time.time_ns() // 1_000_000
    departures._resting = {
        ("source-suspended", "big.test", "one"): now + 60_000,
        ("source-suspended", "big.test", "two"): now - 1,
        ("warm-up-paused", "big.test", "three"): now + 60_000,
    }
    told = Resting(departures)
    assert value(told, "postroad_source_suspended", site="big.test", source="one") == 1
    assert value(told, "postroad_source_suspended", site="big.test", source="two") is None
    assert value(told, "postroad_warmup_paused", site="big.test", source="three") == 1


def test_ages_and_what_waits_for_a_site():
    metrics, now = Metrics(), time.time()
    metrics.oldest, metrics.committed = {TP("t", 1): now - 50}, {TP("t", 1): now - 20}
    metrics.queued = lambda: {b"big.test#0": 3, b"big.test#1": 4, b"idle.test#0": 0}
    counters = Counters([("send", metrics)])
    where = {"stage": "send", "topic": "t", "partition": "1"}
    assert 50 <= value(counters, "postroad_oldest_record_age_seconds", **where) < 55
    assert 20 <= value(counters, "postroad_commit_age_seconds", **where) < 25
    assert value(counters, "postroad_site_waiting", site="big.test") == 7
    assert value(counters, "postroad_site_waiting", site="idle.test") is None


def test_batches_are_histograms():
    metrics = Metrics()
    for records, seconds in ((1, 0.001), (300, 0.2), (20_000, 100.0)):
        metrics.batch(records, seconds)
    counters = Counters([("route", metrics)])
    assert value(counters, "postroad_batch_records_bucket", stage="route", le="1.0") == 1
    assert value(counters, "postroad_batch_records_bucket", stage="route", le="10000.0") == 2
    assert value(counters, "postroad_batch_records_count", stage="route") == 3
    assert value(counters, "postroad_batch_duration_seconds_bucket", stage="route", le="0.25") == 2
    assert value(counters, "postroad_batch_duration_seconds_sum", stage="route") == 100.201


def test_the_page_lists_every_metric_and_is_as_generated():
    text = describe.page(describe.families())
    assert describe.PAGE.read_text("utf-8") == text, "run python -m agents.describe"
    told = set(re.findall(r"^[|] `(\w+)`", text, re.M))
    assert told == set(TOLD), "tests/deploy/known.py and agents/describe.py name the same"


def test_every_counter_that_somebody_counts_is_described():
    counted = set(re.findall(r"""(?:metrics|counts)(?:\.count\(|\[)"([a-z_]+)\"""", source()))
    assert len(counted) > 20 and not counted - describe.COUNTED.keys()
