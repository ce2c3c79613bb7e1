"""Classify: what a reply means for the message and its recipient, and what comes back later."""

from types import SimpleNamespace

import pytest
from builders import HOUR_MS, ID, NOW, attempt, events, message, routed, values

from agents.classify import stage
from postroad.events import ending
from postroad.orders import bounce, order
from postroad.retry import RetrySchedule
from postroad.shaping.limits import Limits
from postroad.shaping.policy import parse
from topics.catalogue import ATTEMPTS, ENDINGS, EVENTS, SCHEDULED, SUPPRESSIONS
from topics.testing import Scripted


def retries(delays):
    """In place of postroad.shaping's Watched: these pauses at every site, and shorter ones at slow.test."""
    text = "[site.'slow.test']\nretry = {delays = [10]}"
    return SimpleNamespace(policy=parse(text, "shaping.toml", Limits(retry=RetrySchedule(delays, 0.1, (60,)))))


@pytest.fixture
def classify(services):
    services.shaping = retries((300, 900))
    return Scripted(stage, services, NOW)


async def test_delivered(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(tls="TLSv1.3"))
    assert events(outputs) == [("delivered", "delivered")]
    (event,) = values(outputs, EVENTS)
    assert (event["attempt"], event["mx_host"], event["tls"], event["site"]) == (
        1,
        "mx1.there.test",
        "TLSv1.3",
        "there.test",
    )
    assert classify.state.ended.get(ID)["message"]["recipient"] == "r@there.test"


async def test_the_first_end_stands_whoever_found_it(classify):
    found = ending(message(), "rejected", NOW, "validate", "no-such-domain", "mx")
    outputs = await classify.feed(ENDINGS, found, found, ending(message(), "expired", NOW, "schedule", "expired"))
    (event,) = values(outputs, EVENTS)
    assert (event["kind"], event["stage"], event["reason"], event["rule"]) == (
        "rejected",
        "validate",
        "no-such-domain",
        "mx",
    )
    assert events(await classify.feed(ATTEMPTS, attempt())) == [("reported", "delivered-after-rejected")]
    assert await classify.feed(ATTEMPTS, attempt(550, "User unknown", "5.1.1", "rcpt")) == []


async def test_an_end_after_the_delivery_is_none(classify):
    await classify.feed(ATTEMPTS, attempt())
    assert await classify.feed(ENDINGS, ending(message(), "expired", NOW, "schedule", "expired")) == []


async def test_hard_bounce_ends_and_becomes_a_suppression(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(550, "User unknown", "5.1.1", "rcpt"))
    assert events(outputs) == [("bounced", "user-unknown")]
    (entry,) = values(outputs, SUPPRESSIONS)
    assert (entry["recipient"], entry["tenant"], entry["reason"], entry["evidence"]) == (
        "r@there.test",
        "acme",
        "hard_bounce",
        ID,
    )


async def test_soft_bounce_ends_and_is_counted_where_it_says_something_of_the_mailbox(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(552, "over quota", "5.2.2", "rcpt"))
    assert events(outputs) == [("bounced", "mailbox-full")]
    assert [entry["reason"] for entry in values(outputs, SUPPRESSIONS)] == ["soft_bounces"]
    outputs = await classify.feed(
        ATTEMPTS, attempt(552, "message too big", "5.3.4", "mail", message=routed(message_id="m2"))
    )
    assert values(outputs, SUPPRESSIONS) == []


async def test_deferral_says_when_it_is_tried_again(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(450, "try later", "4.3.0", "rcpt"))
    (entry,) = values(outputs, SCHEDULED)
    (event,) = values(outputs, EVENTS)
    assert (event["kind"], event["attempt"], event["due_at"]) == ("deferred", 1, entry["due_at"])
    assert NOW + 270_000 <= entry["due_at"] <= NOW + 330_000
    assert (entry["message"]["attempt"], entry["return_to"], entry["reason"]) == (1, "scored", "retry")
    assert entry["message"]["content"]["inline"], "it is needed again"
    outputs = await classify.feed(ATTEMPTS, {**attempt(450, phase="rcpt"), "message": entry["message"]})
    assert NOW + 810_000 <= values(outputs, SCHEDULED)[0]["due_at"] <= NOW + 990_000, "the second pause is longer"


