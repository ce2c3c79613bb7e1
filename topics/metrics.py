"""What a stage tells about itself. The runner calls these hooks; who wants figures gives a `Metrics` of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from faust.types import TP


class Metrics:
    """Counts per stage, in memory: records, outputs, dead, passed_over, held, parts, cycles, performed, flagged, ...

    As of the last look (topics/stall.py): `lag`, records not yet committed by source partition, and `waiting`, how many
    partitions wait on purpose, by what for; by source partition that has such records, in Unix time, `oldest`, when the batch of the
    first was written, and `committed`, when its offset moved last. `queued`: how many records of each key wait, of who has queues by key.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lag: dict[TP, int] = {}
        self.waiting: Counter[str] = Counter()
        self.oldest: dict[TP, float] = {}
        self.committed: dict[TP, float] = {}
        self.queued: Callable[[], Mapping[bytes, int]] = dict

    def count(self, what: str, n: int = 1) -> None:
        """`n` more of `what`."""
        self.counts[what] += n

    def batch(self, records: int, seconds: float) -> None:
        """One batch of `records` was finished `seconds` after its first step."""
        self.counts["records"] += records
        self.counts["batches"] += 1
