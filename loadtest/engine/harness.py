"""Load, supervised workers and exact accounts of what they did: shared by the benchmark of the engine and its fault tests."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from deploy.local import ROOT, child
from deploy.local.kafka import free_port
from loadtest.engine import stages
from tables.store import NO_EPOCH, STALE, take
from topics.codec import Codec
from topics.installation import Installation
from topics.outputs import partition_for

SOURCE_CODEC = Codec(stages.SCHEMA)


def event_id(number: int) -> str:
    """As loadtest.engine.stages.record spells it."""
    return f"evt-{number:032d}"


class Load:
    """Writes numbered records to bench.source, in batches; idempotent, so that a broker restart makes no duplicates.

    `poison_every`: one record in so many is poison; 0 for none.
    """

    def __init__(self, installation: Installation, actors: int = 1000, poison_every: int = 0):
        self.installation, self.actors, self.poison_every = installation, actors, poison_every
        self.sent = 0
        self.repeated = 0

    async def __aenter__(self) -> Self:
        self._producer = AIOKafkaProducer(bootstrap_servers=self.installation.bootstrap, acks="all",
                                          enable_idempotence=True, max_batch_size=512 * 1024)  # fmt: skip
        await self._producer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._producer.stop()

    def is_poison(self, number: int) -> bool:
        """A record whose handler raises."""
        return bool(self.poison_every) and number % self.poison_every == self.poison_every - 1

    async def send(self, n: int, first: int | None = None) -> None:
        """`n` more records, or again those from `first` on; the broker has them on return."""
        start = self.sent if first is None else first
        batches: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        for number in range(start, start + n):
            event = stages.record(number, self.actors, "poison" if self.is_poison(number) else "message.posted")
            key = event["actor"].encode()
            batches[partition_for(key, stages.PARTITIONS)].append((key, SOURCE_CODEC.encode(event)))
        await asyncio.gather(*(self._send(partition, records) for partition, records in batches.items()))
        if first is None:
            self.sent += n
        else:
            self.repeated += n

    async def _send(self, partition: int, records: list[tuple[bytes, bytes]]) -> None:
        for i in range(0, len(records), 500):
            builder = self._producer.create_batch()
            for key, value in records[i : i + 500]:
                builder.append(timestamp=None, key=key, value=value, headers=[])
            topic = self.installation.name(stages.SOURCE)
            await (await self._producer.send_batch(builder, topic, partition=partition))

    async def flow(self, rate: int, until: asyncio.Event, repeat: bool = False) -> None:
        """About `rate` records a second until the event is set; with `repeat`, now and then one that was sent before."""
        begun, first = time.monotonic(), self.sent
        while not until.is_set():
            missing = first + int((time.monotonic() - begun) * rate) - self.sent
            if missing > 0:
                await self.send(missing)
                if repeat:
                    await self.send(1, max(0, self.sent - 1000))
                    await self.send(1, self.sent - 1)
            await asyncio.sleep(0.02)


class Worker:
    """A process of loadtest.engine.stages that is started again when it ends on its own, as any supervisor does."""

    def __init__(self, installation: Installation, which: str, folder: Path, name: str, **environment: object):
        self.log, self.exits = folder / f"{name}.log", list[int]()
        self._command = [sys.executable, "-m", "loadtest.engine.stages", which]
        self._environment = {
            **os.environ, "BOOTSTRAP": installation.bootstrap, "TOPIC_PREFIX": installation.prefix,
            "DATA": str(folder / name), "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in environment.items()},
        }  # fmt: skip
        self.process = self._spawn()
        self._watching = asyncio.create_task(self._watch())

    def _spawn(self) -> Popen[bytes]:
        return child.spawn(self._command, self.log, env=self._environment)

    async def _watch(self) -> None:
        while True:
            while (code := self.process.poll()) is None:
                await asyncio.sleep(0.05)
            self.exits.append(code)
            self.process = self._spawn()

    def counts(self) -> list[dict[str, int]]:
        """What its processes have told, three times a second each."""
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith('{"pid"')]

    async def busy(self, records: int = 1, timeout_s: float = 40.0) -> None:
        """Return when the present process has worked on so many records."""
        async with asyncio.timeout(timeout_s):
            while not any(
                told["pid"] == self.process.pid and told.get("records", 0) + told.get("performed", 0) >= records
                for told in self.counts()
            ):
                await asyncio.sleep(0.1)

    async def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        self._watching.cancel()
        return await asyncio.to_thread(child.stop, self.process, 30.0)


async def read_raw(installation: Installation, topic: str, partitions: int) -> AsyncIterator[Any]:
    """Every record of a topic (full name), to the end of this moment."""
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, enable_auto_commit=False,
                                max_partition_fetch_bytes=4 << 20)  # fmt: skip
    await consumer.start()
    try:
        tps = [TopicPartition(topic, n) for n in range(partitions)]
        consumer.assign(tps)
        await consumer.seek_to_beginning(*tps)
        ends = await consumer.end_offsets(tps)
        while any([await consumer.position(tp) < ends[tp] for tp in tps]):
            for records in (await consumer.getmany(timeout_ms=200, max_records=20_000)).values():
                for record in records:
                    yield record
    finally:
        await consumer.stop()


async def caught_up(installation: Installation, group: str, timeout_s: float = 40.0) -> None:
    """Return when `group` has committed the end of bench.source."""
    source = installation.name(stages.SOURCE)
    tps = [TopicPartition(source, n) for n in range(stages.PARTITIONS)]
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, enable_auto_commit=False)
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    await consumer.start()
    await admin.start()
    deadline = time.monotonic() + timeout_s
    try:
        while True:
            ends = await consumer.end_offsets(tps)
            try:
                have = {tp: found.offset for tp, found in (await admin.list_consumer_group_offsets(group)).items()}
            except KafkaError:  # the coordinator is not there yet
                have = {}
            lag = {tp.partition: ends[tp] - max(0, have.get(tp, 0)) for tp in tps}
            if not any(lag.values()):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{group} lags after {timeout_s} s: {lag}")
            await asyncio.sleep(0.2)
    finally:
        await admin.close()
        await consumer.stop()


async def state_of(installation: Installation, group: str) -> tuple[dict[bytes, bytes], int]:
    """What recovery makes of a changelog, all partitions in one, and the number of records of dead epochs in it."""
    logs: dict[int, list[Any]] = defaultdict(list)
    async for record in read_raw(installation, f"{group}-state-changelog", stages.PARTITIONS):
        logs[record.partition].append(record)
    state: dict[bytes, bytes] = {}
    stale = 0
    for log in logs.values():
        for key, value in take(log, NO_EPOCH):
            stale += key.startswith(STALE)
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
    return state, stale


@dataclass
class Account:
    """What became of the records that a `Load` has sent. All of it is exact but `repeats`, which a crash may cause."""

    sent: int
    lost: int  # numbers without any output
    unexpected: int  # outputs that should not be
    repeats: int  # outputs beyond the first of a number
    dead: int  # numbers in the dead letters
    dead_wrong: int  # poison that is not there, and others that are
    counters_wrong: int  # actors whose counter is not what was sent
    stale: int  # changelog records of dead epochs
    flags: dict[str, list[bool]] = field(default_factory=dict, repr=False)  # effect: outputs' flags by event id


async def account(
    installation: Installation, load: Load, stage: str, table: int, *, each_once: bool = False
) -> Account:
    """`table`: number of the counters; `each_once`: records that were sent again are recognised (identity), else counted.

    With `each_once` False, `load.repeated` must be 0.
    """
    group = installation.group(stage)
    expected = {event_id(n) for n in range(load.sent) if not load.is_poison(n)}
    poison = {event_id(n) for n in range(load.sent) if load.is_poison(n)}
    flags: dict[str, list[bool]] = defaultdict(list)
    async for record in read_raw(installation, installation.name(stages.TARGET), stages.PARTITIONS):
        event = SOURCE_CODEC.decode(record.value)
        flags[event["event_id"]].append(event["flagged"])
    letters = Codec("DeadLetter")
    dead = set()
    async for record in read_raw(installation, installation.name(stages.DEAD_LETTERS), 1):
        dead.add(SOURCE_CODEC.decode(letters.decode(record.value)["value"])["event_id"])
    state, stale = await state_of(installation, group)
    have = {key[1:].decode(): int(value) for key, value in state.items() if key[0] == table}
    assert each_once or not load.repeated, "repeats of a stage without identity cannot be accounted for"
    right = Counter(stages.record(n, load.actors)["actor"] for n in range(load.sent) if not load.is_poison(n))
    return Account(
        sent=load.sent, lost=len(expected - flags.keys()), unexpected=len(flags.keys() - expected),
        repeats=sum(map(len, flags.values())) - len(flags), dead=len(dead), dead_wrong=len(dead ^ poison),
        counters_wrong=len({actor for actor in right | have if right.get(actor, 0) != have.get(actor, 0)}), stale=stale,
        flags=dict(flags),
    )  # fmt: skip


class Receiver:
    """loadtest.engine.receiver as a child: the outside world of effects, with a log of what reached it."""

    def __init__(self, folder: Path, mean_ms: int = 50):
        self.port, self.log = free_port(), folder / "received"
        self.process = child.spawn(
            [sys.executable, "-m", "loadtest.engine.receiver", str(self.port), str(self.log), str(mean_ms)],
            folder / "receiver.log", env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    async def ready(self) -> None:
        """Return when it listens."""
        async with asyncio.timeout(20):
            while not self.log.exists():
                await asyncio.sleep(0.02)

    def deliveries(self) -> dict[str, list[bool]]:
        """Flags (possible duplicate) by event id, in the order of delivery."""
        found: dict[str, list[bool]] = defaultdict(list)
        for line in self.log.read_text("ascii").splitlines():
            event, flag = line.split()
            found[event].append(flag == "1")
        return dict(found)

    def stop(self) -> None:
        child.stop(self.process, 5.0)
