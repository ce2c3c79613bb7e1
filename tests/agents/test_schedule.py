"""Schedule: what waits comes back when due, once, in the order of time; operators decide about the rest."""

import pytest
from builders import HOUR_MS, ID, NOW, decision, events, message, scheduled, values

from agents.schedule import RELEASED_AT_ONCE, stage
from postroad import ids
from topics.catalogue import ACCEPTED, DECISIONS, SCHEDULED, SCORED, VALIDATED
from topics.testing import Scripted


@pytest.fixture
def schedule(services):
    return Scripted(stage, services, NOW)


def own(number):
    """The id of a message of its own."""
    return ids.message_id(NOW, "acme", "s", "0:0", str(number))


def entry(number, due_at, **fields):
    return scheduled(due_at, message_id=own(number), **fields)


async def test_nothing_before_its_time_everything_at_it_in_the_order_of_time(schedule):
    await schedule.feed(SCHEDULED, entry(1, NOW + 300), entry(2, NOW + 100), entry(3, NOW + 200))
    assert await schedule.tick() == []
    schedule.now = NOW + 199
    assert [m["message_id"] for m in values(await schedule.tick(), SCORED)] == [own(2)]
    schedule.now = NOW + 300
    assert [m["message_id"] for m in values(await schedule.tick(), SCORED)] == [own(3), own(1)]
    assert await schedule.tick() == []
    assert schedule.state.due.scan() == schedule.state.waiting.scan() == []


@pytest.mark.parametrize(("return_to", "topic"), [("accepted", ACCEPTED), ("validated", VALIDATED), ("scored", SCORED)])
async def test_comes_back_where_it_left_with_its_next_round(schedule, return_to, topic):
    await schedule.feed(SCHEDULED, scheduled(NOW, return_to=return_to, round=4, possible_duplicate=True))
    outputs = await schedule.tick()
    assert [output.topic for output in outputs] == [topic]
    assert (outputs[0].value["round"], outputs[0].value["possible_duplicate"]) == (5, True)


async def test_a_tick_has_a_limit_and_the_next_goes_on(schedule):
    await schedule.feed(SCHEDULED, *(entry(n, NOW - n) for n in range(RELEASED_AT_ONCE + 5)))
    assert len(await schedule.tick()) == RELEASED_AT_ONCE
    assert len(await schedule.tick()) == 5


async def test_the_same_round_waits_once(schedule):
    await schedule.feed(SCHEDULED, scheduled(NOW + 1), scheduled(NOW + 2), scheduled(NOW, round=0))
    schedule.now = NOW + 5
    assert len(values(await schedule.tick(), SCORED)) == 1


async def test_a_later_round_takes_the_place_of_an_earlier_one(schedule):
    """Released, worker killed before that was written, and back with its next round before the old entry was due again."""
    await schedule.feed(SCHEDULED, scheduled(NOW + 100))
    await schedule.feed(SCHEDULED, scheduled(NOW + 200, round=1))
    schedule.now = NOW + 150
    assert await schedule.tick() == []
    assert schedule.state.waiting.get(ID).round == 1
    schedule.now = NOW + 200
    assert [m["round"] for m in values(await schedule.tick(), SCORED)] == [2]


@pytest.mark.parametrize("rounds", [(0, 0), (1, 0), (0, 1)])
@pytest.mark.parametrize("cleared_first", [False, True])
async def test_of_two_copies_the_one_stays_that_suppress_has_let_through(schedule, rounds, cleared_first):
    """The other has no way on: suppress stops it."""
    cleared, other = scheduled(NOW + 100, round=rounds[0], cleared=True), scheduled(NOW + 50, "dns", round=rounds[1])
    await schedule.feed(SCHEDULED, *((cleared, other) if cleared_first else (other, cleared)))
    schedule.now = NOW + 100
    assert [(m["round"], m["cleared"]) for m in values(await schedule.tick(), SCORED)] == [(rounds[0] + 1, True)]


async def test_an_entry_before_all_that_was_released_is_found(schedule):
    await schedule.feed(SCHEDULED, entry(1, NOW - 10), entry(2, NOW - 10), entry(3, NOW + 5))
    await schedule.tick()
    await schedule.feed(SCHEDULED, entry(4, NOW - 1000), entry(5, NOW - 10))
    assert [m["message_id"] for m in values(await schedule.tick(), SCORED)] == [own(4), own(5)]
    schedule.now = NOW + 5
    assert [m["message_id"] for m in values(await schedule.tick(), SCORED)] == [own(3)]


