"""Automatic shaping: counting, multiplicative decrease, additive recovery, and a standing that survives a table."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroad.reply import Reply
from postroad.shaping.automatic import (
    FACTOR_MIN,
    FOR_MAX_S,
    NEUTRAL,
    RECOVERY_PER_MS,
    SETTLE_MS,
    THRESHOLD_MAX,
    Count,
    Rule,
    Standing,
    effective,
    is_neutral,
    judge,
    recovered,
)
from postroad.shaping.limits import Limits
from postroad.shaping.patterns import Pattern
from postroad.shaping.policy import load

NOW = 1_700_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
SLOW = Rule("slow", (Pattern("slow down"),), "reduce-rate", threshold=3, window_s=60, factor=0.5, for_s=600)
FEWER = Rule("fewer", (Pattern("too many"),), "reduce-connections", factor=0.5, for_s=600)
STOP = Rule("stop", (Pattern("go away"),), "suspend-source", threshold=2, window_s=3600, for_s=1800)
TENANT = Rule("tenant", (Pattern("your domain"),), "suspend-tenant", for_s=900)
RULES = (SLOW, FEWER, STOP, TENANT)


def said(standing, text, now, phase="mail", rules=RULES, about="source"):
    return judge(rules, standing, phase, Reply.parse(int(text[:3]), text[4:]), now, about)


def test_a_rule_acts_at_its_threshold_and_counts_anew():
    standing, actions = NEUTRAL, []
    for at in range(7):
        standing, action = said(standing, "421 slow down", NOW + at * 15_000)
        actions.append(action)
    assert [action and action.rule for action in actions] == [None, None, "slow", None, None, "slow", None]
    assert actions[2].factor == 0.5 and actions[5].factor == 0.25
    assert actions[5].until == NOW + 75_000 + 600_000


def test_replies_further_apart_than_the_window_never_act():
    standing = NEUTRAL
    for at in range(20):
        standing, action = said(standing, "421 slow down", NOW + at * 30_001)  # two in any minute
        assert action is None
    assert len(dict(standing.counts)[SLOW.key].times) <= SLOW.threshold


def test_what_was_under_way_when_a_rule_acted_does_not_count():
    standing, first = said(NEUTRAL, "421 too many", NOW)
    standing, second = said(standing, "421 too many", NOW + SETTLE_MS - 1)
    standing, third = said(standing, "421 too many", NOW + SETTLE_MS)
    assert first is not None and second is None and third is not None
    assert third.factor == 0.25


def test_other_replies_change_nothing():
    for text in ("250 slow down", "421 try later", "550 no such user"):
        assert said(NEUTRAL, text, NOW) == (NEUTRAL, None)


def test_the_gravest_of_several_due_rules_acts():
    standing, action = said(replace(NEUTRAL, counts=((STOP.key, Count(0, (NOW - 1,))),)), "421 too many, go away", NOW)
    assert action.rule == "stop" and action.factor == 0
    assert standing.is_suspended(NOW) and not standing.is_suspended(NOW + 1_800_000)
    assert standing.connections_factor == 1


def test_a_tenant_has_a_standing_of_its_own():
    assert said(NEUTRAL, "421 your domain", NOW) == (NEUTRAL, None)
    standing, action = said(NEUTRAL, "421 your domain", NOW, about="tenant")
    assert action.action == "suspend-tenant" and standing.is_suspended(NOW + 899_999)


def test_a_sentence_in_two_lines_is_one():
    rule = replace(SLOW, threshold=1)
    reply = Reply.parse(421, "4.7.28 please slow\n4.7.28 down a bit")
    assert judge((rule,), NEUTRAL, "mail", reply, NOW)[1] is not None


def test_recovery_is_by_addition_after_the_time_held():
    standing, _ = said(NEUTRAL, "421 too many", NOW)
    held = NOW + 600_000
    assert recovered(standing, held).connections_factor == 0.5
    assert recovered(standing, held + 10 * MINUTE).connections_factor == pytest.approx(0.6)
    assert recovered(standing, held + 30 * MINUTE).connections_factor == pytest.approx(0.8)
    assert recovered(standing, held + 50 * MINUTE).connections_factor == 1
    assert not is_neutral(standing, held) and is_neutral(standing, held + 50 * MINUTE)


def test_effective_never_takes_the_last_connection_and_never_gives_to_a_shard_without():
    least = Standing(FACTOR_MIN, NOW + HOUR, FACTOR_MIN, NOW + HOUR)
    left = effective(Limits(), least, NOW)
    assert (left.connections, left.new_per_minute) == (1, 1)
    assert left.per_second == pytest.approx(100 * FACTOR_MIN)
    assert effective(Limits(connections=1, shards=2).share(1), least, NOW).connections == 0


def test_a_wrong_clock_does_not_suspend_for_ever():
    ahead = NOW + 2 * FOR_MAX_S * 1000
    standing = Standing(0.5, ahead, 0.5, ahead, ahead)
    assert not standing.is_suspended(NOW)
    assert recovered(standing, NOW) == Standing()
    assert effective(Limits(), standing, NOW) == Limits()


factors = st.floats(FACTOR_MIN, 1)
times = st.integers(NOW - 10 * HOUR, NOW + 10 * HOUR)
counts = st.lists(
    st.tuples(
        st.binary(min_size=8, max_size=8), st.builds(Count, times, st.lists(times, max_size=5).map(sorted).map(tuple))
    ),
    max_size=4,
).map(tuple)
standings = st.builds(Standing, factors, times, factors, times, times, counts)


@settings(deadline=None)
@given(standings)
def test_packing_survives(standing):
    assert Standing.unpack(standing.pack()) == standing
    assert Standing.unpack(standing.pack() + b"of a newer release") == standing


def test_the_fullest_count_survives():
    full = Standing(counts=((SLOW.key, Count(NOW, tuple(range(NOW, NOW + THRESHOLD_MAX)))),))
    assert Standing.unpack(full.pack()) == full


@settings(deadline=None)
@given(standings, st.integers(0, 20 * HOUR), st.integers(0, 20 * HOUR))
def test_recovery_in_two_steps_is_recovery_in_one(standing, first, second):
    once = recovered(standing, NOW + first + second)
    twice = recovered(recovered(standing, NOW + first), NOW + first + second)
    assert once.rate_factor == pytest.approx(twice.rate_factor)
    assert standing.rate_factor <= once.rate_factor <= 1
    assert once.rate_factor - standing.rate_factor <= 30 * HOUR * RECOVERY_PER_MS


limits = st.builds(
    Limits,
    connections=st.integers(1, 500),
    new_per_minute=st.integers(1, 1000),
    per_second=st.floats(0.001, 1e6),
)


@settings(deadline=None)
@given(limits, standings, st.integers(0, 20 * HOUR))
def test_never_above_the_limit_of_the_file(limits, standing, later):
    left = effective(limits, standing, NOW + later)
    assert 0 < left.per_second <= limits.per_second
    assert 1 <= left.connections <= limits.connections
    assert 1 <= left.new_per_minute <= limits.new_per_minute


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["421 slow down", "421 too many", "421 go away", "250 ok"]), st.integers(0, HOUR)),
        max_size=40,
    )
)
def test_whatever_is_said_factors_only_fall_by_actions(replies):
    standing, now = NEUTRAL, NOW
    for text, pause in replies:
        now += pause
        before = recovered(standing, now)
        standing, action = said(Standing.unpack(standing.pack()), text, now)
        after = recovered(standing, now)
        rate, connections = after.rate_factor, after.connections_factor
        if action is None or action.action == "suspend-source":
            assert (rate, connections) == (before.rate_factor, before.connections_factor)
        elif action.action == "reduce-rate":
            assert rate == max(before.rate_factor * 0.5, FACTOR_MIN) and connections == before.connections_factor
        else:
            assert connections == max(before.connections_factor * 0.5, FACTOR_MIN) and rate == before.rate_factor


# What the providers answer, as their pages and mailing lists have it.
SEEN = [
    ("l.google.com", "body", "421", "4.7.28 Gmail has detected an unusual rate of\n4.7.28 unsolicited mail originating from your IP address.", "google-unusual-rate"),
    ("am0.yahoodns.net", "mail", "421", "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints - 4.16.55.1", "yahoo-complaints"),
    ("am0.yahoodns.net", "mail", "421", "4.7.0 [TS03] All messages from 192.0.2.1 will be permanently deferred", "yahoo-volume"),
    ("am0.yahoodns.net", "mail", "553", "5.7.1 [BL21] Connections will not be accepted from 192.0.2.1", "yahoo-listed"),
    ("olc.protection.outlook.com", "mail", "451", "4.7.650 The mail server [192.0.2.1] has been temporarily rate limited due to IP reputation. (S775)", "microsoft-rate"),
    ("olc.protection.outlook.com", "mail", "550", "5.7.1 Unfortunately, messages from [192.0.2.1] weren't sent. Please contact your Internet service provider since part of their network is on our block list (S3150).", "microsoft-blocked"),
    ("mail.protection.outlook.com", "mail", "451", "4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)", "microsoft-rate"),
    ("mail.icloud.com", "mail", "421", "[HCM1] Your mail from 192.0.2.1 was deferred.", "apple-deferred"),
    ("comcast.net", "mail", "421", "4.1.0 192.0.2.1 Throttled - try again later. Please see RL000003", "comcast-rate"),
    ("there.test", "rcpt", "421", "4.7.0 mx Error: too many connections from 192.0.2.1", "too-many-connections"),
    ("there.test", "rcpt", "554", "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "listed"),
    ("there.test", "banner", "554", "No SMTP service here", "refused-connection"),
]  # fmt: skip


@pytest.mark.parametrize(("site", "phase", "code", "text", "rule"), SEEN)
def test_the_shipped_rules_know_what_providers_answer(site, phase, code, text, rule):
    rules, standing = load(None).rules_of(site), NEUTRAL
    for at in range(THRESHOLD_MAX):
        standing, action = judge(rules, standing, phase, Reply.parse(int(code), text), NOW + at * 1000)
        if action is not None:
            break
    assert action is not None and action.rule == rule


def test_the_shipped_rules_leave_ordinary_ends_alone():
    rules = load(None).rules_of("l.google.com")
    standing = NEUTRAL
    for text in (
        "5.1.1 The email account that you tried to reach does not exist",
        "5.2.2 mailbox is full",
        "5.7.26 unauthenticated",
    ):
        for at in range(50):
            standing, action = judge(rules, standing, "rcpt", Reply.parse(550, text), NOW + at * 1000)
            assert action is None
    standing, action = judge(rules, standing, "rcpt", Reply.parse(450, "4.2.0 Greylisted, see postgrey"), NOW)
    assert (standing, action) == (NEUTRAL, None)
