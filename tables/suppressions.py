"""suppress: who gets no mail. Key: tenant (empty: the global list), NUL, address in its one form. Kept until removed."""

from __future__ import annotations

from postroad import addresses
from postroad.suppression import Listed
from tables.values import shape, to_json
from topics.state import Table

SUPPRESSED: Table[Listed] = Table(1, "suppressed", to_json, shape(Listed))


def key(tenant: str, recipient: str) -> str:
    """Key of an address on a tenant's list."""
    return f"{tenant}\0{addresses.key(recipient)}"
