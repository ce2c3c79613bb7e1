"""schedule: another send-at for a message that is not there yet. Key: message id. Value: the time in ms. Kept for a week."""

from __future__ import annotations

from tables.values import to_int
from topics.state import Table

KEPT_MS = 7 * 86_400_000

RESCHEDULED: Table[int] = Table(8, "rescheduled", to_int, int, expires=True)
