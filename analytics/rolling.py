"""When the sink's rollups are made: the hours that rows went to are rolled within a minute, and on recovery.

No note is kept of what is still to be rolled. `recover` reads it from the rows: of each partition it takes the hours of all that was inserted
within WINDOW_S before the last row. That is enough because nobody writes on when an hour has waited for LATEST_S: `write`
rolls first. So what is older than the window was rolled, by whomever.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping

from analytics import rollups
from analytics.clickhouse import Warehouse

SOON_S, EVERY_S = 5.0, 60.0  # after the last roll: sooner where that took little
SHARE = 0.05  # of the time at most
LATEST_S = 300.0
WINDOW_S = 900  # LATEST_S, the time that a roll and a write may take, and clocks that differ


def pause(took_s: float) -> float:
    """How long to wait, after a roll that took so long, before the next."""
    return min(EVERY_S, max(SOON_S, took_s / SHARE))


class Rolling:
    """The hours that wait. Calls from several threads are fine; rows may go on coming while `roll` works."""

    def __init__(self, warehouse: Warehouse, clock: Callable[[], float] = time.monotonic) -> None:
        self._warehouse, self._clock = warehouse, clock
        self._waiting: dict[int, float] = {}  # since when
        self._lock, self._one = threading.Lock(), threading.Lock()

    def touch(self, hours: Iterable[int]) -> None:
        """Rows went to these hours (their first second): call it when they are there."""
        now = self._clock()
        with self._lock:
            for hour in hours:
                self._waiting.setdefault(hour, now)

    @property
    def late(self) -> bool:
        """Whether an hour waits for so long that nothing may be written before it is rolled."""
        with self._lock:
            return bool(self._waiting) and self._clock() - min(self._waiting.values()) > LATEST_S

    def roll(self) -> int:
        """Roll the hours that wait; returns how many. After WarehouseError they wait on."""
        with self._one:
            with self._lock:
                taken, self._waiting = self._waiting, {}
            try:
                rollups.roll(self._warehouse, taken)
            except BaseException:
                with self._lock:
                    self._waiting |= taken
                raise
            return len(taken)

    def recover(self, newest: Mapping[int, int]) -> None:
        """Roll what a life before this one may not have. `newest`: by partition when its last row was inserted, seconds since 1970."""
        if newest:
            found = self._warehouse.query(
                "SELECT DISTINCT toUInt32(toStartOfHour(ts)) FROM events WHERE has({partitions:Array(UInt16)}, k_partition)"
                " AND toUInt32(ingested_at) >= transform(k_partition, {partitions:Array(UInt16)}, {since:Array(UInt32)}, toUInt32(4294967295))",
                {"partitions": list(newest), "since": [max(0, at - WINDOW_S) for at in newest.values()]},
            )
            self.touch(hour for (hour,) in found.rows)
        self.roll()
