"""What a stage tells about itself. The runner calls these hooks; who wants figures gives a `Metrics` of its own."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Mapping

from faust.types import TP

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
RECORDS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)


class Histogram:
    """Observations by upper bound: `counts[i]` of those within `bounds[i]` and no bound before it, the last of the rest."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Metrics:
    """Counts per stage, in memory: records, outputs, dead, passed_over, held, parts, cycles, performed, flagged, ...

    As of the last look (topics/stall.py): `lag`, records not yet committed by source partition, and `waiting`, how many
    partitions wait on purpose, by what for; by source partition that has such records, in Unix time, `oldest`, when the batch of the
    first was written, and `committed`, when its offset moved last. `queued`: how many records of each key wait, of who has queues by key.

    `sizes` and `seconds`: records of each batch, and how long it took; of a stage of effects, how long each cycle took.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.lag: dict[TP, int] = {}
        self.waiting: Counter[str] = Counter()
        self.sizes, self.seconds = Histogram(RECORDS), Histogram(SECONDS)
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
        self.sizes.observe(records)
        self.seconds.observe(seconds)
