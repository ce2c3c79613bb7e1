"""Send: one delivery for one message, signed, within the site's limits; what cannot go now is parked."""

import dataclasses

import pytest
from builders import HOUR_MS, ID, NOW, content, events, message, route, routed, values

from agents.application import fit
from agents.send import PATIENCE_MS, stage
from postroad.bounces import classify
from postroad.dkim import verify
from postroad.outcomes import BUSY_MS
from postroad.retry import PUT_OFF_MS
from postroad.settings import Settings
from postroad.smtp import PoolSettings, Reply, SmtpTimeouts, Step, failed
from topics.catalogue import ATTEMPTS, ENDINGS, OUTBOUND, SCHEDULED
from topics.testing import Scripted


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
    slow = route(site="slow.site.test")  # 1 message a second
    ids = [f"m{n}" for n in range(5)]
    outputs = await send.feed(OUTBOUND, *(routed(message_id=id, route=slow) for id in ids))
    assert len(values(outputs, ATTEMPTS)) == 2, "one at once, one within patience"
    parked = values(outputs, SCHEDULED)
    times = [entry["due_at"] for entry in parked]
    assert len(times) == 3 and times == sorted(set(times)) and times[0] > NOW + PATIENCE_MS
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
    services.connections = PoolSettings(connections=1, idle_s=0, wait_s=0.01)
    pool = services.client("there.test").pool
    await pool.acquire("there.test#0", services.pools["default"].sources[0], "mx1.there.test", "127.0.0.11")
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


@pytest.mark.parametrize("gone", [{"source": "gone"}, {"pool": "gone"}])
async def test_an_egress_source_that_was_taken_away_is_a_deferral(send, gone):
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
    assert own.limit == 7 and own.performer is stage.performer
