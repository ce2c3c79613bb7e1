"""Records for tests of stages, whole and valid; a test names what matters to it."""

import hashlib
from collections.abc import Iterable
from typing import Any

from topics.catalogue import ENDINGS, EVENTS, Output, Topic

NOW = 1_700_000_000_000
HOUR_MS = 3_600_000
ID = "00clp7o1qs0123456789abcdg0"
RAW = b"From: a@acme.test\r\nTo: r@there.test\r\nMessage-ID: <1@acme.test>\r\nSubject: hi\r\n\r\nhello\r\n"


def content(raw: bytes = RAW) -> dict[str, Any]:
    """A content that travels inside its record."""
    return {"hash": hashlib.sha256(raw).hexdigest(), "size": len(raw), "inline": raw, "blob": None}


def message(**fields: Any) -> dict[str, Any]:
    """A message as ingest writes it."""
    recipient = fields.get("recipient", "r@there.test")
    return {
        "message_id": ID, "tenant": "acme", "submission_id": "s1", "stream": "transactional", "accepted_at": NOW,
        "recipient": recipient, "recipient_domain": recipient.rpartition("@")[2], "sender": "a@acme.test",
        "return_path": f"b-{fields.get('message_id', ID)}@acme.test", "content": content(), "expires_at": NOW + HOUR_MS,
        **fields,
    }  # fmt: skip


def route(**fields: Any) -> dict[str, Any]:
    """Where `message` goes."""
    return {
        "site": "there.test",
        "shard": 0,
        "hosts": ["mx1.there.test"],
        "pool": "default",
        "source": "default",
        **fields,
    }


def routed(**fields: Any) -> dict[str, Any]:
    """A message as route writes it."""
    return message(**{"route": route(), **fields})


def attempt(
    code: int = 250, text: str = "OK", enhanced: str = "", phase: str = "done", **fields: Any
) -> dict[str, Any]:
    """An attempt as send writes it."""
    return {
        "message": routed(), "at": NOW, "duration_ms": 5, "phase": phase, "reply_code": code, "enhanced_code": enhanced,
        "reply": text, "mx_host": "mx1.there.test", "mx_address": "127.0.0.11", **fields,
    }  # fmt: skip


def submission(*recipients: str, **fields: Any) -> dict[str, Any]:
    """A submission of plain text."""
    return {
        "tenant": "acme", "submission_id": "s1", "sender": {"address": "a@acme.test"}, "subject": "hi", "text": "hello\n",
        "recipients": [{"address": address} for address in recipients or ("r@there.test",)], **fields,
    }  # fmt: skip


def scheduled(due_at: int | None, reason: str = "retry", return_to: str = "scored", **fields: Any) -> dict[str, Any]:
    """What waits in schedule."""
    return {"message": message(**fields), "at": NOW, "due_at": due_at, "reason": reason, "return_to": return_to}


def decision(action: str, **fields: Any) -> dict[str, Any]:
    """What an operator says of `message`."""
    return {
        "message_id": ID,
        "recipient": "r@there.test",
        "action": action,
        "by": "op",
        "at": NOW,
        "reason": "so",
        **fields,
    }


def values(outputs: Iterable[Output], topic: Topic[Any]) -> list[Any]:
    """What went to a topic."""
    return [output.value for output in outputs if output.topic is topic]


def said(outputs: Iterable[Output]) -> list[Any]:
    """Events, and ends that classify is to write the event of, in order."""
    return [output.value for output in outputs if output.topic in (EVENTS, ENDINGS)]


def events(outputs: Iterable[Output]) -> list[tuple[str, str]]:
    """(kind, reason) of each."""
    return [(one["kind"], one.get("reason", "")) for one in said(outputs)]
