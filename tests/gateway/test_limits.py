"""Rates over replicas that tell each other what passed."""

import random

import pytest

from gateway.limits import Limits


@pytest.mark.parametrize(("rate", "replicas"), [(50.0, 2), (1000.0, 3), (5.0, 2)])
def test_what_passes_over_seconds_is_the_rate_whoever_let_it_pass(rate, replicas):
    now, dice, seconds = [0.0], random.Random(7), 20
    doors = [Limits(lambda subject: rate, clock=lambda: now[0]) for _ in range(replicas)]
    on_the_way, passed = [], 0
    step = 1 / (rate * 3)  # three times as many come as may pass
    told = 0.0
    while now[0] < seconds:
        passed += dice.choice(doors).take("t:acme").passes
        if now[0] - told >= 0.1:
            told = now[0]
            on_the_way += [(now[0] + 0.03, door, uses) for door in doors if (uses := door.untold())]
        while on_the_way and on_the_way[0][0] <= now[0]:
            _, sender, uses = on_the_way.pop(0)
            for door in doors:
                if door is not sender:
                    door.heard(uses)
        now[0] += step
    assert passed == pytest.approx(rate * seconds, rel=0.05)


def test_subjects_do_not_share_and_the_scarcest_decides():
    rates = {"t:a": 100.0, "k:1": 10.0, "k:2": 10.0}
    limits = Limits(rates.get, clock=lambda: 0.0)
    assert [limits.take("t:a", "k:1").passes for _ in range(3)] == [True, True, False]
    assert limits.take("t:a", "k:2").passes and limits.take("k:gone").passes
    assert limits.untold() == {"t:a": 3, "k:1": 2, "k:2": 1} and limits.untold() == {}


def test_what_is_heard_cannot_be_turned_into_more():
    limits = Limits(lambda subject: 10.0, clock=lambda: 0.0)
    limits.heard({"t:a": -1_000})
    assert [limits.take("t:a").passes for _ in range(3)] == [True, True, False]
