"""validate: where mail of a domain goes, as DNS said. Key: domain in A-labels. Kept for the answer's TTL."""

from __future__ import annotations

from topics.state import Table

MX_CACHE: Table[bytes] = Table(1, "mx_cache", bytes, bytes, expires=True)
"""The value is `postroad.dns.encode(answer)`."""
