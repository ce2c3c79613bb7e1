"""Reports into mail.reports, acks=all, by a producer that is made anew when Kafka was away."""

from __future__ import annotations

import asyncio

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from avro.records import Report
from gateway.inbound import Unavailable
from topics.catalogue import REPORTS, SCHEMAS
from topics.codec import Codec, RegistryUnavailable
from topics.installation import Installation
from topics.outputs import TOO_LARGE, partition_for
from topics.writers import Writers

ANSWER_MS = 20_000  # a broker that does not answer for so long does not have the record


class KafkaWriter:
    """Writes reports of any number of sessions at a time."""

    def __init__(self, installation: Installation) -> None:
        self._installation = installation
        self._codec: Codec | None = None
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Publish our schemas, as every writer does before its first record, and connect. Raises Unavailable."""
        async with self._starting:
            if self._producer is not None:
                return
            here = self._installation
            try:
                if self._codec is None:
                    await Writers(here.bootstrap, here.name(SCHEMAS)).publish()
                    codec = here.codecs((REPORTS,))[REPORTS]
                    if here.registry_url:
                        await codec.register(here.name(REPORTS))
                    self._codec = codec
                producer = AIOKafkaProducer(
                    bootstrap_servers=here.bootstrap, acks="all", enable_idempotence=True, request_timeout_ms=ANSWER_MS,
                    max_batch_size=256 << 10,
                )  # fmt: skip
                await producer.start()
            except (KafkaError, OSError, RegistryUnavailable) as error:
                raise Unavailable(f"Kafka is away: {error!r}") from error
            self._producer = producer

    async def put(self, report: Report) -> None:
        """Return when all in-sync replicas have it. Raises Unavailable."""
        await self.start()
        producer, codec = self._producer, self._codec
        assert producer is not None and codec is not None
        key = REPORTS.key(report).encode()
        partition = partition_for(key, self._installation.partitions_of(REPORTS))
        try:
            await producer.send_and_wait(
                self._installation.name(REPORTS), codec.encode(report), key=key, partition=partition
            )
        except (KafkaError, *TOO_LARGE) as error:
            await self._renew(producer)
            raise Unavailable(f"Kafka does not take a report: {error!r}") from error

    async def stop(self) -> None:
        """Let go of Kafka."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def _renew(self, used: AIOKafkaProducer) -> None:
        """After an error the next report has a producer of its own: the sequence of an idempotent one may be broken."""
        stop = used.stop
        if used is self._producer:
            self._producer = None
            await asyncio.wait([asyncio.ensure_future(stop())], timeout=1.0)
