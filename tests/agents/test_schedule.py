"""Schedule: what waits comes back when due, once, in the order of time; operators decide about the rest."""

import itertools

import pytest
from builders import HOUR_MS, ID, NOW, decision, events, message, route, scheduled, values

from agents.schedule import RELEASED_AT_ONCE, obey, stage
from postroad import ids
from postroad.orders import BOUNCE, order
from tables.due import key as due_key
from tables.sites import AT_ONCE, id_in
from topics.catalogue import ACCEPTED, DECISIONS, ENDINGS, EVENTS, SCHEDULED, SCORED, VALIDATED
from topics.pure import Some
from topics.testing import Scripted


@pytest.fixture
def schedule(services):
    services.orders = {}
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


def there(number, site="there.test", due_at=NOW + 1000, **fields):
    """An entry that was routed to a site before; `at` is when it began to wait."""
    held = entry(number, due_at, **{"route": route(site=site) if site else None, **fields})
    return {**held, "at": fields.pop("at", NOW)}


def told(services, *given):
    """These orders, and no others, are in force."""
    services.orders = {one["order_id"]: one for one in given}


async def ids_of(outputs, topic=SCORED):
    return [m["message_id"] for m in values(outputs, topic)]


@pytest.mark.parametrize(
    ("scope", "numbers"),
    [
        ({"site": "there.test"}, {1, 2, 5}),
        ({"site": "other.test"}, {3}),
        ({"tenant": "acme"}, {1, 3, 4}),
        ({"site": "there.test", "tenant": "acme"}, {1}),
        ({"site": "there"}, set()),
        ({"tenant": "acm"}, set()),
    ],
)
@pytest.mark.parametrize("action", ["flush", "bounce"])
@pytest.mark.parametrize("order_first", [False, True])
async def test_an_order_is_about_its_scope_and_nothing_else(schedule, services, scope, numbers, action, order_first):
    entries = [
        there(1),
        there(2, tenant="b"),
        there(3, "other.test"),
        there(4, ""),
        there(5, tenant="zz"),
        there(6, "", tenant="b"),
    ]
    given = order(action, "op", NOW + 10, reason="so", **scope)
    if order_first:  # it was on its way to schedule when the order was given
        told(services, given)
    schedule.now = NOW + 20
    outputs = await schedule.feed(SCHEDULED, *entries)
    told(services, given)
    for _ in range(4):
        outputs += await schedule.tick()
    if action == "flush":
        assert set(await ids_of(outputs)) == {own(n) for n in numbers}
        assert [(e["reason"], e["rule"], e["detail"]) for e in values(outputs, EVENTS)] == [
            ("flush", "op", "so")
        ] * len(numbers)
    else:
        ends = values(outputs, ENDINGS)
        assert {end["message"]["message_id"] for end in ends} == {own(n) for n in numbers}
        assert {(end["reason"], end["rule"], end["detail"]) for end in ends} <= {(BOUNCE, "op", "so")}
    assert len(outputs) == len(numbers) * (2 if action == "flush" else 1)
    assert len(schedule.state.sites.scan()) == len(schedule.state.due.scan()) == 6 - len(numbers)
    assert await schedule.tick() == [], "once"


async def test_what_a_flush_let_go_and_comes_back_waits_again(schedule, services):
    await schedule.feed(SCHEDULED, there(1))
    told(services, order("flush", "op", NOW + 10, site="there.test"))
    schedule.now = NOW + 20
    assert await ids_of(await schedule.tick()) == [own(1)]
    assert await schedule.feed(SCHEDULED, {**there(1, round=1), "at": NOW + 15}) == []
    assert await schedule.tick() == await schedule.tick() == []
    told(services, order("flush", "op", NOW + 18, site="there.test"))
    assert await ids_of(await schedule.tick()) == [own(1)], "a second order of the same kind"


@pytest.mark.parametrize("waited", [False, True])
async def test_an_order_lets_a_message_go_once_however_far_the_clock_of_who_parks_it_is_behind(
    schedule, services, waited
):
    """A send worker parks it time and again, and says that it has waited since before the orders."""
    given = [order("flush", "op", NOW + 10, site="there.test"), order("flush", "op", NOW + 9, tenant="acme")]
    if waited:
        await schedule.feed(SCHEDULED, there(1))
    told(services, *given)
    schedule.now, outputs = NOW + 20, []
    for round in range(1, 6):
        outputs += await schedule.tick()
        outputs += await schedule.feed(SCHEDULED, there(1, round=round))
    assert [v["reason"] for v in values(outputs, EVENTS)] == ["flush"]
    assert await schedule.tick() == await schedule.tick() == [] and schedule.state.waiting.scan()
    schedule.now = NOW + 40
    told(services, *given, order("flush", "op", NOW + 30, tenant="acme"))
    assert await ids_of(await schedule.tick()) == [own(1)], "another order"


@pytest.mark.parametrize("action", ["flush", "bounce"])
async def test_a_second_order_from_a_machine_whose_clock_is_behind_is_obeyed(schedule, services, action):
    schedule.now = NOW + 40
    told(services, order(action, "op", NOW + 30, site="there.test"))
    await schedule.feed(SCHEDULED, there(1, "other.test"))
    assert await schedule.tick() == [] and await schedule.tick() == []
    told(services)
    await schedule.feed(SCHEDULED, there(2))
    told(services, order(action, "op", NOW + 20, site="there.test"))
    assert len(await schedule.tick()) == (2 if action == "flush" else 1)
    assert await schedule.tick() == [] and len(schedule.state.due.scan()) == 1


