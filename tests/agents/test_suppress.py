"""Suppress: lists, cancellations, repeats."""

import pytest
from builders import ID, NOW, attempt, decision, events, message, routed, values

from agents import classify
from agents.suppress import stage
from topics.catalogue import ATTEMPTS, CANCELLATIONS, CLEARED, ENDINGS, EVENTS, IN_FORCE, SCORED, SUPPRESSIONS
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
    onward = [output.key for output in outputs if output.topic is SUPPRESSIONS]
    assert onward == ([] if key == b"r@there.test" else [b"r@there.test"])
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


async def test_what_stops_a_message_names_its_evidence(suppress):
    await suppress.feed(SUPPRESSIONS, entry(reason="hard_bounce", evidence="report-7", detail="550 5.1.1 nobody here"))
    (end,) = values(await suppress.feed(SCORED, message()), ENDINGS)
    assert (end["rule"], end["detail"]) == ("tenant:hard-bounce", "report-7: 550 5.1.1 nobody here")


@pytest.mark.parametrize(
    "recipient", ["r@there.test", "R.Big@There.test", "ann@xn--bcher-kva.test", "jürgen@there.test"]
)
async def test_between_a_hard_bounce_and_its_effect_lies_one_pass_of_the_topic(suppress, services, recipient):
    """What classify writes has the key of the recipient's mail: the next record of that partition is stopped already."""
    bounced = routed(recipient=recipient, message_id="m0")
    judging = Scripted(classify.stage, services, NOW)
    outputs = await judging.feed(ATTEMPTS, attempt(550, "nobody here", "5.1.1", "rcpt", message=bounced))
    assert [(letter["error"], letter["text"]) for letter in judging.dead_letters] == []
    (written,) = [output for output in outputs if output.topic is SUPPRESSIONS]
    assert written.key == SCORED.send(message(recipient=recipient)).key, "another partition: two passes, or none"
    outputs = await suppress.feed(SUPPRESSIONS, written.value, key=written.key)
    assert not values(outputs, SUPPRESSIONS), "it would go round once more"
    assert events(await suppress.feed(SCORED, message(recipient=recipient))) == [("dropped", "suppressed")]


async def test_soft_bounces_stop_mail_at_the_tenants_number(suppress):
    suppress.services.tenants["acme"] |= {"soft_bounces_after": 3, "soft_bounces_days": 2}
    for n in range(2):
        await suppress.feed(SUPPRESSIONS, entry(reason="soft_bounces", evidence=f"m{n}", source="classify"))
    assert events(await suppress.feed(SCORED, message(message_id="m8"))) == [("cleared", "")]
    assert len(suppress.state.not_in_force.scan()) == 1 and not suppress.state.suppressed.scan()
    await suppress.feed(SUPPRESSIONS, entry(reason="soft_bounces", evidence="m3", source="classify"))
    outputs = await suppress.feed(SCORED, message(message_id="m9"))
    assert outputs[0].value["rule"] == "tenant:soft-bounces"
    assert len(suppress.state.suppressed.scan()) == 1 and not suppress.state.not_in_force.scan()


async def test_soft_bounces_are_forgotten_in_time(suppress):
    await suppress.feed(SUPPRESSIONS, entry(reason="soft_bounces", source="classify"))
    suppress.now += 14 * DAY_MS + 60_000
    assert not suppress.state.not_in_force.scan()


async def test_what_is_in_force_is_told_to_everybody(suppress):
    outputs = await suppress.feed(SUPPRESSIONS, entry(source="cli", by="jo"))
    (event,), (shown,) = values(outputs, EVENTS), values(outputs, IN_FORCE)
    assert [(output.topic, output.key) for output in outputs] == [
        (EVENTS, event["event_id"].encode()), (IN_FORCE, b"acme\0r@there.test")]  # fmt: skip
    assert (event["kind"], event["reason"], event["rule"]) == ("noted", "suppression-added", "tenant:manual")
    assert (shown["reason"], shown["by"], [each["evidence"] for each in shown["evidence"]]) == ("manual", "jo", ["e1"])
    outputs = await suppress.feed(SUPPRESSIONS, entry(reason="complaint", evidence="e2"))
    assert [output.topic for output in outputs] == [IN_FORCE], "mail was stopped before"
    outputs = await suppress.feed(SUPPRESSIONS, entry(action="remove", evidence="op", source="api", by="acme's key"))
    assert [(output.topic, output.key, output.value is None) for output in outputs] == [
        (EVENTS, outputs[0].value["event_id"].encode(), False), (IN_FORCE, b"acme\0r@there.test", True),
    ]  # fmt: skip
    assert outputs[0].value["detail"] == "by api acme's key"


async def test_what_changes_nothing_says_nothing(suppress):
    said = [entry(), entry(action="remove", evidence="op"), entry(reason="hard_bounce", evidence="e9", at=NOW - 1)]
    await suppress.feed(SUPPRESSIONS, *said)
    kept = dict(suppress.database.values)
    assert await suppress.feed(SUPPRESSIONS, *said) == [], "a replay of all of it"
    assert suppress.database.values == kept
    assert events(await suppress.feed(SCORED, message())) == [("cleared", "")]
    assert values(await suppress.feed(SUPPRESSIONS, entry(evidence="new", at=NOW + 5), timestamp=NOW + 5), IN_FORCE)


async def test_an_entry_that_was_over_stops_mail_again(suppress):
    await suppress.feed(SUPPRESSIONS, entry(expires_at=NOW + 1000))
    suppress.now = NOW + 5000
    outputs = await suppress.feed(SUPPRESSIONS, entry(reason="complaint", evidence="e2", at=NOW + 4000))
    assert [event["reason"] for event in values(outputs, EVENTS)] == ["suppression-added"]


@pytest.mark.parametrize(
    "wrong",
    [{"tenant": "", "source": "api"}, {"tenant": "", "source": "api", "action": "remove"}, {"tenant": "a\0b"}, {"tenant": "Acme"},
     {"recipient": "no address"}, {"recipient": ""}, {"recipient": "r@there.test\0"}, {"recipient": "x" * 70_000}],
)  # fmt: skip
async def test_what_no_list_takes_is_a_dead_letter(suppress, wrong):
    await suppress.feed(SUPPRESSIONS, entry(tenant="", source="cli"))
    before = dict(suppress.database.values)
    assert await suppress.feed(SUPPRESSIONS, entry(evidence="e2", **wrong)) == []
    assert len(suppress.dead_letters) == 1 and suppress.database.values == before


async def test_a_removal_with_a_clock_that_is_ahead(suppress):
    await suppress.feed(SUPPRESSIONS, entry(action="remove", at=NOW + 400 * DAY_MS))
    suppress.now = NOW + 60_000
    await suppress.feed(SUPPRESSIONS, entry(evidence="e2", at=NOW + 1))
    assert events(await suppress.feed(SCORED, message())) == [("dropped", "suppressed")]


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