@pytest.mark.parametrize(
    ("first", "pauses", "now", "pauses_now", "told"),
    [
        (attempt(450, "later", "", "rcpt"), (7_200,), None, (60,), [("expired", "system-error")]),
        (attempt(450, "later", "", "rcpt"), (7_200,), attempt(), (60,), [("expired", "delivered")]),
        (attempt(550, "User unknown", "5.1.1", "rcpt"), (60,), None, (60,), [("bounced", "user-unknown")]),
        (attempt(550, "User unknown", "5.1.1", "rcpt"), (60,), attempt(450, "later", "", "rcpt"), (60,), [("bounced", "system-error")]),
        (attempt(), (60,), attempt(550, "User unknown", "5.1.1", "rcpt"), (60,), [("delivered", "user-unknown")]),
    ],
)  # fmt: skip
async def test_an_end_decided_before_a_crash_is_told_whatever_the_verdict_is_now(classify, services, first, pauses, now,
                                                                                pauses_now, told):  # fmt: skip
    """Other settings, or a release with other rules (here: another reply), read the record again: its end is in the table."""
    services.shaping = retries(pauses)
    before = values(await classify.feed(ATTEMPTS, first), EVENTS)
    stored = classify.state.ended.get(ID)
    classify._offset -= 1  # the same record
    services.shaping = retries(pauses_now)
    again = await classify.feed(ATTEMPTS, now or first)
    assert events(again) == told
    assert values(again, EVENTS)[0]["event_id"] == before[0]["event_id"]
    hard = told == [("bounced", "user-unknown")]
    assert [output.topic for output in again] == ([EVENTS, SUPPRESSIONS] if hard else [EVENTS])
    assert classify.state.ended.get(ID) == stored


async def test_greylisted_comes_back_soon(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(451, "Greylisted, come back later", "4.7.1", "rcpt"))
    assert events(outputs) == [("deferred", "greylisted")]
    assert values(outputs, SCHEDULED)[0]["due_at"] <= NOW + 66_000


async def test_expires_where_the_next_try_would_be_too_late(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(450, "later", "", "rcpt", message=routed(expires_at=NOW + 200_000)))
    assert events(outputs) == [("expired", "system-error")]
    assert len(outputs) == 1


async def test_lost_after_the_dot_the_next_try_may_be_a_second_delivery(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(0, "connection-lost", "", "body"))
    assert values(outputs, SCHEDULED)[0]["message"]["possible_duplicate"]
    assert not values(outputs, EVENTS)[0]["possible_duplicate"], "the first one is not"


@pytest.mark.parametrize(("code", "phase"), [(0, "data"), (451, "body"), (0, "connect")])
async def test_nothing_was_taken_so_the_next_try_is_the_first_delivery(classify, code, phase):
    outputs = await classify.feed(ATTEMPTS, attempt(code, "x", "", phase))
    assert not values(outputs, SCHEDULED)[0]["message"]["possible_duplicate"]


async def test_the_mark_of_a_possible_duplicate_stays(classify):
    outputs = await classify.feed(ATTEMPTS, attempt(451, "x", "", "rcpt", possible_duplicate=True))
    assert values(outputs, SCHEDULED)[0]["message"]["possible_duplicate"]
    assert values(outputs, EVENTS)[0]["possible_duplicate"]


async def test_a_try_after_the_delivery_has_no_second_end(classify):
    """Send died before it could write what the MX had said, and tried again."""
    await classify.feed(ATTEMPTS, attempt())
    assert await classify.feed(ATTEMPTS, attempt(451, "x", "", "rcpt")) == []
    assert await classify.feed(ATTEMPTS, attempt(550, "User unknown", "5.1.1", "rcpt")) == []
    (event,) = values(await classify.feed(ATTEMPTS, attempt(possible_duplicate=True)), EVENTS)
    assert event["possible_duplicate"]


@pytest.mark.parametrize("doubt", [
    attempt(0, "connection-lost", "", "body"),
    attempt(0, "connection-lost", "", "body", possible_duplicate=True),
    attempt(451, "x", "", "rcpt", possible_duplicate=True),  # of two tries before it, one was never told of
])  # fmt: skip
async def test_a_try_after_the_delivery_that_may_be_a_second_one_says_so(classify, doubt):
    await classify.feed(ATTEMPTS, attempt())
    (event,) = values(await classify.feed(ATTEMPTS, doubt), EVENTS)
    assert (event["kind"], event["reason"], event["possible_duplicate"]) == ("reported", "tried-after-delivered", True)


