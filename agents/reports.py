"""Reports: what comes back after the end of a message, for the stage classify.

mail.reports (key: message id) -> mail.events, mail.suppressions; mail.reports once more, into the lane of the message that it is about,
where only the content tells that

What is about no message that we know, or is forged, is an event `noted` and nothing else. The same evidence changes nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agents.mail import mail
from avro.records import Report
from postroad import feedback, ids, returned, suppression
from postroad.events import event, noted
from tables import ended, reported, reputation
from tables.ended import Ended
from topics.catalogue import EVENTS, REPORTS, SUPPRESSIONS, Output
from topics.stage import Hold
from topics.state import View

NAME = "classify"
HOUR_MS = 3_600_000
AGAIN_FIRST_MS, AGAIN_MOST_MS = 1_000, 600_000
AGAIN_SECONDS, AGAIN_AT_ONCE = 1.0, 100


def report_back(report: Report, state: View) -> Iterator[Output]:
    """What a report comes to: an event, and what its message, its recipient and its sender have of it."""
    mail = state.found.get(state.record.offset)
    if mail is None:
        raise Hold("a report was not read in time")
    if isinstance(mail, Exception):
        raise mail
    settings = state.services.settings
    said = mail if isinstance(mail, feedback.Feedback) else feedback.read(mail)
    found = returned.match(report["rcpt_to"], said, settings.return_paths())
    if found.problem:
        yield _noted(report, said, found.problem, state)
        return
    id = found.message_id
    if REPORTS.key(report) != id:  # a feedback address has no lane of its own
        if report["message_id"]:
            yield _noted(report, said, "report-unmatched", state)
        else:
            yield REPORTS.send({**report, "message_id": id})
        return
    known: Ended | None = state.ended.get(id)
    if known is None:
        if (again := _again_at(report, id, state.now)) is None:
            yield _noted(report, said, "report-unmatched", state)
        else:
            state.early.put(reported.early_key(again, id, report["report_id"]), report)
        return
    yield from _act(report, said, found.clue, known, state)


def _act(report: Report, said: feedback.Feedback, clue: returned.Clue, known: Ended, state: View) -> Iterator[Output]:
    message, evidence, at = known["message"], report["report_id"], report["received_at"]
    place = f"{state.record.topic}@{state.record.offset}"
    before = state.reported.get(reported.key(message["message_id"], evidence))
    if before not in (None, place):
        return
    found = returned.outcome(said, clue, message["recipient"], known["kind"], evidence)
    if before is None:  # else it was decided before a crash, and may not have been told
        _keep(message["message_id"], evidence, place, state)
        _count(message, found, at, state)
    yield EVENTS.send(event(message, found.kind, at, NAME, **found.fields))
    detail = found.fields.get("detail", "")
    if found.complained:
        yield SUPPRESSIONS.send(suppression.complained(message, at, evidence, detail, found.fields["reason"]))
    elif found.bounce_class is not None:
        entry = suppression.bounced(message, found.fields["reason"], found.bounce_class, at, evidence, detail)
        if entry is not None:
            yield SUPPRESSIONS.send(entry)


def _count(message: Any, found: returned.Outcome, at: int, state: View) -> None:
    """A message counts once, however many reports tell of it; one that had bounced was counted then."""
    kind = found.kind
    if kind == "reported" or state.reported.get(reported.key(message["message_id"], kind)) is not None:
        return
    _keep(message["message_id"], kind, "", state)
    what = "complained" if found.complained else found.bounce_class
    if what == "complained":
        mail.step(what, message)
    if what in ("complained", "hard", "soft"):
        reputation.count(state, message, what, at)  # where it had left from


def _keep(message_id: str, what: str, place: str, state: View) -> None:
    state.reported.put(reported.key(message_id, what), place, state.now + reported.KEPT_MS)


def _again_at(report: Report, id: str, now: int) -> int | None:
    """When to look again whether a message has its end: after as long as it was waited for. None where it is forgotten, or was
    never ours."""
    try:
        known_until = ids.accepted_at(id) + ended.KEPT_MS
    except ValueError:
        return None
    waited = max(0, now - report["received_at"])
    if now > max(known_until, report["received_at"] + HOUR_MS):
        return None
    return now + min(max(waited, AGAIN_FIRST_MS), AGAIN_MOST_MS)


def look_again(state: View) -> Iterator[Output]:
    """Reports that came before their message had its end, and whose time has come, are written once more."""
    for key, report in state.early.scan(limit=AGAIN_AT_ONCE):
        if reported.early_at(key) > state.now:
            return
        state.early.delete(key)
        yield REPORTS.send(report)


def _noted(report: Report, said: feedback.Feedback, problem: str, state: View) -> Output:
    tenant = returned.tenant_of(said, state.services.settings.feedback_id)
    what = said.complaint.feedback_type if said.complaint else said.kind
    detail = f"{what} to {report['rcpt_to']} from {report['peer'] or report['mail_from'] or '<>'}"
    return EVENTS.send(noted(tenant, report["received_at"], NAME, f"report:{report['report_id']}:{problem}",
                             reason=problem, rule=said.rule, detail=detail, evidence=report["report_id"]))  # fmt: skip
