"""send: the rate of each site. Key: site#shard, NUL, source. Value: theoretical arrival time in ms (GCRA). Kept a day."""

from __future__ import annotations

from tables.values import from_number, to_number
from topics.state import Table

KEPT_MS = 86_400_000

RATE_LIMITS: Table[float] = Table(1, "rate_limits", to_number, from_number, expires=True)
