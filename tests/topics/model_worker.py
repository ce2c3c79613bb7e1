"""A worker process on a model broker: the real runner, store and consumer, with Faust, aiokafka and RocksDB replaced.

Each has an event loop of its own, run iteration by iteration, so that a test can end or freeze it at any await.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from contextlib import contextmanager
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any

from aiokafka.structs import OffsetAndMetadata
from faust.types import TP
from model_broker import HEARTBEAT, SESSION, Broker, Record
from model_process import Disk, Loop

import topics.consumer
from tables.store import Store
from topics.codec import Codec
from topics.consumer import OFFSET_KEY, Consumer
from topics.effects import EffectRunner
from topics.pure import StageRunner
from topics.runner import Wiring
from topics.stage import EffectStage, Stage

FETCHED = 3  # records at once
DELIVERY_S = 30.0
_numbers = count()


@cache
def codec_of(topic: Any) -> Codec:
    """Its parsing is most of a worker's start."""
    return Codec(topic.schema)


class Producer:
    """topics.producer.Producer over aiokafka's, as `Outputs` uses it."""

    max_batch_size = 1 << 19

    def __init__(self, worker: Worker, broker: Broker):
        self.worker, self.broker = worker, broker

    @contextmanager
    def using(self):
        yield self

    async def renew(self, used: Any) -> None:
        pass

    def create_batch(self) -> Any:
        items: list[Any] = []

        def append(*, timestamp: None, key: Any, value: Any, headers: Any) -> bool:
            items.append((key, value, headers))
            return True

        return SimpleNamespace(items=items, append=append)

    async def send_batch(self, builder: Any, topic: str, *, partition: int) -> asyncio.Future[Any]:
        def work() -> Any:
            return SimpleNamespace(offset=self.broker.append(self.worker, topic, partition, builder.items))

        return self.broker.ask(self.worker, work, (topic, partition))


class ModelConsumer(Consumer):
    """The real one without Faust's services and aiokafka's client."""

    def __init__(self, app: App, worker: Worker, broker: Broker) -> None:
        self.app, self.worker, self.broker = app, worker, broker
        self.loop, self.log, self.flow_active = worker.loop, logging.getLogger("model"), False
        self._shutdown = asyncio.Event()
        self._delivered, self._watermark, self._held_bytes = {}, {}, Counter()
        self._next_read, self._sought, self._in_effect = {}, set(), set()
        self._revoking = False
        self._committed_offset = defaultdict(lambda: None)
        self._wake, self._lease_s = asyncio.Event(), topics.consumer.LEASE * SESSION
        self.coordinator = SimpleNamespace(alive_at=broker.clock.now, fetch_committed_offsets=self._fetch_committed)
        client = SimpleNamespace(_coordinator=self.coordinator, seek=lambda tp, offset: None)
        client.seek_to_beginning = self._seek_to_beginning
        self._thread = SimpleNamespace(_ensure_consumer=lambda: client)
        self.mine: set[TP] = set()

    should_stop = False

    def assignment(self) -> set[TP]:
        return self.mine

    def _is_changelog_tp(self, tp: TP) -> bool:
        return False

    async def _fetch_committed(self, tps: Any) -> dict[Any, OffsetAndMetadata]:
        found = self.broker.group.committed
        return {tp: OffsetAndMetadata(found[tp.topic, tp.partition], "") for tp in tps if tuple(tp) in found}

    async def _seek_to_beginning(self, *tps: Any) -> None:
        pass

    def _to_message(self, tp: TP, record: Any) -> Any:
        return SimpleNamespace(generation_id=self.app.consumer_generation_id, incref=lambda n: None)

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        generation, plain = self.app.consumer_generation_id, {tuple(tp): offset for tp, offset in offsets.items()}
        return await self.broker.ask(self.worker, lambda: self.broker.commit(self.worker, generation, plain), "commit")


