"""Poison of every kind into every topic of a running road: a dead letter for each, none that stops anything, and mail passes."""

from __future__ import annotations

import asyncio
import importlib
import struct
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidTimestampError, KafkaError, MessageSizeTooLargeError
from aiokafka.record.util import calc_crc32c

import avro
from agents.worker import STAGES
from avro import samples
from topics.catalogue import ALL, DEAD_LETTERS, SUBMISSIONS, Topic
from topics.codec import Codec, CodecError

if TYPE_CHECKING:
    from conftest import Road

pytestmark = pytest.mark.timeout(180)
CODECS = ("gzip", "snappy", "lz4", "zstd")
CRC_AT, CHECKED = 17, 21  # in a record batch
FUTURE = 4_000_000_000_000
READERS: dict[str, list[str]] = {}  # full name of a topic without its prefix -> stages
GLANCES: set[tuple[str, str]] = set()  # the stages that glance at the head of a topic's records, and the topic
for _name in STAGES:
    _stage = importlib.import_module(f"agents.{_name}").stage
    for _topic in _stage.reads:
        READERS.setdefault(_topic.name, []).append(_name)
    GLANCES |= {(_name, topic.name) for topic in getattr(_stage, "glances", ())}
WRONG_AT_THE_END = (4, 5)  # of `poison`: what is cut short or too long there, behind a head that is good


def poison(topic: Topic[Any]) -> list[bytes | None]:
    """Values that are no record of the topic, the last one as large as it takes."""
    good = Codec(topic.schema).encode(samples.sample(avro.load(str(topic.schema)), "full"))
    other = "Tenant" if topic.schema != "Tenant" else "Event"
    return [
        b"", b'{"tenant": "acme"}', bytes(100), good[:7], good[:-1], good + b"\0", b"\xc3\x01" + b"\x11" * 8 + good[10:],
        b"\0\0\0\0\x07" + good[10:], Codec(other).encode(samples.sample(avro.load(other), "full")),
        good[:10] + b"\x08\xff\xfe\xfd\xfc", good[:10] + b"\xfe" * 9 + b"\x01", b"\xff" * (topic.max_bytes - 200),
    ]  # fmt: skip


class Poisoner:
    """Writes as an outsider would, and notes where each record went."""

    def __init__(self, road: Road) -> None:
        self.installation = road.client.installation
        self.written: list[tuple[str, int, int]] = []
        self.good_heads: set[tuple[str, int, int]] = set()  # of those

    def producer(self, **options: Any) -> AIOKafkaProducer:
        return AIOKafkaProducer(bootstrap_servers=self.installation.bootstrap, max_request_size=128 << 20, **options)

    async def every_topic(self) -> None:
        async with self.producer() as plain, AsyncExitStack() as stack:
            packed = [await stack.enter_async_context(self.producer(compression_type=codec)) for codec in CODECS]
            await asyncio.gather(*(self._all_kinds(topic, plain, packed) for topic in ALL))

    async def _all_kinds(self, topic: Topic[Any], plain: AIOKafkaProducer, packed: list[AIOKafkaProducer]) -> None:
        name, last = self.installation.name(topic), self.installation.partitions_of(topic) - 1

        async def send(value: bytes | None, partition: int = 0, by: AIOKafkaProducer = plain, **fields: Any) -> None:
            done = await by.send_and_wait(name, value, partition=partition, **{"key": b"acme", **fields})
            self.written.append((topic.name, done.partition, done.offset))

        for number, value in enumerate(poison(topic)):
            await send(value, min(number % 3, last))
            if number in WRONG_AT_THE_END:
                self.good_heads.add(self.written[-1])
        if not topic.compacted:
            await send(None)
            await send(b"no key", key=None)
        await send(b"headers", headers=[("a", b"\xff\xfe\0"), ("", b""), *((f"h{n}", b"x" * 50) for n in range(500))])
        for timestamp in (0, 1, FUTURE):
            try:
                await send(b"at an odd time", timestamp_ms=timestamp)
            except InvalidTimestampError:  # the broker's own bound on the future; nothing was written
                assert timestamp == FUTURE
        await self._header_name_that_is_no_text(plain, topic, name)
        for by in packed:
            await send(b"packed" * 1000, by=by)

    async def _header_name_that_is_no_text(self, producer: AIOKafkaProducer, topic: Topic[Any], name: str) -> None:
        builder = producer.create_batch()
        builder.append(key=b"acme", value=b"x", timestamp=None, headers=[("name", b"x")])
        build = builder._build

        def built() -> bytes:
            raw = bytearray(build().replace(b"name", b"n\xff\xfee"))
            struct.pack_into(">I", raw, CRC_AT, calc_crc32c(bytes(raw[CHECKED:])))
            return bytes(raw)

        builder._build = built
        done = await (await producer.send_batch(builder, name, partition=0))
        self.written.append((topic.name, done.partition, done.offset))

    def expected(self) -> set[tuple[str, str, int, int]]:
        """A dead letter by every stage that reads the topic."""
        return {(stage, *place) for place in self.written for stage in READERS.get(place[0], ())}

    def optional(self) -> set[tuple[str, str, int, int]]:
        """Of those, the ones that a stage may pass over, since their heads say that they do not concern it: other stages tell of them."""
        return {place for place in self.expected() if place[:2] in GLANCES and place[1:] in self.good_heads}


