"""Suppress: lists, cancellations, repeats."""

import pytest
from builders import ID, NOW, decision, events, message, values

from agents.suppress import stage
from topics.catalogue import CANCELLATIONS, CLEARED, SCORED, SUPPRESSIONS
from topics.testing import Scripted

DAY_MS = 86_400_000


@pytest.fixture
def suppress(services):
    return Scripted(stage, services, NOW)


def entry(**fields):
    return {"recipient": "R@there.test", "tenant": "acme", "reason": "manual", "at": NOW, "evidence": "e1", **fields}


async def test_passes_on_who_is_not_listed(suppress):
    outputs = await suppress.feed(SCORED, message())
    assert events(outputs) == [("cleared", "")]
    assert [output.key for output in outputs if output.topic is CLEARED] == [b"there.test"]


@pytest.mark.parametrize(("tenant", "rule"), [("", "global:manual"), ("acme", "tenant:manual")])
async def test_drops_who_is_listed(suppress, tenant, rule):
    await suppress.feed(SUPPRESSIONS, entry(tenant=tenant))
    outputs = await suppress.feed(SCORED, message())
    assert events(outputs) == [("dropped", "suppressed")]
    assert outputs[0].value["rule"] == rule
    assert not values(outputs, CLEARED)


@pytest.mark.parametrize("written", ["R@there.test", "r@there.test", '"r"@There.test'])
@pytest.mark.parametrize("key", [b"R@there.test", b"", b"r@there.test"])
async def test_an_entry_finds_its_partition_and_its_recipient_however_both_are_written(suppress, written, key):
    outputs = await suppress.feed(SUPPRESSIONS, entry(recipient=written), key=key)
    assert [output.key for output in outputs] == ([] if key == b"r@there.test" else [b"r@there.test"])
    await suppress.feed(SUPPRESSIONS, *values(outputs, SUPPRESSIONS))
    assert events(await suppress.feed(SCORED, message())) == [("dropped", "suppressed")]


async def test_an_internationalised_domain_is_listed_as_its_mail_goes(suppress):
    outputs = await suppress.feed(SUPPRESSIONS, entry(recipient="ann@bücher.test"))
    await suppress.feed(SUPPRESSIONS, *values(outputs, SUPPRESSIONS))
    assert events(await suppress.feed(SCORED, message(recipient="ann@xn--bcher-kva.test"))) == [
        ("dropped", "suppressed")
    ]


async def test_list_of_another_tenant_says_nothing(suppress):
    await suppress.feed(SUPPRESSIONS, entry(tenant="other"))
    assert events(await suppress.feed(SCORED, message())) == [("cleared", "")]


async def test_removal_and_expiry(suppress):
    await suppress.feed(SUPPRESSIONS, entry(expires_at=NOW + 1000))
    assert events(await suppress.feed(SCORED, message(message_id="m1"))) == [("dropped", "suppressed")]
    suppress.now = NOW + 1000
    assert events(await suppress.feed(SCORED, message(message_id="m2"))) == [("cleared", "")]
    await suppress.feed(SUPPRESSIONS, entry())
    await suppress.feed(SUPPRESSIONS, entry(action="remove"), entry(action="remove"))
    assert events(await suppress.feed(SCORED, message(message_id="m3"))) == [("cleared", "")]


async def test_hard_bounces_stop_mail_at_the_tenants_threshold(suppress):
    suppress.services.tenants["acme"]["suppress_after"] = 2
    await suppress.feed(SUPPRESSIONS, entry(reason="hard_bounce"), entry(reason="hard_bounce"))
    assert events(await suppress.feed(SCORED, message(message_id="m1"))) == [("cleared", "")], "one and the same bounce"
    await suppress.feed(SUPPRESSIONS, entry(reason="hard_bounce", evidence="e2"))
    outputs = await suppress.feed(SCORED, message(message_id="m2"))
    assert outputs[0].value["rule"] == "tenant:hard-bounce"


async def test_a_repeat_stops_without_a_trace_and_a_later_round_passes(suppress):
    assert len(values(await suppress.feed(SCORED, message(), message()), CLEARED)) == 1
    assert await suppress.feed(SCORED, message()) == []
    assert len(values(await suppress.feed(SCORED, message(round=2, cleared=True)), CLEARED)) == 1
    assert await suppress.feed(SCORED, message(round=1, cleared=True)) == [], "an earlier round that comes late repeats"


async def test_another_copy_that_was_not_here_stops(suppress):
    """validate was done twice, and the first time DNS did not answer: one copy came at once, one by way of schedule."""
    (cleared,) = values(await suppress.feed(SCORED, message()), CLEARED)
    assert cleared["cleared"]
    assert await suppress.feed(SCORED, message(round=1)) == []


async def test_a_repeat_of_a_dropped_message_has_no_second_end(suppress):
    await suppress.feed(SUPPRESSIONS, entry())
    assert events(await suppress.feed(SCORED, message())) == [("dropped", "suppressed")]
    await suppress.feed(SUPPRESSIONS, entry(action="remove"))
    assert await suppress.feed(SCORED, message()) == []
    assert await suppress.feed(SCORED, message(round=1)) == [], "a crash may have sent it on and parked it as well"


async def test_cancelled_before_it_comes_and_between_two_tries(suppress):
    await suppress.feed(CANCELLATIONS, decision("cancel"))
    outputs = await suppress.feed(SCORED, message(), message(message_id="m2"))
    assert events(outputs) == [("cancelled", "cancelled"), ("cleared", "")]
    assert outputs[0].value["detail"] == "so"
    await suppress.feed(CANCELLATIONS, decision("cancel", message_id="m2"))
    assert events(await suppress.feed(SCORED, message(message_id="m2", round=1, cleared=True))) == [
        ("cancelled", "cancelled")
    ]


async def test_cancellations_are_forgotten_in_time(suppress):
    await suppress.feed(CANCELLATIONS, decision("cancel"))
    assert suppress.state.cancelled.get(ID) == "so"
    suppress.now += 8 * DAY_MS
    assert suppress.state.cancelled.get(ID) is None


async def test_expired(suppress):
    outputs = await suppress.feed(SCORED, message(expires_at=NOW), message(message_id="m2", expires_at=NOW - 1))
    assert events(outputs) == [("cleared", ""), ("expired", "expired")]


async def test_knows_repeats_until_a_day_after_the_message_expired(suppress):
    await suppress.feed(SCORED, message(expires_at=NOW + DAY_MS))
    suppress.now = NOW + 2 * DAY_MS - 1
    assert await suppress.feed(SCORED, message(expires_at=NOW + DAY_MS)) == []
