"""How long the road stood still: what each stage has committed of each partition, asked once a second, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from topics.installation import Installation

LOOK_S = 0.5
ANSWER_S = 10.0


@dataclass
class Place:
    """One partition of one stage. `moved_at`: when it last had no lag or another committed offset (monotonic)."""

    committed: int = -1
    end: int = 0
    moved_at: float = 0.0

    @property
    def lag(self) -> int:
        return max(0, self.end - max(self.committed, 0))


class Watch:
    """`with Watch(...)`: looks until the block ends. A cluster that does not answer leaves what was known."""

    def __init__(self, installation: Installation, stages: Collection[str]):
        self._bootstrap = installation.bootstrap
        self._groups = {installation.group(stage): stage for stage in stages}
        self.places: dict[tuple[str, str, int], Place] = {}  # stage, topic, partition
        self.looked_at = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(3 * ANSWER_S)

    def standing(self, since: float, without: Collection[str] = ()) -> list[str]:
        """Partitions with lag that have not moved since a time (monotonic), as words; the stages `without` left out."""
        return [
            f"{stage} {topic}[{partition}] at {place.committed}, {place.lag} behind"
            for (stage, topic, partition), place in list(self.places.items())
            if place.moved_at <= since and stage not in without
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
        now = time.monotonic()
        found = await asyncio.gather(*(admin.list_consumer_group_offsets(group) for group in self._groups))
        tps: set[TopicPartition] = {tp for offsets in found for tp in offsets}
        ends = await consumer.end_offsets(list(tps)) if tps else {}
        for stage, offsets in zip(self._groups.values(), found, strict=True):
            for tp, entry in offsets.items():
                place = self.places.setdefault((stage, tp.topic, tp.partition), Place(moved_at=now))
                if entry.offset > place.committed:
                    place.committed, place.moved_at = entry.offset, now
                place.end = ends.get(tp, place.end)
                if place.lag == 0:
                    place.moved_at = now
        self.looked_at = now
