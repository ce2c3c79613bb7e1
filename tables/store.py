"""The durable state of one stage: all its tables in one RocksDB and one changelog per partition, told apart by key prefix.

The order of writes around it, and what a crash or a frozen worker leaves: topics/guarantees.md.

A write is the changes of whole input records, of every table, together with the progress in the source that they came from
(pure stage: the highest source offset whose outputs and changes are complete; effect stage: see topics/effects.py). It goes
out as ONE Kafka record batch, which the broker appends as a whole or not at all, and into RocksDB as one write batch. So
there is no half-written change to recognise: a record at or below its mark is finished, one above it has changed nothing.
(A source offset in each value, the usual way to tell, breaks with two sources: after a crash in the middle of A's changes a
record of B may change the same key first, and A's offset is gone from it.) A write that does not fit one record batch is
refused before anything is sent (`Store.room`); the runner then takes fewer input records at a time.

One writer: every changelog record carries the writer's epoch in a header, deletions too. The first write after a partition
was taken over is a claim, the next higher epoch, and must land exactly behind the last record that recovery has read; so
must every write after it, else `Overtaken`. What a frozen worker still writes after the next owner's claim has a lower
epoch: readers ignore it. (A source offset would not do: a frozen worker is ahead in A and knows nothing of what its
successor made of B.) Compaction knows no epochs and may keep such a record as the last one of its key. So readers note the
keys, and the next claim writes their right values again; for that time min.compaction.lag.ms of a changelog is a day.

A deletion is a plain Kafka tombstone with that header: gone from RocksDB at once, from the log by compaction.
"""

from __future__ import annotations

import logging
import re
import struct
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import faust
import rocksdict

from topics.consumer import OFFSET_KEY
from topics.outputs import BATCH_OVERHEAD, Outputs, size_of
from topics.state import Table, View, is_expired

log = logging.getLogger(__name__)

# Keys of ours begin with a zero byte, those of a table with its number.
MARK, EPOCH, STALE = b"\0mark", b"\0epoch", b"\0stale"
NO_EPOCH = bytes(4)
EPOCH_HEADER = [("e", NO_EPOCH)]  # as every record has, for its size
MARKS_BYTES = 64 << 10  # kept free in a write for progress: an effect stage's is up to 16 KiB a source
SWEEP_KEYS = 2500  # looked at in one turn of the expiry sweep: 3 ms
SWEEP_BYTES = 192 << 10  # of its deletions: an effect stage has half a write for them
#: compaction must leave a frozen writer's records and our claim apart for as long as a freeze can last
CHANGELOG_MAX_BYTES = 1 << 20
CHANGELOG_CONFIG = {"min.compaction.lag.ms": "86400000", "max.message.bytes": str(CHANGELOG_MAX_BYTES)}
_offset = struct.Struct(">q")


class Overtaken(RuntimeError):
    """Another worker wrote to our changelog partition: one of us was frozen. Start again, recovery sorts it out."""


def mark_key(source: int) -> bytes:
    """Key of the progress in a source; `source` is the number of the topic in the stage's list, for life."""
    return MARK + bytes((source,))


def take(records: Iterable[Any], epoch: bytes) -> list[tuple[bytes, bytes | None]]:
    """What changelog records, in log order, do to a RocksDB that has seen `epoch`: (key, value or None) in order."""
    changes: list[tuple[bytes, bytes | None]] = []
    before = epoch
    for record in records:
        its: bytes = record.headers[0][1]
        if its < epoch:
            changes.append((STALE + record.key, b""))
        else:
            epoch = its  # a higher one: its claim comes first
            changes.append((record.key, record.value))
    if epoch != before:
        changes.append((EPOCH, epoch))  # the claim itself may be compacted away
    return changes


