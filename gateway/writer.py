"""Records of the front doors into Kafka, acks=all, by a producer that is made anew when Kafka was away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from avro.records import Report
from gateway.inbound import Unavailable
from topics.catalogue import REPORTS, SCHEMAS, Topic
from topics.client import Place
from topics.codec import Codec, RegistryUnavailable
from topics.installation import Installation
from topics.outputs import RECORD_OVERHEAD, TOO_LARGE, partition_for
from topics.writers import Writers

ANSWER_MS = 20_000  # a broker that does not answer for so long does not have the record


class TooLarge(ValueError):
    """A record is larger than its topic takes: trying again does not help."""


class KafkaProducer:
    """Writes records of `topics` for any number of callers at a time."""

    def __init__(self, installation: Installation, topics: Sequence[Topic[Any]]) -> None:
        self._installation, self._topics = installation, tuple(topics)
        self._codecs: dict[Topic[Any], Codec] | None = None
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Publish our schemas, as every writer does before its first record, and connect. Raises Unavailable."""
        async with self._starting:
            if self._producer is not None:
                return
            here = self._installation
            try:
                if self._codecs is None:
                    await Writers(here.bootstrap, here.name(SCHEMAS)).publish()
                    codecs = here.codecs(self._topics)
                    if here.registry_url:
                        for topic, codec in codecs.items():
                            await codec.register(here.name(topic))
                    self._codecs = codecs
                producer = AIOKafkaProducer(
                    bootstrap_servers=here.bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=ANSWER_MS,
                    max_batch_size=256 << 10, max_request_size=16 << 20,
                )  # fmt: skip
                await producer.start()
            except (KafkaError, OSError, RegistryUnavailable) as error:
                raise Unavailable(f"Kafka is away: {error!r}") from error
            self._producer = producer

    async def send(self, topic: Topic[Any], value: Any, headers: Sequence[tuple[str, bytes]] = ()) -> Place:
        """Where a record is, when all in-sync replicas have it. Raises Unavailable, TooLarge."""
        await self.start()
        assert self._codecs is not None
        return await self._send(topic, topic.key(value).encode(), self._codecs[topic].encode(value), headers)

    async def delete(self, topic: Topic[Any], key: bytes) -> Place:
        """Write a tombstone. Raises Unavailable."""
        await self.start()
        return await self._send(topic, key, None, ())

    async def _send(
        self, topic: Topic[Any], key: bytes, raw: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> Place:
        producer, name = self._producer, self._installation.name(topic)
        assert producer is not None
        if (size := len(raw or b"") + len(key) + RECORD_OVERHEAD) > topic.max_bytes:
            raise TooLarge(f"a record of {size:,} bytes; {topic.name} takes {topic.max_bytes:,}")
        partition = partition_for(key, self._installation.partitions_of(topic))
        try:
            done = await producer.send_and_wait(name, raw, key=key, partition=partition, headers=list(headers))
        except TOO_LARGE as error:
            await self._renew(producer)
            raise TooLarge(f"{topic.name} does not take a record of {size:,} bytes") from error
        except KafkaError as error:
            await self._renew(producer)
            raise Unavailable(f"Kafka does not take a record: {error!r}") from error
        return Place(done.partition, done.offset, done.timestamp)

    async def stop(self) -> None:
        """Let go of Kafka."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _renew(self, used: AIOKafkaProducer) -> None:
        """After an error the next record has a producer of its own: the sequence of an idempotent one may be broken."""
        stop = used.stop
        if used is self._producer:
            self._producer = None
            await asyncio.wait([asyncio.ensure_future(stop())], timeout=1.0)


class KafkaWriter(KafkaProducer):
    """Takes the reports of the inbound MX."""

    def __init__(self, installation: Installation) -> None:
        super().__init__(installation, (REPORTS,))

    async def put(self, report: Report) -> None:
        """Return when all in-sync replicas have it. Raises Unavailable."""
        try:
            await self.send(REPORTS, report)
        except TooLarge as error:
            raise Unavailable(str(error)) from error
