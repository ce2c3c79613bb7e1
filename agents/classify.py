"""Classify: what a reply means, and what follows: another try, a suppression, the end. And what comes back after the end.

mail.attempts, mail.reports, mail.endings (key: message id) -> mail.events, mail.scheduled, mail.suppressions, mail.reputation

All ends of all messages are written here, whichever stage has found them: one writer per message, so there is one end, in the
table before anybody is told (`state_first`).
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter

from agents import report_mails, reports
from agents.application import application
from agents.mail import mail
from avro.records import Attempt, Ending, EventKind, Message
from postroad import bounces, orders
from postroad.bounces import Verdict
from postroad.events import Fields, attempted, event
from postroad.retry import next_try
from postroad.smtp import Reply
from postroad.suppression import bounced
from tables import ended, last_replies, reputation
from tables.ended import ENDED, Ended
from tables.last_replies import LAST_REPLIES
from tables.reported import EARLY, REPORTED
from tables.reputation import HISTORIES, TALLIES
from topics.catalogue import ATTEMPTS, ENDINGS, EVENTS, REPORTS, REPUTATION, SCHEDULED, SUPPRESSIONS, Output
from topics.stage import Stage
from topics.state import View

NAME = "classify"

stage = Stage(NAME, reads=[ATTEMPTS, REPORTS, ENDINGS], writes=[EVENTS, SCHEDULED, SUPPRESSIONS, REPORTS, REPUTATION],
              tables=[ENDED, LAST_REPLIES, TALLIES, HISTORIES, REPORTED, EARLY], state_first=True)  # fmt: skip
__getattr__ = application(stage)
_try = itemgetter("round", "attempt")  # which try of a message


@stage.on(ATTEMPTS)
def judge(attempt: Attempt, state: View) -> Iterator[Output]:
    """Delivered, bounced, expired, or deferred with the time of the next try."""
    message, reply = attempt["message"], Reply(attempt["reply_code"], attempt["enhanced_code"], attempt["reply"])
    verdict = bounces.classify(reply, attempt["phase"])
    fields, number = attempted(attempt, verdict), message["attempt"] + 1
    at, (before, own) = attempt["at"], _ended(message, state)
    if message["route"] and attempt["source"]:  # where it has left from, for what comes back later
        message["route"]["source"] = attempt["source"]
    if before is not None and own:  # it stands, whatever the verdict would be by now
        yield EVENTS.send(event(message, before["kind"], at, NAME, **fields))
        if before["kind"] == "bounced":
            yield from _suppressed(message, verdict, at, reply)
        return
    if before is None and reply.code and attempt["mx_host"]:
        _count(attempt, verdict, state)
    if verdict.outcome == "delivered":
        yield _end(message, "delivered", at, NAME, fields, state)
        return
    broke_off = attempt["phase"] == "body" and not reply.code  # after the final dot: the MX may have taken it
    if before is not None:  # tried once more after a crash of send
        if attempt["possible_duplicate"] or broke_off:
            fields["reason"], fields["possible_duplicate"] = f"tried-after-{before['kind']}", True
            yield EVENTS.send(event(message, "reported", at, NAME, **fields))
        return
    if verdict.outcome in ("hard", "soft"):
        yield _end(message, "bounced", at, NAME, fields, state)
        yield from _suppressed(message, verdict, at, reply)
        return
    retry = state.services.shaping.policy.limits(orders.site_of(message), attempt["source"]).retry
    due = next_try(at, number, message["message_id"], retry, verdict.reason == "greylisted")
    if due > message["expires_at"]:
        yield _end(message, "expired", at, NAME, fields, state)
        return
    state.last_replies.put(
        message["message_id"], last_replies.kept(message, fields), message["expires_at"] + last_replies.KEPT_MS
    )
    fields["due_at"] = due
    mail.step("deferred", message, attempt["source"])
    yield EVENTS.send(event(message, "deferred", at, NAME, **fields))
    message["attempt"] = number
    message["possible_duplicate"] = message["possible_duplicate"] or attempt["possible_duplicate"] or broke_off
    yield SCHEDULED.send({"message": message, "at": at, "due_at": due, "reason": "retry", "return_to": "scored"})


def _count(attempt: Attempt, verdict: Verdict, state: View) -> None:
    """For the reputation of its sender and its source: once, an end by its entry, a deferral by the last reply that is kept."""
    if verdict.outcome != "deferral":
        reputation.tried(state, attempt["message"], verdict.outcome, attempt["at"], attempt["source"])
    elif not last_replies.was_told(attempt["message"], state):
        reputation.tried(state, attempt["message"], "deferred", attempt["at"], attempt["source"])


def _suppressed(message: Message, verdict: Verdict, at: int, reply: Reply) -> Iterator[Output]:
    """What a bounce makes of the recipient."""
    if verdict.outcome in ("hard", "soft") and not message["test"]:
        entry = bounced(message, verdict.reason, verdict.outcome, at, message["message_id"], str(reply))
        if entry is not None:
            yield SUPPRESSIONS.send(entry)


@stage.on(ENDINGS)
def end(ending: Ending, state: View) -> Output | None:
    """The end that another stage has found, if the message has none."""
    message = ending["message"]
    before, own = _ended(message, state)
    if before is not None and not own:
        return None
    kind, said = orders.told(ending)
    if kind in ("bounced", "expired"):  # found while it waited
        said.update(last_replies.of(message["message_id"], state))
    return _end(message, kind, ending["at"], ending["stage"], said, state)


def _end(message: Message, kind: EventKind, at: int, stage: str, fields: Fields, state: View) -> Output:
    """The end; else what came after it. A second delivery of the same try, flagged, has the event again."""
    before, own = _ended(message, state)
    if before is not None and not own and (kind, *_try(message)) != (before["kind"], *_try(before["message"])):
        fields["reason"] = f"{kind}-after-{before['kind']}"
        fields["possible_duplicate"] = fields["possible_duplicate"] or before["kind"] == kind
        return EVENTS.send(event(message, "reported", at, stage, **fields))
    if before is None:
        mail.step(kind, message, fields.get("source", ""))
        state.ended.put(message["message_id"], ended.kept(kind, message, _place(state)), at + ended.KEPT_MS)
    return EVENTS.send(event(message, kind, at, stage, **fields))


def _ended(message: Message, state: View) -> tuple[Ended | None, bool]:
    """Its end, and whether this very record had decided on it before a crash: then it may not have been told."""
    known: Ended | None = state.ended.get(message["message_id"])
    return known, known is not None and known["by"] == _place(state)


def _place(state: View) -> str:
    return f"{state.record.topic}@{state.record.offset}"


stage.prepare(REPORTS)(report_mails.read_reports)
stage.on(REPORTS)(reports.report_back)
stage.every(reports.AGAIN_SECONDS)(reports.look_again)
stage.every(reputation.TICK_SECONDS)(reputation.publish)
