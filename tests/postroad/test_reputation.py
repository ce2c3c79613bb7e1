"""Reputation: counts in buckets, rates that do not panic, steps, and what follows from them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroad import reputation as rep
from postroad.egress import Pool, Source
from postroad.reputation import (
    COUNT_MAX,
    DAY_MS,
    DWELL_MS,
    EMPTY,
    HOUR_MS,
    ONE,
    WAIT_MS,
    WHATS,
    Counts,
    History,
    Standings,
    Step,
    Thresholds,
)

NOW = 1_700_000_000_000 // DAY_MS * DAY_MS + 12 * HOUR_MS  # noon
HOUR = NOW // HOUR_MS
LIMITS = Thresholds()


def packed(**counts):
    return sum(ONE[what] * number for what, number in counts.items())


def history(now=NOW, /, **counts):
    return rep.add(EMPTY, now // HOUR_MS, packed(**counts), now)


def grades(**levels):
    """As control.standings: subjects with - for : and _at_ for @."""
    named = {
        key.replace("source_site_", "source-site_").replace("_", ":", 1).replace("_at_", "@"): lv
        for key, lv in levels.items()
    }
    return {key: {"subject": key, "level": level, "since": NOW} for key, level in named.items()}


def message(**fields):
    return {"message_id": "m", "round": 0, "tenant": "acme", "sender": "a@acme.test", "stream": "broadcast",
            "expires_at": NOW + DAY_MS, **fields}  # fmt: skip


# -- counts


@given(
    st.lists(st.tuples(st.integers(0, 40 * 24), st.sampled_from(WHATS), st.integers(0, 3)), max_size=60),
    st.integers(1, 4),
)
def test_any_split_over_partitions_comes_to_the_same_sums(counted, partitions):
    """Counts arrive in any order; each partition folds its own, at its own time."""
    parts = [EMPTY] * partitions
    for age, what, part in counted:
        part %= partitions
        parts[part] = rep.add(parts[part], HOUR - age, ONE[what], NOW - age % 7 * HOUR_MS)
    whole = EMPTY
    for age, what, _ in counted:
        whole = rep.add(whole, HOUR - age, ONE[what], NOW)
    assert rep.merged(parts, NOW) == rep.merged([whole], NOW)
    assert rep.merged([whole], NOW) == whole
    kept = [(age, what) for age, what, _ in counted if (HOUR - age) // 24 >= HOUR // 24 - rep.DAYS]
    total = rep.unpacked(sum([*whole.hours.values(), *whole.days.values()]))
    assert total == Counts(*(float(sum(what == each for _, what in kept)) for each in WHATS))


def test_what_is_in_a_day_is_in_none_of_its_hours_and_a_month_is_kept():
    found = EMPTY
    for age in range(40 * 24):
        found = rep.add(found, HOUR - age, packed(sent=1), NOW)
    assert len(found.hours) == rep.HOURS and min(found.hours) == HOUR - rep.HOURS + 1
    assert len(found.days) <= rep.DAYS + 1 and min(found.days) == HOUR // 24 - rep.DAYS
    assert rep.today(found, NOW).sent == 13  # noon is the thirteenth hour


@given(st.dictionaries(st.integers(0, 2**32 - 1), st.integers(0, 2**240 - 1), max_size=5),
       st.dictionaries(st.integers(0, 2**27), st.integers(0, 2**240 - 1), max_size=5))  # fmt: skip
def test_a_history_comes_back_from_its_bytes_and_from_its_record(hours, days):
    given = History(hours, days)
    assert History.unpack(given.pack()) == given
    assert History.unpack(given.pack() + b"more") == given
    assert rep.from_buckets(rep.to_buckets(given)) == given


def bucket(**fields):
    return {**dict.fromkeys(WHATS, 0), "at": HOUR * HOUR_MS, "hours": 1, **fields}


@pytest.mark.parametrize(
    "buckets",
    [
        [bucket(sent=-1)], [bucket(hard=COUNT_MAX + 1)], [bucket(hours=2)], [bucket(at=HOUR * HOUR_MS + 1)], [bucket(at=-HOUR_MS)],
        [bucket(hours=24)], [bucket(at=1 << 62)], [bucket()] * 100,
    ],
)  # fmt: skip
def test_buckets_that_no_worker_writes(buckets):
    with pytest.raises(ValueError, match=r"bucket|counts"):
        rep.from_buckets(buckets)


def test_what_is_a_half_life_old_counts_half():
    found = rep.add(history(sent=100), HOUR - 24, packed(sent=100), NOW)
    now = NOW + HOUR_MS // 2  # the middle of its hour
    assert rep.decayed(found, now, DAY_MS).sent == pytest.approx(150)
    assert rep.decayed(found, now, DAY_MS, since_ms=NOW).sent == pytest.approx(100)


@pytest.mark.parametrize(
    "text", ["acme", "tenant:", "who:acme", "source-site:a", "source-site:@", "tenant:a\nb", "tenant:" + "x" * 201]
)
def test_what_is_no_subject(text):
    with pytest.raises(ValueError, match=r"subject|no source"):
        rep.named(text)


def test_subjects_of_a_message():
    assert rep.subjects("acme", "a", "s.test", "x@Acme.test") == [
        "tenant:acme",
        "domain:acme.test",
        "source:a",
        "source-site:a@s.test",
    ]
    assert rep.subjects("acme", "", "s.test", "") == ["tenant:acme"]
    assert "\0" not in "".join(rep.subjects("a\0b", "c\0", "d" * 500, "\0@\0"))
    assert all(len(each) < 250 for each in rep.subjects("a" * 900, "b" * 900, "c" * 900, "d@" + "e" * 900))


# -- steps


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_the_lower_bound_is_a_rate_and_below_what_was_seen(bad, of):
    found = rep.at_least(bad, of)
    assert 0 <= found <= 1 and math.isfinite(found)
    assert found <= (min(1, bad / of) if of else 0) + 1e-12
    assert rep.at_least(bad * 10, of * 10) >= found - 1e-12, "more of the same says more"


@pytest.mark.parametrize(
    ("kind", "counts", "level"),
    [
        ("tenant", Counts(sent=20, delivered=0, hard=20), "ok"),  # a small sample
        ("tenant", Counts(sent=100, delivered=98, hard=2), "ok"),
        ("tenant", Counts(sent=100, delivered=98, complained=2), "ok"),  # two people
        ("tenant", Counts(sent=1000, delivered=940, hard=60), "ok"),  # 6 %, and at least 4.7 %
        ("tenant", Counts(sent=10_000, delivered=9_400, hard=600), "warn"),
        ("tenant", Counts(sent=1000, delivered=870, hard=130), "hold"),
        ("tenant", Counts(sent=1000, delivered=870, soft=130), "ok"),  # its list is sound
        ("source", Counts(sent=1000, delivered=870, soft=130), "hold"),  # it is blocked
        ("domain", Counts(sent=10_000, delivered=10_000, complained=20), "warn"),
        ("domain", Counts(sent=10_000, delivered=10_000, complained=50), "hold"),
        ("source-site", Counts(sent=10_000, delivered=10_000, deferred=50_000), "ok"),
    ],
)  # fmt: skip
def test_steps_by_counts(kind, counts, level):
    assert rep.level_of(kind, counts, LIMITS) == level


def test_a_threshold_of_one_is_never_reached():
    never = Thresholds(1, 1, 1, 1)
    assert rep.level_of("tenant", Counts(sent=10**9, delivered=10**9, hard=10**9, complained=10**9), never) == "ok"


def test_up_at_once_down_by_steps_and_not_before_an_hour():
    bad, good = history(sent=1000, hard=200), history(sent=100_000, delivered=100_000)
    step = rep.decide("tenant", bad, Step(), LIMITS, NOW)
    assert step == Step("hold", NOW, 0)
    assert rep.decide("tenant", rep.merged([bad, good], NOW), step, LIMITS, NOW + DWELL_MS - 1) == step
    later = rep.decide("tenant", rep.merged([bad, good], NOW), step, LIMITS, NOW + DWELL_MS)
    assert later == Step("warn", NOW + DWELL_MS, 0)
    assert rep.decide("tenant", good, later, LIMITS, NOW + 2 * DWELL_MS).level == "ok"


def test_hysteresis_between_the_thresholds():
    """9 % is below the 10 % of a hold, and not clearly."""
    near = history(sent=100_000, hard=9_000)
    on_hold = Step("hold", NOW, 0)
    assert rep.decide("tenant", near, on_hold, LIMITS, NOW + 5 * HOUR_MS) == on_hold
    assert rep.decide("tenant", near, Step("warn", NOW, 0), LIMITS, NOW).level == "warn"


def test_a_hold_ends_without_new_mail_and_what_comes_then_decides():
    bad, now = history(sent=10**6, hard=200_000), NOW
    step = rep.decide("tenant", bad, Step(), LIMITS, now)
    now += LIMITS.hold_ms
    step = rep.decide("tenant", bad, step, LIMITS, now)
    assert (step.level, step.judged_from) == ("warn", now)
    assert rep.decide("tenant", bad, step, LIMITS, now + 1) == step, "what was before is not held against it"
    again = rep.add(bad, now // HOUR_MS, packed(sent=500, hard=100), now)
    assert rep.decide("tenant", again, step, LIMITS, now + 2).level == "hold"
    assert rep.decide("tenant", bad, step, LIMITS, now + DWELL_MS).level == "ok"


def test_a_clock_that_was_ahead_holds_nobody_for_ever():
    assert rep.decide("tenant", EMPTY, Step("hold", NOW + 400 * DAY_MS, 0), LIMITS, NOW).level == "warn"


# -- what follows

POOLS = {
    "default": Pool("default", (Source("a", "", ""), Source("b", "", ""))),
    "quiet": Pool("quiet", (Source("q", "", ""),)),
}


def pool_of(standings, **fields):
    return rep.pool_of(message(**fields), POOLS["default"], POOLS, "quiet", "s.test", Standings(standings), NOW).name


def test_the_senders_hold_moves_its_mail_and_holds_its_broadcast_only():
    for standings in (grades(tenant_acme="hold"), {"domain:acme.test": {"subject": "", "level": "hold", "since": 0}}):
        assert pool_of(standings) == "quiet" and rep.held(message(), Standings(standings), NOW)
        assert not rep.held(message(stream="transactional"), Standings(standings), NOW)
        assert pool_of(standings, tenant="other", sender="a@other.test") == "default"
    assert pool_of(grades(tenant_acme="warn")) == "default" and not rep.held(
        message(), Standings(grades(tenant_acme="warn")), NOW
    )
    assert (
        rep.pool_of(message(), POOLS["default"], POOLS, "", "s.test", Standings(grades(tenant_acme="hold")), NOW).name
        == "default"
    )


def test_a_source_on_hold_is_the_last_choice_at_its_site():
    sources = list(POOLS["default"].sources)
    here = grades(source_site_a_at_s=("hold"))
    found = Standings(here).ordered(sources, "s", NOW)
    assert [one.name for one in found] == ["b", "a"]
    assert Standings(here).ordered(sources, "other.test", NOW) == sources
    assert pool_of(grades(source_a="hold")) == "default", "b is left"
    assert pool_of(grades(source_a="hold", source_b="hold")) == "quiet"


def test_rates():
    assert (
        rep.rate_of_sender(grades(tenant_acme="warn"), message(), NOW)
        == rep.rate_of_sender(grades(tenant_acme="hold"), message(), NOW)
        == 0.5
    )
    assert rep.rate_of_sender({}, message(), NOW) == rep.rate_of_sender(grades(tenant_x="hold"), message(), NOW) == 1
    assert [rep.rate_of_source(grades(source_a=level), "a", "s", NOW) for level in ("ok", "warn", "hold")] == [
        1,
        0.5,
        0.1,
    ]


def test_a_pin_goes_first_while_it_lasts():
    standings = grades(tenant_acme="hold")
    standings[rep.pin_key("tenant:acme")] = {
        "subject": "tenant:acme",
        "level": "ok",
        "since": NOW,
        "pinned": True,
        "until": NOW + 10,
    }
    assert Standings(standings).level("tenant:acme", NOW + 9) == "ok"
    assert Standings(standings).level("tenant:acme", NOW + 10) == "hold"


def test_a_broadcast_asks_again_in_a_quarter_of_an_hour_and_not_all_at_once():
    times = {rep.again_at(message(message_id=f"m{n}"), NOW) - NOW for n in range(200)}
    assert len(times) > 190 and min(times) >= 0.8 * WAIT_MS and max(times) <= 1.2 * WAIT_MS
    assert rep.again_at(message(), NOW) == rep.again_at(message(), NOW)
    assert rep.again_at(message(expires_at=NOW + 5), NOW) == NOW + 5


def test_counts_of_today():
    told = {
        "source:a": {
            "subject": "source:a",
            "level": "ok",
            "since": 0,
            "day": NOW // DAY_MS,
            "sent_today": 90,
            "complained_today": 2,
        }
    }
    assert rep.counts_of_today(told, "a", NOW) == (90, 2)
    assert rep.counts_of_today(told, "a", NOW + DAY_MS) == rep.counts_of_today({}, "a", NOW) == (0, 0)