class App:
    """What the runner and the store use of a Faust app."""

    consumer: ModelConsumer
    producer: Producer

    def __init__(self, worker: Worker, disks: dict[int, Disk], sources: list[str]) -> None:
        self.worker, self.disks, self.sources = worker, disks, sources
        self.conf = SimpleNamespace(
            id="model", consumer_auto_offset_reset="earliest", broker_rebalance_timeout=2 * SESSION
        )
        self.rebalancing, self.should_stop, self.consumer_generation_id = True, False, -1
        self.assigned: list[Any] = []
        self.on_partitions_assigned = SimpleNamespace(connect=self.assigned.append)
        self.monitor = SimpleNamespace(on_tp_commit=lambda offsets: None)
        self.queue: asyncio.Queue[Any] = asyncio.Queue()
        channel = SimpleNamespace(
            queue=SimpleNamespace(force_put_nowait=lambda event: self.queue.put_nowait(event.value))
        )
        self.topics = SimpleNamespace(_tp_index=defaultdict(lambda: [channel]))
        self.recover_callbacks: list[Any] = []
        self.tables = SimpleNamespace(recovery=SimpleNamespace(_generation_id=-1), standbys_ready=True)

    def topic(self, *names: str, **kwargs: Any) -> None: ...

    def agent(self, source: Any, name: str) -> Any:
        return lambda read: self.add_future(read(self))

    async def noack(self) -> Any:
        while True:
            yield await self.queue.get()

    def add_future(self, work: Any) -> asyncio.Task[Any]:
        return self.worker.task(work)

    def task(self, function: Any) -> None:
        self.add_future(function())

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def Table(self, name: str, **kwargs: Any) -> Any:
        self.table = SimpleNamespace(
            on_recover=self.recover_callbacks.append,
            changelog_topic=SimpleNamespace(get_topic_name=lambda: "changelog"),
            data=SimpleNamespace(
                _db_for_partition=lambda partition: self.disks.setdefault(partition, Disk()),
                _open_for_partition=None,
                partition_path=None,  # files, of which there are none
            ),
        )
        return self.table


