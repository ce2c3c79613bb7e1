"""Builders of events for the tests of this folder."""

from datetime import UTC, datetime

NOON_MS = int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp() * 1000)


def event(message="m1", kind="accepted", after_ms=0, **fields):
    """An event as fastavro decodes it: every field is there."""
    accepted_at = fields.pop("accepted_at", NOON_MS)
    round_, attempt = fields.get("round", 0), fields.get("attempt", 0)
    return {
        "event_id": f"{message}:{kind}:{round_}:{attempt}", "message_id": message, "tenant": "shop", "submission_id": "s1",
        "stream": "transactional", "kind": kind, "at": accepted_at + after_ms, "accepted_at": accepted_at, "round": 0,
        "attempt": 0, "recipient": "ann@example.org", "recipient_domain": "example.org", "stage": "ingest", "reason": "",
        "rule": "", "detail": "", "site": "", "pool": "", "source": "", "mx_host": "", "mx_address": "", "reply_code": 0,
        "enhanced_code": "", "reply": "", "tls": "", "duration_ms": 0, "possible_duplicate": False, "size": 0,
        "due_at": None, "tags": [], "metadata": {}, "shaping": "", "phases": {}, "bounce_class": "",
        "evidence": "", **fields,
    }  # fmt: skip


def rows(events, partition=0, first=0):
    """(partition, offset, event) as they stand in the topic."""
    return [(partition, first + number, each) for number, each in enumerate(events)]
