"""Send: one delivery for one message, signed, within the site's limits; what cannot go now is parked."""

import asyncio
import dataclasses
import datetime
from collections import Counter

import pytest
from builders import HOUR_MS, ID, NOW, content, events, message, route, routed, values

from agents.application import fit
from agents.send import SOURCES_MAX, stage
from postroad.bounces import classify
from postroad.departure import PATIENCE_MS, Departures, Wait
from postroad.dkim import verify
from postroad.egress import Pool, Source
from postroad.limits import DAY_MS
from postroad.orders import Orders, order
from postroad.outcomes import BUSY_MS
from postroad.retry import PUT_OFF_MS
from postroad.settings import Settings
from postroad.shaping.policy import parse
from postroad.smtp import Failure, Place, Reply, SmtpTimeouts, Step, failed
from topics.catalogue import ATTEMPTS, ENDINGS, EVENTS, OUTBOUND, SCHEDULED
from topics.testing import Scripted

START = datetime.date(1970, 1, 1) + datetime.timedelta(NOW // DAY_MS)


@pytest.fixture
def send(services):
    return Scripted(stage, services, NOW)


async def test_delivers_what_was_built_with_a_signature_that_holds(send, services, dns_txt):
    (attempt,) = values(await send.feed(OUTBOUND, routed(top=b"X-Top: yes\r\n")), ATTEMPTS)
    assert (attempt["phase"], attempt["reply_code"], attempt["possible_duplicate"]) == ("done", 250, False)
    assert (attempt["mx_host"], attempt["mx_address"]) == ("mx1.there.test", "127.0.0.11")
    ((host, envelope, sent),) = services.transport.sent
    assert (host, envelope.mail_from, envelope.rcpt_to) == ("mx1.there.test", f"b-{ID}@acme.test", "r@there.test")
    assert sent.endswith(b"X-Top: yes\r\n" + content()["inline"])
    assert verify(sent, dns_txt) == [True]


async def test_content_leaves_the_record_after_its_delivery_only(send, services):
    (attempt,) = values(await send.feed(OUTBOUND, routed()), ATTEMPTS)
    assert attempt["message"]["content"]["inline"] is None
    services.transport.answer = lambda host, envelope: Step("rcpt", "replied", Reply(451, "4.7.1", "greylisted"))
    (attempt,) = values(await send.feed(OUTBOUND, routed(message_id="m2")), ATTEMPTS)
    assert attempt["message"]["content"]["inline"] is not None


async def test_a_repeat_is_not_delivered_again(send, services):
    await send.feed(OUTBOUND, routed())
    assert await send.feed(OUTBOUND, routed()) == []
    assert await send.feed(OUTBOUND, routed(), possible_duplicate=True) == []
    assert len(services.transport.sent) == 1


async def test_a_delivered_message_is_not_delivered_in_a_later_round(send, services):
    """After a crash a stage may have sent it on and parked it as well."""
    await send.feed(OUTBOUND, routed(round=1))
    assert await send.feed(OUTBOUND, routed(round=2)) == []
    assert await send.feed(OUTBOUND, routed(round=0)) == []
    assert len(services.transport.sent) == 1


async def test_a_deferred_message_is_tried_in_its_next_round(send, services):
    services.transport.answer = lambda host, envelope: Step("rcpt", "replied", Reply(451, "4.7.1", "greylisted"))
    await send.feed(OUTBOUND, routed())
    assert await send.feed(OUTBOUND, routed()) == []
    assert len(values(await send.feed(OUTBOUND, routed(round=1)), ATTEMPTS)) == 1


async def test_what_may_be_a_second_delivery_says_so(send):
    (attempt,) = values(await send.feed(OUTBOUND, routed(), possible_duplicate=True), ATTEMPTS)
    assert attempt["possible_duplicate"]
    (attempt,) = values(await send.feed(OUTBOUND, routed(message_id="m2", possible_duplicate=True)), ATTEMPTS)
    assert attempt["possible_duplicate"], "of an earlier attempt"


async def test_the_rate_of_a_site_is_waited_for_or_parks_with_ever_later_times(send, services):
    slow = route(site="slow.site.test")  # one in 2.5 seconds
    ids = [f"m{n}" for n in range(5)]
    outputs = await send.feed(OUTBOUND, *(routed(message_id=id, route=slow) for id in ids))
    assert len(values(outputs, ATTEMPTS)) == 1
    parked = values(outputs, SCHEDULED)
    times = [entry["due_at"] for entry in parked]
    assert len(times) == 4 and times == sorted(set(times)) and times[0] > NOW + PATIENCE_MS
    assert {(entry["reason"], entry["return_to"]) for entry in parked} == {("rate-limit", "scored")}
    assert ("scheduled", "rate-limit") in events(outputs)


async def test_a_restart_remembers_the_rate_of_a_site(send, services):
    slow = route(site="slow.site.test")
    await send.feed(OUTBOUND, *(routed(message_id=f"m{n}", route=slow) for n in range(2)))
    services.restarted()
    outputs = await send.feed(OUTBOUND, routed(message_id="m9", route=slow))
    assert values(outputs, SCHEDULED)


async def test_rates_of_two_sites_are_apart(send):
    outputs = await send.feed(
        OUTBOUND, *(routed(message_id=f"m{n}", route=route(site=f"s{n}.test")) for n in range(20))
    )
    assert len(values(outputs, ATTEMPTS)) == 20


async def test_all_connections_in_use(send, services):
    services.shaping.say("[default]\nconnections = 1\n")
    pool, source = services.client().pool, services.pools["default"].sources[0]
    limits = services.shaping.policy.limits("there.test")
    await pool.acquire(Place("there.test#0", source), "mx1.there.test", "127.0.0.11", limits)
    (entry,) = values(await send.feed(OUTBOUND, routed()), SCHEDULED)
    assert entry["reason"] == "connection-limit"
    assert NOW + BUSY_MS <= entry["due_at"] < NOW + 2 * BUSY_MS
    assert services.transport.sent == []
    resolved = len(services.resolver.asked)
    (entry,) = values(await send.feed(OUTBOUND, routed(message_id="m2", round=2)), SCHEDULED)
    assert entry["reason"] == "connection-limit"
    assert NOW + 4 * BUSY_MS <= entry["due_at"] < NOW + 8 * BUSY_MS, "later each time"
    assert len(services.resolver.asked) == resolved, "the site is known to be full: nobody waits again"


async def test_expired_on_its_way_is_not_tried(send, services):
    outputs = await send.feed(OUTBOUND, routed(expires_at=NOW - 1))
    assert events(outputs) == [("expired", "expired")]
    assert services.transport.sent == []
    assert await send.feed(OUTBOUND, routed(expires_at=NOW - 1)) == []


async def test_expired_after_a_crash_it_still_may_have_been_delivered(send):
    (end,) = values(await send.feed(OUTBOUND, routed(expires_at=NOW - 1), possible_duplicate=True), ENDINGS)
    assert end["message"]["possible_duplicate"]


async def test_parked_no_longer_than_it_may_be_tried(send, services):
    services.contents.failing = True
    entry = routed(expires_at=NOW + 10, content={**content(), "inline": None, "blob": f"sha256:{content()['hash']}"})
    (parked,) = values(await send.feed(OUTBOUND, entry), SCHEDULED)
    assert parked["due_at"] == NOW + 10


async def test_content_store_away(send, services):
    services.contents.failing = True
    entry = routed(content={**content(), "inline": None, "blob": f"sha256:{content()['hash']}"})
    (parked,) = values(await send.feed(OUTBOUND, entry), SCHEDULED)
    assert (parked["reason"], parked["due_at"]) == ("content", NOW + PUT_OFF_MS)
    services.contents.failing = False
    await services.contents.put_blob(content()["inline"])
    assert len(values(await send.feed(OUTBOUND, {**entry, "round": 1}), ATTEMPTS)) == 1


async def test_parked_after_a_crash_it_still_may_be_a_second_delivery(send, services):
    services.contents.failing = True
    entry = routed(content={**content(), "inline": None, "blob": f"sha256:{content()['hash']}"})
    (parked,) = values(await send.feed(OUTBOUND, entry, possible_duplicate=True), SCHEDULED)
    assert parked["message"]["possible_duplicate"]


@pytest.mark.parametrize(
    "fault",
    [
        {"content": {**content(), "inline": None, "blob": f"sha256:{content()['hash']}"}},
        {"content": {**content(), "hash": "0" * 64}},
        {"sender": "a@else.test"},
        {"tenant": "gone"},
    ],
    ids=["blob lost", "other bytes", "domain taken away", "tenant taken away"],
)
async def test_what_can_never_be_sent_ends_by_a_reply_of_our_own(send, services, fault):
    (attempt,) = values(await send.feed(OUTBOUND, routed(**fault)), ATTEMPTS)
    assert services.transport.sent == []
    reply = Reply(attempt["reply_code"], attempt["enhanced_code"], attempt["reply"])
    assert classify(reply, attempt["phase"]).outcome == "soft", "an end, and no fault of the recipient"


async def test_a_bad_key_of_the_tenant_ends_it(send, services):
    services.tenants["acme"]["domains"][0]["dkim"][0]["private_key"] = "no PEM"
    (attempt,) = values(await send.feed(OUTBOUND, routed()), ATTEMPTS)
    assert attempt["reply_code"] == 554
    assert services.transport.sent == []


@pytest.mark.parametrize("gone", [{"pool": "gone"}])
async def test_an_egress_pool_that_was_taken_away_is_a_deferral(send, gone):
    (attempt,) = values(await send.feed(OUTBOUND, routed(route=route(**gone))), ATTEMPTS)
    reply = Reply(attempt["reply_code"], attempt["enhanced_code"], attempt["reply"])
    assert classify(reply, attempt["phase"]).outcome == "deferral"
    assert send.dead_letters == []


async def test_a_broken_connection_is_a_result(send, services):
    services.transport.answer = lambda host, envelope: failed("body", "connection-lost", "gone")
    (attempt,) = values(await send.feed(OUTBOUND, routed()), ATTEMPTS)
    assert (attempt["phase"], attempt["reply_code"]) == ("body", 0)


async def test_deliveries_are_kept_a_day_longer_than_the_message(send):
    await send.feed(OUTBOUND, routed(expires_at=NOW + HOUR_MS))
    send.now = NOW + 24 * HOUR_MS
    assert send.state.deliveries.get(ID).delivered
    send.now = NOW + 25 * HOUR_MS + 60_000
    assert send.state.deliveries.get(ID) is None


async def test_work_on_one_message_is_done_one_after_another():
    assert stage.identity(message(round=1)) == stage.identity(message(round=2)) == ID


@pytest.mark.parametrize("scale", [0.02, 1, 10])
def test_the_slowest_host_is_no_stall(scale):
    """A worker that ended for it would do everything in flight again, and meet the same host."""
    own = dataclasses.replace(stage)
    fit(own, Settings(smtp_timeout_scale=scale, send_concurrency=7))
    assert own.effect_s > SmtpTimeouts(scale=scale).longest + PATIENCE_MS / 1000
    slow = parse("[site.x.timeouts]\nattempt = 1600\nbody = 1100", "", Settings(smtp_timeout_scale=scale).limits())
    assert own.effect_s > SOURCES_MAX * slow.limits("x").timeouts.longest
    assert own.limit == 7 and own.performer is stage.performer


TWO = (Source("one", "", "one.test"), Source("two", "", "two.test"))
REFUSED = Step("banner", "replied", Reply(554, "5.7.1", "no service for you"))


def attempts(outputs):
    return values(outputs, ATTEMPTS)


async def test_a_source_that_is_turned_away_is_suspended_and_another_takes_the_message_at_once(send, services):
    services.pools["default"] = Pool("default", TWO)
    refused = []

    async def connect(source, host, address, *rest, inner=services.transport.connect):
        if not refused or source.name == refused[0]:
            refused[:] = [source.name]
            raise Failure(REFUSED)
        return await inner(source, host, address, *rest)

    services.transport.connect = connect
    outputs = await send.feed(OUTBOUND, routed())
    (attempt,) = attempts(outputs)
    assert (attempt["phase"], attempt["decision"]) == ("done", "refused-connection")
    assert {attempt["source"], refused[0]} == {"one", "two"}
    assert attempt["shaping"] == services.shaping.policy.version and attempt["phases"]
    (said,) = values(outputs, EVENTS)
    assert (said["kind"], said["reason"], said["rule"], said["source"]) == (
        "reported", "shaping", "refused-connection", refused[0])  # fmt: skip
    services.restarted()
    for n in range(4):
        (attempt,) = attempts(await send.feed(OUTBOUND, routed(message_id=f"m{n}")))
        assert attempt["source"] != refused[0], "remembered in RocksDB"


async def test_no_source_left_is_a_deferral_then_parks(send, services):
    services.transport.refuse["mx1.there.test"] = REFUSED
    (attempt,) = attempts(await send.feed(OUTBOUND, routed()))
    assert (
        classify(Reply(attempt["reply_code"], attempt["enhanced_code"], attempt["reply"]), attempt["phase"]).outcome
        == "deferral"
    )
    (entry,) = values(await send.feed(OUTBOUND, routed(message_id="m2")), SCHEDULED)
    assert entry["reason"] == "source-suspended" and entry["due_at"] > NOW + 60_000


async def test_an_order_suspends(send, services):
    said = order("suspend", "op", NOW - 1, site="there.test", until=NOW + HOUR_MS)
    services.orders[said["order_id"]] = said
    (entry,) = values(await send.feed(OUTBOUND, routed()), SCHEDULED)
    assert entry["reason"] == "suspended" and entry["due_at"] >= NOW + HOUR_MS
    services.orders.clear()
    assert attempts(await send.feed(OUTBOUND, routed(round=1)))


async def test_hours_and_days_and_tenants_hold_across_restarts(send, services):
    services.shaping.say('[default]\nmessages_per_hour = 3\n[tenant."acme".site."other.test"]\nmessages_per_day = 2\n')
    outputs = await send.feed(OUTBOUND, *(routed(message_id=f"m{n}") for n in range(2)))
    services.restarted()
    outputs += await send.feed(OUTBOUND, *(routed(message_id=f"n{n}") for n in range(3)))
    assert len(attempts(outputs)) == 3
    assert all(entry["due_at"] >= NOW + HOUR_MS - HOUR_MS // 30 for entry in values(outputs, SCHEDULED))
    there = {"site": "other.test", "hosts": ["mx.other.test"]}
    outputs = await send.feed(OUTBOUND, *(routed(message_id=f"o{n}", route=route(**there)) for n in range(4)))
    assert len(attempts(outputs)) == 2
    assert {entry["reason"] for entry in values(outputs, SCHEDULED)} == {"tenant-limit"}


async def test_warm_up_overflows_to_warm_sources_and_waits_without_one(send, services):
    services.shaping.say(f'[warmup."one"]\nstart = {START}\ndays = [3, 5]\n')
    services.pools["default"] = Pool("default", TWO)
    outputs = await send.feed(OUTBOUND, *(routed(message_id=f"m{n}") for n in range(30)))
    assert Counter(attempt["source"] for attempt in attempts(outputs)) == {"one": 3, "two": 27}
    services.pools["default"] = Pool("default", TWO[:1])
    services.restarted()
    (entry,) = values(await send.feed(OUTBOUND, routed(message_id="x", expires_at=NOW + 48 * HOUR_MS)), SCHEDULED)
    assert entry["reason"] == "warm-up" and entry["due_at"] == (NOW // DAY_MS + 1) * DAY_MS


async def test_a_crowd_is_told_ever_later_times(send, services):
    state, policy = send.state, services.shaping.policy
    told = [services.departures.crowded(routed(), "there.test#0", policy, 100 + n, state) for n in range(5)]
    assert told == sorted(told) and len({wait.until for wait in told}) == 5
    assert isinstance(told[0], Wait) and told[0].until >= NOW + 1000


async def test_an_hour_is_not_over_because_the_clock_was_set_ahead(send, services):
    services.shaping.say("[default]\nmessages_per_hour = 3\n")
    later = {"expires_at": NOW + 9 * HOUR_MS}
    assert len(attempts(await send.feed(OUTBOUND, *(routed(message_id=f"m{n}", **later) for n in range(3))))) == 3
    send.now += 3 * HOUR_MS
    (entry,) = values(await send.feed(OUTBOUND, routed(message_id="n", **later)), SCHEDULED)
    assert entry["reason"] == "rate-limit" and entry["due_at"] >= send.now + HOUR_MS
    before = services.clock
    services.departures._clock = lambda: before() + 3700  # now it is
    send.now += 3_700_000
    assert attempts(await send.feed(OUTBOUND, routed(message_id="o", **later)))


def most_at_once(services) -> list[int]:
    """How many messages have talked to a host at once, as it goes on."""
    now, most = [0], [0]

    async def connect(*arguments, inner=services.transport.connect):
        session = await inner(*arguments)

        async def send(*message, said=session.send):
            now[0] += 1
            most[0] = max(most[0], now[0])
            await asyncio.sleep(0.05)
            try:
                return await said(*message)
            finally:
                now[0] -= 1

        session.send = send
        return session

    services.transport.connect = connect
    return most


async def test_a_tenant_uses_no_more_connections_of_a_site_than_it_may(send, services):
    services.shaping.say("[default]\nnew_connections_per_minute = 10000\n[tenant.acme]\nconnections = 2\n")
    most = most_at_once(services)
    outputs = await asyncio.gather(*(send.feed(OUTBOUND, routed(message_id=f"m{n}")) for n in range(6)))
    flat = [output for some in outputs for output in some]
    assert most == [2] and len(attempts(flat)) == 2
    parked = values(flat, SCHEDULED)
    assert {entry["reason"] for entry in parked} == {"tenant-connections"} and len(parked) == 4
    times = [entry["due_at"] for entry in parked]
    assert times == sorted(set(times)), "one after the other"
    outputs = await asyncio.gather(*(send.feed(OUTBOUND, routed(message_id=f"n{n}")) for n in range(2)))
    assert [len(attempts(some)) for some in outputs] == [1, 1], "they are free again"


async def test_a_message_that_gets_no_connection_gives_the_tenants_back(send, services):
    services.shaping.say("[tenant.acme]\nconnections = 1\n")
    services.contents.failing = True
    lost = routed(content={**content(), "inline": None, "blob": f"sha256:{content()['hash']}"})
    for n in range(3):
        (entry,) = values(await send.feed(OUTBOUND, {**lost, "message_id": f"m{n}"}), SCHEDULED)
        assert entry["reason"] == "content"
    assert attempts(await send.feed(OUTBOUND, routed(message_id="x")))


async def test_mail_that_is_parked_for_want_of_a_connection_uses_up_no_hour_day_or_plan(send, services):
    one = services.pools["default"].sources[0]
    services.shaping.say(
        f'[default]\nconnections = 1\nmessages_per_second = 1000\nmessages_per_hour = 60\n[warmup."{one.name}"]\n'
        f'start = {START}\ndays = [50, 100]\n'
    )  # fmt: skip
    pool, place = services.client().pool, Place("there.test#0", one)
    busy, _ = await pool.acquire(place, "mx1.there.test", "127.0.0.11", services.shaping.policy.limits("there.test"))
    reasons = Counter()
    for n in range(120):
        outputs = await send.feed(OUTBOUND, routed(message_id=f"m{n:0>25}"))
        reasons.update(entry["reason"] for entry in values(outputs, SCHEDULED))
    assert reasons == {"connection-limit": 120}
    pool.release(place, busy)
    delivered = [attempts(await send.feed(OUTBOUND, routed(message_id=f"n{n:0>25}"))) for n in range(50)]
    assert all(delivered), "the whole plan of the day is left"
    (entry,) = values(await send.feed(OUTBOUND, routed(message_id="last", expires_at=NOW + 48 * HOUR_MS)), SCHEDULED)
    assert entry["reason"] == "warm-up"


async def test_mail_without_content_or_key_uses_up_no_hour(send, services):
    services.shaping.say("[default]\nmessages_per_hour = 2\n")
    services.contents.failing = True
    away = {**content(), "inline": None, "blob": f"sha256:{content()['hash']}"}
    for n in range(5):
        assert values(await send.feed(OUTBOUND, routed(message_id=f"m{n}", content=away)), SCHEDULED)
        assert attempts(await send.feed(OUTBOUND, routed(message_id=f"n{n}", sender="a@else.test")))
    services.contents.failing = False
    assert attempts(await send.feed(OUTBOUND, routed(message_id="x")))


async def test_mail_whose_host_takes_no_connection_uses_up_no_hour(send, services):
    services.shaping.say("[default]\nmessages_per_hour = 2\nnew_connections_per_minute = 10000\n")
    services.transport.refuse["mx1.there.test"] = failed("connect", "connect-failed", "nobody there")
    for n in range(5):
        (attempt,) = attempts(await send.feed(OUTBOUND, routed(message_id=f"m{n}")))
        assert attempt["phase"] == "connect"
    services.transport.refuse.clear()
    assert attempts(await send.feed(OUTBOUND, routed(message_id="x")))


async def test_a_host_that_says_421_to_mail_holds_no_connection_for_a_whole_interval(send, services):
    services.shaping.say("[default]\nmessages_per_second = 0.01\nmessages_per_hour = 3\n")
    services.transport.answer = lambda host, envelope: Step("mail", "replied", Reply(421, "4.3.2", "too busy"))
    two = route(hosts=["mx1.there.test", "mx.other.test"])
    async with asyncio.timeout(5):
        (entry,) = values(await send.feed(OUTBOUND, routed(route=two, expires_at=NOW + HOUR_MS)), SCHEDULED)
    assert entry["reason"] == "rate-limit" and entry["due_at"] == pytest.approx(NOW + 105_000, abs=3000)
    assert services.client().pool.connections.get("there.test#0", 0) <= 1, "idle, in nobody's hand"


async def test_a_source_turned_away_after_the_partition_was_lost_ends_the_attempt(send, services):
    services.pools["default"] = Pool("default", TWO)

    async def connect(source, *rest):
        services.departures.lost(send.partition)
        raise Failure(REFUSED)

    services.transport.connect = connect
    (attempt,) = attempts(await send.feed(OUTBOUND, routed()))
    assert attempt["phase"] == "banner"
    assert services.departures._partitions == {}, "the next owner's counts are not ours"


async def test_complaints_pause_a_source_that_warms_up(send, services):
    services.shaping.say(f'[warmup."one"]\nstart = {START}\ndays = [3000, 5000]\n')
    services.pools["default"] = Pool("default", TWO)
    figures = {"one": (1000, 3)}
    services.departures = Departures(services.clock, rests=False, complaints=lambda source: figures.get(source, (0, 0)))
    outputs = await send.feed(OUTBOUND, *(routed(message_id=f"m{n}") for n in range(20)))
    assert {attempt["source"] for attempt in attempts(outputs)} == {"one", "two"}
    figures["one"] = (1000, 4)
    outputs = await send.feed(OUTBOUND, *(routed(message_id=f"n{n}") for n in range(20)))
    assert {attempt["source"] for attempt in attempts(outputs)} == {"two"}
    services.pools["default"] = Pool("default", TWO[:1])
    (entry,) = values(await send.feed(OUTBOUND, routed(message_id="x", expires_at=NOW + 48 * HOUR_MS)), SCHEDULED)
    assert entry["reason"] == "warm-up-paused" and entry["due_at"] == (NOW // DAY_MS + 1) * DAY_MS


@pytest.mark.parametrize(
    "text", ["[default]\nmessages_per_hour = 40\n", f'[warmup."one"]\nstart = {START}\ndays = [40]\n']
)
async def test_workers_that_die_in_turn_send_no_more_than_an_hour_or_a_plan_allows(send, services, text):
    """Each when its mail is on its way, before a result is written."""
    services.shaping.say(text)
    pool = services.pools["default"] = Pool("default", TWO[:1])
    left = 0
    for life in range(60):
        seconds = [life * 100.0]
        services.departures = Departures(lambda seconds=seconds: seconds[0])
        (entry,) = values(await send.feed(OUTBOUND, routed(message_id=f"first-{life}")), SCHEDULED)
        assert entry["reason"] in ("taken-over", "warm-up", "rate-limit")
        seconds[0] += 10
        for n in range(4):
            one, policy = routed(message_id=f"m{life}-{n}"), services.shaping.policy
            found = services.departures.leave(one, pool, "there.test#0", policy, Orders({}), send.state)
            left += not isinstance(found, Wait)
    assert 0 < left <= 40
