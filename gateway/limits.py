"""Rates over all replicas, without a lock: each replica counts what it let pass and tells the others, which count it as well.

A bucket holds what may pass at once and fills evenly; its level is the same sum everywhere, only what others took in the last tenth of a
second is missing. It may fall below zero by that much and then fills from there, so what passes over seconds is the rate, whoever let
it pass. `gateway/api/service.py` carries what is told through Kafka (control.rate-uses).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

BURST_S = 0.2  # a bucket holds so many seconds of its rate: more would let more than the rate pass over seconds
BURST_MIN = 2.0  # with less, the time until the next request comes is lost
KEPT = 100_000  # buckets; full ones go first


class Verdict(NamedTuple):
    """Whether a request may pass; how many more may at once; in how many seconds the next one may."""

    passes: bool
    left: int
    wait_s: float


class _Bucket:
    __slots__ = ("at", "level", "rate", "size")

    def __init__(self, rate: float, now: float) -> None:
        self.rate, self.at = rate, now
        self.size = self.level = max(BURST_MIN, rate * BURST_S)

    def fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.at) * self.rate)
        self.at = now


class Limits:
    """Buckets of subjects (tenants, keys). `rate_of`: a second, None for a subject that is not known."""

    def __init__(self, rate_of: Callable[[str], float | None], clock: Callable[[], float] = time.monotonic) -> None:
        self._rate_of, self._clock = rate_of, clock
        self._buckets: dict[str, _Bucket] = {}
        self._untold: Counter[str] = Counter()

    def take(self, *subjects: str) -> Verdict:
        """One more of each subject, or of none where one has to wait. The verdict is that of the scarcest."""
        now = self._clock()
        buckets = [bucket for subject in subjects if (bucket := self._bucket(subject, now)) is not None]
        scarcest = min(buckets, key=lambda bucket: (bucket.level - 1) / bucket.rate, default=None)
        if scarcest is None:
            return Verdict(True, 0, 0.0)
        if scarcest.level < 1:
            return Verdict(False, 0, (1 - scarcest.level) / scarcest.rate)
        for bucket in buckets:
            bucket.level -= 1
        self._untold.update(subjects)
        return Verdict(True, int(scarcest.level), max(0.0, (1 - scarcest.level) / scarcest.rate))

    def untold(self) -> dict[str, int]:
        """What passed here and was not told yet; it is told now."""
        told, self._untold = dict(self._untold), Counter()
        return told

    def heard(self, uses: Mapping[str, int]) -> None:
        """What another replica let pass."""
        now = self._clock()
        for subject, number in uses.items():
            if (bucket := self._bucket(subject, now)) is not None:
                bucket.level -= max(0, number)

    def _bucket(self, subject: str, now: float) -> _Bucket | None:
        rate = self._rate_of(subject)
        if rate is None:
            return None
        bucket = self._buckets.get(subject)
        if bucket is None or bucket.rate != rate:
            if len(self._buckets) >= KEPT:
                self._forget(now)
            bucket = self._buckets[subject] = _Bucket(rate, now)
        bucket.fill(now)
        return bucket

    def _forget(self, now: float) -> None:
        for bucket in self._buckets.values():
            bucket.fill(now)
        self._buckets = {subject: one for subject, one in self._buckets.items() if one.level < one.size}
