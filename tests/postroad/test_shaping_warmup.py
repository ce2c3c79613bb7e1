"""Warm-up plans: what each day allows, shares, when a source rests."""

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.shaping.warmup import DAYS, EPOCH, SAMPLE_MIN, Plan

START = datetime.date(2026, 11, 1)
DAY = (START - EPOCH).days


def test_the_days_of_a_plan():
    plan = Plan(START, (50, 100, 500))
    assert [plan.allowance(DAY + day) for day in range(-1, 5)] == [0, 50, 100, 500, None, None]
    assert str(plan.progress(DAY + 1, 70)) == "day 2 of 3, 70 of 100"
    assert str(plan.progress(DAY + 3, 70)) == "warm"
    assert str(plan.progress(DAY - 9, 0)) == "day 0 of 3, 0 of 0"


def test_the_default_plan_only_grows_and_takes_forty_days():
    assert len(DAYS) == 40 and list(DAYS) == sorted(set(DAYS))


@settings(deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 256))
def test_shares_of_all_shards_are_the_day(messages, shards):
    plan = Plan(START, (messages,))
    assert sum(plan.allowance(DAY, shard, shards) for shard in range(shards)) == messages


@pytest.mark.parametrize(
    ("sent", "bounced", "complained", "why"),
    [
        (SAMPLE_MIN - 1, 99, 99, ""),
        (1000, 50, 3, ""),
        (1000, 51, 0, "5.10% bounced, above 5.00%"),
        (1000, 0, 4, "0.40% complained, above 0.30%"),
    ],
)
def test_a_source_rests_above_its_rates(sent, bounced, complained, why):
    assert Plan(START).paused(sent, bounced, complained) == why
