"""Topics as they lie in Kafka, for counting: raw records, where they end, and what was put aside as dead letters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, TopicPartition

from analytics.reading import Reader
from avro.records import DeadLetter
from topics.catalogue import DEAD_LETTERS, Topic
from topics.installation import Installation

FETCH_BYTES = 8 << 20  # of a partition
POLL_MS = 500


def place(record: Any) -> str:
    """Where a record lies, as dead letters name it."""
    return f"{record.topic}[{record.partition}]@{record.offset}"


async def raw(installation: Installation, topic: str, partitions: int) -> AsyncIterator[list[Any]]:
    """The records of a topic (full name) from its beginning to the end of this moment, in the order of each partition, in
    the portions in which Kafka gives them."""
    async with _consumer(installation) as consumer:
        tps = [TopicPartition(topic, n) for n in range(partitions)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for tp, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                yield [record for record in records if record.offset < ends[tp]]


async def ends(installation: Installation, topic: Topic[Any]) -> list[int]:
    """Where each partition of a topic ends."""
    async with _consumer(installation) as consumer:
        tps = [TopicPartition(installation.name(topic), n) for n in range(installation.partitions_of(topic))]
        found = await consumer.end_offsets(tps)
        return [found[tp] for tp in tps]


@asynccontextmanager
async def _consumer(installation: Installation) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=installation.bootstrap, enable_auto_commit=False, check_crcs=False,
        max_partition_fetch_bytes=FETCH_BYTES,
    )  # fmt: skip
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


class Letters(NamedTuple):
    """What was put aside, by what the letters say. `inputs`: stage and place of records that changed nothing; `outputs`: by full
    topic name, the values that the topic refused, whose inputs count as finished; `replayed`: ids of letters whose record was
    put back; `open`: ids of letters that nobody has resolved; `ids`: all."""

    inputs: set[tuple[str, str]]
    outputs: dict[str, list[bytes]]
    replayed: set[str]
    open: set[str]
    ids: set[str]


async def letters(installation: Installation) -> Letters:
    """The dead letters."""
    async with Reader(installation) as reader:
        return sort([letter async for _, letter in reader.read(DEAD_LETTERS)])


def sort(found: Iterable[DeadLetter]) -> Letters:
    """Dead letters, in the order of the topic. One that comes again after its resolution (its stage was done again) stays
    resolved."""
    inputs: set[tuple[str, str]] = set()
    outputs: dict[str, dict[str, bytes]] = {}
    ids: set[str] = set()
    resolved: dict[str, str] = {}
    for letter in found:
        id = DEAD_LETTERS.key(letter)
        ids.add(id)
        if resolution := letter["resolution"]:  # comes without the record
            resolved[id] = resolution["action"]
        elif letter["source"]:
            outputs.setdefault(letter["topic"], {})[id] = letter["value"] or b""
        else:
            inputs.add((letter["stage"], id))
    refused = {topic: list(by_id.values()) for topic, by_id in outputs.items()}
    replayed = {id for id, action in resolved.items() if action == "replayed"}
    return Letters(inputs, refused, replayed, ids - resolved.keys(), ids)
