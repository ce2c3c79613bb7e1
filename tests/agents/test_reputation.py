"""Reputation from the attempt to what follows: classify counts and publishes, reputation decides, route obeys."""

import pytest
from builders import HOUR_MS, ID, NOW, attempt, events, message, routed, values
from builders import route as shipping

from agents import classify, reputation, route, send
from postroad.egress import Pool, Source
from postroad.orders import Orders
from postroad.pacing import every_ms
from postroad.reputation import ONE, WAIT_MS, unpacked
from postroad.settings import Settings
from tables import reputation as counted
from topics.catalogue import ATTEMPTS, CLEARED, EVENTS, OUTBOUND, OUTBOUND_BROADCAST, REPUTATION, SCHEDULED, STANDINGS
from topics.testing import Scripted

SUBJECTS = ("tenant:acme", "domain:acme.test", "source:default", "source-site:default@there.test")


@pytest.fixture
def classified(services):
    return Scripted(classify.stage, services, NOW)


@pytest.fixture
def judged(services):
    return Scripted(reputation.stage, services, NOW)


@pytest.fixture
def routing(services):
    services.pools = {"default": Pool("default", (Source("a", "127.0.0.1", "a.test"), Source("b", "127.0.0.2", "b.test"))),
                      "quiet": Pool("quiet", (Source("q", "127.0.0.3", "q.test"),))}  # fmt: skip
    services.settings = Settings(ehlo="out.test", reputation_pool="quiet")
    return Scripted(route.stage, services, NOW)


def one(number, code=250, text="OK", enhanced="2.0.0", phase="done", **fields):
    return attempt(code, text, enhanced, phase, message=routed(message_id=f"{ID[:-4]}{number:04}", **fields))


def unknown(number):
    return one(number, 550, "User unknown", "5.1.1", "rcpt")


def tally(runner, subject="tenant:acme"):
    found = runner.state.tallies.get(subject)
    return unpacked(found) if found else None


async def published(runner):
    runner.now += 31_000
    found = []
    for _ in range(3):
        found += await runner.tick()
    return values(found, REPUTATION)


# -- classify counts


async def test_an_attempt_counts_for_all_its_subjects(classified):
    await classified.feed(
        ATTEMPTS, one(1), unknown(2), one(3, 452, "later", "4.3.1", "rcpt"), one(4, 552, "full", "5.2.2", "rcpt")
    )
    for subject in SUBJECTS:
        assert tally(classified, subject) == (3, 1, 1, 1, 1, 0)


async def test_where_no_mx_has_answered_nothing_counts(classified):
    await classified.feed(
        ATTEMPTS, attempt(0, "", "", "connect"), one(1) | {"mx_host": "", "reply_code": 451, "reply": "no key"}
    )
    assert tally(classified) is None


async def test_the_source_that_was_taken_counts_and_is_remembered(classified):
    await classified.feed(ATTEMPTS, one(1) | {"source": "b"})
    assert tally(classified, "source-site:b@there.test") == (1, 1, 0, 0, 0, 0)
    assert tally(classified, "source:default") is None
    (end,) = [value for _, value in classified.state.ended.scan()]
    assert end["message"]["route"]["source"] == "b", "for complaints, which come later"


async def test_a_record_that_is_read_again_or_is_there_twice_counts_once(classified):
    """Classify's changes are durable before its outputs: after a crash between them it finds what it has counted."""
    records = one(1), unknown(2), one(3, 452, "later", "4.3.1", "rcpt")
    await classified.feed(ATTEMPTS, *records)
    classified._offset -= len(records)
    await classified.feed(ATTEMPTS, *records)  # the same offsets
    assert tally(classified) == (2, 1, 1, 1, 0, 0)
    await classified.feed(ATTEMPTS, *records)  # copies
    assert tally(classified) == (2, 1, 1, 1, 0, 0)
    (again,) = [one(3, 452, "later", "4.3.1", "rcpt", attempt=1, round=1)]
    await classified.feed(ATTEMPTS, again)
    assert tally(classified).deferred == 2, "another try"


