"""Audit, live: each break of the ledger's rule is one alarm, in time, and what is in order is none."""

import itertools

import pytest
from builders import HOUR_MS, ID, NOW, attempt, message, routed, values

from agents import audit
from agents.audit import SLACK_MS, TICK_SECONDS, stage
from agents.reading import BEHIND_MS, QUIET_MS
from postroad import ids
from postroad.events import event
from postroad.ledger import ATTEMPTED, Step, follow
from tables.audited import AUDITED, Audited
from tables.store import CHANGELOG_MAX_BYTES
from topics.catalogue import ATTEMPTS, EVENTS
from topics.testing import Scripted

MINUTE = 60_000
TRANSIT, SENDING = 10 * MINUTE, 120 * MINUTE
TICK = int(TICK_SECONDS * 1000)


@pytest.fixture
def runner(services):
    audit.metrics.counts.clear()
    return Scripted(stage, services, NOW)


def step(kind, after=0, *, id=ID, **fields):
    about = message(message_id=id, round=fields.pop("round", 0), attempt=fields.pop("attempt", 0))
    return event(about, kind, NOW + after, "some", **fields)


def own(name):
    """The id of a message of its own."""
    return ids.message_id(NOW, "acme", "s", "0:0", str(name))


async def until(runner, after):
    """Ticks go by; the alarms (reason, message id, minutes) that they raise."""
    found = []
    while runner.now < NOW + after:
        runner.now += TICK
        minute = (runner.now - NOW) // MINUTE
        found += [(alarm["reason"], alarm["message_id"], minute) for alarm in values(await runner.tick(), EVENTS)]
    return found


async def test_a_message_with_its_end_is_in_order_and_leaves_nothing_to_look_at(runner):
    for kind in ("accepted", "validated", "scored", "cleared", "routed"):
        assert await runner.feed(EVENTS, step(kind, 5)) == []
    assert await runner.feed(ATTEMPTS, attempt()) == []
    assert await runner.feed(EVENTS, step("delivered", 9, attempt=1)) == []
    assert await until(runner, 80 * MINUTE) == []
    assert runner.state.deadlines.scan() == []
    assert audit.metrics.counts.items() >= {"accepted": 1, "ended": 1}.items()
    assert not {*audit.ALARMS.values()} & audit.metrics.counts.keys()


