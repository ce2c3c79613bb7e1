"""Write and read topics from outside a stage: the command line, tests, the demo. Not for hot paths."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from topics.catalogue import Output, Topic
from topics.codec import Codec, DecodeError, UnknownSchema
from topics.installation import Installation
from topics.outputs import TOO_LARGE, partition_for


class Place(NamedTuple):
    """Where Kafka has put a record, and the time (ms) that it has there."""

    partition: int
    offset: int
    timestamp: int


class Client:
    """`async with Client(installation) as client`: typed records in and out, acks=all, idempotent."""

    def __init__(self, installation: Installation):
        self.installation = installation
        self._codecs: dict[Topic[Any], Codec] = {}
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._producer is not None:
            await self._producer.stop()

    async def codec(self, topic: Topic[Any]) -> Codec:
        """The codec of a topic, ready to write."""
        if topic not in self._codecs:
            codec = self.installation.codecs((topic,))[topic]
            if self.installation.registry_url:
                await codec.register(self.installation.name(topic))
            self._codecs[topic] = codec
        return self._codecs[topic]

    async def send(self, output: Output) -> Place:
        """Write one record; returns when Kafka has it on all in-sync replicas."""
        value = None if output.value is None else (await self.codec(output.topic)).encode(output.value)
        return await self.send_raw(output.topic, output.key, value, output.headers)

    async def send_raw(
        self,
        topic: Topic[Any],
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> Place:
        """The same with bytes of the caller's, whatever they are; into the key's partition unless another one is named."""
        if self._producer is None:
            self._producer = AIOKafkaProducer(
                bootstrap_servers=self.installation.bootstrap,
                acks="all",
                enable_idempotence=True,
                max_request_size=16 << 20,
                max_batch_size=256 << 10,  # the default of 16 KiB holds ten mails
            )
            await self._producer.start()
        if partition is None:
            partition = partition_for(key or b"", self.installation.partitions_of(topic))
        try:
            done = await self._producer.send_and_wait(
                self.installation.name(topic), value, key=key, partition=partition, headers=list(headers)
            )
        except TOO_LARGE:  # it counts as sent in the sequence that the broker checks: the next record needs a new one
            producer, self._producer = self._producer, None
            await producer.stop()
            raise
        return Place(done.partition, done.offset, done.timestamp)

    async def decode(self, topic: Topic[Any], raw: bytes) -> Any:
        """The record of `topic` in `raw`. Raises DecodeError, RegistryUnavailable."""
        codec = await self.codec(topic)
        try:
            return codec.decode(raw)
        except UnknownSchema as unknown:
            await codec.learn(unknown.id)
            return codec.decode(raw)

    async def read(
        self, topic: Topic[Any], *, follow: bool = False, broken: Callable[[Any, DecodeError], None] | None = None
    ) -> AsyncGenerator[tuple[Any, Any]]:
        """(Kafka record, value) of everything in the topic from its beginning, to the end of this moment or, with `follow`,
        for ever. A record that does not decode goes to `broken`; without it DecodeError is raised."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.installation.bootstrap, enable_auto_commit=False)
        await consumer.start()
        try:
            name = self.installation.name(topic)
            tps = [TopicPartition(name, n) for n in range(self.installation.partitions_of(topic))]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            while follow or any([await consumer.position(tp) < ends[tp] for tp in tps]):
                for records in (await consumer.getmany(timeout_ms=200, max_records=1000)).values():
                    for record in records:
                        try:
                            value = None if record.value is None else await self.decode(topic, record.value)
                        except DecodeError as error:
                            if broken is None:
                                raise
                            broken(record, error)
                            continue
                        yield record, value
        finally:
            await consumer.stop()
