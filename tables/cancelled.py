"""suppress, schedule: messages that are not to leave any more. Key: message id. Value: why. Kept for a week beyond the order."""

from __future__ import annotations

from topics.state import Table

KEPT_MS = 7 * 86_400_000

CANCELLED: Table[str] = Table(3, "cancelled", str.encode, bytes.decode, expires=True)
