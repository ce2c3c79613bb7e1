"""send: how much each source, and each tenant, has sent to a site. Key: site#shard, NUL, source; of a tenant: site#shard, NUL, NUL,
tenant. RATE_LIMITS: when the rate is paid off, ms (GCRA). WINDOWS: the last hour's and day's counts, where those have a cap."""

from __future__ import annotations

from tables.values import from_number, to_number
from topics.state import Table

KEPT_MS = 86_400_000
WINDOWS_KEPT_MS = 2 * 86_400_000

RATE_LIMITS: Table[float] = Table(1, "rate_limits", to_number, from_number, expires=True)
WINDOWS: Table[bytes] = Table(5, "windows", bytes, bytes, expires=True)
