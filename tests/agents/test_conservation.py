"""Every accepted message reaches exactly one end, whatever is repeated; nothing is delivered twice unless an event says so."""

import asyncio
from collections import Counter

import pytest
from builders import NOW, RAW
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from road import HOUR, SECOND, Road

from postroad import departure
from postroad.events import ENDS
from postroad.scoring import GTUBE
from topics.catalogue import DECISIONS, SUBMISSIONS, SUPPRESSIONS

FISHY = '<a href="http://93.184.216.34/x">go</a> <a href="http://evil.test/">https://www.bank.com/</a>'
RECIPIENTS = [
    *(f"{name}@there.test" for name in ("ok", "ok2", "unknown", "full", "grey", "lost", "never", "stopped", "again")),
    "ok@tight.test", "ok2@tight.test", "ok@slow.test", "unknown@slow.test", "ok@nowhere.test", "ok@null.test", "no address",
]  # fmt: skip
HOLDS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def submissions(draw):
    number = draw(st.integers(0, 5))  # the same number twice is the same submission twice
    given = {
        "tenant": draw(st.sampled_from(["acme"] * 5 + ["limited", "nobody"])),
        "submission_id": f"s{number}",
        "sender": {"address": draw(st.sampled_from(["a@acme.test"] * 5 + ["a@else.test"]))},
        "recipients": [{"address": a} for a in draw(st.lists(st.sampled_from(RECIPIENTS), min_size=1, max_size=4))],
        "text": draw(st.sampled_from(["hello"] * 5 + [GTUBE, "x" * 40_000])),
        "html": draw(st.sampled_from([None] * 4 + [FISHY])),
        "send_at": draw(st.sampled_from([None] * 3 + [NOW + 10 * SECOND, NOW + HOUR])),
        "dedupe_id": draw(st.sampled_from([None, None, "d"])),
        "dedupe_policy": draw(st.sampled_from(["reject", "replace"])),
        "stream": draw(st.sampled_from(["transactional", "broadcast"])),
    }
    if given["send_at"] is None:
        given["expires_at"] = draw(st.sampled_from([None, None, NOW + 90 * SECOND, NOW + 2 * HOUR, NOW - 1]))
    return given


async def travel(road, mails, decisions):
    """The mails come in two halves, with operators' decisions in between; all of it in four days."""
    domains = road.services.tenants["acme"]["domains"]
    road.services.tenants["limited"] = {
        "tenant": "limited", "domains": domains, "quota_per_second": 0.5, "quota_per_day": 6, "quota_waiting_max_s": 90_000,
    }  # fmt: skip
    stopped = {"recipient": "stopped@there.test", "tenant": "", "reason": "complaint", "at": NOW, "evidence": "e"}
    road.put(SUPPRESSIONS, stopped)
    half = len(mails) // 2
    road.put(SUBMISSIONS, *mails[:half])
    await road.run(NOW + 20 * SECOND)
    road.put(SUBMISSIONS, *mails[half:])
    people = {event["message_id"]: event["recipient"] for event in road.events() if event["kind"] != "noted"}
    for id, action in zip(sorted(people), decisions, strict=False):
        said = {"message_id": id, "recipient": people[id], "action": action, "by": "op", "at": road.now}
        road.put(DECISIONS, said)
    await road.run(NOW + 96 * HOUR)


def drive(road, mails, decisions):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(departure, "PATIENCE_MS", 0)  # no real waiting
        asyncio.run(travel(road, mails, decisions))
    assert road.dead_letters == []
    assert not any(road.queues.values())
    assert (road.waiting(), list(road.stages[-1].state.due.scan())) == (0, []), "nothing waits in schedule for ever"
    assert len(road.accepted()) == sum(len({r["address"] for r in mail["recipients"]}) for mail in mails)


mails = st.lists(submissions(), min_size=1, max_size=8)
decisions = st.lists(st.sampled_from(["release", "drop", "cancel"]), max_size=8)
seeds = st.integers(0, 2**32)


@HOLDS
@given(mails, decisions, seeds, st.sampled_from([0.0, 0.2, 1.0]))
def test_every_accepted_message_has_one_end_however_records_are_repeated(mails, decisions, seed, repeats):
    road = Road(seed, repeats=repeats)
    drive(road, mails, decisions)
    ends = road.ends()
    for line in road.passed():
        note(line)
    assert ends.keys() == road.accepted(), "lost, or an end of what was never accepted"
    assert not {id: found for id, found in ends.items() if len(found) > 1}, "two ends"
    assert {id for id, count in road.received.items() if count > 1} <= road.flagged()


@HOLDS
@given(mails, decisions, seeds, st.sampled_from([0.05, 0.3]))
def test_crashes_lose_nothing_and_deliver_nothing_twice_without_saying_so(mails, decisions, seed, crashes):
    road = Road(seed, crashes=crashes)
    drive(road, mails, decisions)
    for line in road.passed():
        note(line)
    ends = road.ends()
    assert ends.keys() == road.accepted()
    assert not {id: found for id, found in ends.items() if len(found) > 1}, "two ends"
    assert {id for id, count in road.received.items() if count > 1} <= road.flagged()


@pytest.mark.parametrize("seed", range(8))
def test_copies_for_which_dns_said_different_things_are_one_message(seed):
    """Validate done twice around a crash: one copy waits, the other is let through, deferred, and waits at the same place.
    And send done twice: the host takes the second copy without a word."""
    names = ("grey", "grey2", "never", "again")
    mails = [
        {"tenant": "acme", "submission_id": f"s{n}", "sender": {"address": "a@acme.test"}, "text": "hi",
         "recipients": [{"address": f"{name}@flaky.test"} for name in names], "expires_at": NOW + 2 * HOUR}
        for n in range(3)
    ]  # fmt: skip
    road = Road(seed, crashes=0.4)
    drive(road, mails, [])
    assert road.ends().keys() == road.accepted(), "lost"
    assert all(len(found) == 1 for found in road.ends().values())
    assert {id for id, count in road.received.items() if count > 1} <= road.flagged()


def test_the_drive_reaches_every_kind_of_end():
    """The properties above would hold for a road that rejects everything."""
    mails = [
        {"tenant": "acme", "submission_id": f"s{n}", "sender": {"address": "a@acme.test"}, "recipients": [{"address": to}],
         "text": "hi", **fields}
        for n, (to, fields) in enumerate([
            *((to, {}) for to in RECIPIENTS),
            ("ok@there.test", {"html": FISHY}), ("ok@there.test", {"html": FISHY}), ("ok@there.test", {"text": GTUBE}),
            ("ok@there.test", {"raw": RAW, "text": None}), ("ok2@there.test", {"send_at": NOW + HOUR, "dedupe_id": "d"}),
            ("grey@there.test", {"dedupe_id": "d", "dedupe_policy": "replace"}),
        ])
    ]  # fmt: skip
    road = Road(1, repeats=0.3)
    drive(road, [*mails[-1:], *mails[:-1]], [])
    kinds = Counter(event["kind"] for event in road.events() if event["kind"] in ENDS)
    assert kinds.keys() == ENDS - {"cancelled"} | {"cancelled"} & kinds.keys()
    assert len(road.ends()) == len(mails)
