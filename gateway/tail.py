"""Every record of a topic, from a time on, handed over in the order of its partitions: how replicas of a door hear of each other.

Unlike topics.follower it keeps no values and starts where it is told; after an error it goes on behind what it has handed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from topics.catalogue import Topic
from topics.codec import DecodeError, RegistryUnavailable, UnknownSchema
from topics.installation import Installation
from topics.unreadable import Unreadable, install

log = logging.getLogger(__name__)
RETRY_S = 1.0
POLL_MS = 1_000
TURN = 500  # records after which others have a turn

install()


class Tail:
    """`take(record, value)` is called for each record (value None: a tombstone). `since`: ms; None: from the end on, 0: all."""

    def __init__(
        self, installation: Installation, topic: Topic[Any], take: Callable[[Any, Any], None], since: Callable[[], int | None]
    ):  # fmt: skip
        self._installation, self._topic, self._take, self._since = installation, topic, take, since
        self._codec = installation.codecs((topic,))[topic]
        self._next: dict[TopicPartition, int] = {}
        self._ready = asyncio.Event()
        self._moved = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Start, if nobody has, and return when what was there at the start has been handed over."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        await self._ready.wait()

    async def stop(self) -> None:
        """End the reader."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reached(self, partition: int, offset: int) -> None:
        """Return when the record at this place has been handed over."""
        tp = TopicPartition(self._installation.name(self._topic), partition)
        async with self._moved:
            await self._moved.wait_for(lambda: self._next.get(tp, -1) > offset)

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except Exception as error:  # the broker is away; who waits waits on
                known = isinstance(error, KafkaError | OSError | RegistryUnavailable)
                log.warning("%s: reading again: %r", self._topic.name, error, exc_info=not known)
                await asyncio.sleep(RETRY_S)

    async def _read(self) -> None:
        name = self._installation.name(self._topic)
        tps = [TopicPartition(name, n) for n in range(self._installation.partitions_of(self._topic))]
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._installation.bootstrap, enable_auto_commit=False, auto_offset_reset="earliest",
            fetch_max_wait_ms=POLL_MS,
        )  # fmt: skip
        await consumer.start()
        try:
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            if not self._next:
                self._next = await self._begin(consumer, tps, ends)
            for tp in tps:
                consumer.seek(tp, self._next[tp])
            while True:
                if not self._ready.is_set() and all(self._next[tp] >= ends[tp] for tp in tps):
                    self._ready.set()
                wait_ms = POLL_MS if self._ready.is_set() else 100
                for tp, records in (await consumer.getmany(timeout_ms=wait_ms, max_records=TURN)).items():
                    for record in records:
                        await self._hand_over(record)
                    self._next[tp] = records[-1].offset + 1
                for tp in tps:  # what was compacted or has expired has no record
                    self._next[tp] = max(self._next[tp], await consumer.position(tp))
                async with self._moved:
                    self._moved.notify_all()
                await asyncio.sleep(0)
        finally:
            await consumer.stop()

    async def _begin(self, consumer: Any, tps: list[TopicPartition], ends: dict[Any, int]) -> dict[Any, int]:
        since = self._since()
        if since is None:
            return dict(ends)
        found = await consumer.offsets_for_times({tp: max(0, since) for tp in tps})
        return {tp: found[tp].offset if found.get(tp) else ends[tp] for tp in tps}

    async def _hand_over(self, record: Any) -> None:
        if isinstance(record, Unreadable):
            log.error("%s@%d: cannot be read: %s", self._topic.name, record.offset, record.error)
            return
        try:
            try:
                value = None if record.value is None else self._codec.decode(record.value)
            except UnknownSchema as unknown:
                await self._codec.learn(unknown.id)
                value = self._codec.decode(record.value)
            self._take(record, value)
        except (DecodeError, ValueError, KeyError) as error:
            log.error("%s@%d: passed over: %s", self._topic.name, record.offset, error)
