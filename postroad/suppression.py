"""Suppression: who gets no mail, and why. The decisions; the lists themselves are a table of the stage suppress.

An entry is made of what was said of an address, its claims, and of the time of its last removal. A claim counts when it is of
a later time than the removal, whatever came first in the topic; the same evidence is one claim, for good. So an entry is the
same in whatever order, and however often, its records are read: an old record that is replayed brings nothing back.

Soft bounces: so many messages within so many days. A delivery in between does not set the count back: platforms that count
bounces in a row do that, but it takes a record for every delivery, and whoever refuses five messages in two weeks for a full
or disabled mailbox is as well left alone. SES, SendGrid and Postmark do not count them at all: `soft_bounces_after` 0.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypedDict

from avro.records import Event, Message, Suppression, SuppressionEntry, SuppressionReason
from postroad import addresses
from postroad.bounces import BounceClass
from postroad.bounces.reasons import REASONS
from postroad.events import noted

EVIDENCE_MAX = 20  # kept of each reason, or as many as the threshold counts; more would say nothing new
THRESHOLD_MAX = 100  # of bounces; an entry is kept whole in memory and in one record
DAY_MS = 86_400_000
KEPT_MS = 400 * DAY_MS  # what does not stop mail: first bounces below the threshold, and what was removed

DETAIL_MAX, EVIDENCE_TEXT_MAX = 500, 200  # characters
TENANT = re.compile(r"[a-z0-9-]{0,64}")  # as postroad/tenants.py; empty: the global list

OPERATORS = frozenset(
    {"cli", "csv", ""}
)  # sources that may change the global list; "": an older release's command line
_OWN = frozenset({"classify", ""})  # sources whose bounces are counted; what others say stops mail at once
_GRAVITY: dict[SuppressionReason, int] = {
    "soft_bounces": 0, "manual": 1, "hard_bounce": 2, "unsubscribe": 3, "complaint": 4,
}  # fmt: skip


class Rules(NamedTuple):
    """A tenant's thresholds: messages that bounced hard; messages that bounced softly (0: never), within so many days."""

    hard: int = 1
    soft: int = 5
    days: int = 14


class Claim(TypedDict):
    """One thing that was said of an address. `at`, `expires_at`: ms, None for never."""

    reason: SuppressionReason
    evidence: str
    at: int
    expires_at: int | None
    source: str
    by: str
    cause: str
    detail: str
    message_id: str


class Listed(TypedDict):
    """One address on one list. `active`: whether it is in force (a tenant may want more than one hard bounce for that);
    `reason`, `at`, `expires_at`, `detail`: of the claim that stops mail, whose evidence is `stopped_by`; `evidence`: of all that
    count, oldest first; `claims`: all that is known, also what was removed; `removed_at`: ms, -1 for never.
    """

    reason: SuppressionReason
    evidence: list[str]
    active: bool
    at: int
    expires_at: int | None
    detail: str
    stopped_by: str
    claims: list[Claim]
    removed_at: int


ADDED_LATER: dict[str, Any] = {"stopped_by": "", "claims": [], "removed_at": -1}
"""Defaults of what Listed had not in the release before."""


def rules(tenant: Mapping[str, Any]) -> Rules:
    """Of a tenant (avro/Tenant.avsc), or of the global list: an empty dictionary."""
    return Rules(
        min(max(tenant.get("suppress_after", Rules().hard), 1), THRESHOLD_MAX),
        min(tenant.get("soft_bounces_after", Rules().soft), THRESHOLD_MAX),
        tenant.get("soft_bounces_days", Rules().days),
    )


# -- entries -----------------------------------------------------------------------------------------------------------


def bounced(
    message: Message, reason: str, bounce_class: BounceClass, at: int, evidence: str, detail: str
) -> Suppression | None:
    """The entry that a bounce makes on the tenant's list: of a hard one, and of a soft one whose reason says something of the
    mailbox (`REASONS[reason].action` is count). None where it says nothing of the address. `evidence`: id of the message or of
    the report."""
    if bounce_class == "hard":
        return _of(message, "hard_bounce", at, evidence, reason, detail)
    if bounce_class == "soft" and (known := REASONS.get(reason)) is not None and known.action == "count":
        return _of(message, "soft_bounces", at, evidence, reason, detail)
    return None


def complained(message: Message, at: int, evidence: str, detail: str, cause: str = "") -> Suppression:
    """The entry that a complaint makes on the tenant's list. `evidence`: id of the report; `cause`: its feedback type."""
    return _of(message, "complaint", at, evidence, cause, detail)


