"""Discarding a dead letter in the ledger: what stages make of what it writes, so that every accepted message has one end."""

import pytest
from builders import HOUR_MS, ID, NOW, attempt, message, routed, scheduled, submission, values

from agents import classify, ingest
from postroad.commands.discard import Discard
from postroad.events import ENDS, ending, event
from topics.catalogue import (
    ACCEPTED,
    ATTEMPTS,
    CANCELLATIONS,
    CLEARED,
    DECISIONS,
    ENDINGS,
    EVENTS,
    OUTBOUND,
    REPORTS,
    SCHEDULED,
    SCORED,
    SUBMISSIONS,
    SUPPRESSIONS,
    VALIDATED,
)
from topics.codec import Codec
from topics.letters import LetterError
from topics.testing import Scripted

DISCARD = Discard("ann", "forged by a test", NOW + 5000, HOUR_MS)
LETTER = {"stage": "suppress", "partition": 0, "offset": 0, "timestamp": NOW, "headers": []}


def whole(topic, value):
    """As decoded: with every default."""
    codec = Codec(topic.schema)
    return codec.decode(codec.encode(value))


def discard(topic, value, stages=("suppress",), **letter):
    return DISCARD.writes(topic, whole(topic, value), {**LETTER, **letter}, stages)


@pytest.fixture
def judge(services):
    return Scripted(classify.stage, services, NOW)


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        *((topic, routed()) for topic in (ACCEPTED, VALIDATED, SCORED, CLEARED, OUTBOUND)),
        (SCHEDULED, scheduled(NOW)),
        (ATTEMPTS, attempt(451, "later")),
        (ENDINGS, ending(message(), "rejected", NOW, "validate", "content")),
    ],
)
async def test_a_message_ends_once_with_who_and_why(topic, value, judge):
    outputs, told = discard(topic, value)
    assert ID in told and "possible_duplicate" not in told
    ends = [output.value for output in outputs]
    done = await judge.feed(ENDINGS, *ends, *ends)  # discarded twice: it died before the note
    (end,) = values(done, EVENTS)
    said = {name: end[name] for name in ("kind", "reason", "rule", "detail", "stage", "at", "message_id")}
    assert said == {"kind": "dropped", "reason": "dead-letter", "rule": "ann", "detail": "forged by a test",
                    "stage": "suppress", "at": NOW + 5000, "message_id": ID}  # fmt: skip
    assert not end["possible_duplicate"]


async def test_a_message_that_has_its_end_keeps_it(judge):
    await judge.feed(ATTEMPTS, attempt(250))
    outputs, _ = discard(SCORED, message())
    assert await judge.feed(ENDINGS, *(output.value for output in outputs)) == []


@pytest.mark.parametrize(
    ("topic", "value", "headers"),
    [
        (OUTBOUND, routed(), [{"name": "postroad-performed", "value": b"1"}]),
        (ATTEMPTS, attempt(250), []),
        (ATTEMPTS, attempt(0, phase="body"), []),
    ],
)
async def test_what_an_mx_may_have_is_flagged(topic, value, headers, judge):
    outputs, told = discard(topic, value, headers=headers)
    assert "an MX may have taken it" in told
    (end,) = values(await judge.feed(ENDINGS, *(output.value for output in outputs)), EVENTS)
    assert (end["kind"], end["possible_duplicate"]) == ("dropped", True)


@pytest.mark.parametrize("fields", [{}, {"metadata": {str(n): "x" for n in range(1000)}, "tags": ["t"]}])
async def test_a_submission_is_accepted_and_dropped_under_the_ids_of_ingest(services, judge, fields):
    """Whatever ingest has written of it already has the same ids, so nothing is accepted twice."""
    mail = submission("R@there.test", "r@THERE.test", "no address", "s@bücher.test", **fields)
    runner = Scripted(ingest.stage, services, NOW)
    done = await runner.feed(SUBMISSIONS, mail, timestamp=NOW)
    accepted = [step for step in values(done, EVENTS) if step["kind"] == "accepted"]
    assert accepted and runner.dead_letters == []

    outputs, told = discard(SUBMISSIONS, mail, ("ingest",), stage="ingest")
    assert f"{len(accepted)} accepted and dropped" in told
    ours, unbuilt = values(outputs, EVENTS), {"size": 0}
    assert [whole(EVENTS, step) for step in ours] == [whole(EVENTS, {**step, **unbuilt}) for step in accepted]
    ends = values(await judge.feed(ENDINGS, *values(outputs, ENDINGS)), EVENTS)
    assert {end["message_id"] for end in ends} == {step["message_id"] for step in accepted}
    assert {(end["kind"], end["reason"]) for end in ends} == {("dropped", "dead-letter")}
    for output in outputs:
        whole(output.topic, output.value)


@pytest.mark.parametrize("kind", ["accepted", *sorted(ENDS)])
def test_an_event_that_the_ledger_needs_is_refused(kind):
    with pytest.raises(LetterError, match=f"the event {kind} of message {ID}.*Replay it"):
        discard(EVENTS, event(whole(ACCEPTED, message()), kind, NOW, "classify"), ("events_sink",))


def told_only(topic, value, stages=("suppress",), **letter):
    outputs, told = discard(topic, value, stages, **letter)
    assert outputs == []
    return told


def test_what_ends_nothing():
    step = event(whole(ACCEPTED, message()), "validated", NOW, "validate")
    assert "lacks the step validated" in told_only(EVENTS, step, ("events_sink",))
    assert "audit has not followed the step validated" in told_only(EVENTS, step, ("audit",))
    told = told_only(ATTEMPTS, attempt(250), ("audit",))
    assert "only audit failed" in told and "has judged" not in told, "of classify nothing is known"
    for stages in (("audit", "classify"), ("classify", "audit")):
        (end,), _ = discard(ATTEMPTS, attempt(250), stages, stage="audit")
        assert end.value["stage"] == "classify", "audit ends nothing"
    assert "no recipients" in told_only(SUBMISSIONS, {**submission(), "recipients": []})
    decision = {"message_id": ID, "recipient": "r@there.test", "action": "drop", "by": "op", "at": NOW}
    entry = {"recipient": "r@there.test", "tenant": "", "reason": "manual", "at": NOW, "evidence": "e"}
    report = {
        "report_id": "1",
        "received_at": NOW,
        "mail_from": "",
        "rcpt_to": f"b-{ID}@acme.test",
        "content": message()["content"],
    }
    for topic, value in ((DECISIONS, decision), (CANCELLATIONS, decision), (SUPPRESSIONS, entry), (REPORTS, report)):
        assert "no message ends" in told_only(topic, value)


@pytest.mark.parametrize("id", ["", "x", "\x1b[2J", ID.upper(), ID + "0"])
def test_names_that_ingest_never_gives_end_nothing(id):
    """An end without its acceptance would be a wrong row for ever."""
    assert "nothing of that name was ever accepted" in told_only(SCORED, message(message_id=id))
    forged = event(whole(ACCEPTED, message(message_id=id)), "accepted", NOW, "ingest")
    assert "nothing of that name was ever accepted" in told_only(EVENTS, forged)


@pytest.mark.parametrize("at", [-1, 1 << 48])
def test_a_submission_at_a_time_that_is_none(at):
    with pytest.raises(LetterError, match="not a time"):
        discard(SUBMISSIONS, submission(), timestamp=at)
