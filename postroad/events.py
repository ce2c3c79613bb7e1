"""Events: one step of one message, as analysts and webhooks see it."""

from typing import TypedDict, Unpack

from avro.records import Attempt, Ending, EndKind, Event, EventKind, Message
from postroad.bounces import Verdict

ENDS: frozenset[EventKind] = frozenset({"delivered", "bounced", "dropped", "rejected", "expired", "cancelled"})
"""Every accepted message reaches exactly one of these."""

FEEDBACK: frozenset[EventKind] = frozenset({"reported", "complained", "late_bounce"})
"""What came back after an end: no step of the message."""

NO_STEPS = FEEDBACK | {"noted"}

TEXT_MAX = 500  # characters of detail and reply

_WITH_METADATA = ENDS | {"accepted"}  # the producer's own values: once at the start, once at the end


class Fields(TypedDict, total=False):
    """What a stage may add to an event; what it leaves out is empty, or comes from the message."""

    reason: str
    rule: str
    detail: str
    attempt: int
    source: str
    mx_host: str
    mx_address: str
    reply_code: int
    enhanced_code: str
    reply: str
    tls: str
    duration_ms: int
    possible_duplicate: bool
    due_at: int | None
    shaping: str
    phases: dict[str, int]
    bounce_class: str
    evidence: str


def event(message: Message, kind: EventKind, at: int, stage: str, **fields: Unpack[Fields]) -> Event:
    """The event that `stage` took step `kind` with `message` at `at` (ms).

    Site, pool and source come from the message's route when it has one; `attempt` is the message's unless given. Feedback is named
    by its evidence as well: a message may have several of a kind.
    """
    message_id = message["message_id"]
    round = message.get("round", 0)
    attempt = fields.get("attempt", message.get("attempt", 0))
    made: Event = {
        "event_id": f"{message_id}:{kind}:{round}:{attempt}{_of_evidence(kind, fields)}",
        "message_id": message_id,
        "tenant": message["tenant"],
        "submission_id": message["submission_id"],
        "stream": message["stream"],
        "kind": kind,
        "at": at,
        "accepted_at": message["accepted_at"],
        "round": round,
        "attempt": attempt,
        "recipient": message["recipient"],
        "recipient_domain": message.get("recipient_domain", ""),
        "stage": stage,
        "size": message["content"]["size"] + len(message.get("top", b"")),
        "tags": message.get("tags", []),
    }
    route = message.get("route")
    if route:
        made["site"] = route["site"]
        made["pool"] = route["pool"]
        made["source"] = route["source"]
    if kind in _WITH_METADATA:
        made["metadata"] = message.get("metadata", {})
    if fields:
        made.update(fields)  # type: ignore[typeddict-item]  # Fields is a part of Event; mypy cannot see it
        if "detail" in fields:
            made["detail"] = fields["detail"][:TEXT_MAX]
        if "reply" in fields:
            made["reply"] = fields["reply"][:TEXT_MAX]
    return made


def noted(tenant: str, at: int, stage: str, event_id: str, recipient: str = "", **fields: Unpack[Fields]) -> Event:
    """An event about no message, such as an address that came on a list. `event_id`: the same for the same thing, noted again;
    `tenant`: empty for all of them."""
    made: Event = {
        "event_id": event_id, "message_id": "", "tenant": tenant, "submission_id": "", "stream": "transactional", "kind": "noted",
        "at": at, "accepted_at": at, "recipient": recipient, "recipient_domain": recipient.rpartition("@")[2], "stage": stage,
    }  # fmt: skip
    made.update(fields)  # type: ignore[typeddict-item]  # as in `event`
    if "detail" in fields:
        made["detail"] = fields["detail"][:TEXT_MAX]
    return made


def _of_evidence(kind: EventKind, fields: Fields) -> str:
    return f":{fields['evidence']}" if kind in FEEDBACK and fields.get("evidence") else ""


def ending(
    message: Message, kind: EndKind, at: int, stage: str, reason: str, rule: str = "", detail: str = ""
) -> Ending:
    """What `stage` found to be the end of `message` at `at` (ms)."""
    bare: Message = {**message, "content": {**message["content"], "inline": None}}
    return {
        "message": bare,
        "kind": kind,
        "at": at,
        "stage": stage,
        "reason": reason,
        "rule": rule,
        "detail": detail[:TEXT_MAX],
    }


def attempted(attempt: Attempt, verdict: Verdict) -> Fields:
    """What an attempt adds to the event that follows from it: who was spoken to, from where and how, the reply, what it means and
    by which rule, and what it set off."""
    fields: Fields = {
        "reason": verdict.reason, "rule": verdict.rule, "attempt": attempt["message"].get("attempt", 0) + 1,
        "mx_host": attempt.get("mx_host", ""), "mx_address": attempt.get("mx_address", ""),
        "reply_code": attempt.get("reply_code", 0), "enhanced_code": attempt.get("enhanced_code", ""),
        "reply": attempt.get("reply", ""), "tls": attempt.get("tls", ""), "duration_ms": attempt["duration_ms"],
        "possible_duplicate": attempt.get("possible_duplicate", False), "shaping": attempt.get("shaping", ""),
        "phases": attempt.get("phases", {}),
    }  # fmt: skip
    if verdict.outcome in ("hard", "soft"):
        fields["bounce_class"] = verdict.outcome
    if decision := attempt.get("decision"):
        fields["detail"] = f"set off the shaping rule {decision}"
    if source := attempt.get("source"):
        fields["source"] = source  # the route's was taken, or another, where that was over its limits
    return fields
