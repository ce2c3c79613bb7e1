"""classify: messages that have had their end, so that there is one, and for what comes back later. Key: message id. Value: the
end, and what an event needs of the message. Kept for a week: most bounces come within hours, RFC 5321 4.5.4.1 gives 4 to 5
days."""

from __future__ import annotations

from typing import TypedDict

import avro
from avro.records import EventKind, Message
from tables.values import fitted, shape, to_json
from topics.state import Table

KEPT_MS = 7 * 86_400_000
FIELDS = ("message_id", "tenant", "submission_id", "stream", "accepted_at", "recipient", "recipient_domain", "sender",
          "return_path", "expires_at", "tags", "attempt", "round", "route")  # fmt: skip


class Ended(TypedDict):
    """The end, the message without its content, and the record that the end was decided by: "topic@offset"."""

    kind: EventKind
    message: Message
    by: str


# defaults: for a message that was kept before one of FIELDS was among them
_defaults = {f["name"]: f["default"] for f in avro.load("Message")["fields"] if f["name"] in FIELDS and "default" in f}
_entry, _message = shape(Ended, {"by": ""}), fitted(Message, _defaults)


def _decode(raw: bytes) -> Ended:
    entry = _entry(raw)
    return {"kind": entry["kind"], "message": _message(entry["message"]), "by": entry["by"]}


ENDED: Table[Ended] = Table(1, "ended", to_json, _decode, expires=True)


def kept(kind: EventKind, message: Message, by: str = "") -> Ended:
    """The entry of a message that ended so, decided by a record."""
    part = {name: message[name] for name in FIELDS}  # type: ignore[literal-required]  # names of Message, all of them
    bare: Message = {**part, "content": {"hash": "", "size": message["content"]["size"]}}  # type: ignore[typeddict-item]  # as above
    return {"kind": kind, "message": bare, "by": by}