@pytest.mark.parametrize("later", [{"round": 1}, {"attempt": 1}])
async def test_a_delivery_by_another_try_is_no_second_end(classify, later):
    """Its site was another one by then, whose partition knows nothing of the delivery."""
    await classify.feed(ATTEMPTS, attempt())
    (event,) = values(await classify.feed(ATTEMPTS, attempt(message=routed(**later))), EVENTS)
    assert (event["kind"], event["reason"], event["possible_duplicate"]) == (
        "reported", "delivered-after-delivered", True)  # fmt: skip


async def test_an_end_that_may_hide_a_delivery_says_so(classify):
    """Send was killed after it; then its time was over."""
    found = ending(message(possible_duplicate=True), "expired", NOW, "send", "expired")
    (event,) = values(await classify.feed(ENDINGS, found), EVENTS)
    assert event["possible_duplicate"]


PHASES = {"connect": 10, "banner": 5, "rcpt": 7}


@pytest.mark.parametrize("code", [250, 450, 550])
async def test_an_attempt_tells_all_that_it_knows(classify, code):
    phase = "done" if code == 250 else "rcpt"
    outputs = await classify.feed(ATTEMPTS, attempt(
        code, "so it is", "", phase, source="b2", shaping="abc123", phases=PHASES, decision="slow-down", tls="TLSv1.3"))  # fmt: skip
    (event,) = values(outputs, EVENTS)
    assert (event["source"], event["shaping"], event["phases"], event["tls"]) == ("b2", "abc123", PHASES, "TLSv1.3")
    assert (event["mx_host"], event["mx_address"], event["reply"], event["duration_ms"]) == (
        "mx1.there.test", "127.0.0.11", "so it is", 5)  # fmt: skip
    assert event["rule"] and "slow-down" in event["detail"]


async def test_the_source_of_an_older_release_is_the_routes(classify):
    (event,) = values(await classify.feed(ATTEMPTS, attempt()), EVENTS)
    assert (event["source"], event["detail"]) == ("default", "")


@pytest.mark.parametrize("phase", ["connect", "banner", "ehlo", "starttls"])
@pytest.mark.parametrize("text", ["5.1.1 User unknown", "no", "554 virus", "5.7.1 your IP is banned"])
async def test_a_5xx_before_mail_is_about_us_and_ends_nobodys_mail(classify, phase, text):
    outputs = await classify.feed(ATTEMPTS, attempt(554, text, "", phase))
    (event,) = values(outputs, EVENTS)
    assert event["kind"] == "deferred" and event["reason"] in ("refused-us", "blocked")
    assert values(outputs, SUPPRESSIONS) == []


async def test_the_retry_schedule_of_a_site(classify):
    slow = {**routed(), "route": {**routed()["route"], "site": "slow.test"}}
    (entry,) = values(await classify.feed(ATTEMPTS, attempt(450, "x", "", "rcpt", message=slow)), SCHEDULED)
    assert NOW + 9_000 <= entry["due_at"] <= NOW + 11_000


async def test_what_expires_while_it_waits_ends_with_the_last_reply(classify):
    (entry,) = values(await classify.feed(ATTEMPTS, attempt(450, "try later", "4.3.0", "rcpt", source="b2")), SCHEDULED)
    found = ending(entry["message"], "expired", NOW + HOUR_MS, "schedule", "expired")
    (event,) = values(await classify.feed(ENDINGS, found), EVENTS)
    assert (event["kind"], event["reason"], event["stage"], event["attempt"]) == ("expired", "expired", "schedule", 1)
    assert (event["reply_code"], event["enhanced_code"], event["reply"], event["mx_host"], event["source"]) == (
        450, "4.3.0", "try later", "mx1.there.test", "b2")  # fmt: skip


async def test_an_order_to_bounce_is_an_end_as_bounced_by_who_gave_it(classify):
    given = order("bounce", "op", NOW, site="there.test", reason="gone for good")
    (event,) = values(await classify.feed(ENDINGS, bounce(routed(), given, NOW, "schedule")), EVENTS)
    assert (event["kind"], event["reason"], event["rule"], event["detail"], event["stage"]) == (
        "bounced", "operator", "op", "gone for good", "schedule")  # fmt: skip
    assert classify.state.ended.get(ID)["kind"] == "bounced"
    assert await classify.feed(ENDINGS, bounce(routed(), given, NOW + 5, "route")) == [], "one end"