async def test_a_tick_with_nothing_due_reads_one_entry_and_passes_over_what_was_released(schedule, monkeypatch):
    read = []
    items = schedule.database.items
    monkeypatch.setattr(
        schedule.database, "items", lambda first, limit: read.append((first, limit)) or items(first, limit)
    )
    await schedule.feed(SCHEDULED, *(entry(n, NOW - n) for n in range(10)), *(entry(n, NOW + n) for n in range(90, 99)))
    await schedule.tick()
    read.clear()
    assert await schedule.tick() == []
    ((first, limit),) = read
    assert limit == 1 and first >= b"\1" + NOW.to_bytes(8, "big"), "deleted entries cost time to pass"


async def test_expires_while_it_waits(schedule):
    await schedule.feed(SCHEDULED, scheduled(NOW + 2 * HOUR_MS))
    schedule.now = NOW + 2 * HOUR_MS
    outputs = await schedule.tick()
    assert events(outputs) == [("expired", "expired")]
    assert outputs[0].value["detail"] == "waited: retry"


async def test_held_for_an_operator_until_it_expires(schedule):
    await schedule.feed(SCHEDULED, scheduled(None, "held"))
    schedule.now = NOW + HOUR_MS - 1
    assert await schedule.tick() == []
    schedule.now = NOW + HOUR_MS
    assert events(await schedule.tick()) == [("expired", "expired")]


async def test_an_operator_releases(schedule):
    await schedule.feed(SCHEDULED, scheduled(None, "held"))
    outputs = await schedule.feed(DECISIONS, decision("release"))
    assert events(outputs) == [("released", "operator")]
    (back,) = values(outputs, SCORED)
    assert (back["released"], back["round"]) == (True, 1)
    schedule.now = NOW + 2 * HOUR_MS
    assert await schedule.tick() == []
    assert await schedule.feed(DECISIONS, decision("release")) == [], "it is somewhere else now"


async def test_released_before_its_send_at_waits_for_that(schedule):
    await schedule.feed(SCHEDULED, scheduled(None, "held", send_at=NOW + 1000))
    outputs = await schedule.feed(DECISIONS, decision("release"))
    assert events(outputs) == [("released", "operator")]
    assert not values(outputs, SCORED)
    schedule.now = NOW + 1000
    (back,) = values(await schedule.tick(), SCORED)
    assert (back["released"], back["round"]) == (True, 1)


@pytest.mark.parametrize(("action", "end"), [("drop", ("dropped", "operator")), ("cancel", ("cancelled", "cancelled"))])
async def test_an_operator_ends_it(schedule, action, end):
    await schedule.feed(SCHEDULED, scheduled(NOW + 1000))
    assert events(await schedule.feed(DECISIONS, decision(action), decision(action))) == [end]
    schedule.now = NOW + 2000
    assert await schedule.tick() == []


async def test_a_cancel_that_comes_before_its_message(schedule):
    """It is on its way here, and may wait for longer than suppress remembers the cancel."""
    assert await schedule.feed(DECISIONS, decision("cancel"), decision("drop", message_id=own(2))) == []
    assert events(await schedule.feed(SCHEDULED, scheduled(NOW + 1000))) == [("cancelled", "cancelled")]
    assert await schedule.feed(SCHEDULED, entry(2, NOW + 1000)) == []
    schedule.now = NOW + 1000
    assert [m["message_id"] for m in values(await schedule.tick(), SCORED)] == [own(2)]


async def test_a_late_copy_of_what_was_cancelled_does_not_wait(schedule):
    await schedule.feed(SCHEDULED, scheduled(NOW + 1000))
    await schedule.feed(DECISIONS, decision("cancel"))
    await schedule.feed(SCHEDULED, scheduled(NOW + 1000))
    assert schedule.state.waiting.scan() == []


async def test_decision_about_a_message_that_does_not_wait_here(schedule):
    assert await schedule.feed(DECISIONS, decision("drop", message_id=own("elsewhere"))) == []
    assert schedule.dead_letters == []


async def test_a_message_that_never_expires_can_wait_for_ever(schedule):
    await schedule.feed(SCHEDULED, {**scheduled(None, "held"), "message": message(expires_at=(1 << 63) - 1)})
    schedule.now = 1 << 62
    assert await schedule.tick() == []


@pytest.mark.parametrize("id", ["x" * 900_000, "", ID.upper(), ID + "\n"])
async def test_an_id_that_is_none_of_ours_is_not_kept(schedule, id):
    """A tick would have to write what it does with it."""
    await schedule.feed(SCHEDULED, scheduled(NOW, message_id=id))
    await schedule.feed(DECISIONS, decision("cancel", message_id=id))
    assert [letter["error"] for letter in schedule.dead_letters] == ["ValueError"] * 2
    assert schedule.database.values == {}
