"""Suppression lists: what an entry does, and what the same entry twice, late or in another order does not."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad import suppression
from postroad.addresses import BadAddress
from postroad.bounces.reasons import REASONS
from postroad.suppression import (
    ADDED_LATER,
    DAY_MS,
    EVIDENCE_MAX,
    KEPT_MS,
    THRESHOLD_MAX,
    Rules,
    apply,
    bounced,
    change,
    check,
    complained,
    dated,
    in_force,
    kept_until,
    rules,
    stops,
)
from tables.suppressions import SUPPRESSED

NOW = 1_700_000_000_000
MESSAGE = {"message_id": "m1", "tenant": "acme", "recipient": "r@there.test"}


def entry(reason="hard_bounce", evidence="e1", **fields):
    return {"recipient": "r@there.test", "tenant": "acme", "reason": reason, "at": NOW, "evidence": evidence, **fields}


def removal(at=NOW, **fields):
    return entry("manual", "op", action="remove", at=at, **fields)


def after(*entries, rules=None, hard=1, soft=5, days=14):
    listed = None
    for each in entries:
        listed = apply(listed, each, rules or Rules(hard, soft, days))
    return listed


def soft(day, message="", **fields):
    return entry("soft_bounces", f"s{day}", at=NOW + int(day * DAY_MS), message_id=message, **fields)


# -- what is said of a message -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [name for name, known in REASONS.items() if known.action == "suppress"])
def test_a_hard_bounce_makes_an_entry(reason):
    made = bounced(MESSAGE, reason, "hard", NOW, "r1", "x" * 900)
    assert made == {
        "recipient": "r@there.test", "tenant": "acme", "action": "add", "reason": "hard_bounce", "at": NOW, "evidence": "r1",
        "detail": "x" * 500, "source": "classify", "cause": reason, "message_id": "m1",
    }  # fmt: skip


def test_a_soft_bounce_makes_one_where_its_reason_is_of_the_mailbox():
    made = {name for name in REASONS if bounced(MESSAGE, name, "soft", NOW, "r1", "") is not None}
    assert made == {name for name, known in REASONS.items() if known.action == "count"}
    assert bounced(MESSAGE, "mailbox-full", "soft", NOW, "r1", "")["reason"] == "soft_bounces"


@pytest.mark.parametrize(
    ("reason", "of"), [("undetermined", "undetermined"), ("mailbox-full", "undetermined"), ("of nobody", "soft")]
)
def test_what_says_nothing_of_the_address_makes_none(reason, of):
    assert bounced(MESSAGE, reason, of, NOW, "r1", "") is None


def test_a_complaint_makes_an_entry():
    assert complained(MESSAGE, NOW, "r1", "by ARF", "abuse")["reason"] == "complaint"
    assert stops(after(complained(MESSAGE, NOW, "r1", "by ARF", "abuse"), hard=30), NOW)


# -- thresholds ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["complaint", "unsubscribe", "manual"])
def test_a_word_of_a_person_stops_mail_at_once(reason):
    assert stops(after(entry(reason), hard=30), NOW)


@pytest.mark.parametrize("reason", ["hard_bounce", "soft_bounces"])
@pytest.mark.parametrize("source", ["csv", "cli", "api"])
def test_so_does_a_bounce_that_somebody_else_has_counted(reason, source):
    assert stops(after(entry(reason, source=source), hard=30, soft=0), NOW)


@pytest.mark.parametrize("threshold", [1, 2, EVIDENCE_MAX, EVIDENCE_MAX + 10, THRESHOLD_MAX])
def test_hard_bounces_stop_mail_at_the_threshold(threshold):
    bounces = [entry(evidence=f"e{n}", at=NOW + n) for n in range(threshold)]
    assert stops(after(*bounces, hard=threshold), NOW)
    assert not stops(after(*bounces[:-1], hard=threshold), NOW)


def test_a_tenant_without_the_fields_and_one_beyond_all_measure():
    assert rules({}) == Rules(1, 5, 14)
    assert rules({"suppress_after": 1 << 30, "soft_bounces_after": 1 << 30, "soft_bounces_days": 3}) == Rules(
        THRESHOLD_MAX, THRESHOLD_MAX, 3
    )
    assert rules({"suppress_after": 0}).hard == 1


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=30))
def test_the_same_evidence_counts_once(evidence):
    listed = after(*(entry(evidence=e) for e in evidence), hard=3)
    assert sorted(listed["evidence"]) == sorted(set(evidence))
    assert stops(listed, NOW) == (len(set(evidence)) == 3)


def test_several_reports_of_one_message_are_one_bounce():
    reports = [entry(evidence=f"report {n}", message_id="m1", source="classify") for n in range(5)]
    assert not stops(after(*reports, hard=2), NOW)
    assert stops(after(*reports, entry(evidence="report 6", message_id="m2"), hard=2), NOW)


@pytest.mark.parametrize(
    ("days", "listed"),
    [
        ([0, 1, 2, 3], False),
        ([0, 1, 2, 3, 4], True),
        ([0, 3, 6, 9, 14], True),  # the first and the last are 14 days apart
        ([0, 3, 6, 9, 14.01], False),
        ([0, 3, 6, 9, 15, 16], True),  # five of them
        ([0, 0, 0, 0, 0, 0], False),  # one and the same
    ],
)
def test_so_many_soft_bounces_within_so_many_days(days, listed):
    assert stops(after(*map(soft, days)), NOW) is listed


def test_soft_bounces_are_counted_apart_and_may_be_turned_off():
    bounces = [soft(day) for day in range(10)]
    assert not stops(after(*bounces, soft=0), NOW)
    assert not stops(after(*bounces, days=0), NOW)
    assert not stops(after(*bounces[:4], entry(), hard=2), NOW)
    assert not stops(after(*(soft(n / 10, message="m1") for n in range(9))), NOW), "tries of one message"
    assert after(*bounces)["reason"] == "soft_bounces"


# -- removal -------------------------------------------------------------------------------------------------------------


def test_removal_lets_mail_pass_and_nothing_old_comes_back():
    bounce, complaint = entry(at=NOW - 5), entry("complaint", "c", at=NOW)
    removed = after(bounce, complaint, removal(NOW))
    assert not stops(removed, NOW) and in_force("acme", "r@there.test", removed) is None
    again = after(bounce, complaint, removal(NOW), bounce, complaint, entry(at=NOW + 50), hard=1)
    assert not stops(again, NOW), "the same evidence, said again later, is no new one"
    assert stops(after(bounce, complaint, removal(NOW), entry(evidence="e2", at=NOW + 1)), NOW)


def test_what_happened_before_the_removal_and_is_read_after_it_stays_off():
    assert not stops(after(removal(NOW), entry(evidence="late", at=NOW - 1)), NOW)


def test_the_count_begins_anew_after_a_removal():
    entries = [entry(evidence="a"), removal(NOW), entry(evidence="b", at=NOW + 1)]
    assert not stops(after(*entries, hard=2), NOW)
    assert stops(after(*entries, entry(evidence="c", at=NOW + 2), hard=2), NOW)


def test_a_clock_that_is_ahead_removes_nothing_of_the_future():
    assert dated(removal(NOW + DAY_MS), NOW)["at"] == NOW
    assert dated(removal(NOW - DAY_MS), NOW)["at"] == NOW - DAY_MS
    assert dated(entry(at=-1), NOW)["at"] == 0


def test_how_long_what_stops_nothing_is_kept():
    assert kept_until(after(soft(0), soft(3)), Rules()) == NOW + 17 * DAY_MS
    assert kept_until(after(entry(), hard=2), Rules(2)) == NOW + KEPT_MS
    assert kept_until(after(soft(0), removal(NOW + 5)), Rules()) == NOW + 5 + KEPT_MS
    assert kept_until(after(removal(NOW)), Rules()) == NOW + KEPT_MS


# -- expiry, and several reasons -----------------------------------------------------------------------------------------


def test_expiry():
    listed = after(entry(expires_at=NOW))
    assert stops(listed, NOW - 1)
    assert not stops(listed, NOW)


def test_a_bounce_does_not_wake_what_is_stopped_for_another_reason():
    listed = after(entry("complaint", "c"), entry(), hard=5)
    assert stops(listed, NOW)
    assert (listed["reason"], listed["evidence"], listed["stopped_by"]) == ("complaint", ["c", "e1"], "c")


def test_what_lasts_longest_counts_and_of_a_persons_words_the_last():
    short = entry("manual", "a", expires_at=NOW + 10)
    assert after(short, entry("complaint", "c", at=NOW - 1))["expires_at"] is None
    assert after(entry("manual", "b", at=NOW - 1), short)["expires_at"] == NOW + 10
    assert after(entry("manual"), entry("complaint"), entry("unsubscribe"))["reason"] == "complaint"


# -- what everybody else sees --------------------------------------------------------------------------------------------


def test_the_entry_in_force_names_all_evidence_with_its_times():
    first = entry(at=NOW - 9, source="classify", message_id="m0")
    second = entry("complaint", "c", at=NOW, source="classify", cause="abuse", detail="ARF", message_id="m1")
    shown = in_force("acme", "r@there.test", after(first, second))
    assert shown == {
        "recipient": "r@there.test", "tenant": "acme", "reason": "complaint", "since": NOW - 9, "at": NOW, "expires_at": None,
        "source": "classify", "by": "", "cause": "abuse", "detail": "ARF",
        "evidence": [
            {"evidence": "e1", "reason": "hard_bounce", "at": NOW - 9, "source": "classify", "message_id": "m0"},
            {"evidence": "c", "reason": "complaint", "at": NOW, "source": "classify", "message_id": "m1"},
        ],
    }  # fmt: skip
    assert in_force("acme", "r@there.test", None) is None


def test_the_event_says_who_and_why():
    added = entry("manual", "jo 1", source="cli", by="jo", detail="asked us")
    event = change(added, "r@there.test", after(added), NOW, "suppress")
    assert (event["kind"], event["message_id"], event["reason"], event["rule"]) == (
        "noted", "", "suppression-added", "tenant:manual",
    )  # fmt: skip
    assert (event["detail"], event["evidence"]) == ("by cli jo: asked us", "jo 1")
    taken = {**removal(NOW + 1, source="api", by="key 7"), "tenant": ""}
    event = change(taken, "r@there.test", after(added, taken), NOW, "suppress")
    assert (event["reason"], event["rule"], event["detail"]) == ("suppression-removed", "global", "by api key 7")
    long = change(entry(evidence="x" * 90_000), "a" * 64 + "@" + "b" * 180 + ".test", after(added), NOW, "suppress")
    assert len(long["event_id"]) < 100 and len(long["evidence"]) < 200


# -- hostile -------------------------------------------------------------------------------------------------------------


def test_an_entry_stays_small():
    entries = [
        entry(r, f"{r}{n}" + "y" * 10_000, at=NOW + n, detail="x" * 9999, by="b" * 9999, cause="c" * 9999, source="csv")
        for n in range(100) for r in ("hard_bounce", "complaint", "unsubscribe", "manual", "soft_bounces")
    ]  # fmt: skip
    listed = after(*entries)
    assert len(listed["claims"]) == 5 * EVIDENCE_MAX
    assert listed["claims"][-1]["at"] == NOW + 99
    assert len(json.dumps(listed)) < 150_000
    assert len({each["evidence"] for each in listed["claims"]}) == 5 * EVIDENCE_MAX, "long ones are told apart"


def test_many_bounces_do_not_push_out_a_complaint():
    entries = [entry(evidence=f"e{n}", at=NOW + n) for n in range(500)]
    assert after(entry("complaint", "c"), *entries)["reason"] == "complaint"


@pytest.mark.parametrize("tenant", ["a\0b", "Acme", "x" * 65, "ac me", "../x"])
def test_a_list_of_nobody_is_refused(tenant):
    with pytest.raises(ValueError, match="is no tenant"):
        check(entry(tenant=tenant))


@pytest.mark.parametrize("recipient", ["", "r", "r@", "a@b@c.test", "r@there.test\0", "x" * 100_000, "r@[192.0.2.1]"])
def test_no_address_is_refused(recipient):
    with pytest.raises(BadAddress):
        check(entry(recipient=recipient))


@pytest.mark.parametrize("source", ["api", "classify", "tenant", "CLI", "unsubscribe"])
@pytest.mark.parametrize("action", ["add", "remove"])
def test_the_global_list_is_for_operators(source, action):
    with pytest.raises(ValueError, match="operators alone"):
        check(entry(tenant="", source=source, action=action))
    assert check(entry(tenant="", source="cli", action=action)) == "r@there.test"


# -- in any order, any number of times -----------------------------------------------------------------------------------

EVIDENCE = st.fixed_dictionaries({
    "reason": st.sampled_from(["hard_bounce", "complaint", "unsubscribe", "manual", "soft_bounces"]),
    "source": st.sampled_from(["classify", "cli"]),
    "at": st.integers(0, 30).map(lambda day: NOW + day * DAY_MS // 2),
    "expires_at": st.sampled_from([None, None, NOW + 20 * DAY_MS]),
    "message_id": st.sampled_from(["", "m1", "m2"]),
})  # fmt: skip
SAID = st.lists(
    st.one_of(EVIDENCE.map(lambda one: entry(**one)), st.integers(0, 30).map(lambda day: removal(NOW + day * DAY_MS // 2))),
    min_size=1, max_size=12,
).map(lambda all: [{**one, "evidence": f"e{n}"} for n, one in enumerate(all)])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(SAID, st.randoms(use_true_random=False), st.integers(1, 3), st.integers(0, 4))
def test_any_interleaving_and_replay_gives_the_same_list(said, random, hard, soft):
    wanted = after(*said, hard=hard, soft=soft)
    other = said + random.choices(said, k=random.randint(0, len(said)))
    random.shuffle(other)
    listed = None
    for each in other:  # as a stage does: kept as bytes in between
        listed = apply(listed, each, Rules(hard, soft, 14))
        listed = SUPPRESSED.decode(SUPPRESSED.encode(listed))
    assert listed == wanted


@settings(max_examples=200, deadline=None)
@given(SAID, st.integers(1, 3))
def test_nothing_of_before_a_removal_stops_mail(said, hard):
    end = max(each["at"] for each in said)
    for more in ([], said):
        assert not stops(after(*said, removal(end), *more, hard=hard), NOW)


# -- values of the release before ----------------------------------------------------------------------------------------

OLD = {
    "reason": "hard_bounce",
    "evidence": ["m1", "m2"],
    "active": True,
    "at": NOW,
    "expires_at": None,
    "detail": "550",
}


def test_an_entry_of_the_release_before_goes_on():
    old = SUPPRESSED.decode(json.dumps(OLD).encode())
    assert old == {**OLD, **ADDED_LATER}
    assert stops(old, NOW)
    assert [each["evidence"] for each in in_force("acme", "r@there.test", old)["evidence"]] == ["m1", "m2"]
    again = apply(old, entry(evidence="m2", at=NOW), Rules(2))
    assert stops(again, NOW) and again["evidence"] == ["m1", "m2"]
    assert not stops(apply(old, removal(NOW), Rules(2)), NOW)


def test_the_release_before_finds_what_it_knows():
    """It takes the keys that it knows, and counts evidence by `evidence`."""
    new = after(entry(evidence="m1", detail="550"), entry(evidence="m2", detail="550"), hard=2)
    assert {name: new[name] for name in OLD} == OLD


def test_texts_that_no_codec_takes_are_no_evidence_for_a_crash():
    assert suppression.apply(None, entry(evidence="\ud800" * 500), Rules())["claims"]
