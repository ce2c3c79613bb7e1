"""Classify: what a reply means, and what follows: an end, another try, a suppression. And what comes back after the end.

mail.attempts, mail.reports (key: message id) -> mail.events, mail.scheduled, mail.suppressions
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from agents.application import application
from avro.records import Attempt, Message, Report, Suppression
from postroad import bounces, reports
from postroad.content import ContentMissing, ContentUnavailable
from postroad.events import Fields, event
from postroad.retry import next_try
from postroad.senders import message_of
from postroad.smtp import Reply
from tables import delivered
from tables.delivered import DELIVERED
from topics.catalogue import ATTEMPTS, EVENTS, REPORTS, SCHEDULED, SUPPRESSIONS, Output
from topics.stage import Hold, Stage
from topics.state import View

NAME = "classify"

stage = Stage(NAME, reads=[ATTEMPTS, REPORTS], writes=[EVENTS, SCHEDULED, SUPPRESSIONS], tables=[DELIVERED])
__getattr__ = application(stage)


@stage.on(ATTEMPTS)
def judge(attempt: Attempt, state: View) -> Iterator[Output]:
    """Delivered, bounced, expired, or deferred with the time of the next try."""
    message, number = attempt["message"], attempt["message"]["attempt"] + 1
    reply = Reply(attempt["reply_code"], attempt["enhanced_code"], attempt["reply"])
    verdict = bounces.classify(reply, attempt["phase"])
    fields: Fields = {
        "reason": verdict.reason, "rule": verdict.rule, "attempt": number, "mx_host": attempt["mx_host"],
        "mx_address": attempt["mx_address"], "reply_code": reply.code, "enhanced_code": reply.enhanced, "reply": reply.text,
        "tls": attempt["tls"], "duration_ms": attempt["duration_ms"], "possible_duplicate": attempt["possible_duplicate"],
    }  # fmt: skip
    at = attempt["at"]
    if verdict.outcome == "delivered":
        state.delivered.put(message["message_id"], delivered.kept(message), at + delivered.KEPT_MS)
        yield EVENTS.send(event(message, "delivered", at, NAME, **fields))
        return
    if state.delivered.get(message["message_id"]) is not None:
        return  # tried once more after a crash of send: it has its end
    if verdict.outcome in ("hard", "soft"):
        yield EVENTS.send(event(message, "bounced", at, NAME, **fields))
        if verdict.outcome == "hard":
            yield SUPPRESSIONS.send(_hard_bounce(message, at, message["message_id"], str(reply)))
        return
    due = next_try(at, number, message["message_id"], state.services.retries, verdict.reason == "greylisted")
    if due > message["expires_at"]:
        yield EVENTS.send(event(message, "expired", at, NAME, **fields))
        return
    fields["due_at"] = due
    yield EVENTS.send(event(message, "deferred", at, NAME, **fields))
    message["attempt"] = number
    broke_off = attempt["phase"] == "body" and not reply.code  # after the final dot: the MX may have taken it
    message["possible_duplicate"] = message["possible_duplicate"] or attempt["possible_duplicate"] or broke_off
    yield SCHEDULED.send({"message": message, "at": at, "due_at": due, "reason": "retry", "return_to": "scored"})


def _hard_bounce(message: Message, at: int, evidence: str, detail: str) -> Suppression:
    return {"recipient": message["recipient"], "tenant": message["tenant"], "action": "add", "reason": "hard_bounce",
            "at": at, "evidence": evidence, "detail": detail[:500]}  # fmt: skip


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
    message_id, mail = message_of(report["rcpt_to"]), state.found.get(state.record.offset)
    message: Message | None = state.delivered.get(message_id)
    if message is None:
        raise ValueError(f"no message of the last week has the return path {report['rcpt_to'][:100]!r}")
    if mail is None:
        raise Hold("a report was not read in time")
    if isinstance(mail, ContentMissing):
        raise mail
    for status in reports.read(mail):
        if status.action == "failed":
            yield EVENTS.send(event(message, "reported", report["received_at"], NAME, reason="dsn", rule=report["report_id"],
                                    enhanced_code=status.code, detail=status.diagnostic))  # fmt: skip
        if status.failed_for_good:
            yield SUPPRESSIONS.send(_hard_bounce(message, report["received_at"], report["report_id"], status.diagnostic))
