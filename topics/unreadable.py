"""Fetched batches that aiokafka cannot unpack: contained, where aiokafka raises and would raise again at every start.

An outsider's producer may compress with what we lack, or name a header in bytes that are no UTF-8. What can be read of such
a batch is read; the rest comes as `Unreadable`, which the runners send to the dead letters. A wrong checksum is raised as
before: what was damaged on its way here is right when it is fetched again.

`install` is for the whole process: aiokafka's fetcher finds these classes as globals of its module.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy as Unpacked
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import (
    decode_varint_py as decode_varint,
)  # the one in C reads wherever a record's own lengths lead it

RAW_MAX = 1 << 20  # bytes of what cannot be read that its dead letter keeps
_start = struct.Struct(">qi")  # of a batch: base offset, length of what follows


@dataclass(frozen=True)
class Unreadable:
    """Stands for one record, or all those of a batch, that cannot be read; `offset` is the last one's. `raw`: the bytes in
    Kafka's own format, at most RAW_MAX of them. The rest is what aiokafka's records have, without a value."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    error: str
    raw: bytes
    key: None = None
    value: None = None
    headers: tuple[()] = ()
    timestamp_type: int = 0
    checksum: None = None
    serialized_key_size: int = -1
    serialized_value_size: int = -1


class Fetched(MemoryRecords):
    """Batches as they were fetched, with their bytes for a second look."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.data = data


class Contained(fetcher.PartitionRecords):
    """The records of one partition's fetch, none of which stops those behind it."""

    next_fetch_offset: int

    def _unpack_records(self) -> Iterator[Any]:
        while True:
            try:
                yield from super()._unpack_records()  # goes on behind the batch that it has broken off in
                return
            except MemoryError:
                raise
            except Exception as exc:
                batch = self._batch()
                if batch is None or not batch.validate_crc():
                    raise
                yield from self._second_look(batch, exc)

    def _batch(self) -> Unpacked | None:
        """The fetched batch of the next offset, in aiokafka's Python version, whose parts can be reached."""
        data, place = self._records.data, 0
        while place + _start.size <= len(data):
            end = place + _start.size + _start.unpack_from(data, place)[1]
            if end > len(data):
                break
            batch = Unpacked(data[place:end])
            if batch.next_offset > self.next_fetch_offset:
                return batch
            place = end
        return None

    def _second_look(self, batch: Unpacked, exc: Exception) -> Iterator[Any]:
        """Record by record; without an end of one to go on from, the rest as one."""
        error, raw = f"{type(exc).__name__}: {exc}", bytes(batch._buffer[:RAW_MAX])
        try:
            batch._maybe_uncompress()
            raw, count = b"", batch._num_records
        except Exception:
            count = 0
        for _ in range(count):
            place = batch._pos
            raw = bytes(batch._buffer[place : place + RAW_MAX])
            try:
                record = self._consumer_record(self._tp, batch._read_msg(decode_varint))
            except Exception as why:
                error = f"{type(why).__name__}: {why}"
                try:
                    size, place = decode_varint(batch._buffer, place)
                    _, at = decode_varint(batch._buffer, place + 1)  # behind the attributes: the timestamp
                    delta, _ = decode_varint(batch._buffer, at)
                except Exception:
                    break
                if size <= 0 or place + size > len(batch._buffer) or not 0 <= delta <= batch.last_offset_delta:
                    break
                batch._pos = place + size
                record = self._unreadable(batch, batch.base_offset + delta, error, raw[:size])
            if record.offset >= self.next_fetch_offset:
                self.next_fetch_offset = record.offset + 1
                yield record
        if self.next_fetch_offset < batch.next_offset and (count == 0 or batch._pos < len(batch._buffer)):
            first, last = self.next_fetch_offset, batch.next_offset - 1
            self.next_fetch_offset = batch.next_offset
            yield self._unreadable(batch, last, f"offsets {first} to {last}: {error}", raw)
        self.next_fetch_offset = batch.next_offset

    def _unreadable(self, batch: Unpacked, offset: int, error: str, raw: bytes) -> Unreadable:
        return Unreadable(self._tp.topic, self._tp.partition, offset, batch.max_timestamp, error, raw)


def install() -> None:
    """Every consumer of this process reads so from now on."""
    fetcher.MemoryRecords, fetcher.PartitionRecords = Fetched, Contained
