"""What came back: which message a report is about, and what follows from it. Decisions only; agents/reports.py acts.

Who knows a return path can send anything there, and anybody can send to a feedback address. So a message is known by what we have
signed, and a bounce counts against a recipient where the report speaks of that recipient, or names nobody at all.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

from avro.records import EventKind
from postroad.addresses import key
from postroad.bounces import BounceClass
from postroad.events import Fields
from postroad.feedback import Complaint, Feedback, Recipient
from postroad.returnpath import Forged, ReturnPathError, ReturnPaths, named

COMPLAINTS = frozenset(
    {"abuse", "fraud", "opt-out"}
)  # a person wants no more of it; the others say something of the mail

Clue = Literal["", "return-path", "mark", "message-id"]


class Match(NamedTuple):
    """The message that a report is about, and what told it; else `problem`: report-forged or report-unmatched."""

    message_id: str = ""
    clue: Clue = ""
    problem: str = ""


class Outcome(NamedTuple):
    """What follows: the event, with its `fields`. `bounce_class`: of a bounce of the recipient; `complained`: by the recipient."""

    kind: EventKind
    fields: Fields
    bounce_class: BounceClass | None = None
    complained: bool = False


def match(rcpt_to: str, said: Feedback, ours: ReturnPaths) -> Match:
    """By the return path that a report came to; at any other address by what stands in it, the surest first."""
    try:
        return Match(ours.message_of(rcpt_to), "return-path")
    except ReturnPathError:
        if named(rcpt_to):
            return Match(problem="report-forged")
    original, complaint = said.original, said.complaint
    clues: list[tuple[Clue, Callable[[str], str], str]] = [
        ("return-path", ours.message_of, original.return_path),
        ("return-path", ours.message_of, complaint.original_mail_from if complaint else ""),
        ("mark", ours.message_of_mark, original.mark),
        ("message-id", ours.message_of_message_id, original.message_id),
    ]
    problem = "report-unmatched"
    for clue, read, text in clues:
        try:
            return Match(read(text), clue)
        except Forged:
            problem = "report-forged"
        except ReturnPathError:  # it is none of ours: the next one may be
            pass
    return Match(problem=problem)


def tenant_of(said: Feedback, installation: str) -> str:
    """The tenant that the reported mail's Feedback-ID names, unsigned: to show, and no more. Empty where it is none of ours."""
    parts = said.original.feedback_id.split(":")
    return parts[2] if len(parts) == 4 and parts[3].strip() == installation else ""


def outcome(said: Feedback, clue: Clue, recipient: str, end: EventKind, evidence: str) -> Outcome:
    """What a report comes to for the message of `recipient` that has ended so."""
    fields: Fields = {"reason": said.kind, "rule": said.rule, "evidence": evidence}
    if said.complaint is not None:
        told = said.complaint
        fields["reason"] = told.feedback_type
        fields["detail"] = " ".join(filter(None, (told.user_agent, told.source_ip)))
        if told.feedback_type in COMPLAINTS and _is_of(said, told, clue, recipient):
            return Outcome("complained", fields, complained=True)
        return Outcome("reported", fields)
    failed = [each for each in said.recipients if each.action in ("failed", "")]
    if said.kind != "bounce" or not failed:
        return Outcome("reported", fields)
    about = _about(failed, recipient)
    if about is None:
        fields["reason"] = "bounce-of-another"
        fields["detail"] = ", ".join(each.address or each.original for each in failed)
        return Outcome("reported", fields)
    fields |= {
        "reason": about.judgement.reason, "rule": about.judgement.rule, "bounce_class": about.judgement.bounce_class,
        "enhanced_code": about.status, "reply_code": about.reply_code, "detail": about.diagnostic,
    }  # fmt: skip
    if clue == "message-id":  # in archives and replies for all to see
        return Outcome("reported", fields)
    if end == "bounced":
        return Outcome("reported", fields, about.judgement.bounce_class)
    return Outcome("late_bounce", fields, about.judgement.bounce_class)


def _is_of(said: Feedback, told: Complaint, clue: Clue, recipient: str) -> bool:
    """Whether a complaint may act on `recipient`. A Message-ID can be read in archives and replies: of it, only an ARF report does
    that has the message and names nobody of another domain (within one, RFC 6590 takes local parts out)."""
    if clue != "message-id":
        return True
    domains = {key(each).rpartition("@")[2] for each in told.original_rcpt_to}
    own = key(recipient).rpartition("@")[2]
    return said.rule == "arf" and "message-id" in said.original.fields and domains <= {own}


def _about(failed: list[Recipient], recipient: str) -> Recipient | None:
    """What is said of `recipient`; of nobody by name, as where addresses are taken out, it is of the one whose mail it was."""
    found = next((each for each in failed if each.is_about(recipient)), None)
    if found is None and not any("@" in each.address or "@" in each.original for each in failed):
        return failed[0]
    return found
