"""classify: messages that an MX has taken, for what comes back later. Key: message id. Value: what an event needs of it.
Kept for a week after the delivery: most bounces come within hours, RFC 5321 4.5.4.1 gives 4 to 5 days."""

from __future__ import annotations

from avro.records import Message
from tables.values import from_json, to_json
from topics.state import Table

KEPT_MS = 7 * 86_400_000
FIELDS = ("message_id", "tenant", "submission_id", "stream", "accepted_at", "recipient", "recipient_domain", "sender",
          "return_path", "expires_at", "tags", "attempt", "round", "route")  # fmt: skip

DELIVERED: Table[Message] = Table(1, "delivered", to_json, from_json, expires=True)


def kept(message: Message) -> Message:
    """The part of a message that is kept: not its content."""
    part = {name: message[name] for name in FIELDS}  # type: ignore[literal-required]  # names of Message, all of them
    return {**part, "content": {"hash": "", "size": message["content"]["size"]}}  # type: ignore[typeddict-item]  # as above
