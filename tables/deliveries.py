"""send: what was tried, so that a message that comes twice is not sent twice. Key: message id, colon, round. Value: the
outcome in a word. Kept until the message has expired, and a day longer."""

from __future__ import annotations

from topics.state import Table

KEPT_MS = 86_400_000  # beyond the message's expiry

DELIVERIES: Table[str] = Table(2, "deliveries", str.encode, bytes.decode, expires=True)
