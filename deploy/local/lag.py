"""What each stage has done and has in front of it, from the outside: committed offsets against the ends of the topics."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient


@dataclass(frozen=True)
class Load:
    """One stage: records a second since the last look, records that wait."""

    rate: float
    lag: int


class Meter:
    """Asks the broker about the groups whose name begins with `prefix`: three small requests for each look and group."""

    def __init__(self, bootstrap: str, prefix: str):
        self._prefix = prefix
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        # A consumer without a group, never polled: the admin client cannot ask for the end of a partition.
        self._consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
        self._before: dict[str, int] = {}
        self._looked_at = time.monotonic()

    async def __aenter__(self) -> Self:
        await self._admin.start()
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def look(self) -> dict[str, Load]:
        """Load of every stage that has committed something, by its name without the prefix. Raises KafkaError, OSError."""
        groups = sorted(name for name, *_ in await self._admin.list_consumer_groups() if name.startswith(self._prefix))
        committed = {group: await self._admin.list_consumer_group_offsets(group) for group in groups}
        partitions = {partition for offsets in committed.values() for partition in offsets}
        ends = await self._consumer.end_offsets(list(partitions)) if partitions else {}
        now = time.monotonic()
        seconds, self._looked_at = max(now - self._looked_at, 1e-3), now
        loads = {}
        for group, offsets in committed.items():
            done = {partition: entry.offset for partition, entry in offsets.items() if entry.offset >= 0}
            total = sum(done.values())
            rate = max(0, total - self._before.get(group, total)) / seconds
            self._before[group] = total
            lag = sum(max(0, ends.get(partition, offset) - offset) for partition, offset in done.items())
            loads[group.removeprefix(self._prefix)] = Load(rate, lag)
        return loads


def line(loads: dict[str, Load]) -> str:
    """One line for people: busy stages with their rate and what waits, the others by name only."""
    if not loads:
        return "no stage has read anything yet"
    parts = [
        f"{stage} {load.rate:,.0f}/s" + (f" ({load.lag:,} wait)" if load.lag else "")
        if load.rate or load.lag
        else stage
        for stage, load in loads.items()
    ]
    return " | ".join(parts)
