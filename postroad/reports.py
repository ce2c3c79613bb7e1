"""Reports that come back to a return path: delivery status notifications (RFC 3464).

Other forms of bounces, complaints and vacation replies give nothing here yet; the sender's timeline shows that mail came.
"""

from __future__ import annotations

from email import message_from_bytes, policy
from email.message import Message
from typing import NamedTuple

from postroad.addresses import key

MAX_RECIPIENTS = 100  # of one report; a DSN of ours has one


class Status(NamedTuple):
    """What a DSN says of one recipient. `action`: failed, delayed, delivered, relayed or expanded; `code`: RFC 3463;
    `original`: the recipient as the sender named it, where the report says so."""

    recipient: str
    action: str
    code: str
    diagnostic: str
    original: str = ""

    @property
    def failed_for_good(self) -> bool:
        """The recipient cannot be reached: RFC 3464 2.3.3 with a status of class 5."""
        return self.action == "failed" and self.code.startswith("5.")


def is_about(status: Status, recipient: str) -> bool:
    """Whether a status speaks of `recipient`: anyone who knows a return path can send a report there, about anyone."""
    return key(recipient) in (key(status.recipient), key(status.original))


def read(raw: bytes) -> list[Status]:
    """The recipients of the first message/delivery-status part; none where there is no such part. Any bytes do."""
    try:
        mail = message_from_bytes(raw, policy=policy.compat32)
        part = next((part for part in mail.walk() if part.get_content_type() == "message/delivery-status"), None)
        groups = part.get_payload() if part is not None else []
    except Exception:  # the library's parser fails in many ways on hostile mail, and none of them is a report
        return []
    if not isinstance(groups, list):
        return []
    found = [_status(group) for group in groups[:MAX_RECIPIENTS] if isinstance(group, Message)]
    return [status for status in found if status is not None]


def _status(group: Message) -> Status | None:
    original = _after_type(group, "Original-Recipient")
    recipient = _after_type(group, "Final-Recipient") or original
    if not recipient:  # the first group is about the message as a whole
        return None
    code = str(group.get("Status", "")).strip().split(" ", 1)[0]
    action = str(group.get("Action", "")).strip().lower()
    return Status(recipient, action, code, _after_type(group, "Diagnostic-Code")[:500], original)


def _after_type(group: Message, name: str) -> str:
    """A field's text behind its type: "rfc822; a@b" is "a@b"."""
    return " ".join(str(group.get(name, "")).rpartition(";")[2].split()).strip("<>")