async def test_an_hour_that_is_over_goes_into_the_history_and_a_late_record_finds_its_hour(classified):
    await classified.feed(ATTEMPTS, one(1))
    classified.now += HOUR_MS
    await classified.feed(
        ATTEMPTS,
        one(2) | {"at": classified.now},
        one(3),
        one(4) | {"at": NOW + 400 * 24 * HOUR_MS},
        one(5) | {"at": -5},
    )
    history = classified.state.histories.get("tenant:acme")
    assert {hour: unpacked(n).sent for hour, n in history.hours.items()} == {NOW // HOUR_MS: 2}
    assert tally(classified).sent == 2, "of a clock that is ahead: now"


async def test_feedback_counts_alone(classified):
    state = classified.state
    state.tallies.put("tenant:acme", (NOW // HOUR_MS << counted.HOUR_AT) + 5 * ONE["sent"])
    counted.count(state, routed(), "complained", NOW)
    counted.count(state, routed(), "hard", NOW, "b")
    assert unpacked(state.tallies.get("tenant:acme")) == (5, 0, 0, 1, 0, 1)
    assert unpacked(state.tallies.get("source:b")).hard == 1


async def test_subjects_that_strangers_make_are_bounded(classified, monkeypatch):
    monkeypatch.setattr(counted, "MOST", 3)
    for n in range(6):
        await classified.feed(ATTEMPTS, attempt(message=routed(message_id=f"{ID[:-4]}{n:04}",
                              route={"site": f"s{n}.test", "shard": 0, "hosts": ["mx"], "pool": "default", "source": "a"})))  # fmt: skip
    keys = [key.decode() for key, _ in classified.state.tallies.scan()]
    assert sum(key.startswith("source-site:") for key in keys) == 3
    assert tally(classified).sent == 6 and tally(classified, "source:a").sent == 6
    classified.now += 30 * HOUR_MS  # crowded: those without mail for a day go
    await published(classified)
    keys = [key.decode() for key, _ in classified.state.tallies.scan()]
    assert sum(key.startswith("source-site:") for key in keys) == 1, "half of the room is free"
    classified.now += 32 * 24 * HOUR_MS
    await published(classified)
    assert [key for key, _ in classified.state.tallies.scan() if not key.startswith(b"\0")] == []
    assert all(value == 0 for _, value in classified.state.tallies.scan())


async def test_bad_news_is_published_at_once_and_good_news_with_the_rest(classified):
    assert {told["subject"] for told in await published(classified)} == set()
    await classified.feed(ATTEMPTS, one(1))
    classified.now += 2_000
    assert values(await classified.tick(), REPUTATION) == []
    await classified.feed(ATTEMPTS, unknown(2))
    classified.now += 2_000
    told = values(await classified.tick(), REPUTATION)
    assert {each["subject"] for each in told} == set(SUBJECTS)
    (bucket,) = told[0]["buckets"]
    assert (bucket["sent"], bucket["delivered"], bucket["hard"]) == (2, 1, 1)
    classified.now += 2_000
    assert values(await classified.tick(), REPUTATION) == [], "nothing has changed"


async def test_a_partition_that_is_new_here_has_all_published(classified, services):
    await classified.feed(ATTEMPTS, one(1))
    await published(classified)
    counted._books.clear()  # another process
    assert {each["subject"] for each in await published(classified)} == set(SUBJECTS)


# -- reputation decides


def told(subject="tenant:acme", partition=0, at=NOW, **counts):
    whole = {**dict.fromkeys(("sent", "delivered", "deferred", "hard", "soft", "complained"), 0), **counts}
    return {
        "subject": subject,
        "partition": partition,
        "at": at,
        "buckets": [{"at": at - at % HOUR_MS, "hours": 1, **whole}],
    }


async def test_partitions_are_summed_and_a_step_is_told_once_with_its_numbers(judged):
    parts = [told(partition=n, sent=300, delivered=240, hard=60) for n in range(4)]
    await judged.feed(REPUTATION, *parts[:1])
    await judged.feed(REPUTATION, *parts[:1])  # published again: the same counts
    await judged.feed(REPUTATION, *parts[1:])
    outputs = await judged.tick()
    (grade,), (event,) = values(outputs, STANDINGS), values(outputs, EVENTS)
    assert (grade["subject"], grade["level"]) == ("tenant:acme", "hold")
    assert (event["kind"], event["reason"], event["tenant"], event["rule"]) == (
        "noted",
        "reputation-hold",
        "acme",
        "tenant:acme",
    )
    assert "240 (20.00%" in event["detail"] and "1200 sent" in event["detail"]
    await judged.feed(REPUTATION, *parts)
    assert await judged.tick() == []


async def test_it_recovers_by_time_and_its_standing_goes(judged):
    await judged.feed(REPUTATION, told(sent=1000, delivered=800, hard=200))
    found = values(await judged.tick(), EVENTS)
    for _ in range(60):
        judged.now += HOUR_MS
        outputs = [*await judged.tick(), *await judged.tick()]
        found += values(outputs, EVENTS)
        last = [output for output in outputs if output.topic is STANDINGS][-1:]
        if last and last[0].value is None:
            break
    assert [event["reason"] for event in found] == ["reputation-hold", "reputation-warn", "reputation-ok"]
    assert len({event["event_id"] for event in found}) == 3
    assert last and (last[0].key, last[0].value) == (b"tenant:acme", None)
    assert judged.now - NOW <= 26 * HOUR_MS


async def test_complaints_of_the_day_are_told_of_a_source_that_stands_well(judged):
    await judged.feed(REPUTATION, told("source:a", sent=5000, delivered=5000, complained=1))
    (grade,) = values(await judged.tick(), STANDINGS)
    assert (grade["level"], grade["sent_today"], grade["complained_today"]) == ("ok", 5000, 1)
    judged.now += 24 * HOUR_MS
    (gone,) = [output for output in [*await judged.tick(), *await judged.tick()] if output.topic is STANDINGS]
    assert gone.value is None


async def test_a_tenant_has_its_turn_while_strangers_make_domains(judged, monkeypatch):
    monkeypatch.setattr(reputation, "AT_ONCE", 5)
    await judged.feed(REPUTATION, told(sent=1000, delivered=800, hard=200))
    for _ in range(10):
        await judged.feed(REPUTATION, *(told(f"domain:d{n}.test", sent=1, delivered=1) for n in range(20)))
        if found := values(await judged.tick(), STANDINGS):
            break
    assert [each["subject"] for each in found] == ["tenant:acme"]


@pytest.mark.parametrize(
    "record",
    [
        told("acme"), told(partition=-1), told(partition=9999), told(sent=-1), told(sent=1 << 50), told("source-site:a"),
        told(at=NOW) | {"buckets": [told()["buckets"][0] | {"hours": 7}]}, told() | {"buckets": told()["buckets"] * 200},
    ],
)  # fmt: skip
async def test_what_no_worker_of_classify_writes_is_a_dead_letter(judged, record):
    await judged.feed(REPUTATION, record, told(sent=1000, delivered=800, hard=200))
    assert len(judged.dead_letters) == 1
    assert len(values(await judged.tick(), STANDINGS)) == 1


# -- route obeys


def on(services, **levels):
    for key, level in levels.items():
        name = key.replace("_", ":", 1)
        services.standings[name] = {"subject": name, "level": level, "since": NOW}


async def test_a_tenant_on_hold_keeps_its_broadcast_and_its_other_mail_takes_the_other_pool(routing, services):
    on(services, tenant_acme="hold")
    outputs = await routing.feed(CLEARED, message(stream="broadcast"), message(message_id=ID[:-1] + "z"))
    assert events(outputs) == [("scheduled", "reputation"), ("routed", "")]
    (entry,), (sent,) = values(outputs, SCHEDULED), values(outputs, OUTBOUND)
    assert (
        entry["reason"] == "reputation"
        and abs(entry["due_at"] - NOW - WAIT_MS) <= 0.2 * WAIT_MS
        and entry["return_to"] == "scored"
    )
    assert (sent["route"]["pool"], sent["route"]["source"]) == ("quiet", "q")
    services.standings.clear()
    outputs = await routing.feed(CLEARED, {**entry["message"], "round": 1})
    assert [one["route"]["pool"] for one in values(outputs, OUTBOUND_BROADCAST)] == ["default"]


async def test_mail_that_waits_leaves_no_route_behind(routing, services):
    on(services, tenant_acme="hold")
    (entry,) = values(await routing.feed(CLEARED, message(stream="broadcast")), SCHEDULED)
    assert entry["message"]["route"]["site"] == "there.test", "so that orders about its site reach it"


async def test_a_source_on_hold_gives_its_mail_to_the_others(routing, services):
    mails = [message(message_id=f"{ID[:-4]}{n:04}") for n in range(20)]
    before = {m["route"]["source"] for m in values(await routing.feed(CLEARED, *mails), OUTBOUND)}
    assert before == {"a", "b"}
    services.standings["source-site:a@there.test"] = {"subject": "", "level": "hold", "since": NOW}
    assert {m["route"]["source"] for m in values(await routing.feed(CLEARED, *mails), OUTBOUND)} == {"b"}
    on(services, source_b="hold")
    assert {m["route"]["source"] for m in values(await routing.feed(CLEARED, *mails), OUTBOUND)} == {"q"}
    services.settings = Settings(ehlo="out.test")
    assert {m["route"]["source"] for m in values(await routing.feed(CLEARED, *mails), OUTBOUND)} == {"a", "b"}


# -- send obeys


def leave(services, **fields):
    """What departures say of a message now."""
    state = Scripted(send.stage, services, NOW).state
    policy, mail = services.shaping.policy, routed(route=shipping(pool="default", source="a"), **fields)
    return services.departures.leave(mail, services.pools["default"], "there.test#0", policy, Orders({}), state)


async def test_a_source_on_hold_is_the_last_one_and_slow(routing, services):
    services.shaping.say('[site."there.test"]\nmessages_per_second = 10')
    services.restarted()
    on(services, source_a="hold")
    assert {leave(services, message_id=f"{ID[:-4]}{n:04}").source.name for n in range(5)} == {"b"}
    on(services, source_b="hold")
    assert leave(services).limits.per_second == 1
    on(services, source_a="warn", source_b="warn")
    services.restarted()
    assert leave(services).limits.per_second == 5


async def test_a_tenant_on_warn_has_half_the_rate_and_slows_nobody_else(routing, services):
    services.shaping.say('[site."there.test"]\nmessages_per_second = 10')
    services.restarted()
    on(services, tenant_acme="warn")
    found = leave(services, message_id=ID[:-1] + "x")
    assert dict((key, every) for key, _, every in found.rates)["there.test#0\0\0acme"] == every_ms(5)
    other = leave(services, tenant="other", message_id=ID[:-1] + "y", sender="a@other.test")
    assert "there.test#0\0\0other" not in [key for key, *_ in other.rates]


# -- all of it


async def test_bounces_hold_the_next_broadcast(classified, judged, routing, services):
    classified.services.settings = services.settings
    await classified.feed(ATTEMPTS, *(unknown(n) if n % 3 == 0 else one(n) for n in range(150)))
    await judged.feed(REPUTATION, *await published(classified))
    judged.now = classified.now
    for output in await judged.tick():
        if output.topic is STANDINGS:
            services.standings[output.key.decode()] = output.value
    assert services.standings["tenant:acme"]["level"] == "hold"
    assert events(await routing.feed(CLEARED, message(stream="broadcast", message_id=ID[:-1] + "y"))) == [
        ("scheduled", "reputation")
    ]