async def letters(road: Road) -> AsyncIterator[Any]:
    """The dead letters as they come, for ever; None where there is none for the moment."""
    installation, codec = road.client.installation, Codec(DEAD_LETTERS.schema)
    async with AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(installation.name(DEAD_LETTERS), 0)])
        while True:
            for records in (await consumer.getmany(timeout_ms=500)).values():
                for record in records:
                    try:
                        yield codec.decode(record.value)
                    except (CodecError, TypeError):  # what was poisoned there
                        continue
            yield None


async def test_poison_of_every_kind_in_every_topic(road: Road) -> None:
    worker = await road.start()
    poisoner = Poisoner(road)
    before, _ = await road.submit("before@accept.test")
    await poisoner.every_topic()
    stranger, _ = await road.submit("wrong-key@accept.test")  # and one under a key that is not its tenant's
    value = await _wrong_key(road)
    after, _ = await road.submit("after@accept.test")

    assert (await road.kinds(before, "delivered"))[-1] == "delivered"
    assert (await road.kinds(after, "delivered"))[-1] == "delivered"
    assert (await road.kinds(stranger, "delivered"))[-1] == "delivered"
    await road.kinds(value, "rejected")
    assert road.events(value)[-1]["reason"] == "bad-key"

    expected, deadline = poisoner.expected(), time.monotonic() + 60
    needed = expected - poisoner.optional()
    assert {place[1:] for place in needed} == {place[1:] for place in expected}, "each is told by somebody"
    found, places, prefix = [], [], road.client.installation.prefix
    async for letter in letters(road):
        if letter is not None:
            found.append(letter)
            places.append(
                (letter["stage"], letter["topic"].removeprefix(prefix), letter["partition"], letter["offset"])
            )
        elif needed <= set(places):
            break
        assert time.monotonic() < deadline, f"no dead letter of {sorted(needed - set(places))}\n{road.log()}"
    assert len(places) == len(set(places)), "one each"
    assert set(places) <= expected, sorted(set(places) - expected)
    assert {(d["error"], bool(d["text"])) for d in found} == {("DecodeError", True), ("Unreadable", True)}
    largest = max(len(d["value"] or b"") for d in found)
    assert largest == SUBMISSIONS.max_bytes - 200, "a record as large as its topic takes is kept whole"
    assert worker.poll() is None, "one process did all of it"


async def _wrong_key(road: Road) -> str:
    submission: Any = {
        "tenant": "acme", "submission_id": "under-another-key", "sender": {"address": "news@acme.test"},
        "recipients": [{"address": "x@accept.test"}], "text": "x",
    }  # fmt: skip
    await road.client.send(SUBMISSIONS.send(submission)._replace(key=b"somebody"))
    return str(submission["submission_id"])


async def test_a_record_of_100_mb_is_refused_where_it_is_written(road: Road) -> None:
    """No worker runs: the producer is told, and nothing is in the topic."""
    with pytest.raises(MessageSizeTooLargeError, match="100000"):  # by our own client, before anything is sent
        await road.client.send_raw(SUBMISSIONS, b"acme", bytes(100_000_000))
    installation = road.client.installation
    async with AIOKafkaProducer(
        bootstrap_servers=installation.bootstrap, max_request_size=200 << 20, max_batch_size=200 << 20
    ) as producer:
        with pytest.raises(KafkaError) as refused:  # by the broker, of whoever asks it to
            await producer.send_and_wait(installation.name(SUBMISSIONS), bytes(100_000_000), partition=0)
    assert isinstance(refused.value, MessageSizeTooLargeError)
