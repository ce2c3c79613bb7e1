"""send: the last try of each message, so that a message that comes twice is not sent twice. Key: message id. Kept until the
message has expired, and a day longer."""

from __future__ import annotations

from typing import NamedTuple

from tables.values import packed
from topics.state import Table

KEPT_MS = 86_400_000  # beyond the message's expiry


class Tried(NamedTuple):
    """The last round that was tried or parked, and whether an MX has taken the message."""

    round: int
    delivered: bool


DELIVERIES: Table[Tried] = Table(2, "deliveries", *packed(Tried, ">i?"), expires=True)