async def test_a_flush_lets_go_nothing_that_waits_for_a_time_of_its_own_but_a_bounce_ends_it(schedule, services):
    held = {**there(1), "due_at": None, "reason": "held"}
    later = {**there(2), "reason": "send-at"}
    told(services, order("flush", "op", NOW, tenant="acme"))
    await schedule.feed(SCHEDULED, held, later)
    assert await schedule.tick() == []
    told(services, order("bounce", "op", NOW, tenant="acme"))
    assert len(values(await schedule.tick(), ENDINGS)) == 2


async def test_a_bounce_spares_what_was_accepted_after_it_and_what_an_order_of_a_fast_clock_is_about_waits(
    schedule, services
):
    told(
        services, order("bounce", "op", NOW - 1, site="there.test"), order("flush", "op", NOW + 500, site="there.test")
    )
    assert await schedule.feed(SCHEDULED, there(1)) == await schedule.tick() == await schedule.tick() == []
    schedule.now = NOW + 500
    assert await ids_of(await schedule.tick()) == [own(1)]


async def test_many_go_in_parts_and_a_crash_between_them_loses_and_repeats_nothing(schedule, services):
    """A tick that was not written is a tick that never was; one that sees less goes on where it stopped."""
    few = itertools.cycle([1, 2, 7])
    await schedule.feed(SCHEDULED, *(there(n, tenant=f"t{n % 3}") for n in range(450)))
    await schedule.feed(SCHEDULED, *(there(n, "other.test", tenant=f"t{n % 5}") for n in range(500, 530)))
    told(services, order("flush", "op", NOW, site="there.test"))
    seen, sizes = [], []
    while True:
        view = schedule.state
        list(obey(view))  # killed before it was written
        view = schedule.state
        view._database = Some(view._database, next(few) if len(sizes) % 2 else 1 << 60)
        view.services.orders, outputs = services.orders, list(obey(view))
        view.keep()
        if not (changes := view.entries()):
            break
        schedule.database.write(changes)
        seen += [output.value["message_id"] for output in outputs if output.topic is SCORED]
        sizes.append(len(seen))
    assert sorted(seen) == sorted({own(n) for n in range(450)})
    assert max(b - a for a, b in itertools.pairwise(sizes)) <= AT_ONCE
    assert {id_in(key) for key, _ in schedule.state.sites.scan()} == {own(n) for n in range(500, 530)}


async def test_a_site_is_found_under_many_tenants(schedule, services):
    await schedule.feed(
        SCHEDULED, *(there(n, ("a.test", "m.test", "z.test")[n % 3], tenant=f"t{n}") for n in range(400))
    )
    told(services, order("bounce", "op", NOW, site="m.test"))
    ended = []
    for _ in range(20):
        ended += values(await schedule.tick(), ENDINGS)
    assert {end["message"]["message_id"] for end in ended} == {own(n) for n in range(400) if n % 3 == 1}


@pytest.mark.parametrize(
    "wrong", [{"order_id": "x"}, {"site": ""}, {"site": "y" * 300}, {"site": "other.test"}, {"tenant": "a\0b"}]
)
async def test_an_order_that_is_not_what_its_key_says_is_about_nothing(schedule, services, wrong):
    await schedule.feed(SCHEDULED, there(1), there(2, "other.test"))
    told(services, {**order("bounce", "op", NOW, site="there.test"), **wrong})
    assert await schedule.tick() == []
    assert await schedule.feed(SCHEDULED, there(3)) == []


async def test_what_an_older_release_left_in_the_index_is_put_right(schedule, services):
    await schedule.feed(SCHEDULED, there(1), there(2))
    schedule.database.write({b"\1" + due_key(NOW + 1000, own(1)): None, b"\2" + own(1).encode(): None})
    told(services, order("flush", "op", NOW, tenant="acme"))
    assert await ids_of(await schedule.tick()) == [own(2)]
    assert schedule.state.sites.scan() == []


async def test_names_that_are_too_long_for_a_key_or_hold_its_separator(schedule, services):
    for n, name in enumerate(["x" * 5000, "x" * 5001, "a\0there.test\0", "ü" * 300]):
        await schedule.feed(SCHEDULED, there(n, tenant=name))
    told(services, order("flush", "op", NOW, site="there.test"))
    assert len(await ids_of(await schedule.tick() + await schedule.tick())) == 4
    assert schedule.dead_letters == schedule.state.sites.scan() == []


async def test_a_tick_does_not_pass_over_what_an_order_took_away(schedule, services):
    await schedule.feed(
        SCHEDULED, *(there(n, due_at=NOW + n) for n in range(1, 50)), there(99, "other.test", NOW + HOUR_MS)
    )
    told(services, order("flush", "op", NOW, site="there.test"))
    await schedule.tick()
    await schedule.tick()
    assert schedule.state.beginning.get("") == NOW + HOUR_MS
    await schedule.feed(SCHEDULED, there(5, "other.test", NOW + 7))
    schedule.now = NOW + 7
    assert await ids_of(await schedule.tick()) == [own(5)]
