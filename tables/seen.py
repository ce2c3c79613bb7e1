"""suppress: the last round of each message that was let through, so that a repeat stops here. Key: message id. Kept until
the message has expired, and a day longer."""

from __future__ import annotations

from tables.values import to_int
from topics.state import Table

KEPT_MS = 86_400_000  # beyond the message's expiry
ENDED = 1 << 31  # instead of a round, for a message that had its end here: no round of it passes any more

SEEN: Table[int] = Table(2, "seen", to_int, int, expires=True)
