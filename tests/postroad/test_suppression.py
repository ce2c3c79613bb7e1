"""Suppression lists: what an entry does, and what the same entry twice does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad.suppression import EVIDENCE_MAX, apply, stops

NOW = 1_700_000_000_000


def entry(reason="hard_bounce", evidence="e1", **fields):
    return {"recipient": "r@there.test", "reason": reason, "at": NOW, "evidence": evidence, **fields}


def after(*entries, threshold=1):
    listed = None
    for each in entries:
        listed = apply(listed, each, threshold)
    return listed


@pytest.mark.parametrize("reason", ["complaint", "unsubscribe", "manual"])
def test_a_word_of_a_person_stops_mail_at_once(reason):
    assert stops(after(entry(reason), threshold=30), NOW)


@pytest.mark.parametrize("threshold", [1, 2, EVIDENCE_MAX, EVIDENCE_MAX + 10])
def test_hard_bounces_stop_mail_at_the_threshold(threshold):
    bounces = [entry(evidence=f"e{n}") for n in range(threshold)]
    assert stops(after(*bounces, threshold=threshold), NOW)
    assert threshold == 1 or not stops(after(*bounces[:-1], threshold=threshold), NOW)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_the_same_evidence_counts_once(evidence):
    listed = after(*(entry(evidence=e) for e in evidence), threshold=3)
    assert sorted(listed["evidence"]) == sorted(set(evidence))
    assert stops(listed, NOW) == (len(set(evidence)) == 3)


def test_a_bounce_does_not_wake_what_is_stopped_for_another_reason():
    listed = after(entry("complaint", "c"), entry(), threshold=5)
    assert stops(listed, NOW)
    assert (listed["reason"], listed["evidence"]) == ("complaint", ["c", "e1"])


def test_removal_takes_the_evidence_with_it():
    assert after(entry(), entry(action="remove")) is None
    assert apply(None, entry(action="remove"), 1) is None
    assert not stops(after(entry(evidence="a"), entry(action="remove"), entry(evidence="b"), threshold=2), NOW)


def test_expiry():
    listed = after(entry(expires_at=NOW))
    assert stops(listed, NOW - 1)
    assert not stops(listed, NOW)


def test_an_entry_stays_small():
    listed = after(*(entry(evidence=f"e{n}", detail="x" * 9999) for n in range(500)))
    assert len(listed["evidence"]) == EVIDENCE_MAX
    assert listed["evidence"][-1] == "e499"
    assert len(listed["detail"]) == 500
