"""schedule: traces of messages that wait. Key: message id. Value: the headers with which they go on. Only what is traced has an entry."""

from __future__ import annotations

from avro.records import Message
from topics.state import Table, View
from topics.trace import ATTEMPT, HEADER

KEPT_MS = 86_400_000  # beyond the end of the message

TRACED: Table[bytes] = Table(9, "traced", bytes, bytes, expires=True, cached=False)


def keep(message: Message, state: View) -> None:
    """Where the record in work is traced."""
    if state.trace is not None:
        value = b" ".join(value for _, value in state.trace.headers)
        state.traced.put(message["message_id"], value, max(state.now, message["expires_at"]) + KEPT_MS)


def headers(message: Message, state: View) -> tuple[tuple[str, bytes], ...]:
    """Of the record with which it goes on."""
    kept: bytes = state.traced.get(message["message_id"]) or b""
    return tuple(zip((HEADER, ATTEMPT), kept.split(), strict=False))
