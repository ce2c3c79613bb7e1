"""Every stage from the outside: members of its group, what waits, how fast it goes, how old the oldest waiting record is."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import for_code
from aiokafka.protocol.admin import DescribeGroupsRequest

OLDEST_S = 1.0  # how long the first waiting records are asked for; what has not come by then has no age in this look


@dataclass(frozen=True, slots=True)
class StageState:
    """`state`: of the consumer group, in Kafka's words, "Absent" where it has none; `rate`: records a second since the last
    look; `oldest_s`: age of the oldest record that waits, None where nothing waits or it was not told in time."""

    stage: str
    state: str
    replicas: int
    lag: int
    rate: float
    oldest_s: float | None


class Overview:
    """Asks Kafka about the groups of `stages`, whose names begin with `prefix`. Joins no group and commits nothing."""

    def __init__(self, bootstrap: str, prefix: str, stages: Iterable[str]):
        self._prefix, self._stages = prefix, tuple(stages)
        self._admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        self._before: dict[str, int] = {}
        self._looked_at = time.monotonic()

    async def __aenter__(self) -> Self:
        try:
            await self._admin.start()
            await self._consumer.start()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()
        await self._admin.close()

    async def look(self) -> list[StageState]:
        """In the order of `stages`. Raises KafkaError, OSError."""
        names = {self._prefix + stage: stage for stage in self._stages}
        there = [name for name, *_ in await self._admin.list_consumer_groups() if name in names]
        groups = await self._groups(there)
        done: dict[str, dict[TopicPartition, int]] = {}
        for name in there:
            offsets = await self._admin.list_consumer_group_offsets(name)
            done[name] = {tp: entry.offset for tp, entry in offsets.items() if entry.offset >= 0}
        places = list({tp for offsets in done.values() for tp in offsets})
        ends = await self._consumer.end_offsets(places) if places else {}
        now = time.monotonic()
        seconds, self._looked_at = max(now - self._looked_at, 1e-3), now
        states = []
        for name, stage in names.items():
            state, replicas = groups.get(name, ("Absent", 0))
            offsets = done.get(name, {})
            waiting = {tp: offset for tp, offset in offsets.items() if ends[tp] > offset}
            total = sum(offsets.values())
            rate = max(0, total - self._before.get(name, total)) / seconds
            self._before[name] = total
            lag = sum(ends[tp] - offset for tp, offset in waiting.items())
            states.append(StageState(stage, state, replicas, lag, rate, await self._oldest(waiting)))
        return states

    async def _groups(self, names: list[str]) -> dict[str, tuple[str, int]]:
        """State and number of members of each group, asked where its coordinator is."""
        found = {}
        for name in names:
            request = DescribeGroupsRequest([name])
            # aiokafka 0.14 reads the answer to version 3 as if it were one to version 2, and closes the connection.
            request._CLASSES = tuple(each for each in request._CLASSES if each.API_VERSION < 3)
            answer = await self._admin._send_request_to_node(await self._admin.find_coordinator(name), request)
            for code, group, state, _, _, members in answer.groups:
                if code:
                    raise for_code(code)(f"group {group} cannot be described")
                found[group] = (state, len(members))
        return found

    async def _oldest(self, waiting: dict[TopicPartition, int]) -> float | None:
        """Age in seconds of the oldest first record of these places."""
        if not waiting:
            return None
        self._consumer.assign(list(waiting))
        for tp, offset in waiting.items():
            self._consumer.seek(tp, offset)
        first: dict[Any, int] = {}
        deadline = time.monotonic() + OLDEST_S
        while len(first) < len(waiting) and (left := deadline - time.monotonic()) > 0:
            found = await self._consumer.getmany(timeout_ms=max(1, int(left * 1000)))
            for tp, records in found.items():
                first.setdefault(tp, records[0].timestamp)
                self._consumer.pause(tp)
        return max(0.0, time.time() - min(first.values()) / 1000) if first else None
