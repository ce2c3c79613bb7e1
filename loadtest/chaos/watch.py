"""How long the road stood still: what each stage has committed of each partition, asked twice a second, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib import import_module

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from topics.installation import Installation

LOOK_S = 0.5
ANSWER_S = 10.0


@dataclass
class Place:
    """One partition of one stage. `moved_at`: the latest time (monotonic) by which it had certainly no lag, or committed more
    later: the beginning of a look, or of the look before the one that saw a higher offset."""

    committed: int = 0
    end: int = 0
    moved_at: float = 0.0

    @property
    def lag(self) -> int:
        return max(0, self.end - self.committed)


class Watch:
    """`with Watch(...)`: looks until the block ends. A cluster that does not answer leaves what was known.

    `excused`: stages that stand still because what they need is away, which is not counted; `longest_s`: the longest that any
    partition stood with lag since it was last set to 0, and `where`.
    """

    def __init__(self, installation: Installation, stages: Collection[str]):
        self._bootstrap = installation.bootstrap
        self._groups = {installation.group(stage): stage for stage in stages}
        self._sources = {
            stage: [
                TopicPartition(installation.name(topic), n)
                for topic in import_module(f"agents.{stage}").stage.reads
                for n in range(installation.partitions_of(topic))
            ]
            for stage in stages
        }
        self.places: dict[tuple[str, str, int], Place] = {}  # stage, topic, partition
        self.excused: set[str] = set()
        self.longest_s, self.where = 0.0, ""
        self.looked_at = 0.0  # the beginning of the last look that was answered
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(3 * ANSWER_S)

    def standing(self, since: float) -> list[str]:
        """Partitions with lag that have not moved since a time (monotonic), as words."""
        return [
            _words(key, place)
            for key, place in list(self.places.items())
            if place.moved_at <= since and key[0] not in self.excused
        ]

    def lag(self) -> int:
        """Records that wait, over all stages."""
        return sum(place.lag for place in list(self.places.values()))

    async def _run(self) -> None:
        while not self._over.is_set():
            try:
                async with AsyncExitStack() as stack:
                    admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap, request_timeout_ms=5000)
                    consumer = AIOKafkaConsumer(
                        bootstrap_servers=self._bootstrap, enable_auto_commit=False, request_timeout_ms=5000
                    )
                    await admin.start()
                    stack.push_async_callback(admin.close)
                    await consumer.start()
                    stack.push_async_callback(consumer.stop)
                    while not self._over.is_set():
                        async with asyncio.timeout(ANSWER_S):
                            await self._look(admin, consumer)
                        await asyncio.sleep(LOOK_S)
            except Exception:  # a broker is dead: that is what we are here for; ask another one
                await asyncio.sleep(LOOK_S)

    async def _look(self, admin: AIOKafkaAdminClient, consumer: AIOKafkaConsumer) -> None:
        began, before = time.monotonic(), self.looked_at
        found = await asyncio.gather(*(admin.list_consumer_group_offsets(group) for group in self._groups))
        ends = await consumer.end_offsets([tp for tps in self._sources.values() for tp in tps])
        for stage, offsets in zip(self._groups.values(), found, strict=True):
            for tp in self._sources[stage]:
                key = (stage, tp.topic, tp.partition)
                place = self.places.setdefault(key, Place(moved_at=began))
                committed = offsets[tp].offset if tp in offsets else 0
                if committed > place.committed:
                    place.committed, place.moved_at = committed, max(place.moved_at, before)
                place.end = ends.get(tp, place.end)
                if place.lag == 0 or stage in self.excused:
                    place.moved_at = began
                elif (stood := time.monotonic() - place.moved_at) > self.longest_s:
                    self.longest_s, self.where = stood, _words(key, place)
        self.looked_at = began


def _words(key: tuple[str, str, int], place: Place) -> str:
    stage, topic, partition = key
    return f"{stage} {topic}[{partition}] at {place.committed}, {place.lag} behind"
