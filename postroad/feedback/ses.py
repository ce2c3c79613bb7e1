"""Notifications of Amazon SES, as its notification service mails them: JSON, a report inside of a report."""

import json
from typing import Any

from postroad.feedback.codes import reply_code
from postroad.feedback.codes import status as status_in
from postroad.feedback.dsn import UNJUDGED, judged
from postroad.feedback.model import MAX_DIAGNOSTIC, MAX_RECIPIENTS, Complaint, Feedback, Original, Recipient


def read(text: str) -> Feedback | None:
    """From a text that is a notification; None where it is none."""
    begin, end = text.find("{"), text.rfind("}")
    if begin < 0 or ("otificationType" not in text and "eventType" not in text):
        return None
    try:
        told = _dict(json.loads(text[begin : end + 1], strict=False))
        if isinstance(told.get("Message"), str):
            told = _dict(json.loads(told["Message"], strict=False))
        return _feedback(told)
    except (ValueError, RecursionError):
        return None


def _feedback(told: dict[str, Any]) -> Feedback | None:
    kind = str(told.get("notificationType") or told.get("eventType")).lower()
    mail = _dict(told.get("mail"))
    headers = {str(one.get("name")).lower(): str(one.get("value")) for one in map(_dict, _list(mail.get("headers")))}
    original = Original(
        message_id=headers.get("message-id", str(mail.get("messageId", ""))).strip("<> "),
        feedback_id=headers.get("feedback-id", ""),
        return_path=str(mail.get("source", "")),
        sender=str(mail.get("source", "")),
        recipients=tuple(map(str, _list(mail.get("destination")))),
        fields=headers,
    )
    if kind == "bounce":
        bounce = _dict(told.get("bounce"))
        people = [_recipient(_dict(one), bounce) for one in _list(bounce.get("bouncedRecipients"))]
        return Feedback("bounce", "ses", tuple(one for one in people if one.address), original=original)
    if kind == "complaint":
        said = _dict(told.get("complaint"))
        people_ = tuple(str(_dict(one).get("emailAddress", "")) for one in _list(said.get("complainedRecipients")))
        return Feedback(
            "complaint",
            "ses",
            complaint=Complaint(
                "abuse",
                str(said.get("userAgent", "")),
                original_rcpt_to=people_,
                arrival=str(said.get("arrivalDate", "")),
            ),
            original=original,
        )
    return Feedback("delay" if kind == "deliverydelay" else "other", "ses", original=original)


def _recipient(one: dict[str, Any], bounce: dict[str, Any]) -> Recipient:
    diagnostic = str(one.get("diagnosticCode", "")).removeprefix("smtp;").strip()[:MAX_DIAGNOSTIC]
    code = reply_code(diagnostic)
    status = str(one.get("status", ""))
    return judged(
        Recipient(
            str(one.get("emailAddress", "")).strip("<> "),
            UNJUDGED,
            action="failed",
            status=status if status[:1] in ("4", "5") else status_in(diagnostic, code),
            reply_code=code,
            diagnostic=diagnostic or f"{bounce.get('bounceType', '')} {bounce.get('bounceSubType', '')}".strip(),
        )
    )


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value[:MAX_RECIPIENTS] if isinstance(value, list) else []
