"""Classify: what a reply means, and what follows: another try, a suppression, the end. And what comes back after the end.

mail.attempts, mail.reports, mail.endings (key: message id) -> mail.events, mail.scheduled, mail.suppressions

All ends of all messages are written here, whichever stage has found them: one writer per message, so there is one end, in the
table before anybody is told (`state_first`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

from agents.application import application
from avro.records import Attempt, Ending, EventKind, Message, Report
from postroad import bounces, orders, reports
from postroad.content import ContentMissing, ContentUnavailable
from postroad.events import Fields, attempted, event
from postroad.retry import next_try
from postroad.smtp import Reply
from postroad.suppression import hard_bounce
from tables import ended, last_replies
from tables.ended import ENDED, Ended
from tables.last_replies import LAST_REPLIES
from topics.catalogue import ATTEMPTS, ENDINGS, EVENTS, REPORTS, SCHEDULED, SUPPRESSIONS, Output
from topics.stage import Hold, Stage
from topics.state import View

NAME = "classify"

stage = Stage(NAME, reads=[ATTEMPTS, REPORTS, ENDINGS], writes=[EVENTS, SCHEDULED, SUPPRESSIONS],
              tables=[ENDED, LAST_REPLIES], state_first=True)  # fmt: skip
__getattr__ = application(stage)
_try = itemgetter("round", "attempt")  # which try of a message


@stage.on(ATTEMPTS)
def judge(attempt: Attempt, state: View) -> Iterator[Output]:
    """Delivered, bounced, expired, or deferred with the time of the next try."""
    message, reply = attempt["message"], Reply(attempt["reply_code"], attempt["enhanced_code"], attempt["reply"])
    verdict = bounces.classify(reply, attempt["phase"])
    fields, number = attempted(attempt, verdict), message["attempt"] + 1
    at, (before, own) = attempt["at"], _ended(message, state)
    if before is not None and own:  # it stands, whatever the verdict would be by now
        yield EVENTS.send(event(message, before["kind"], at, NAME, **fields))
        if before["kind"] == "bounced" and verdict.outcome == "hard":
            yield SUPPRESSIONS.send(hard_bounce(message, at, message["message_id"], str(reply)))
        return
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
        if verdict.outcome == "hard":
            yield SUPPRESSIONS.send(hard_bounce(message, at, message["message_id"], str(reply)))
        return
    retry = state.services.shaping.policy.limits(orders.site_of(message), attempt["source"]).retry
    due = next_try(at, number, message["message_id"], retry, verdict.reason == "greylisted")
    if due > message["expires_at"]:
        yield _end(message, "expired", at, NAME, fields, state)
        return
    state.last_replies.put(
        message["message_id"], last_replies.kept(fields), message["expires_at"] + last_replies.KEPT_MS
    )
    fields["due_at"] = due
    yield EVENTS.send(event(message, "deferred", at, NAME, **fields))
    message["attempt"] = number
    message["possible_duplicate"] = message["possible_duplicate"] or attempt["possible_duplicate"] or broke_off
    yield SCHEDULED.send({"message": message, "at": at, "due_at": due, "reason": "retry", "return_to": "scored"})


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
        state.ended.put(message["message_id"], ended.kept(kind, message, _place(state)), at + ended.KEPT_MS)
    return EVENTS.send(event(message, kind, at, stage, **fields))


def _ended(message: Message, state: View) -> tuple[Ended | None, bool]:
    """Its end, and whether this very record had decided on it before a crash: then it may not have been told."""
    known: Ended | None = state.ended.get(message["message_id"])
    return known, known is not None and known["by"] == _place(state)


def _place(state: View) -> str:
    return f"{state.record.topic}@{state.record.offset}"


@stage.prepare(REPORTS)
async def read_reports(todo: list[tuple[Any, Report]], state: View) -> None:
    """The mail of each report: `found[offset]`."""

    async def content(record: Any, report: Report) -> None:
        try:
            state.found[record.offset] = await state.services.contents.get(report["content"])
        except ContentMissing as exc:
            state.found[record.offset] = exc
        except ContentUnavailable as exc:
            raise Hold(f"the content store is away: {exc}") from exc

    await asyncio.gather(*(content(record, report) for record, report in todo))


@stage.on(REPORTS)
def report_back(report: Report, state: View) -> Iterator[Output]:
    """Feedback on a message that had its end: an event, and a suppression where the recipient is bad for good."""
    message_id = state.services.settings.return_paths().message_of(report["rcpt_to"])
    mail = state.found.get(state.record.offset)
    known: Ended | None = state.ended.get(message_id)
    if known is None:
        raise ValueError(f"no message of the last week has the return path {report['rcpt_to'][:100]!r}")
    if mail is None:
        raise Hold("a report was not read in time")
    if isinstance(mail, ContentMissing):
        raise mail
    for status in reports.read(mail):
        if status.action == "failed":
            yield EVENTS.send(event(known["message"], "reported", report["received_at"], NAME, reason="dsn", rule=report["report_id"],
                                    enhanced_code=status.code, detail=status.diagnostic))  # fmt: skip
        if status.failed_for_good and reports.is_about(status, known["message"]["recipient"]):
            yield SUPPRESSIONS.send(
                hard_bounce(known["message"], report["received_at"], report["report_id"], status.diagnostic)
            )
