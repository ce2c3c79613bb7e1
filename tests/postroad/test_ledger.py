"""The rule of the ledger: whatever order steps come in and however often, each life comes to the same, and what is wrong shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.ledger import (
    ATTEMPTED,
    STATES,
    SUBMITTED,
    Allowed,
    Count,
    Finding,
    Life,
    Report,
    Step,
    differences,
    follow,
    step_of,
    unpack,
)

T = 1_700_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
ALLOWED = Allowed(transit_ms=10 * MINUTE, sending_ms=HOUR, expires_ms=72 * HOUR)


def life(*steps):
    found = None
    for kind, after, *more in steps:
        round, attempt, due = (*more, *(0, 0, None)[len(more) :])
        due_at = None if due is None else T + due
        found = follow(found, Step(kind, T + after, T, round, attempt, due_at), ALLOWED)
    return found


def wrong(life, after):
    return life.findings(T + after, ALLOWED)


@pytest.mark.parametrize(
    ("steps", "allowed_until"),
    [
        ([(SUBMITTED, 0)], 10 * MINUTE),
        ([("accepted", 0)], 10 * MINUTE),
        ([("accepted", 0), ("validated", 5)], 10 * MINUTE + 5),
        ([("accepted", 0), ("routed", 50)], HOUR + 50),
        ([("accepted", 0), ("routed", 50), ("deferred", 70, 0, 1, 5 * HOUR)], 5 * HOUR + 10 * MINUTE),
        ([("accepted", 0), ("scheduled", 5, 0, 0, 90 * HOUR)], 90 * HOUR + 10 * MINUTE),
        ([("accepted", 0), ("scheduled", 50, 0, 0, 20)], 10 * MINUTE + 50),  # due before it was parked
        ([("accepted", 0), ("held", 20)], 72 * HOUR + 10 * MINUTE),
        ([("accepted", 0), ("held", 20, 0, 0, 3 * HOUR)], 3 * HOUR + 10 * MINUTE),
        ([("accepted", 0), ("held", 20), ("released", HOUR)], HOUR + 10 * MINUTE),
        ([("accepted", 0), ("held", 20), ("released", HOUR, 0, 0, 9 * HOUR)], 9 * HOUR + 10 * MINUTE),  # send_at
        ([("accepted", 0), ("held", 20), ("released", HOUR), ("held", 20)], HOUR + 10 * MINUTE),  # told again
        ([("accepted", 0), ("held", 20), ("released", HOUR), ("held", 2 * HOUR, 1)], 72 * HOUR + 10 * MINUTE),
        # two copies after a crash: one waits for hours, the other comes to nothing
        ([("accepted", 0), ("deferred", 60, 0, 1, 5 * HOUR), ("scored", 70, 1)], 5 * HOUR + 10 * MINUTE),
    ],
)
def test_an_orphan_is_one_that_takes_no_step_in_the_time_of_its_state(steps, allowed_until):
    found = life(*steps)
    assert wrong(found, allowed_until) == []
    assert wrong(found, allowed_until + 1) == ["orphan"]
    ended = follow(found, Step("expired", T + allowed_until + 1, T, 3), ALLOWED)
    assert ended.findings(T + 10**12, ALLOWED) == []


def test_two_ends_are_two_of_different_kind_round_or_attempt_and_one_told_twice_is_one():
    once = life(("accepted", 0), ("delivered", 9, 0, 1), ("delivered", 3, 0, 1))
    assert (once.ends, once.since, wrong(once, 0)) == ((("delivered", 0, 1),), T + 3, [])
    for other in (("bounced", 9, 0, 1), ("delivered", 9, 1, 1), ("delivered", 9, 0, 2)):
        two = life(("accepted", 0), ("delivered", 9, 0, 1), other, other)
        assert wrong(two, 0) == ["two-ends"]
        assert "delivered (0:1) and " in two.shown()


@pytest.mark.parametrize("step", [(ATTEMPTED, 5), ("routed", 5), ("delivered", 5, 0, 1), ("dropped", 5)])
def test_a_stray_is_a_step_of_what_was_never_accepted(step):
    assert wrong(life(step), 10 * MINUTE + 5) == [], "the event accepted may be on its way"
    assert wrong(life(step), 10 * MINUTE + 6) == ["stray"]
    assert wrong(life(step, ("accepted", 0)), 10**9) in ([], ["orphan"])


def test_feedback_is_no_step():
    event = {"kind": "reported", "at": 1, "accepted_at": 1, "round": 0, "attempt": 0, "due_at": None, "reason": "dsn"}
    assert step_of(event) is None
    assert step_of({**event, "kind": "held", "due_at": 7}) == Step("held", 1, 1, 0, 0, 7)


steps = st.builds(
    Step,
    st.sampled_from(STATES),
    st.integers(T - HOUR, T + HOUR),
    st.just(T),
    st.integers(0, 2),
    st.integers(0, 2),
    st.none() | st.integers(T, T + HOUR),
)


@given(st.lists(steps, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_order_and_repeats_change_nothing_that_is_found(taken, chance):
    def folded(steps):
        found = None
        for step in steps:
            found = follow(found, step, ALLOWED)
        return found

    shuffled = [*taken, *chance.sample(taken, len(taken) // 2)]
    if all(step.state != "released" for step in taken):  # it is written after what it releases
        chance.shuffle(shuffled)
    one, other = folded(taken), folded(shuffled)
    for now in (T, T + HOUR, T + 100 * HOUR):
        assert sorted(one.findings(now, ALLOWED)) == sorted(other.findings(now, ALLOWED))
    assert unpack(one.pack() + b"more") == one


@pytest.mark.parametrize("value", [-(1 << 63), -1, 1 << 62, (1 << 63) - 1])
def test_times_and_numbers_that_no_clock_shows_fit_all_the_same(value):
    found = follow(None, Step("deferred", value, value, value, value, value), ALLOWED)
    found = follow(found, Step("bounced", value, value, value, value), ALLOWED)
    assert unpack(found.pack()) == found


def report(source="topics"):
    return Report(source, settled_ms=T)


def test_a_report_counts_and_lists():
    found = report()
    for number, one in enumerate([life(("accepted", 0)), life(("accepted", 0), ("bounced", 1)), life(("accepted", 1))]):
        found.count(("acme", "broadcast"), one)
        found.find(f"m{number}", ("acme", "broadcast"), one, T + 10 * MINUTE + 2, ALLOWED)
    assert found.counts == {("acme", "broadcast"): Count(3, 1, 2)} and found.total == Count(3, 1, 2)
    assert found.settled == {("acme", "broadcast"): (3, 0)}
    assert found.orphans == [Finding("m0", "acme", "broadcast", "accepted", T), Finding("m2", "acme", "broadcast", "accepted", T + 1)]  # fmt: skip
    assert not found.ok and report().ok and report().total == Count()


def test_what_waits_in_a_dead_letter_is_explained():
    found = report()
    found.find("m", ("acme", "broadcast"), life(("accepted", 0)), T + HOUR, ALLOWED, "mail.scored[1]@7")
    assert found.ok and found.explained[0].letter == "mail.scored[1]@7"


def test_two_sources_differ_in_what_was_settled_and_nothing_else():
    one, other = report(), report("clickhouse")
    old, young, ended = (
        Life(T - 5, T - 5, told=True),
        Life(T + 5, T + 5, told=True),
        life(("accepted", -1), ("expired", 5)),
    )
    one.count(("acme", "broadcast"), old)
    one.count(("acme", "broadcast"), ended._replace(accepted_at=T - 5))
    other.count(("acme", "broadcast"), old)
    other.count(("acme", "broadcast"), old)
    other.count(("acme", "broadcast"), young)
    assert differences(one, other) == []
    other.count(("acme", "transactional"), old)
    assert differences(one, other) == ["acme/transactional: topics has 0 accepted and 0 ended, clickhouse has 1 accepted and 0 ended"]  # fmt: skip
