"""send: what a source that warms up has sent to a site today. Key: site#shard, NUL, source. Kept two days."""

from __future__ import annotations

from typing import NamedTuple

from tables.values import packed
from topics.state import Table

KEPT_MS = 2 * 86_400_000


class Warmed(NamedTuple):
    """On a UTC day (days since 1970): messages tried, and those of them that hard bounced."""

    day: int
    used: int
    bounced: int


WARMUP: Table[Warmed] = Table(4, "warmup", *packed(Warmed, ">qqq"), expires=True)
