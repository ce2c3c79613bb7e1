"""Young messages, from Kafka itself: what ClickHouse does not have yet, whichever replica is asked.

A message id says when Kafka took its submission, a tenant and an id name partitions: so only records of one moment, or of the last
seconds, of one partition are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from avro.records import Event, Submission
from gateway.accept import ids_of
from gateway.inbound import Unavailable
from postroad import ids
from postroad.intake import distinct
from topics.catalogue import BROADCASTS, EVENTS, NOTIFIED, SUBMISSIONS, Topic
from topics.client import Place
from topics.codec import DecodeError, UnknownSchema
from topics.installation import Installation
from topics.outputs import partition_for
from topics.unreadable import Unreadable, install

AT_ONCE = 4  # look-ups; others wait for their turn
ANSWER_S = 10.0
RECORDS_MAX = 50_000  # looked at by one look-up
EARLY_MS = 1_000  # clocks of brokers differ by so much

install()


class Lookup:
    """Reads SUBMISSIONS, BROADCASTS, EVENTS and NOTIFIED. Raises gateway.inbound.Unavailable while Kafka is away."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._codecs = installation.codecs((SUBMISSIONS, BROADCASTS, EVENTS, NOTIFIED))
        self._places, self._long = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(1)
        self._free: list[AIOKafkaConsumer] = []

    async def submission(self, tenant: str, message_id: str) -> tuple[Submission, str] | None:
        """The tenant's submission that became a message, and the recipient; None where there is none. ValueError for what is no
        message id."""
        at = ids.accepted_at(message_id)
        found: list[tuple[Submission, str]] = []

        def take(place: Place, value: Submission) -> bool:
            if message_id in (made := ids_of(value, place)):
                found.append((value, distinct(value["recipients"])[made.index(message_id)]["address"]))
            return bool(found)

        for topic in (SUBMISSIONS, BROADCASTS):
            if not found:
                await self._scan(topic, tenant, at, take, until=at)
        return found[0] if found else None

    async def find(self, tenant: str, submission_id: str, since: int) -> Place | None:
        """Where a tenant's submission is that was written at `since` (ms) or later."""
        return (await self.written(tenant, submission_id, since)).get(submission_id)

    async def written(self, tenant: str, prefix: str, since: int) -> dict[str, Place]:
        """Submissions of a tenant whose ids begin so, and that were written at `since` (ms) or later."""
        found: dict[str, Place] = {}

        def take(place: Place, value: Submission) -> bool:
            if value["submission_id"].startswith(prefix):
                found.setdefault(value["submission_id"], place)
            return False

        for topic in (SUBMISSIONS, BROADCASTS):
            await self._scan(topic, tenant, since - EARLY_MS, take, most=None)
        return found

    async def events(self, message_id: str, since: int) -> list[Event]:
        """Events of a message that were written at `since` (ms) or later."""
        found: list[Event] = []

        def take(place: Place, value: Event) -> bool:
            found.append(value)
            return False

        await self._scan(EVENTS, message_id, since - EARLY_MS, take)
        return found

    async def each(self, topic: Topic[Any], key: str, since: int, take: Callable[[Any], None]) -> None:
        """Hand over the values of a key that were written at `since` (ms) or later: days of them, so one such look-up at a time, and the
        other places are for those that are short."""

        def one(place: Place, value: Any) -> bool:
            take(value)
            return False

        async with self._long:
            await self._scan(topic, key, since - EARLY_MS, one, most=None)

    async def stop(self) -> None:
        """Let go of Kafka."""
        while self._free:
            await self._free.pop().stop()

    async def _scan(
        self, topic: Topic[Any], key: str, since: int, take: Callable[[Place, Any], bool], until: int | None = None,
        most: int | None = RECORDS_MAX,
    ) -> None:  # fmt: skip
        """Hand over the records of a key, from a time on to the end of this moment or of another time, until `take` has enough."""
        raw_key = key.encode()
        tp = TopicPartition(
            self._installation.name(topic), partition_for(raw_key, self._installation.partitions_of(topic))
        )
        async with self._consumer() as consumer:
            consumer.assign([tp])
            begin = (await consumer.offsets_for_times({tp: max(0, since)}))[tp]
            end = (await consumer.end_offsets([tp]))[tp]
            if begin is None:
                return
            consumer.seek(tp, begin.offset)
            seen = 0
            while await consumer.position(tp) < end:
                for record in (await consumer.getmany(tp, timeout_ms=200, max_records=1_000)).get(tp, ()):
                    seen += 1
                    if (until is not None and record.timestamp > until) or (most is not None and seen > most):
                        return
                    if record.key != raw_key or (value := await self._decode(topic, record)) is None:
                        continue
                    if take(Place(record.partition, record.offset, record.timestamp), value):
                        return

    async def _decode(self, topic: Topic[Any], record: Any) -> Any:
        if isinstance(record, Unreadable) or record.value is None:
            return None
        codec = self._codecs[topic]
        try:
            try:
                return codec.decode(record.value)
            except UnknownSchema as unknown:
                await codec.learn(unknown.id)
                return codec.decode(record.value)
        except DecodeError:
            return None  # a dead letter: no message came of it

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        """A consumer of one look-up; one that failed is not used again."""
        async with self._places:
            consumer = self._free.pop() if self._free else None
            try:
                async with asyncio.timeout(ANSWER_S):
                    if consumer is None:
                        consumer = AIOKafkaConsumer(
                            bootstrap_servers=self._installation.bootstrap, enable_auto_commit=False,
                            auto_offset_reset="earliest", fetch_max_wait_ms=100,
                        )  # fmt: skip
                        await consumer.start()
                    yield consumer
            except (KafkaError, OSError, TimeoutError) as error:
                if consumer is not None:
                    await consumer.stop()
                raise Unavailable(f"Kafka does not answer: {error!r}") from error
            except BaseException:
                if consumer is not None:
                    await consumer.stop()
                raise
            self._free.append(consumer)
