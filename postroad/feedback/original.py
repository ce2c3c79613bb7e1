"""What the returned or reported message says of itself. RFC 5322; Feedback-ID as Google reads it."""

import re

from postroad.feedback.model import Original
from postroad.reading import HEADER_MAX, header_fields

MARK_HEADER = "X-Postroad-Id"
_MAILBOX = re.compile(r"(?<![^\s<>;:,\"'(\[])[^\s<>;:,\"'()\[\]@]{1,128}@[^\s<>;:,\"'()\[\]@]{1,255}")
_ID = re.compile(r"<\s*([^<>\s]{1,500})\s*>")
_MARK_MAX = 256 * 1024  # bytes of a report that are searched for our mark


def read(data: bytes, raw: bytes, mark_header: str) -> Original:
    """From the returned message (or its header) `data`; the mark also from anywhere in the report `raw`."""
    fields = header_fields(data.lstrip(b"\r\n \t")[:HEADER_MAX])[0] if data else {}
    mark = fields.get(mark_header.lower(), "").partition(" ")[0]
    if not mark and (at := raw[:_MARK_MAX].lower().find(mark_header.lower().encode() + b":")) >= 0:
        line = raw[at + len(mark_header) + 1 : at + len(mark_header) + 300]
        mark = line.split(b"\n", 1)[0].strip().partition(b" ")[0].decode("utf-8", "replace")
    message_id = fields.get("message-id", "")
    found = _ID.search(message_id)
    return Original(
        message_id=found[1] if found else message_id.strip().partition(" ")[0][:500],
        feedback_id=fields.get("feedback-id", "")[:500],
        mark=mark[:200],
        return_path=first_mailbox(fields.get("return-path", "")),
        sender=first_mailbox(fields.get("from", "")),
        recipients=mailboxes(", ".join(fields.get(name, "") for name in ("to", "cc"))),
        fields=fields,
    )


def mailboxes(value: str) -> tuple[str, ...]:
    """The addresses of a header field, each once, at most a hundred."""
    return tuple(dict.fromkeys(found.strip(".") for found in _MAILBOX.findall(value[:20_000])))[:100]


def first_mailbox(value: str) -> str:
    """The first address of a header field, the one in angle brackets before any in a name; empty where there is none."""
    bracket = value.rfind("<")
    found = mailboxes(value[bracket:]) if bracket >= 0 else ()
    found = found or mailboxes(value)
    return found[0] if found else ""
