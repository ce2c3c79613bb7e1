"""Suppression: who gets no mail, and why. The decisions; the lists themselves are a table of the stage suppress."""

from __future__ import annotations

from typing import TypedDict

from avro.records import Message, Suppression, SuppressionReason

EVIDENCE_MAX = 20  # kept per entry, or as many as the threshold counts; more would say nothing new


class Listed(TypedDict):
    """One address on one list. `evidence`: what each count rests on; `active`: whether mail is stopped (a tenant may want
    more than one hard bounce for that); `at`, `expires_at`: ms, None for never."""

    reason: SuppressionReason
    evidence: list[str]
    active: bool
    at: int
    expires_at: int | None
    detail: str


def apply(listed: Listed | None, entry: Suppression, threshold: int) -> Listed | None:
    """The list's entry after `entry`; None where there is none. `threshold`: hard bounces that stop mail.

    The same evidence counts once, so a repeated record changes nothing. A complaint, an unsubscribe and a person's word
    stop mail at once.
    """
    if entry.get("action", "add") == "remove":
        return None
    before = listed["evidence"] if listed else []
    evidence = before if entry["evidence"] in before else [*before, entry["evidence"]][-max(EVIDENCE_MAX, threshold) :]
    stops = entry["reason"] != "hard_bounce" or len(evidence) >= threshold
    if listed and listed["active"] and not stops:
        return {**listed, "evidence": evidence}
    return {
        "reason": entry["reason"],
        "evidence": evidence,
        "active": stops,
        "at": entry["at"],
        "expires_at": entry.get("expires_at"),
        "detail": entry.get("detail", "")[:500],
    }


def stops(listed: Listed, now: int) -> bool:
    """Whether an entry stops mail at `now` (ms)."""
    return listed["active"] and (listed["expires_at"] is None or listed["expires_at"] > now)


def hard_bounce(message: Message, at: int, evidence: str, detail: str) -> Suppression:
    """The entry that a hard bounce makes on the tenant's list."""
    return {"recipient": message["recipient"], "tenant": message["tenant"], "action": "add", "reason": "hard_bounce",
            "at": at, "evidence": evidence, "detail": detail[:500]}  # fmt: skip
