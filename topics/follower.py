"""Follow a compacted topic: another stage's small state (tenants, say) as a dictionary that is always near the latest.

A reader of its own, without a group and without Faust's GlobalTable: read to the end before it is ready, then live.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from topics.catalogue import Topic
from topics.codec import DecodeError, RegistryUnavailable, UnknownSchema
from topics.installation import Installation
from topics.unreadable import Unreadable, install

log = logging.getLogger(__name__)
T = TypeVar("T")
RETRY_SECONDS = 1.0
POLL_MS = 2000

install()


class Follower(Mapping[str, T], Generic[T]):
    """Key -> latest value of `topic`, after `convert`. `await ready()` once before it is read."""

    def __init__(
        self, installation: Installation, topic: Topic[Any], convert: Callable[[Any], T] = lambda value: value
    ):
        self.installation, self.topic, self._convert = installation, topic, convert
        self._codec = installation.codecs((topic,))[topic]
        self._values: dict[str, T] = {}
        self._caught_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def __getitem__(self, key: str) -> T:
        return self._values[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    async def ready(self) -> None:
        """Start following, if nobody has, and return when the topic was read to its end."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow())
        if not self._caught_up.is_set():
            await self._caught_up.wait()

    async def stop(self) -> None:
        """End the reader."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            try:
                await self._read()
            except Exception as exc:  # the broker or the registry is away; whoever waits for `ready` waits on
                known = isinstance(exc, KafkaError | OSError | RegistryUnavailable)
                log.warning("%s: reading again from its beginning: %r", self.topic.name, exc, exc_info=not known)
                await asyncio.sleep(RETRY_SECONDS)

    async def _read(self) -> None:
        name = self.installation.name(self.topic)
        tps = [TopicPartition(name, n) for n in range(self.installation.partitions_of(self.topic))]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.installation.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            values: dict[str, T] = {}  # in the place of what was known once it is complete: some may be compacted away
            while True:
                if values is not self._values and all([await consumer.position(tp) >= ends[tp] for tp in tps]):
                    self._values = values
                    self._caught_up.set()
                timeout = POLL_MS if values is self._values else 100
                for records in (await consumer.getmany(timeout_ms=timeout)).values():
                    for record in records:
                        await self._apply(record, values)
        finally:
            await consumer.stop()

    async def _apply(self, record: Any, values: dict[str, T]) -> None:
        if isinstance(record, Unreadable):
            log.error("%s@%d: cannot be read: %s", self.topic.name, record.offset, record.error)
            return
        key = (record.key or b"").decode("utf-8", "replace")
        if record.value is None:
            values.pop(key, None)
            return
        try:
            try:
                value = self._codec.decode(record.value)
            except UnknownSchema as unknown:
                await self._codec.learn(unknown.id)
                value = self._codec.decode(record.value)
            values[key] = self._convert(value)
        except (DecodeError, ValueError, KeyError) as exc:
            # what was there before stays: a broken record must not take a tenant away
            if key in self._values:
                values.setdefault(key, self._values[key])
            log.error("%s@%d: kept the value before: %s", self.topic.name, record.offset, exc)
