"""What an endpoint is told of an event.

    {"type": "message.bounced", "timestamp": "2026-11-23T08:00:00.123Z", "data": {
        "event_id": ..., "message_id": ..., "submission_id": ..., "stream": "transactional", "recipient": ..., "attempt": 1,
        "reason": "user-unknown", "bounce_class": "hard", "reply_code": 550, "enhanced_code": "5.1.1", "reply": ...,
        "tags": [...], "metadata": {...}}}

What is empty is left out. `late` (true): a bounce that came after the 250. `next_try_at`: of deferred. `possible_duplicate`: the
receiver of the mail may have it twice. Types, and the kinds of event they are made of: `TYPES`.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from avro.records import Event, EventKind, Notification, Webhook

TYPES: dict[EventKind, str] = {
    "delivered": "message.delivered",
    "bounced": "message.bounced",
    "late_bounce": "message.bounced",
    "deferred": "message.deferred",
    "complained": "message.complained",
    "dropped": "message.dropped",
    "expired": "message.expired",
}
SUPPRESSED = "message.suppressed"  # dropped, since its recipient is on a list
TEST = "webhook.test"
NAMES = (*dict.fromkeys(TYPES.values()), SUPPRESSED)
BODY_MAX = 64 << 10  # bytes; a larger one goes without metadata and tags
_SAME = ("event_id", "message_id", "submission_id", "stream", "recipient", "attempt", "reason", "bounce_class", "reply_code",
         "enhanced_code", "reply", "possible_duplicate", "tags", "metadata")  # fmt: skip


def type_of(event: Event) -> str:
    """The type of an event; empty for one that no endpoint is told of."""
    if event["kind"] == "dropped" and event.get("reason") == "suppressed":
        return SUPPRESSED
    return TYPES.get(event["kind"], "")


def body(event: Event, type: str) -> str:
    """What is sent and signed."""
    data: dict[str, Any] = {name: found for name in _SAME if (found := event.get(name))}
    if event["kind"] == "late_bounce":
        data["late"] = True
    if event["kind"] == "deferred" and (until := event.get("due_at")):
        data["next_try_at"] = _time(until)
    text = _json(type, event["at"], data)
    if len(text) <= BODY_MAX:
        return text
    return _json(type, event["at"], {name: found for name, found in data.items() if name not in ("tags", "metadata")})


def notification(webhook: Webhook, type: str, text: str, event_id: str, now: int) -> Notification:
    """To be delivered from `now` (ms) on. Its id is a function of the event's, without dots, which the signature puts between its parts."""
    return {
        "notification_id": "evt_" + hashlib.sha256(event_id.encode()).hexdigest()[:32],
        "webhook_id": webhook["webhook_id"], "tenant": webhook["tenant"], "type": type, "at": now, "body": text,
    }  # fmt: skip


def test_of(webhook: Webhook, event_id: str, now: int) -> Notification:
    """An event that says nothing, to see whether the endpoint takes it."""
    text = _json(TEST, now, {"webhook_id": webhook["webhook_id"], "event_id": event_id})
    return notification(webhook, TEST, text, event_id, now)


def _json(type: str, at: int, data: dict[str, Any]) -> str:
    return json.dumps(
        {"type": type, "timestamp": _time(at), "data": data}, separators=(",", ":")
    )  # ASCII: characters are bytes


def _time(at: int) -> str:
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
