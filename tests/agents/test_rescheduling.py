"""Another send-at: for what waits for its own, and for what is still on its way there."""

import pytest
from builders import HOUR_MS, ID, NOW, scheduled, values

from agents.schedule import stage
from topics.catalogue import DECISIONS, ENDINGS, EVENTS, RESCHEDULES, SCHEDULED, SCORED
from topics.testing import Scripted


@pytest.fixture
def schedule(services):
    services.orders = {}
    return Scripted(stage, services, NOW)


def wish(send_at, **fields):
    return {"message_id": ID, "tenant": "acme", "send_at": send_at, "by": "key k", "at": NOW, **fields}


def entry(due_at, **fields):
    made = scheduled(due_at, **fields)
    made["reason"] = "send-at"
    return made


@pytest.mark.parametrize("first", ["message", "wish"])
async def test_it_leaves_at_the_new_time_whichever_came_first(schedule, first):
    steps = [(SCHEDULED, entry(NOW + 100)), (RESCHEDULES, wish(NOW + 900))]
    for topic, value in steps if first == "message" else steps[::-1]:
        await schedule.feed(topic, value)
    schedule.now = NOW + 899
    assert await schedule.tick() == []
    schedule.now = NOW + 900
    (message,) = values(await schedule.tick(), SCORED)
    assert (message["send_at"], message["round"], message["expires_at"]) == (NOW + 900, 1, NOW + HOUR_MS + 800)
    assert schedule.state.due.scan() == schedule.state.waiting.scan() == []


async def test_earlier_and_again_and_the_timeline_says_each(schedule):
    await schedule.feed(SCHEDULED, entry(NOW + 5_000))
    told = []
    for send_at in (NOW + 9_000, NOW + 10, NOW + 10):
        told += [event for event in values(await schedule.feed(RESCHEDULES, wish(send_at)), EVENTS)]
    assert [(event["kind"], event["due_at"]) for event in told] == [
        ("scheduled", NOW + 9_000),
        ("scheduled", NOW + 10),
        ("scheduled", NOW + 10),
    ]
    assert told[0]["event_id"] != told[1]["event_id"] == told[2]["event_id"]
    schedule.now = NOW + 10
    assert len(values(await schedule.tick(), SCORED)) == 1
    schedule.now = NOW + 20_000
    assert await schedule.tick() == []


async def test_what_waits_for_something_else_or_is_anothers_stays(schedule):
    await schedule.feed(SCHEDULED, scheduled(NOW + 100))
    assert await schedule.feed(RESCHEDULES, wish(NOW + 900)) == []
    schedule.now = NOW + 100
    assert len(await schedule.tick()) == 1
    await schedule.feed(SCHEDULED, entry(NOW + 1_000, round=3))
    assert await schedule.feed(RESCHEDULES, wish(NOW + 50_000, tenant="other")) == []


async def test_cancelled_all_the_same_and_no_id_is_a_dead_letter(schedule):
    await schedule.feed(SCHEDULED, entry(NOW + 100))
    await schedule.feed(RESCHEDULES, wish(NOW + 900))
    decision = {"message_id": ID, "recipient": "r@there.test", "action": "cancel", "by": "x", "at": NOW}
    assert [end["kind"] for end in values(await schedule.feed(DECISIONS, decision), ENDINGS)] == ["cancelled"]
    await schedule.feed(RESCHEDULES, wish(NOW, message_id="x" * 1_000))
    assert len(schedule.dead_letters) == 1
