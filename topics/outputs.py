"""Outputs of one input batch: built per partition, sent as whole record batches, confirmed before anything depends on them."""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from functools import cache, lru_cache
from typing import Any, NamedTuple, TypeAlias

from aiokafka.errors import MessageSizeTooLargeError, OutOfOrderSequenceNumber, RecordListTooLargeError

TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
NO_HEADERS: list[tuple[str, bytes]] = []  # aiokafka's C builder takes a list only (faust.md 25)
BATCH_OVERHEAD = 64  # upper bound of a record batch without its records
RECORD_OVERHEAD = 128  # upper bound of batch header and varints around one record


class OutputTooLarge(ValueError):
    """One output record exceeds its topic's max.message.bytes: raised while its input is still at hand."""


#: One record to be written: key, value, headers, and what names the input that it came from. A plain tuple: a named one
#: takes 0.3 us more to make.
Record: TypeAlias = tuple[bytes | None, bytes | None, list[tuple[str, bytes]], Hashable]


class Refused(NamedTuple):
    """A record that its topic will never take, as only the broker's answer has told."""

    topic: str
    partition: int
    record: Record
    error: Exception


def murmur2(data: bytes) -> int:
    """Kafka's murmur2: the same as aiokafka.partitioner.murmur2 at half its cost (2 to 4 us a key)."""
    n, m = len(data), 0x5BD1E995
    h = 0x9747B28C ^ n
    for k in _words(n >> 2).unpack_from(data):
        k = k * m & 0xFFFFFFFF
        k ^= k >> 24
        h = (h * m ^ k * m) & 0xFFFFFFFF
    if n & 3:
        h = ((h ^ int.from_bytes(data[n & ~3 :], "little")) * m) & 0xFFFFFFFF
    h ^= h >> 13
    h = h * m & 0xFFFFFFFF
    return h ^ h >> 15


@cache
def _words(n: int) -> struct.Struct:
    return struct.Struct(f"<{n}I")


@lru_cache(maxsize=100_000)
def partition_for(key: bytes, partitions: int) -> int:
    """Kafka's default partitioner: where the Java client and librdkafka's murmur2_random put the key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def size_of(key: bytes | None, value: bytes | None, headers: Iterable[tuple[str, bytes]] = ()) -> int:
    """Upper bound in bytes of one record in a record batch."""
    size = len(key or b"") + len(value or b"") + 32
    for name, text in headers:
        size += len(name) + len(text) + 8
    return size


class Outputs:
    """Collects records per (topic, partition). `refused`: those that the broker did not take at the last `deliver`.

    `partitions`: partition count per full topic name; `max_bytes`: max.message.bytes per full topic name, as the broker has it.
    """

    def __init__(self, producer: Any, partitions: Mapping[str, int], max_bytes: Mapping[str, int]):
        self.producer, self.partitions, self.max_bytes = producer, partitions, max_bytes
        self.pending: dict[tuple[str, int], list[Record]] = defaultdict(list)
        self.refused: list[Refused] = []
        self.spans: list[
            Any
        ] = []  # topics.trace.Span, of inputs that are traced: they end when what they led to is written

    def add(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        source: Hashable,
        headers: Iterable[tuple[str, bytes]] = (),
    ) -> None:
        """Queue one record. Raises OutputTooLarge when the topic would refuse it."""
        if len(value or b"") + len(key) + RECORD_OVERHEAD > self.max_bytes[topic]:
            raise OutputTooLarge(f"{len(value or b'')} bytes for {topic}, which takes {self.max_bytes[topic]}")
        self.pending[topic, partition_for(key, self.partitions[topic])].append(
            (key, value, list(headers) if headers else NO_HEADERS, source)
        )

    def drop(self, source: Hashable) -> None:
        """Take back what an input record has added so far: it failed half-way."""
        for items in self.pending.values():
            while items and items[-1][3] == source:
                items.pop()

    async def deliver(self) -> None:
        """Return when the broker has confirmed every record except those in `refused`; any other error is raised."""
        pending, self.pending, self.refused = self.pending, defaultdict(list), []
        work = [self._deliver(topic, partition, items) for (topic, partition), items in pending.items() if items]
        if len(work) == 1:
            await work[0]
        elif work:
            await asyncio.gather(*work)

    async def _deliver(self, topic: str, partition: int, items: list[Record]) -> None:
        refused: list[Record] = []
        for chunk in self._chunks(topic, items):
            try:
                await self.send(topic, partition, chunk)
            except TOO_LARGE:  # the topic's limit has become smaller since we asked
                refused += chunk
        for item in refused:  # one by one, so that only the culprits stay out
            try:
                await self.send(topic, partition, [item])
            except TOO_LARGE as exc:
                self.refused.append(Refused(topic, partition, item, exc))

    def limit(self, topic: str) -> int:
        """Bytes of one record batch that `topic` takes and the producer makes."""
        return min(self.max_bytes[topic], int(self.producer.max_batch_size))

    def _chunks(self, topic: str, items: list[Record]) -> Iterator[list[Record]]:
        limit, size = self.limit(topic), 0
        chunk: list[Record] = []
        for item in items:
            key, value, headers, _ = item
            add = len(key or b"") + len(value or b"") + 32  # `size_of`, without the call
            for name, text in headers:
                add += len(name) + len(text) + 8
            if chunk and size + add + BATCH_OVERHEAD > limit:
                yield chunk
                chunk, size = [], 0
            chunk.append(item)
            size += add
        yield chunk

    async def send(self, topic: str, partition: int, items: list[Record]) -> int:
        """One record batch, appended by the broker as a whole or not at all; returns its base offset."""
        while True:
            with self.producer.using() as producer:
                builder = producer.create_batch()
                for key, value, headers, _ in items:
                    if builder.append(timestamp=None, key=key, value=value, headers=headers) is None:
                        raise AssertionError("chunk exceeds the batch size")
                try:
                    return int((await (await producer.send_batch(builder, topic, partition=partition))).offset)
                except TOO_LARGE:
                    await self.producer.renew(producer)
                    raise
                except OutOfOrderSequenceNumber:  # another lane's batch was refused before ours
                    await self.producer.renew(producer)
