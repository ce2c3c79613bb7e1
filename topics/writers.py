"""Writers' schemas in control.schemas: how a worker reads what a newer release has written, where no registry is configured.

A single object carries the fingerprint of its schema and no more. Every worker publishes all schemas of its release before its
first record; a reader that meets an unknown fingerprint reads the topic to its end of that moment, so what is not there then was
never published. Tables hold single objects too, so this is done with a registry as well. What control.schemas has is kept for
ever: without it, what a newer release wrote is dead letters to an older one.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

import avro
from avro.records import WriterSchema
from topics.codec import Codec, RegistryUnavailable, published
from topics.schemas import SINGLE_OBJECT, Schema, least_bytes, parse, single_object_header
from topics.unreadable import install

log = logging.getLogger(__name__)
POLL_MS = 100

install()


class Writers:
    """`topic`: full name of control.schemas. Nothing stays open between two calls: it is asked a few times a release."""

    def __init__(self, bootstrap: str, topic: str):
        self._bootstrap, self._topic, self._next = bootstrap, topic, 0
        self._codec = Codec("WriterSchema")

    async def look(self) -> None:
        """Put into `published` what the topic has by now. Raises RegistryUnavailable."""
        tp = TopicPartition(self._topic, 0)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, enable_auto_commit=False, auto_offset_reset="earliest"
        )
        try:
            await consumer.start()
            consumer.assign([tp])
            end = (await consumer.end_offsets([tp]))[tp]
            consumer.seek(tp, min(self._next, end))
            while self._next < end:
                for record in (await consumer.getmany(tp, timeout_ms=POLL_MS)).get(tp, ()):
                    self._take(record)
                self._next = await consumer.position(tp)
        except (KafkaError, OSError) as error:
            raise RegistryUnavailable(f"{self._topic} cannot be read: {error!r}") from error
        finally:
            await consumer.stop()

    async def publish(self) -> None:
        """Return when every schema of this release is in the topic, on all in-sync replicas. Raises RegistryUnavailable,
        KafkaError."""
        await self.look()
        schemas = {single_object_header(schema): schema for schema in map(avro.load, avro.names())}
        missing = {header: schema for header, schema in schemas.items() if published.get(header) is None}
        if not missing:
            return
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all", enable_idempotence=True)
        await producer.start()
        try:
            for header, schema in missing.items():
                fingerprint = header.removeprefix(SINGLE_OBJECT).hex()
                entry: WriterSchema = {"fingerprint": fingerprint, "name": schema["name"], "schema": json.dumps(schema)}
                await producer.send_and_wait(self._topic, self._codec.encode(entry), key=fingerprint.encode())
        finally:
            await producer.stop()

    def _take(self, record: Any) -> None:
        """Whoever may write to the topic: a schema counts under its own fingerprint alone, and where it is safe to read with."""
        try:
            entry: WriterSchema = self._codec.decode(record.value or b"")
            schema: Schema = json.loads(entry["schema"])
            header = single_object_header(schema)
        except Exception as error:  # what fastavro makes of a broken schema has no common class
            log.error("%s@%d: passed over: %r", self._topic, record.offset, error)
            return
        try:
            least_bytes(schema)
            parse(schema)
            published[header] = schema
        except Exception as error:  # the same
            log.error("%s@%d: not valid: %r", self._topic, record.offset, error)
            published.setdefault(header, None)
