"""The order in which records of one key get their turn."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topics.fair import FairQueue

OWNERS = st.sampled_from([b"a", b"b", b"c"])


def filled(records):
    queue = FairQueue()
    for number, (lane, owner) in enumerate(records):
        queue.put((number, lane, owner), lane, owner)
    return queue


def drained(queue):
    return [queue.pop() for _ in range(len(queue))]


def test_a_password_reset_does_not_wait_for_a_broadcast():
    queue = filled([(1, b"shop")] * 1000)
    queue.put("reset", 0, b"bank")
    assert queue.pop() == "reset"


def test_a_small_owner_waits_for_one_turn_of_each_other():
    queue = filled([(1, b"shop")] * 1000 + [(1, b"club")] * 1000)
    queue.put("news", 1, b"verein")
    assert "news" in [queue.pop() for _ in range(3)]


@given(st.lists(st.tuples(st.integers(0, 1), OWNERS), max_size=60))
def test_each_comes_once_lane_by_lane_and_an_owners_own_in_their_order(records):
    order = drained(filled(records))
    assert sorted(order) == [(number, *record) for number, record in enumerate(records)]
    assert [lane for _, lane, _ in order] == sorted(lane for _, lane, _ in order)
    for lane in (0, 1):
        for owner in {owner for _, owner in records}:
            own = [number for number, its_lane, its in order if (its_lane, its) == (lane, owner)]
            assert own == sorted(own)


@given(st.lists(OWNERS, max_size=60))
def test_owners_who_wait_differ_by_one_turn_at_most(owners):
    queue = filled([(0, owner) for owner in owners])
    left, had = Counter(owners), Counter()
    while queue:
        _, _, owner = queue.pop()
        had[owner] += 1
        waiting = [other for other in left if had[other] < left[other]]
        assert all(had[owner] - had[other] <= 1 for other in waiting)


@given(st.lists(st.tuples(st.integers(0, 1), OWNERS), min_size=1, max_size=60), st.data())
def test_the_last_of_a_lane_is_the_newest_of_who_has_most(records, data):
    queue, lane = filled(records), data.draw(st.sampled_from(sorted({lane for lane, _ in records})))
    number, _, owner = queue.pop_last(lane)
    counts = Counter(its for its_lane, its in records if its_lane == lane)
    assert counts[owner] == max(counts.values())
    assert number == max(n for n, (its_lane, its) in enumerate(records) if (its_lane, its) == (lane, owner))
    assert len(drained(queue)) == len(records) - 1


def test_what_could_not_begin_is_the_first_of_its_lane_again():
    queue = filled([(0, b"a"), (0, b"b")])
    first = queue.pop()
    queue.put(first, 0, b"a", first=True)
    assert queue.pop() == first
    queue = filled([(0, b"a"), (0, b"a"), (0, b"b")])
    queue.put("again", 0, b"a", first=True)
    assert queue.pop() in ("again", (2, 0, b"b"))


def test_an_empty_one_says_so():
    with pytest.raises(IndexError):
        FairQueue().pop()
    with pytest.raises(IndexError):
        filled([(0, b"a")]).pop_last(1)