@pytest.mark.parametrize(
    ("steps", "allowed"),
    [
        ([step("accepted")], TRANSIT),
        ([step("accepted"), step("validated", 9 * MINUTE)], TRANSIT + 9 * MINUTE),
        ([step("accepted"), step("routed", 1)], SENDING),
        ([step("accepted"), step("scheduled", 2, due_at=NOW + 2 * HOUR_MS)], 2 * HOUR_MS + TRANSIT),
        ([step("accepted"), step("held", 2), step("released", MINUTE)], MINUTE + TRANSIT),
        ([step("accepted"), step("held", 2, due_at=NOW + HOUR_MS)], HOUR_MS + TRANSIT),
    ],
)
async def test_a_removed_end_is_an_orphan_told_once_within_two_minutes(runner, steps, allowed):
    for one in steps:
        await runner.feed(EVENTS, one)
    assert await until(runner, allowed) == []
    assert await until(runner, allowed + 2 * MINUTE) == [("orphan", ID, allowed // MINUTE + 1)]
    assert await until(runner, allowed + 4 * HOUR_MS) == []
    assert audit.metrics.counts["orphans"] == 1


async def test_an_orphan_that_goes_on_and_stops_again_is_told_again(runner):
    await runner.feed(EVENTS, step("accepted"))
    assert len(await until(runner, TRANSIT + 2 * MINUTE)) == 1
    await runner.feed(EVENTS, step("validated", TRANSIT + 2 * MINUTE))
    assert await until(runner, 2 * TRANSIT + 2 * MINUTE) == []
    assert len(await until(runner, 2 * TRANSIT + 4 * MINUTE)) == 1


async def test_a_doubled_end_is_told_at_once_and_once(runner):
    await runner.feed(EVENTS, step("accepted"), step("delivered", 5, attempt=1))
    assert await runner.feed(EVENTS, step("delivered", 7, attempt=1)) == [], "the same end, told again after a crash"
    (alarm,) = values(await runner.feed(EVENTS, step("bounced", 9, attempt=2)), EVENTS)
    assert (alarm["kind"], alarm["reason"], alarm["stage"], alarm["tenant"]) == (
        "reported",
        "two-ends",
        "audit",
        "acme",
    )
    assert alarm["detail"] == "delivered (0:1) and bounced (0:2)"
    assert await runner.feed(EVENTS, step("bounced", 9, attempt=2), step("expired", 11)) == []
    assert await until(runner, 2 * HOUR_MS) == []
    assert audit.metrics.counts["two_ends"] == 1


async def test_an_attempt_without_a_message_waits_for_its_event_and_is_then_told(runner):
    await runner.feed(ATTEMPTS, attempt(), attempt(message=routed(message_id=own("late"))))
    assert await until(runner, 5 * MINUTE) == []
    await runner.feed(EVENTS, step("accepted", 0, id=own("late")), step("delivered", 5, id=own("late"), attempt=1))
    assert await until(runner, TRANSIT) == []
    assert await until(runner, TRANSIT + 2 * MINUTE) == [("attempt-without-message", ID, 11)]
    await runner.feed(ATTEMPTS, attempt())
    await runner.feed(EVENTS, step("deferred", 20 * MINUTE, attempt=2, due_at=NOW + HOUR_MS))
    assert await until(runner, 4 * HOUR_MS) == [], "once"
    assert audit.metrics.counts["strays"] == 1


async def test_an_end_of_what_was_never_accepted_is_told_with_whom_it_is_about(runner):
    await runner.feed(EVENTS, step("dropped", 5))
    runner.now += TRANSIT + 2 * MINUTE
    found = await runner.tick() + [output for _ in range(3) for output in await later(runner)]
    (alarm,) = values(found, EVENTS)
    assert (alarm["tenant"], alarm["submission_id"], alarm["recipient"]) == ("acme", "s1", "r@there.test")


async def later(runner):
    runner.now += TICK
    return await runner.tick()


async def test_feedback_and_its_own_alarms_are_no_steps(runner):
    await runner.feed(EVENTS, step("reported", 5), step("reported", 5, id=own("other"), reason="orphan"))
    assert runner.state.audited.scan() == [] and await until(runner, HOUR_MS) == []


async def test_nothing_is_told_while_it_is_behind(runner):
    """It was down for three hours: what looks overdue may have its end in what was not read yet."""
    await runner.feed(EVENTS, *(step("accepted", id=own(n)) for n in range(3)))
    await until(runner, MINUTE)
    runner.now = NOW + 3 * HOUR_MS
    assert await runner.tick() == [], "a partition that was not ticked for so long is new here"
    for n in range(2):
        await runner.feed(EVENTS, step("expired", 2 * MINUTE, id=own(n)), timestamp=runner.now - BEHIND_MS - 1)
        runner.now += QUIET_MS - 1
        assert await runner.tick() == []
    assert [id for _, id, _ in await until(runner, 3 * HOUR_MS + 2 * MINUTE)] == [own(2)]


async def test_behind_is_what_the_broker_says_and_is_counted(runner):
    """A producer whose clock is late, or that lies, silences nobody."""
    await runner.feed(EVENTS, step("accepted"))
    for minute in range(1, 13):
        await until(runner, minute * MINUTE)
        await runner.feed(EVENTS, step("accepted", -HOUR_MS, id=own(minute)))
    assert audit.metrics.counts["audit_behind"] == 2, "its first ticks alone"
    assert audit.metrics.counts["orphans"] > 1
    await runner.feed(EVENTS, step("validated", 12 * MINUTE), timestamp=runner.now - BEHIND_MS - 1)
    await runner.tick()
    assert audit.metrics.counts["audit_behind"] == 3


@pytest.mark.parametrize("id", ["x" * 900_000, "", ID.upper(), ID + "\n"])
async def test_an_id_that_is_none_of_ours_is_not_kept(runner, id):
    await runner.feed(EVENTS, step("accepted", id=id))
    await runner.feed(ATTEMPTS, attempt(message=routed(message_id=id)))
    assert [letter["error"] for letter in runner.dead_letters] == ["ValueError"] * 2
    assert runner.database.values == {}


async def test_what_one_tick_writes_fits_whatever_the_texts_are(runner):
    evil = dict.fromkeys(("tenant", "submission_id", "recipient"), "\0" * 5000)
    steps = [{**step("accepted", id=own(n)), **evil} for n in range(audit.LOOKED_AT_ONCE + 1)]
    await runner.feed(EVENTS, *steps)
    sizes, write = [], runner.database.write
    runner.database.write = lambda entries: (
        sizes.append(sum(len(key) + len(value or b"") for key, value in entries.items())), write(entries))  # fmt: skip
    assert len(await until(runner, TRANSIT + 2 * MINUTE)) == len(steps)
    assert 100_000 < max(sizes) < CHANGELOG_MAX_BYTES * 0.95


async def test_most_steps_are_not_written(runner):
    written = []
    write = runner.database.write
    runner.database.write = lambda entries: (written.append(len(entries)), write(entries))
    for n, kind in itertools.product(range(1), ("accepted", "validated", "scored", "cleared", "routed")):
        await runner.feed(EVENTS, step(kind, n))
    await runner.feed(ATTEMPTS, attempt())
    await runner.feed(EVENTS, step("delivered", 5, attempt=1))
    assert written == [2, 0, 0, 0, 1, 0, 1]


async def test_the_slack_never_makes_an_alarm_early(runner):
    """Steps that are not written, each a little later than the one before."""
    await runner.feed(EVENTS, step("accepted"), step("validated", SLACK_MS - 1), step("scored", SLACK_MS - 1))
    assert await until(runner, TRANSIT + SLACK_MS - TICK) == []
    assert len(await until(runner, TRANSIT + 2 * MINUTE)) == 1


async def test_more_than_one_tick_takes_goes_on(runner):
    await runner.feed(EVENTS, *(step("accepted", id=own(n)) for n in range(audit.LOOKED_AT_ONCE + 7)))
    found = await until(runner, TRANSIT + 2 * MINUTE)
    assert len(found) == len({id for _, id, _ in found}) == audit.LOOKED_AT_ONCE + 7


def test_values_come_back_also_those_of_other_releases():
    allowed_life = follow(None, Step(ATTEMPTED, NOW, NOW, 1), audit.Allowed())
    known = Audited(allowed_life, NOW + 5, True, "t\0", "broadcast", "s", "ü@there.test")
    raw = AUDITED.encode(known)
    assert AUDITED.decode(raw) == known
    size = raw[0]
    longer = bytes([size + 3]) + raw[1 : 10 + size] + b"new" + raw[10 + size :]
    assert AUDITED.decode(longer) == known
    assert AUDITED.decode(AUDITED.encode(Audited(allowed_life))) == Audited(allowed_life)
    assert len(AUDITED.encode(Audited(allowed_life))) < 70