class Rocks:
    """A partition's RocksDB as a `topics.state.Database`."""

    def __init__(self, db: rocksdict.Rdict):
        self.db = db

    def get(self, key: bytes) -> bytes | None:
        return self.db.get(key)  # type: ignore[no-any-return]  # rocksdict in raw mode: bytes

    def items(self, first: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        return list(islice(self.db.items(from_key=first), limit))  # an iterator is never kept: it pins what it reads


def open_or_put_aside(open: Callable[[int], Any], path: Callable[[int], Path], partition: int) -> Any:
    """The RocksDB of a partition. Files that RocksDB cannot read (a torn disk, somebody's hand) are put aside under another
    name, and recovery fills a new one from the changelog; without that every start would fail in the same way."""
    try:
        return open(partition)
    except Exception as exc:  # rocksdict has no class for it
        if not re.search("corrupt|no such file|invalid argument", str(exc), re.IGNORECASE):
            raise  # a lock of the process before, a full disk: files are sound
        aside = path(partition).with_name(f"{path(partition).name}.broken-{time.time_ns() // 1_000_000}")
        path(partition).rename(aside)
        log.error("RocksDB of partition %d cannot be opened and is rebuilt from the changelog; its files are in %s: %s",
                  partition, aside, exc)  # fmt: skip
        return open(partition)


class Store:
    """The physical table of a stage; bytes in, bytes out, except through a `View`.

    `max_bytes`: max.message.bytes of its changelog. Memory is bounded: per partition `cache_mib` of block cache and two write
    buffers of `write_buffer_mib`, and in Python `cache_entries` decoded values of tables that are cached, dropped all at once
    when there are more.
    """

    max_bytes = CHANGELOG_MAX_BYTES

    def __init__(
        self,
        app: faust.App,
        tables: Sequence[Table[Any]],
        partitions: int,
        *,
        cache_mib: int = 8,
        write_buffer_mib: int = 4,
        cache_entries: int = 20_000,
    ):
        raw = faust.Schema(key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
        self.app, self.cache_entries, self._partitions = app, cache_entries, partitions
        self.tables = {table.number: table for table in tables}
        self.table = app.Table(
            "state", partitions=partitions, key_type=bytes, value_type=bytes, schema=raw,
            extra_topic_configs=CHANGELOG_CONFIG, options={
                "driver": "rocksdict", "block_cache_size": cache_mib << 20, "write_buffer_size": write_buffer_mib << 20,
                "max_write_buffer_number": 2, "max_open_files": 64,
            },
        )  # fmt: skip
        self._cache: dict[int, dict[bytes, Any]] = {}
        self._claimed: dict[int, bytes] = {}  # partition -> the epoch that is ours
        self._swept: dict[int, bytes] = {}  # partition -> where the expiry sweep goes on
        data = self.table.data
        data._open_for_partition = partial(open_or_put_aside, data._open_for_partition, data.partition_path)
        self.table.on_recover(self._on_recover)
        self.table.take_from_changelog = lambda partition, records: take(records, self.epoch(partition))

    async def _on_recover(self) -> None:
        self._cache.clear()

    @property
    def topic(self) -> str:
        """Full name of the changelog."""
        return str(self.table.changelog_topic.get_topic_name())

    @property
    def changelog(self) -> tuple[str, int, dict[str, str]]:
        """Its name, partitions and settings."""
        return self.topic, self._partitions, CHANGELOG_CONFIG

    def _db(self, partition: int) -> rocksdict.Rdict:
        return self.table.data._db_for_partition(partition)

    def databases(self) -> dict[int, rocksdict.Rdict]:
        """Those that are open, by partition."""
        return dict(self.table.data._dbs)

    def database(self, partition: int) -> Rocks:
        return Rocks(self._db(partition))

    def epoch(self, partition: int) -> bytes:
        """The highest epoch that recovery has read."""
        return self._db(partition).get(EPOCH) or NO_EPOCH

    def is_ours(self, partition: int) -> bool:
        """Nobody else has written since our last write, as far as recovery has read."""
        return self._claimed.get(partition) == self.epoch(partition)

    def progress(self, partition: int, source: int) -> bytes | None:
        """Progress in a source as it was written."""
        return self._db(partition).get(mark_key(source))  # type: ignore[no-any-return]  # rocksdict in raw mode: bytes

    def mark(self, partition: int, source: int) -> int:
        """The highest source offset that is finished; -1 for none. For pure stages."""
        raw = self.progress(partition, source)
        return -1 if raw is None else int(_offset.unpack(raw)[0])

    def view(self, partition: int) -> View:
        """The partition's state for the time of one write."""
        cache = self._cache.setdefault(partition, {})
        if len(cache) > self.cache_entries:
            cache.clear()
        return View(self.tables, self.database(partition), cache, partition)

    def expired(self, partition: int, now: int) -> list[bytes]:
        """Keys whose time is over, among the next few thousand of the tables with expiry, and no more than SWEEP_BYTES of
        them: one turn of a sweep that goes round for ever. Empty at the end of a round."""
        numbers = sorted(number for number, table in self.tables.items() if table.expires)
        place = self._swept.get(partition) or bytes((numbers[0],))
        found: list[bytes] = []
        size, items = 0, self.database(partition).items(place, SWEEP_KEYS)
        self._swept[partition] = items[-1][0] + b"\0" if len(items) == SWEEP_KEYS else b""
        for key, value in items:
            table = self.tables.get(key[0])
            if table is not None and table.expires and is_expired(value, now):
                size += size_of(key, None, EPOCH_HEADER)
                if found and size > SWEEP_BYTES:
                    self._swept[partition] = key
                    break
                found.append(key)
        return found

    # -- writing ---------------------------------------------------------------------------------------------------
    def room(self, outputs: Outputs) -> int:
        """Bytes of changes that one write takes."""
        return outputs.limit(self.topic) - MARKS_BYTES

    @staticmethod
    def size(entries: Mapping[bytes, bytes | None]) -> int:
        """Upper bound of the bytes that changes take in the changelog."""
        each = size_of(None, None, EPOCH_HEADER) * len(entries)
        return BATCH_OVERHEAD + each + sum([len(key) + len(value or b"") for key, value in entries.items()])

    async def write(self, partition: int, entries: dict[bytes, bytes | None], outputs: Outputs,
                    progress: Mapping[int, bytes | int]) -> None:  # fmt: skip
        """All of it or nothing. `entries`: changes of tables, None deletes; `progress`: per source, a mark or as it is."""
        for source, reached in progress.items():
            entries[mark_key(source)] = _offset.pack(reached) if isinstance(reached, int) else reached
        if not self.is_ours(partition):
            await self._claim(partition, outputs)
        await self._append(partition, entries, outputs)

    async def _claim(self, partition: int, outputs: Outputs) -> None:
        db, epoch = self._db(partition), self.epoch(partition)
        epoch = (int.from_bytes(epoch, "big") + 1).to_bytes(4, "big")
        await self._append(partition, {EPOCH: epoch}, outputs, epoch)
        self._claimed[partition] = epoch
        stale = list(takewhile(lambda key: key.startswith(STALE), db.keys(from_key=STALE)))
        right: dict[bytes, bytes | None] = {}
        size = 0
        for key in [key[len(STALE) :] for key in stale]:
            value = db.get(key)
            size += size_of(key, value, EPOCH_HEADER)
            if right and size + BATCH_OVERHEAD > outputs.limit(self.topic):
                await self._append(partition, right, outputs, done=[STALE + done for done in right])
                right, size = {}, size_of(key, value, EPOCH_HEADER)
            right[key] = value
        if right:
            await self._append(partition, right, outputs, done=[STALE + done for done in right])

    async def _append(self, partition: int, entries: Mapping[bytes, bytes | None], outputs: Outputs,
                      epoch: bytes | None = None, done: Sequence[bytes] = ()) -> None:  # fmt: skip
        db = self._db(partition)
        headers = [("e", self.epoch(partition) if epoch is None else epoch)]
        known = db.get(OFFSET_KEY)
        expected = 0 if known is None else int(known) + 1
        base = await outputs.send(self.topic, partition, [(k, v, headers, None) for k, v in entries.items()])
        if base != expected:
            raise Overtaken(f"{self.topic}[{partition}]: wrote at {base}, knew the log up to {expected}")
        write = rocksdict.WriteBatch(raw_mode=True)
        for key, value in entries.items():
            if value is None:
                write.delete(key)
            else:
                write.put(key, value)
        for key in done:
            write.delete(key)
        write.put(OFFSET_KEY, b"%d" % (base + len(entries) - 1))
        db.write(write)
