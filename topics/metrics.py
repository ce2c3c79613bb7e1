"""What a stage tells about itself. The runner calls these hooks; who wants figures gives a `Metrics` of its own."""

from __future__ import annotations

from collections import Counter

from faust.types import TP


class Metrics:
    """Counts per stage, in memory: records, outputs, dead, passed_over, held, parts, cycles, performed, flagged, ...

    As of the last look (topics/stall.py): `lag`, records not yet committed by source partition, and `waiting`, how many
    partitions wait on purpose, by what for.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lag: dict[TP, int] = {}
        self.waiting: Counter[str] = Counter()

    def count(self, what: str, n: int = 1) -> None:
        """`n` more of `what`."""
        self.counts[what] += n

    def batch(self, records: int, seconds: float) -> None:
        """One batch of `records` was finished `seconds` after its first step."""
        self.counts["records"] += records
        self.counts["batches"] += 1