class Worker:
    """One life of a process, from its start to its end. `disks`: what its folder holds; outlives it."""

    def __init__(self, stage: Stage | EffectStage, broker: Broker, disks: dict[int, Disk], services: Any = None):
        self.number, self.broker, self.clock = next(_numbers), broker, broker.clock
        self.dead, self.frozen, self.thawed = False, False, False
        self.end: BaseException | None = None
        self.loop = Loop(self.clock)
        self.loop.worker = self
        self.tasks: set[asyncio.Task[Any]] = set()
        self.app = App(self, disks, [topic.name for topic in stage.reads])
        names = {topic: topic.name for topic in stage.topics()}
        self.wiring = Wiring(
            names=names, codecs={topic: codec_of(topic) for topic in names},
            partitions=dict.fromkeys(names.values(), broker.partitions),
            max_bytes=dict.fromkeys([*names.values(), "changelog"], 1 << 20),
            services=services, clock=self.clock.wall_ms, delivery_s=DELIVERY_S,
        )  # fmt: skip
        self.app.consumer, self.app.producer = ModelConsumer(self.app, self, broker), Producer(self, broker)
        self.store = Store(self.app, stage.tables, broker.partitions)
        if isinstance(stage, EffectStage):
            self.runner: Any = EffectRunner(self.app, stage, self.wiring, self.store)
            self.app.settle_seconds = SESSION / 2
        else:
            self.runner = StageRunner(self.app, stage, self.wiring, self.store)
        self._rejoin = asyncio.Event()
        self._rejoin.set()
        self._joining = False
        for work in (self._heartbeats(), self._membership(), self._fetch(), self._commits()):
            self.task(work)

    def is_awake(self) -> bool:
        return not (self.dead or self.frozen)

    def __repr__(self) -> str:
        return f"worker {self.number}"

    def task(self, work: Any) -> asyncio.Task[Any]:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (exc := task.exception()):
            self.exit(exc)

    # -- what a test decides ---------------------------------------------------------------------------------------
    def run(self, iterations: int) -> None:
        if not (self.dead or self.frozen):
            self.loop.run_up_to(iterations)

    def exit(self, exc: BaseException) -> None:
        """By itself."""
        self.end = self.end or exc
        self.dead = True

    def kill(self) -> None:
        """kill -9: whatever its tasks still do on their way out has no effect."""
        self.dead, self.app.disks = True, {}
        asyncio._set_running_loop(self.loop)
        for _ in range(20):
            if not (left := asyncio.all_tasks(self.loop)):
                break
            for task in left:
                task.cancel()
            self.loop._run_once()
        asyncio._set_running_loop(None)
        self.loop.close()

    # -- what Faust and aiokafka do --------------------------------------------------------------------------------
    async def _heartbeats(self) -> None:
        while True:
            while self._joining:
                await asyncio.sleep(HEARTBEAT / 4)
            sent, said = self.clock.now, await self.ask_group()
            if said != "unknown":
                self.app.consumer.coordinator.alive_at = sent
            if said != "ok":
                self._rejoin.set()
            await asyncio.sleep(HEARTBEAT)

    async def ask_group(self) -> str:
        return await self.broker.ask(self, lambda: self.broker.group.heartbeat(self), "group")

    async def _membership(self) -> None:
        app, consumer, group = self.app, self.app.consumer, self.broker.group
        while True:
            await self._rejoin.wait()
            app.rebalancing = True
            await consumer.wait_empty()
            consumer._forget(list(consumer.mine))
            consumer.flow_active = False
            app.queue._queue.clear()
            while self._rejoin.is_set():
                self._rejoin.clear()
                self._joining = True
                await group.join(self)
                self._joining = False
                sent, said = self.clock.now, await self.ask_group()  # SyncGroup
                if said != "unknown":
                    consumer.coordinator.alive_at = sent
                if said != "ok":  # it has moved on while we did not listen
                    self._rejoin.set()
            generation, partitions = group.generation, [p for p, owner in group.owners.items() if owner is self]
            consumer.mine = {TP(topic, partition) for topic in app.sources for partition in partitions}
            app.consumer_generation_id = generation
            for callback in app.assigned:
                await callback(app, assigned=set(consumer.mine))
            app.tables.recovery._generation_id = generation
            for partition in partitions:
                await self._recover(partition)
            for callback in app.recover_callbacks:
                await callback()
            await consumer.perform_seek()
            consumer.flow_active, app.rebalancing = True, False

    async def _recover(self, partition: int) -> None:
        """The changelog in two pieces, each by the real `Consumer._recover`."""
        tp, known = TP("changelog", partition), self.app.disks.setdefault(partition, Disk()).get(OFFSET_KEY)
        recovery = SimpleNamespace(
            active_tps={tp}, active_offsets={} if known is None else {tp: int(known)}, in_recovery=False,
            tp_to_table={tp: self.app.table}, _generation_id=self.app.tables.recovery._generation_id,
        )  # fmt: skip
        self.app.tables.recovery = recovery
        first, log = 0 if known is None else int(known) + 1, self.broker.logs["changelog", partition]
        assert first <= len(log), "RocksDB knows more than the changelog has"
        middle, end = (first + len(log)) // 2, len(log)
        for part in (log[first:middle], log[middle:end]):
            await asyncio.sleep(0)
            if part:
                self.app.consumer._recover(tp, part)

    async def _fetch(self) -> None:
        consumer = self.app.consumer
        while True:
            await asyncio.sleep(0.1)
            if not consumer.flow_active:
                continue
            for tp in sorted(consumer._sought):
                first = consumer._next_read.get(tp, 0)
                records: list[Record] = self.broker.logs[tuple(tp)][first : first + FETCHED]
                if records and consumer._has_room(tp):
                    consumer._deliver(tp, records)

    async def _commits(self) -> None:
        while True:
            await asyncio.sleep(0.25)
            if self.app.consumer.flow_active and not self.app.rebalancing:
                await self.app.consumer.force_commit()
