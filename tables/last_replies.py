"""classify: what was said to the last try of a message that waits, for the event of an end that is found where nothing is said:
it expires while it waits, or an operator ends it. Key: message id. Kept for a day beyond the message's own time.
"""

from __future__ import annotations

from typing import TypedDict, cast

from avro.records import Message
from postroad.events import TEXT_MAX, Fields
from tables.values import shape, to_json
from topics.state import Table, View

KEPT_MS = 86_400_000


class LastReply(TypedDict):
    """Fields of an event, and which try it was: "round:attempt"."""

    source: str
    mx_host: str
    mx_address: str
    reply_code: int
    enhanced_code: str
    reply: str
    tls: str
    tried: str


LAST_REPLIES: Table[LastReply] = Table(
    2, "last_replies", to_json, shape(LastReply, {"tried": ""}), expires=True, cached=False
)


def kept(message: Message, fields: Fields) -> LastReply:
    """What is kept of the fields of an attempt's event."""
    return {
        "source": fields.get("source", ""), "mx_host": fields["mx_host"],
        "mx_address": fields["mx_address"], "reply_code": fields["reply_code"], "enhanced_code": fields["enhanced_code"],
        "reply": fields["reply"][:TEXT_MAX], "tls": fields["tls"], "tried": _try(message),
    }  # fmt: skip


def of(message_id: str, state: View) -> Fields:
    """What an event says of the last try, nothing where there was none."""
    found = dict(state.last_replies.get(message_id) or {})
    found.pop("tried", None)
    return cast(Fields, found)


def was_told(message: Message, state: View) -> bool:
    """Whether this very try was kept before: its record is read again, or is there twice."""
    known: LastReply | None = state.last_replies.get(message["message_id"])
    return known is not None and known["tried"] == _try(message)


def _try(message: Message) -> str:
    return f"{message['round']}:{message['attempt']}"
