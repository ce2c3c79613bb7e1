"""Reports that come back to a return path: delivery status notifications (RFC 3464).

Other forms of bounces, complaints and vacation replies give nothing here yet; the sender's timeline shows that mail came.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

from postroad.addresses import key
from postroad.reading import HEADER_MAX, PARTS_MAX, header_fields, leaves

MAX_RECIPIENTS = 100  # of one report; a DSN of ours has one
STATUS_MAX = 256 * 1024  # bytes of the part that tells of them

_EMPTY_LINES = re.compile(rb"\r?\n(?:[ \t]*\r?\n)+")


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
    """The recipients of the first message/delivery-status part; none where there is no such part. Any bytes do, and the
    work is bounded: the library's parser takes 15 s for a megabyte of parts in one another."""
    for fields, begin, end in islice(leaves(raw), PARTS_MAX):
        if fields.get("content-type", "").partition(";")[0].strip().lower() == "message/delivery-status":
            groups = _EMPTY_LINES.split(raw[begin : min(end, begin + STATUS_MAX)].lstrip(), MAX_RECIPIENTS)
            found = [_status(header_fields(group[:HEADER_MAX])[0]) for group in groups[:MAX_RECIPIENTS]]
            return [status for status in found if status is not None]
    return []


def _status(group: Mapping[str, str]) -> Status | None:
    original = _after_type(group, "original-recipient")
    recipient = _after_type(group, "final-recipient") or original
    if not recipient:  # the first group is about the message as a whole
        return None
    code = group.get("status", "").strip().split(" ", 1)[0]
    action = group.get("action", "").strip().lower()
    return Status(recipient, action, code, _after_type(group, "diagnostic-code")[:500], original)


def _after_type(group: Mapping[str, str], name: str) -> str:
    """A field's text behind its type: "rfc822; a@b" is "a@b"."""
    return " ".join(group.get(name, "").rpartition(";")[2].split()).strip("<>")
