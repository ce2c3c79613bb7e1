"""send: where each egress source, and each tenant, stands with each site by what its replies have said. Key: site#shard, NUL, source;
of a tenant: site#shard, NUL, NUL, tenant. Value: postroad.shaping.automatic.Standing. Kept until it says nothing any more."""

from __future__ import annotations

from postroad.shaping.automatic import FOR_MAX_S, Standing
from topics.state import Table

# What a standing may still tell after its last change: an action held as long as one may be, and the recovery from it.
KEPT_MS = 2 * FOR_MAX_S * 1000

SHAPING: Table[Standing] = Table(3, "shaping", Standing.pack, Standing.unpack, expires=True)


def source_key(place: bytes, source: str) -> bytes:
    """Of a source; `place`: site#shard, as the record's key."""
    return place + b"\0" + source.encode()


def tenant_key(place: bytes, tenant: str) -> bytes:
    """Of a tenant."""
    return place + b"\0\0" + tenant.encode()
