"""How far a partition is read: whether what a stage misses may stand in what it has not read yet."""

from __future__ import annotations

from collections import defaultdict
from typing import Any
from weakref import WeakKeyDictionary

from topics.state import View

BEHIND_MS = 60_000  # a record whose timestamp is older: we are catching up, and what we miss may stand in what comes
QUIET_MS = 20_000  # for so long nothing old was read: we have caught up


class _Reading:
    """The times (ms) when something old was read last, and of the last tick."""

    behind_at = ticked_at = 0


_readings: WeakKeyDictionary[Any, defaultdict[int, _Reading]] = WeakKeyDictionary()  # of the services of a process


def _of(state: View) -> _Reading:
    return _readings.setdefault(state.services, defaultdict(_Reading))[state.partition]


def is_old(state: View) -> bool:
    """Whether the present record shows that its partition is behind."""
    late: bool = state.now - state.record.timestamp > BEHIND_MS
    return late


def read(state: View) -> None:
    """The present record was read."""
    if is_old(state):
        _of(state).behind_at = state.now


def is_behind(state: View, tick_seconds: float) -> bool:
    """For a tick, which comes every so many seconds: whether anything old was read of late."""
    reading, now = _of(state), state.now
    if not 0 <= now - reading.ticked_at <= 3 * tick_seconds * 1000:  # the partition is new here, or the clock was set
        reading.behind_at = now
    reading.ticked_at = now
    return now - reading.behind_at < QUIET_MS