def _of(message: Message, reason: SuppressionReason, at: int, evidence: str, cause: str, detail: str) -> Suppression:
    return {
        "recipient": message["recipient"], "tenant": message["tenant"], "action": "add", "reason": reason, "at": at,
        "evidence": evidence, "detail": detail[:DETAIL_MAX], "source": "classify", "cause": cause,
        "message_id": message["message_id"],
    }  # fmt: skip


def check(entry: Suppression) -> str:
    """The address of an entry in its one form. Raises ValueError (BadAddress among them) where it cannot be, or must not be,
    taken."""
    tenant, source = entry.get("tenant", ""), entry.get("source", "")
    if not TENANT.fullmatch(tenant):
        raise ValueError(f"{tenant[:80]!r} is no tenant: 1 to 64 of a-z, 0-9 and hyphen; empty for the global list")
    if not tenant and source not in OPERATORS:
        raise ValueError(f"the global list is changed by operators alone, and this entry is of {source[:40]!r}")
    return addresses.normalise(entry["recipient"]).text.lower()


def dated(entry: Suppression, stamp: int) -> Suppression:
    """The entry with no later time than `stamp` (ms), when the broker took it: the clock of whoever said it may be ahead, and a
    removal of tomorrow would take off what is said until then."""
    return entry if 0 <= entry["at"] <= stamp else {**entry, "at": min(max(entry["at"], 0), stamp)}


# -- the list ----------------------------------------------------------------------------------------------------------


def apply(listed: Listed | None, entry: Suppression, rules: Rules) -> Listed:
    """The list's entry after `entry`, which may be one that stops nothing."""
    claims = {(each["reason"], each["evidence"]): each for each in _claims(listed)}
    removed_at = listed["removed_at"] if listed else -1
    if entry.get("action", "add") == "remove":
        removed_at = max(removed_at, entry["at"])
    else:
        said = _claim(entry)
        key = said["reason"], said["evidence"]
        claims[key] = min(claims.get(key, said), said, key=_order)
    return _listed(_newest(claims.values(), rules), removed_at, rules)


def stops(listed: Listed | None, now: int) -> bool:
    """Whether an entry stops mail at `now` (ms)."""
    return listed is not None and listed["active"] and (listed["expires_at"] is None or listed["expires_at"] > now)


def kept_until(listed: Listed, rules: Rules) -> int:
    """Until when (ms) an entry that stops nothing is remembered."""
    claims = listed["claims"]
    soft = listed["removed_at"] < 0 and all(each["reason"] == "soft_bounces" for each in claims)
    newest = max([each["at"] for each in claims] + [listed["removed_at"]])
    return newest + (max(rules.days, 1) * DAY_MS if soft else KEPT_MS)


def in_force(tenant: str, recipient: str, listed: Listed | None) -> SuppressionEntry | None:
    """What mail.suppressed has of an entry; None where it is not in force."""
    if listed is None or not listed["active"]:
        return None
    counted = _counted(_claims(listed), listed["removed_at"])
    of = listed["reason"], listed["stopped_by"]
    stopping = next((claim for claim in counted if (claim["reason"], claim["evidence"]) == of), counted[-1])
    return {
        "recipient": recipient, "tenant": tenant, "reason": listed["reason"], "since": counted[0]["at"], "at": listed["at"],
        "expires_at": listed["expires_at"], "source": stopping["source"], "by": stopping["by"],
        "cause": stopping["cause"], "detail": listed["detail"],
        "evidence": [{"evidence": c["evidence"], "reason": c["reason"], "at": c["at"], "source": c["source"],
                      "message_id": c["message_id"]} for c in counted],
    }  # fmt: skip


def change(entry: Suppression, recipient: str, listed: Listed, now: int, stage: str) -> Event:
    """The event that an address came on a list, or off it, by `entry`."""
    tenant, added = entry.get("tenant", ""), stops(listed, now)
    what, scope = "added" if added else "removed", "tenant" if tenant else "global"
    who = " ".join(filter(None, (entry.get("source", ""), entry.get("by", ""))))
    evidence = _evidence(entry["evidence"])
    by_what = f"{tenant}\0{recipient}\0{entry['reason']}\0{evidence}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha256(by_what).hexdigest()[:32]
    return noted(
        tenant, entry["at"], stage, f"suppression:{what}:{entry['at']}:{digest}", recipient,
        reason=f"suppression-{what}", rule=f"{scope}:{listed['reason'].replace('_', '-')}" if added else scope,
        detail=": ".join(filter(None, (f"by {who}" if who else "", entry.get("detail", "")))), evidence=evidence,
    )  # fmt: skip


