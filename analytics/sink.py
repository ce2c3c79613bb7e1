"""The events sink as plain code: records of mail.events become rows of `events`, each exactly once.

Every row carries its place in the topic. The rules, which need no atomic insert and no fixed batches:
 1. `recover` first waits until no INSERT of this group is under way (that of a dead client still lands), then reads how
    far rows reach at or above the committed offsets: the ceiling of each partition.
 2. `write` inserts what lies above the ceiling. What lies at or below it may be there: those places are looked up and
    what is there is left out. The ceiling rises with every write, so a batch may also be given twice.
 3. After an error of `write` its outcome is unknown, and `recover` is needed before the next `write`.
 4. The caller commits an offset only after `write` has returned.
Killed anywhere, the next life repeats at most what was not committed, and rule 2 drops what had arrived.

`messages` and `feedback` get their rows in the same `write`, of what was there already too: they may be repeated (analytics/messages.py). `hours` is
rolled by `roll`, which the caller calls about once a minute, and by `recover` (analytics/rolling.py).

A place that holds another event than the record says means that the topic was made anew under an old table. That raises
`PlaceTaken`: leaving such records out would lose them.

One call at a time (calls from several threads wait for each other). Cost of a look-up: one read of the columns
k_partition and k_offset, some 0.1 s for 20M rows; only after a restart, and only for batches at or below the ceiling. `roll` may
run beside the others.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import cast

import numpy as np

from analytics import columnar, messages
from analytics.clickhouse import Columns, Warehouse
from analytics.rolling import Rolling
from analytics.rollups import HOUR_S
from analytics.rows import MAX_DAYS, Rejected, Row, by_days, columns_of, identity, sift
from avro.records import Event
from postroad.masking import PLAIN, Masking
from topics.codec import Codec, DecodeError

TABLE = "events"
AT_ONCE = 20_000  # records read side by side: some 60 MB
DAY_S, DAYS = 86_400, 1 << 20  # more days than there are until 2106


class NotRecovered(RuntimeError):
    """`write` was called for a partition without `recover`, or after an error without it."""


class PlaceTaken(RuntimeError):
    """The table has another event at the place of a record: its topic was made anew. Trying again does not help."""


class Sink:
    """Writes events of one consumer group. `group` begins the query ids: two groups may share a server, not a table.

    Keep one Sink for the life of the process: a `write` whose waiter was cancelled goes on in its thread, and only `recover`
    of the same Sink waits for it.
    """

    def __init__(
        self, warehouse: Warehouse, group: str, now: Callable[[], float] = time.time, masking: Masking = PLAIN
    ) -> None:
        self._warehouse, self._now, self._masking = warehouse, now, masking
        self._prefix = f"{group}:"
        self._lock = threading.Lock()
        self._ceiling: dict[int, int] | None = None
        self._rolling = Rolling(warehouse)
        self._reader, self._codec = columnar.Reader(), Codec("Event")

    def recover(self, committed: Mapping[int, int]) -> None:
        """Find out what is there. `committed`: for every partition owned now the next offset that the group would read.

        Raises WarehouseError when the engine cannot tell; then it is needed again.
        """
        with self._lock:
            self._ceiling = None
            self._warehouse.quiesce(self._prefix)
            ceiling = {partition: offset - 1 for partition, offset in committed.items()}
            if ceiling:
                found = self._warehouse.query(
                    f"SELECT k_partition, max(k_offset), toUInt32(max(ingested_at)) FROM {TABLE}"
                    " WHERE has({partitions:Array(UInt16)}, k_partition) GROUP BY k_partition",
                    {"partitions": sorted(ceiling)},
                )
                ceiling |= {partition: max(ceiling[partition], offset) for partition, offset, _ in found.rows}
                self._rolling.recover({partition: newest for partition, _, newest in found.rows})
            self._ceiling = ceiling

    def write(self, rows: Sequence[tuple[int, int, Event | bytes]]) -> list[Rejected]:
        """Store (partition, offset, event) rows that are not there yet; returns those that cannot be stored at all. An event may be
        bytes: a record of our own schema without its header (topics/codec.py), which costs a fifth.

        Raises WarehouseError when the outcome is unknown, and NotRecovered when `recover` has to be called first.
        """
        with self._lock:
            ceiling, self._ceiling = self._ceiling, None  # stays away unless everything below succeeds
            if ceiling is None:
                raise NotRecovered("the outcome of the last write is unknown, or there was none: call recover first")
            if unknown := {partition for partition, _, _ in rows} - set(ceiling):
                raise NotRecovered(f"partitions {sorted(unknown)} were not in recover")
            if self._rolling.late:
                self._rolling.roll()
            rejected: list[Rejected] = []
            new: dict[tuple[int, int], bytes] = {}
            single: list[tuple[int, int, Event | bytes]] = []
            for row in rows:
                partition, offset, event = row
                if isinstance(event, bytes) and offset > ceiling[partition]:
                    new[partition, offset] = event
                else:
                    single.append(row)
            written, items = list[tuple[int, int]](), iter(new.items())
            while part := dict(islice(items, AT_ONCE)):
                written += self._write_new(part, single)
            written += self._write_single(single, ceiling, rejected)
            for partition, offset in written:
                if offset > ceiling[partition]:
                    ceiling[partition] = offset
            self._ceiling = ceiling
            return rejected

    def _write_new(
        self, new: Mapping[tuple[int, int], bytes], single: list[tuple[int, int, Event | bytes]]
    ) -> list[tuple[int, int]]:
        """Store what can be read column by column; the rest is added to `single`. Returns the places stored."""
        columns, read = self._reader.read(list(new.values()), self._masking)
        days = np.unique(np.asarray(columns["ts"]) // DAY_S * DAYS + np.asarray(columns["accepted_at"]) // DAY_S)
        kept = read.tolist() if len(days) <= MAX_DAYS else []
        places = list(new)
        if len(kept) < len(places):
            left = set(range(len(places))).difference(kept)
            single += [(*places[number], new[places[number]]) for number in sorted(left)]
            places = [places[number] for number in kept]
        if places:
            at = np.array(places)
            now = np.full(len(places), int(self._now()))
            self._insert({"k_partition": at[:, 0], "k_offset": at[:, 1], "ingested_at": now, **columns})
        return places

    def _write_single(
        self,
        rows: Sequence[tuple[int, int, Event | bytes]],
        ceiling: Mapping[int, int],
        rejected: list[Rejected],
    ) -> list[tuple[int, int]]:
        """Store what has to be looked at one by one. Returns the places stored."""
        events: list[Row] = []
        for partition, offset, event in rows:
            try:
                told = self._codec.of_body(event) if isinstance(event, bytes) else event
                events.append((partition, offset, cast("Event", told)))
            except DecodeError as error:
                rejected.append(Rejected(partition, offset, str(error)))
        good, bad = sift(events)
        rejected += bad
        places = {(partition, offset): (partition, offset, event) for partition, offset, event in good}
        below = [row for (partition, offset), row in places.items() if offset <= ceiling[partition]]
        there = [(place, places.pop(place)) for place in self._present(below)] if below else []
        for part in by_days(list(places.values())) if places else ():
            self._insert(columns_of(part, int(self._now()), self._masking))
        for part in by_days([row for _, row in there]) if there else ():
            self._insert_messages(columns_of(part, 0))
        return list(places)

    def roll(self) -> int:
        """Bring `hours` up to date; returns how many of them were behind. Raises WarehouseError; then the next call does it."""
        return self._rolling.roll()

    def _insert(self, columns: Columns) -> None:
        self._warehouse.insert(TABLE, columns, self._query_id())
        self._rolling.touch((np.unique(np.asarray(columns["ts"]) // HOUR_S) * HOUR_S).tolist())
        self._insert_messages(columns)

    def _insert_messages(self, columns: Columns) -> None:
        newest = messages.columns_of(columns)
        if len(newest["version"]):
            self._warehouse.insert(messages.TABLE, newest, self._query_id())
        came_back = messages.feedback_of(columns)
        if len(came_back["at"]):
            self._warehouse.insert(messages.FEEDBACK_TABLE, came_back, self._query_id())

    def _query_id(self) -> str:
        return f"{self._prefix}{uuid.uuid4()}"

    def _present(self, rows: list[Row]) -> list[tuple[int, int]]:
        """Which places of `rows` the table has. Raises PlaceTaken where it has another event there."""
        wanted = {(partition, offset): identity(event) for partition, offset, event in rows}
        present = []
        for partition in {partition for partition, _ in wanted}:
            offsets = [offset for owner, offset in wanted if owner == partition]
            found = self._warehouse.query(
                f"SELECT k_offset, message_id, kind, round, attempt FROM {TABLE} WHERE k_partition = {{partition:UInt16}}"
                " AND k_offset >= {low:UInt64} AND k_offset <= {high:UInt64}",
                {"partition": partition, "low": min(offsets), "high": max(offsets)},
            )
            for offset, *there in found.rows:
                place = (partition, offset)
                if place not in wanted:
                    continue
                if wanted[place] != tuple(there):
                    raise PlaceTaken(
                        f"table {self._warehouse.database}.{TABLE} has event {tuple(there)} at partition {partition}, offset {offset},"
                        f" the topic has {wanted[place]}: the topic was made anew. Give the sink a new database, or empty that table"
                    )
                present.append(place)
        return list(dict.fromkeys(present))
