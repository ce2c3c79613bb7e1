"""Read topics from a time on, to the end of a moment: for checks that look at everything once. Not for hot paths."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from topics import unreadable
from topics.catalogue import Topic
from topics.codec import Codec, DecodeError, UnknownSchema
from topics.installation import Installation

unreadable.install()  # what a batch hides that cannot be unpacked is one record here, without a value
POLL_MS, AT_ONCE = 200, 2000
NEVER = 1 << 62


class Reader:
    """`async with Reader(installation, since_ms) as reader`: topics from `since_ms` on. `unreadable`: records without a value
    that decodes, which are passed over. Raises KafkaError, RegistryUnavailable."""

    def __init__(self, installation: Installation, since_ms: int = 0):
        self.installation, self.since_ms, self.unreadable = installation, since_ms, 0
        self._consumer = AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, enable_auto_commit=False)
        self._codecs: dict[Topic[Any], Codec] = {}
        self._refused: set[int] = set()  # schema ids that the registry does not have
        self._ends: dict[Topic[Any], dict[TopicPartition, int]] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._consumer.stop()

    def _partitions(self, topic: Topic[Any]) -> list[TopicPartition]:
        name = self.installation.name(topic)
        return [TopicPartition(name, n) for n in range(self.installation.partitions_of(topic))]

    async def note_end(self, topic: Topic[Any], until: Mapping[int, int] | None = None) -> None:
        """`read` goes to where the topic ends now; with `until`, of each partition no further than to that offset."""
        ends = await self._consumer.end_offsets(self._partitions(topic))
        if until is not None:
            ends = {tp: min(end, until.get(tp.partition, 0)) for tp, end in ends.items()}
        self._ends[topic] = ends

    async def span(self, topic: Topic[Any]) -> dict[int, tuple[int, int]]:
        """What `read` reads, by partition: its first offset, and the one behind its last."""
        if topic not in self._ends:
            await self.note_end(topic)
        return {tp.partition: (place, self._ends[topic][tp]) for tp, place in (await self._places(topic)).items()}

    async def _places(self, topic: Topic[Any]) -> dict[TopicPartition, int]:
        """Where each partition is read from."""
        ends, consumer = self._ends[topic], self._consumer
        begins: dict[TopicPartition, int] = await consumer.beginning_offsets(list(ends))
        if not self.since_ms:
            return begins
        found = await consumer.offsets_for_times(dict.fromkeys(ends, self.since_ms))
        return {tp: ends[tp] if found[tp] is None else found[tp].offset for tp in ends}  # None: nothing is so late

    async def complete_from(self, topic: Topic[Any]) -> int:
        """The time (ms) from which on everything that was ever written is still there: 0 where nothing was deleted."""
        tps = self._partitions(topic)
        begins = await self._consumer.beginning_offsets(tps)
        first = await self._consumer.offsets_for_times(dict.fromkeys(tps, 0))
        deleted = [tp for tp in tps if begins[tp] > 0]
        return max([first[tp].timestamp if first[tp] else NEVER for tp in deleted], default=0)

    async def read(
        self, topic: Topic[Any], *, unless: Callable[[bytes | None], bool] = lambda key: False
    ) -> AsyncIterator[tuple[Any, Any]]:
        """(Kafka record, value) of each record that decodes, but for those whose key is one that `unless` names."""
        if topic not in self._ends:
            await self.note_end(topic)
        ends, consumer = self._ends[topic], self._consumer
        places = await self._places(topic)
        left = {tp for tp in ends if places[tp] < ends[tp]}
        if not left:
            return
        consumer.assign(list(left))
        for tp in left:
            consumer.seek(tp, places[tp])
        while left:
            for tp, records in (await consumer.getmany(timeout_ms=POLL_MS, max_records=AT_ONCE)).items():
                for record in records:
                    if record.offset < ends[tp] and not unless(record.key):
                        value = None if record.value is None else await self.decode(topic, record.value)
                        if value is None:
                            self.unreadable += 1
                        else:
                            yield record, value
            for tp in list(left):
                if await consumer.position(tp) >= ends[tp]:
                    left.discard(tp)
                    consumer.pause(tp)

    async def decode(self, topic: Topic[Any], raw: bytes) -> Any:
        """The record in `raw`, None where it is none of this topic's schema."""
        if (codec := self._codecs.get(topic)) is None:
            codec = self._codecs[topic] = self.installation.codecs((topic,))[topic]
        try:
            return codec.decode(raw)
        except UnknownSchema as unknown:
            if unknown.id in self._refused:
                return None
            try:
                await codec.learn(unknown.id)
                return codec.decode(raw)
            except (DecodeError, UnknownSchema):
                self._refused.add(unknown.id)
                return None
        except DecodeError:
            return None
