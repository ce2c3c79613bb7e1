"""Complaints: RFC 5965 (ARF), 6591 (authentication failures), 6650, and what providers wrote before and beside it."""

from typing import cast, get_args

from postroad.feedback import words
from postroad.feedback.dsn import address
from postroad.feedback.model import Complaint, FeedbackType, Original
from postroad.feedback.original import mailboxes
from postroad.feedback.parts import Parts
from postroad.reading import HEADER_MAX

_RECIPIENT_FIELDS = ("original-rcpt-to", "removal-recipient", "original-recipient")
# Outlook (JMRP) puts the recipient that it took out of the message into a header of the message.
_ORIGINAL_FIELDS = ("x-hmxmroriginalrecipient", "x-original-recipient", "x-rcpt-to", "x-original-to")
_SAME = {
    "opt-out-list": "opt-out",
    "spam": "abuse",
    "complaint": "abuse",
    "phishing": "fraud",
    "not_spam": "not-spam",
    "dmarc": "auth-failure",
}


def of_report(parts: Parts, original: Original) -> Complaint:
    """From a message/feedback-report part."""
    fields = _fields(parts.feedback)

    def first(name: str) -> str:
        return next(iter(fields.get(name, [])), "")[:500]

    told = [address(value) for name in _RECIPIENT_FIELDS for value in fields.get(name, [])]
    return Complaint(
        feedback_type=_type(first("feedback-type")),
        user_agent=first("user-agent"),
        source_ip=first("source-ip").strip("[]"),
        original_mail_from=address(first("original-mail-from")),
        original_rcpt_to=tuple(dict.fromkeys(filter(None, told)))[:100] or of_original(original),
        reported_domain=first("reported-domain"),
        arrival=first("arrival-date") or first("received-date"),
    )


def of_form(parts: Parts, original: Original) -> Complaint | None:
    """From a provider's own form: a message beside words that call it a complaint, or one with the provider's own header."""
    if "x-apple-unsubscribe" in parts.fields:  # the reader pressed a button, and the mail program wrote
        return Complaint("opt-out", original_rcpt_to=mailboxes(parts.fields.get("from", ""))[-1:])
    if not original.fields:
        return None
    marked = "x-hmxmroriginalrecipient" in original.fields
    if not marked and not words.COMPLAINT_SUBJECT.search(parts.subject[:200]):
        return None
    return Complaint("abuse", original_mail_from=original.return_path, original_rcpt_to=of_original(original))


def of_original(original: Original) -> tuple[str, ...]:
    """Who complained, as far as the reported message says: mail of ours has one recipient."""
    for name in _ORIGINAL_FIELDS:
        if found := address(original.fields.get(name, "")):
            return (found,)
    return original.recipients if len(original.recipients) == 1 else ()


def _type(value: str) -> FeedbackType:
    value = value.strip().lower()
    value = _SAME.get(value, value)
    return cast(FeedbackType, value) if value in get_args(FeedbackType) else "other"


def _fields(body: bytes) -> dict[str, list[str]]:
    """All values of each field; the report's fields may stand more than once (RFC 5965 3.2)."""
    found: dict[str, list[str]] = {}
    text = body[:HEADER_MAX].decode("utf-8", "replace").replace("\r\n", "\n").strip("\n")
    for line in text.replace("\n ", " ").replace("\n\t", " ").split("\n")[:1_000]:
        name, colon, value = line.partition(":")
        if colon and len(values := found.setdefault(name.strip().lower(), [])) < 100:
            values.append(" ".join(value.split()))
    return found
