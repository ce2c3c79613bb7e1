"""A source that can wait: it is read only as far as the road behind the stage has room.

Waiting costs nothing in the source's own topic, and much in the topics behind, where other mail stands in line with it. How long
the road is: the records in its topics that their readers have not committed, asked of the broker twice a second. What may come
onto it until the next look is the rest up to the bound; so it never gets far beyond it, whatever the source holds. The source
alone is held back (`Consumer.allow`): the lane of the partition goes on with the others, and they are read as fast as ever. topics/stall.py is told.

Readers commit once a second, so what they have just done counts as well, and a worker has its share of the bound.

Where the broker does not say how long the road is, a little is read all the same, `BLIND` of the bound at each look: a right to
describe groups that is missing, or a broker that is away, is never a dead stop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from topics.catalogue import Topic
from topics.installation import Installation
from topics.runner import Runner

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
ASK_SECONDS = 5.0
RESUME = 0.25  # share of the bound that must be free before more is read: some at a time, not one by one
BLIND = 0.1
WAIT_SECONDS = 10 * (
    LOOK_SECONDS + ASK_SECONDS
)  # a wait on purpose; were there no looks any more, the worker would count as stalled
WEIGHT = 100.0  # messages that a record of the source is thought to make before one was seen

Leg = tuple[Topic[Any], str]


class Lag:
    """How many records of `legs`, (topic, stage that reads it), are not committed yet. Clients of its own, opened when asked."""

    def __init__(self, installation: Installation, legs: Sequence[Leg]):
        self._bootstrap = installation.bootstrap
        self._groups: dict[str, list[TopicPartition]] = {}
        for topic, stage in legs:
            tps = [TopicPartition(installation.name(topic), n) for n in range(installation.partitions_of(topic))]
            self._groups.setdefault(installation.group(stage), []).extend(tps)
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None

    async def count(self) -> int:
        """Raises KafkaError, TimeoutError; the next call begins anew."""
        try:
            async with asyncio.timeout(ASK_SECONDS):
                return await self._count()
        except BaseException:
            await self.close()
            raise

    async def _count(self) -> int:
        if self._clients is None:
            self._clients = (
                AIOKafkaAdminClient(bootstrap_servers=self._bootstrap),
                AIOKafkaConsumer(bootstrap_servers=self._bootstrap, enable_auto_commit=False),
            )
            for client in self._clients:
                await client.start()
        admin, consumer = self._clients
        committed: dict[TopicPartition, int] = {}
        for group, tps in self._groups.items():
            found = await admin.list_consumer_group_offsets(group, partitions=tps)
            committed.update({tp: offset.offset for tp, offset in found.items()})
        ends = await consumer.end_offsets([tp for tps in self._groups.values() for tp in tps])
        unread = [tp for tp, end in ends.items() if end > max(0, committed.get(tp, -1))]
        first = await consumer.beginning_offsets(unread) if unread else {}  # retention may have taken some
        return sum(max(0, ends[tp] - max(first[tp], committed.get(tp, -1))) for tp in unread)

    async def close(self) -> None:
        """Also what was never opened, or half."""
        clients, self._clients = self._clients, None
        for close in (clients[0].close, clients[1].stop) if clients else ():
            try:
                await close()
            except KafkaError as exc:
                log.warning("a client that asked for the lag of the road did not close: %r", exc)


class Road:
    """What lies behind `source`, by `legs`: (topic, stage that reads it)."""

    def __init__(self, source: Topic[Any], legs: Sequence[Leg]):
        self.source, self.legs = source, legs
        self._weight = WEIGHT  # messages that a record of the source makes, on average of late
        self._records = self._messages = 0  # since the last look

    def weigh(self, messages: int) -> None:
        """A record of the source makes so many messages."""
        self._records += 1
        self._messages += messages

    def room(self, length: int, bound: int, waiting: int, share: float) -> int:
        """How many records of the source may be read now: 0, or what is made of them fits. `waiting`: records that were read
        and are not finished; `share`: that of this worker in the source, 0 to 1."""
        if self._records:  # up at once, down by halves
            self._weight = max(1.0, self._messages / self._records, self._weight / 2)
            self._records = self._messages = 0
        free = (bound - length) * share - waiting * self._weight
        return 0 if free < RESUME * bound * share else max(1, int(free / self._weight))


class Brake:
    """Holds the source of a road back where that is longer than `bound` messages."""

    def __init__(self, app: Any, runner: Runner, road: Road, bound: int, lag: Lag):
        self.app, self.runner, self.road, self.bound, self.lag = app, runner, road, bound, lag
        self._topic = runner.wiring.names[road.source]
        self._partitions = runner.wiring.partitions[self._topic]
        app.consumer.allow(self._topic, 0)  # until the first look
        self._blind, self._allowed = False, 0

    async def run(self) -> None:
        """Until the app stops."""
        try:
            while not self.app.should_stop:
                try:
                    await self.look()
                except Exception:  # the source is held back for ever where nobody looks
                    log.exception("%s: a look at the road failed", self.runner.stage.name)
                await self.app.sleep(LOOK_SECONDS)
        finally:
            await self.lag.close()

    async def look(self) -> None:
        """One look: what of the source may be read until the next one."""
        consumer = self.app._consumer
        mine = [] if consumer is None else [tp for tp in consumer.sought() if tp.topic == self._topic]
        if not mine:
            return
        if self._allowed and consumer.allowed(self._topic) == self._allowed:
            return  # nothing has come, so it may still read as much, and nobody need be asked
        try:
            length = await self.lag.count()
        except (KafkaError, TimeoutError, OSError) as exc:
            if not self._blind:
                log.warning("%s: the broker does not say how long the road is (%r): %s is read slowly until it does; a right to "
                            "describe the groups may be missing", self.runner.stage.name, exc, self._topic)  # fmt: skip
            self._blind, self._allowed = True, max(1, int(BLIND * self.bound))
        else:
            self._blind = False
            waiting = sum(map(consumer.outstanding, mine))
            self._allowed = self.road.room(length, self.bound, waiting, len(mine) / self._partitions)
        consumer.allow(self._topic, self._allowed)
        for tp in mine:
            key = "road", tp
            if self._allowed or consumer.outstanding(tp):
                self.runner.wait_over(key)
            else:
                self.runner.wait(key, "road", tp.partition, WAIT_SECONDS, topic=tp.topic)
