"""For how long no mail of a partition left although one waited: from Kafka's times in front of send and the farm's receipts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Taken(NamedTuple):
    """One mail: where and when (ms) it came before send, and when a site took it."""

    partition: int
    appended: int
    received: int


class Pause(NamedTuple):
    """Nothing of a partition was taken from `begin` to `end` (ms), and a mail waited."""

    partition: int
    begin: int
    end: int

    @property
    def seconds(self) -> float:
        return (self.end - self.begin) / 1000


def match(appended: Mapping[str, Sequence[tuple[int, int]]], received: Mapping[str, int]) -> list[Taken]:
    """`appended`: partition and time of each record in front of send, by message; `received`: the first receipt of each. Of what came
    there more than once, the last time before it was taken."""
    found = []
    for message, at in received.items():
        before = [(when, partition) for partition, when in appended.get(message, ()) if when <= at]
        if before:
            when, partition = max(before)
            found.append(Taken(partition, when, at))
    return found


def pauses(taken: Iterable[Taken]) -> list[Pause]:
    """Between a receipt and the next one of its partition, from when on a mail waited."""
    by_partition: dict[int, list[Taken]] = defaultdict(list)
    for one in taken:
        by_partition[one.partition].append(one)
    found = []
    for partition, mails in by_partition.items():
        mails.sort(key=lambda one: one.received)
        waiting, last = [0] * len(mails), 1 << 62
        for n in range(len(mails) - 1, -1, -1):  # the first to come of those that are still to be taken
            waiting[n] = last = min(last, mails[n].appended)
        for n, one in enumerate(mails):
            begin = max(waiting[n], mails[n - 1].received if n else 0)
            if begin < one.received:
                found.append(Pause(partition, begin, one.received))
    return found


def joined(windows: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Those that overlap as one."""
    found: list[tuple[int, int]] = []
    for begin, end in sorted(windows):
        if found and begin <= found[-1][1]:
            found[-1] = found[-1][0], max(end, found[-1][1])
        else:
            found.append((begin, end))
    return found


def longest(found: Iterable[Pause], windows: Sequence[tuple[int, int]]) -> list[float]:
    """Of each partition in each window (ms) the longest pause that lies in it in part, seconds; those that had no mail are not told."""
    worst: dict[tuple[int, int], float] = {}
    for pause in found:
        for n, (begin, end) in enumerate(windows):
            if pause.begin <= end and pause.end >= begin:
                key = n, pause.partition
                worst[key] = max(worst.get(key, 0.0), pause.seconds)
    return sorted(worst.values())


def percentile(values: Sequence[float], share: float) -> float:
    """Of sorted values, the smallest that so many are not above; 0 where there are none."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0