def _claim(entry: Suppression) -> Claim:
    return {
        "reason": entry["reason"],
        "evidence": _evidence(entry["evidence"]),
        "at": entry["at"],
        "expires_at": entry.get("expires_at"),
        "source": entry.get("source", "")[:32],
        "by": entry.get("by", "")[:100],
        "cause": entry.get("cause", "")[:64],
        "detail": entry.get("detail", "")[:DETAIL_MAX],
        "message_id": entry.get("message_id", "")[:64],
    }


def _evidence(text: str) -> str:
    """Of a bounded length, and still another one for every text."""
    if len(text) <= EVIDENCE_TEXT_MAX:
        return text
    return f"{text[:100]}... {hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _claims(listed: Listed | None) -> list[Claim]:
    """What an older release has written knows only what is in force."""
    if listed is None or listed["claims"]:
        return listed["claims"] if listed else []
    return [
        {"reason": listed["reason"], "evidence": each, "at": listed["at"], "expires_at": listed["expires_at"], "source": "",
         "by": "", "cause": "", "detail": listed["detail"], "message_id": ""}
        for each in listed["evidence"] or [""] * listed["active"]
    ]  # fmt: skip


def _order(claim: Claim) -> tuple[Any, ...]:
    """Of two claims on the same evidence the first one counts; by all they say, so that no order of reading matters."""
    said = claim["source"], claim["by"], claim["cause"], claim["detail"], claim["message_id"]
    return claim["at"], _end(claim), *said


def _end(claim: Claim) -> float:
    return float("inf") if claim["expires_at"] is None else claim["expires_at"]


def _newest(claims: Iterable[Claim], rules: Rules) -> list[Claim]:
    """The newest of each reason, oldest first."""
    most = {"hard_bounce": max(EVIDENCE_MAX, rules.hard), "soft_bounces": max(EVIDENCE_MAX, rules.soft)}
    left: dict[str, int] = {}
    kept = []
    for claim in sorted(claims, key=lambda claim: (claim["at"], claim["reason"], claim["evidence"]), reverse=True):
        left[claim["reason"]] = left.get(claim["reason"], most.get(claim["reason"], EVIDENCE_MAX)) - 1
        if left[claim["reason"]] >= 0:
            kept.append(claim)
    return kept[::-1]


def _counted(claims: list[Claim], removed_at: int) -> list[Claim]:
    return [claim for claim in claims if claim["at"] > removed_at]


def _listed(claims: list[Claim], removed_at: int, rules: Rules) -> Listed:
    counted = _counted(claims, removed_at)
    stopping = max(_stopping(counted, rules), key=lambda c: (_end(c), _GRAVITY[c["reason"]], _order(c)), default=None)
    shown = stopping or next(reversed(counted or claims), None)
    return {
        "reason": shown["reason"] if shown else "manual",
        "evidence": [each["evidence"] for each in counted],
        "active": stopping is not None,
        "at": shown["at"] if shown else removed_at,
        "expires_at": shown["expires_at"] if shown else None,
        "detail": shown["detail"] if shown else "",
        "stopped_by": stopping["evidence"] if stopping else "",
        "claims": claims,
        "removed_at": removed_at,
    }


def _stopping(counted: list[Claim], rules: Rules) -> Iterator[Claim]:
    """The claims that stop mail. Of what people add by hand the last word counts."""
    manual = [claim for claim in counted if claim["reason"] == "manual"]
    yield from manual[-1:]
    bounces: dict[str, list[Claim]] = {"hard_bounce": [], "soft_bounces": []}
    for claim in counted:
        if claim["reason"] in bounces and claim["source"] in _OWN:
            bounces[claim["reason"]].append(claim)
        elif claim["reason"] != "manual":
            yield claim
    if _within(bounces["hard_bounce"], rules.hard, None):
        yield bounces["hard_bounce"][-1]
    if rules.soft and rules.days and _within(bounces["soft_bounces"], rules.soft, rules.days * DAY_MS):
        yield bounces["soft_bounces"][-1]


def _within(bounces: list[Claim], count: int, span_ms: int | None) -> bool:
    """Whether so many messages bounced within a time; several reports of one message are one bounce."""
    first: dict[str, int] = {}
    for claim in bounces:
        first.setdefault(claim["message_id"] or claim["evidence"], claim["at"])
    times = sorted(first.values())
    return any(
        span_ms is None or last - start <= span_ms for start, last in zip(times, times[count - 1 :], strict=False)
    )
