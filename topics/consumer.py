"""Batch consumer for faust-streaming 0.15.3 over aiokafka 0.14.0: one stream event is one batch of one partition.

What it changes, and why (numbers are those of faust.md):

- the consumer runs in the worker's own loop, no thread hand-off per call;
- every agent's topic is delivered as `Batch`es; a changelog is applied as RocksDB write batches (18);
- the committed offset of a partition is the end of the unbroken run of finished batches (1), moved by `Consumer.finish` and
  `advance` alone. Faust's own acks are ignored: a stream acks what it *skips* (3, 15), and those were never processed;
- a commit that the broker did not accept is not recorded as committed (2);
- "no committed offset" is believed only when the coordinator says so (20), see `watch_answers`;
- a seek goes to the committed offset, or to the reset position where there is none (17); only a position check drops
  records (16);
- when every partition is full the loop is woken by the first that has room (13).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import rocksdict
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata
from faust.events import Event
from faust.tables.recovery import RebalanceAgain
from faust.transport.consumer import ensure_TP
from faust.transport.drivers import aiokafka as stock
from faust.types import TP
from mode import Service
from mode.utils.futures import maybe_async

from topics import unreadable
from topics.group import leave_when_closed, watch_answers

OFFSET_KEY = b"__faust\0offset__"  # faust.stores.rocksdb.Store.offset_key
BATCH_MAX = 500  # records in one event; of small ones about 10 ms of work, which all I/O of the process waits for
BATCH_BYTES_MAX = 4 << 20  # of values, where batches are joined: submissions may be large
OUTSTANDING_MAX = 2000  # offsets from the first unfinished record to the last one read; then a partition is not fetched
OUTSTANDING_BYTES_MAX = 16 << 20  # of values in its unfinished batches; the same. One fetch may go beyond it, by 8 MiB
SETTLE_SECONDS = 8.0  # a rebalance or a stop waits this long for effects that have begun
SETTLE = 0.75  # share of the rebalance time-out that it waits at most
# Faust's polls are of 1500: in a rebalance metadata, and then changelogs, wait for the end of the one before them. With 500 an idle
# worker of all stages uses 5.2 % of a core, with these 3.8 % as with Faust's.
FETCH_WAIT_MS = 750
LEASE = 0.8  # share of the session after which a worker without a heartbeat begins nothing
POLL_SECONDS = 0.5  # a fetch waits so long while a partition is full, 4 times as long else
HELD_POLL_SECONDS = 0.1  # the same while a source is held back: it is to go on soon after it may

unreadable.install()


class Owned(Protocol):
    """Work that belongs to one partition of one assignment: a `Batch` or a `Tick`."""

    tp: TP
    generation: int


class Batch:
    """Records of one partition in offset order; `next_offset` is what a commit after it says."""

    __slots__ = ("bytes", "finished", "first", "generation", "next_offset", "records", "tp", "written")

    def __init__(self, tp: TP, records: Sequence[Any], generation: int):
        self.tp, self.records, self.generation = tp, records, generation
        self.first: int = records[0].offset  # of what is unfinished
        self.next_offset: int = records[-1].offset + 1
        self.bytes = sum([len(record.value or b"") for record in records])  # of its values
        self.written = (
            records[0].timestamp or 0
        ) / 1000  # when its first record was, in Unix time; an ancient format has none
        self.finished = False


class Tick:
    """A turn without records, for what is due by time in one partition."""

    __slots__ = ("generation", "tp")

    def __init__(self, tp: TP, generation: int):
        self.tp, self.generation = tp, generation


class InlineConsumer(stock.AIOKafkaConsumerThread):
    """AIOKafkaConsumerThread that is no thread: the same methods, run in the parent's loop."""

    abstract = False
    wait_for_shutdown = False

    def __init__(self, consumer: Any, *, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any):
        loop = loop or asyncio.get_event_loop()
        super().__init__(consumer, loop=loop, thread_loop=loop, **kwargs)

    start, stop, crash = Service.start, Service.stop, Service.crash
    _stopped_set, set_shutdown = Service._stopped_set, Service.set_shutdown
    _stop_children, _stop_futures = Service._stop_children, Service._stop_futures
    _stop_exit_stacks = Service._stop_exit_stacks

    async def on_start(self) -> None:
        await super().on_start()
        if not self.app.client_only:
            coordinator = self._consumer._coordinator
            watch_answers(coordinator)
            instance = self.app.conf.consumer_group_instance_id
            leave_when_closed(coordinator, instance, lambda: self.app.should_stop)

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS  # it is looked at when the consumer starts
        return consumer

    async def on_stop(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def call_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await maybe_async(fun(*args, **kwargs))

    async def cast_thread(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self.add_future(maybe_async(fun(*args, **kwargs)))

    async def getmany(self, active_partitions: set[TP], timeout: float, most: int | None = None) -> Any:  # noqa: ASYNC109  # stock has it
        """Stock, of `most` records at most."""
        most = self._ensure_consumer()._max_poll_records if most is None else most
        return await self._fetch_records(self._consumer, active_partitions, timeout=timeout, max_records=most)

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer._closed = True
            self.add_future(self._consumer._client.close())
            self.add_future(self._consumer._coordinator.close())

    async def _commit(self, offsets: dict[TP, int]) -> bool:
        consumer, mine = self._ensure_consumer(), self.assignment()
        wanted = {stock.ensure_aiokafka_TP(tp): OffsetAndMetadata(o, "") for tp, o in offsets.items() if tp in mine}
        if not wanted:
            return False
        try:
            await consumer.commit(wanted)
        except (CommitFailedError, IllegalStateError) as exc:
            # the group moved on: another worker reads these records again, or this one after the rebalance
            self.log.warning("commit refused, not recorded: %r", exc)
            return False
        except KafkaError as exc:
            if not exc.retriable:
                await self.crash(exc)
            self.log.warning("commit failed, will be tried again: %r", exc)
            return False
        return True


class Consumer(stock.Consumer):
    """Delivers batches, keeps the low watermark, commits it."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._delivered: dict[TP, deque[Batch]] = {}  # in offset order; the head is the oldest unfinished one
        self._watermark: dict[TP, int] = {}  # committable: everything below is finished
        self._held_bytes: Counter[TP] = Counter()  # bytes of the batches in `_delivered`
        self._next_read: dict[TP, int] = {}
        self._sought: set[TP] = set()  # read from only after `perform_seek`
        self._allowed: dict[str, int] = {}  # records that may still be read of a topic; all where it is not named
        self._held_first = False  # whose turn it is to be fetched first
        self._revoking = False  # from the call to give partitions up until the next ones are assigned
        self._in_effect: set[Any] = set()  # batches, ticks or windows that may already have written something
        self._wake = asyncio.Event()
        self._lease_s: float = LEASE * self.app.conf.broker_session_timeout

    def _new_consumer_thread(self) -> InlineConsumer:
        return InlineConsumer(self, loop=self.loop, beacon=self.beacon)

    # -- for the stage runner --------------------------------------------------------------------------------------
    def is_current(self, work: Owned) -> bool:
        """False: the partition was or is being taken away, or sought anew; drop the work, its records come again."""
        if self.app.rebalancing or self.should_stop or not self.flow_active:
            return False
        return bool(work.generation == self.app.consumer_generation_id) and self.owns(work)

    def owns(self, work: Owned) -> bool:
        """An unfinished batch of this assignment, neither handed over nor forgotten by a seek (a fetch may return
        between assignment and seek): its results may still be written. A tick: its partition is read from."""
        if isinstance(work, Tick):
            return work.tp in self._sought
        return work in self._delivered.get(work.tp, ())

    @property
    def has_group(self) -> bool:
        """False while it starts: it has not asked for partitions yet."""
        consumer = getattr(self._thread, "_consumer", None)
        return hasattr(getattr(consumer, "_coordinator", None), "alive_at")

    def holds_lease(self) -> bool:
        """False: no heartbeat was accepted for most of a session, so another worker may own our partitions (24)."""
        alive_at: float = self._thread._ensure_consumer()._coordinator.alive_at
        return time.monotonic() - alive_at < self._lease_s

    def sought(self) -> set[TP]:
        """Source partitions that are ours and read from: recovered, and sought to the committed offset."""
        return self._sought if self.flow_active and not self.app.rebalancing else set()

    def committed(self, tps: Iterable[TP]) -> dict[int, int]:
        """The committed offset of partitions that are ours, by partition number; 0 where there is none."""
        return {tp.partition: self._committed_offset.get(tp) or 0 for tp in tps}

    def committed_offset(self, tp: TP) -> int | None:
        """As the broker has accepted it; None where there is none."""
        return self._committed_offset.get(tp)  # type: ignore[no-any-return]  # Faust has no types here

    def oldest(self, tp: TP) -> float | None:
        """When (Unix time) the first record of the oldest unfinished batch was written; None where none has been read."""
        queue = self._delivered.get(tp)
        return queue[0].written if queue else None

    async def ends(self, tps: Iterable[TP]) -> dict[TP, int]:
        """What a group at the end of each partition has committed, asked of the broker: 0 where no record is left above what is
        committed (an empty partition, retention has taken the rest, or the rest is markers). Raises KafkaError."""
        consumer = self._thread._ensure_consumer()
        tps = {stock.ensure_aiokafka_TP(tp): tp for tp in tps}
        if not tps:
            return {}
        ends = await consumer.end_offsets(list(tps))
        behind = [tp for tp, end in ends.items() if end > (self._committed_offset.get(tps[tp]) or 0)]
        first = await consumer.beginning_offsets(behind) if behind else {}
        return {
            tps[tp]: 0 if first.get(tp, -1) >= end or self._is_read(tps[tp], end) else end for tp, end in ends.items()
        }

    def _is_read(self, tp: TP, end: int) -> bool:
        """The fetcher has come to `end`, and what it brought is finished and committed. The rest are a transaction's markers:
        they have offsets, and no record that could be finished."""
        if (queue := self._delivered.get(tp)) and queue[0].first < queue[-1].next_offset:
            return False
        finished, committed = self._watermark.get(tp), self._committed_offset.get(tp)
        if finished is not None and (committed is None or committed < finished):
            return False
        state = self._thread._ensure_consumer()._subscription.subscription.assignment.state_value(
            stock.ensure_aiokafka_TP(tp)
        )
        return state is not None and state.has_valid_position and state.position >= end

    def state_of(self, tp: TP) -> str:
        """Why its committed offset does not move, as far as it is up to the consumer; empty where it is up to the runner."""
        finished, committed = self._watermark.get(tp), self._committed_offset.get(tp)
        if finished is not None and (committed is None or finished > committed):
            return f"finished up to {finished}, and the broker does not take the commit"
        if not self._delivered.get(tp):
            return "the fetcher brings nothing"
        return ""

    async def until_current(self, work: Owned) -> bool:
        """True once it `is_current`; False: drop the work, it comes again. What is owned is never dropped: nothing would bring
        it again, and the mark of the next batch would say that it is finished."""
        while not self.is_current(work):
            if self.should_stop or not self.owns(work):
                return False
            await asyncio.sleep(0.02)  # a rebalance begins, and takes it away
        return True

    async def begin_effects(self, work: Owned) -> bool:
        """To be awaited before the first write; a rebalance then waits for `finish` or `abandon`. False: drop the work."""
        while await self.until_current(work):
            if self.holds_lease():
                self._in_effect.add(work)
                return True
            await asyncio.sleep(0.05)  # frozen, or the broker is away: the next heartbeat tells
        return False

    def is_oldest(self, batch: Batch) -> bool:
        """All that was read before it is finished."""
        queue = self._delivered.get(batch.tp)
        return queue is not None and len(queue) > 0 and queue[0] is batch

    async def may_finish(self, work: Owned) -> bool:
        """After `begin_effects`, before a later write: False where another worker may own the partition by now. A rebalance or
        a stop that has begun meanwhile waits for us, so what is half written is written to its end."""
        while self.owns(work) and not self.holds_lease():
            if self.app.rebalancing:  # the heartbeat has told: we were away for too long
                return False
            await asyncio.sleep(0.05)
        return self.owns(work)

    def hold(self, work: Any) -> None:
        """As `begin_effects` without its checks, for any hashable. Ended by `abandon`."""
        self._in_effect.add(work)

    def advance(self, batch: Batch, offset: int) -> None:
        """Everything below `offset`, inside the oldest unfinished batch of its partition, is finished."""
        if offset > batch.first and (queue := self._delivered.get(batch.tp)) and queue[0] is batch:
            batch.first = self._watermark[batch.tp] = offset
            self._wake.set()

    def join(self, batch: Batch, other: Batch) -> bool:
        """Put `other` at the end of `batch`, where it is the next one of the partition and neither has begun. A stage that is
        behind finds many small batches (each fetch is one); each would cost a confirmed write of its own."""
        queue = self._delivered.get(batch.tp)
        if queue is None or batch.generation != other.generation or batch not in queue or other not in queue:
            return False
        if queue.index(other) != queue.index(batch) + 1 or len(batch.records) + len(other.records) > BATCH_MAX:
            return False
        if batch.bytes + other.bytes > BATCH_BYTES_MAX:
            return False
        batch.bytes += other.bytes
        batch.records, batch.next_offset = [*batch.records, *other.records], other.next_offset
        queue.remove(other)
        return True

    def finish(self, batch: Batch) -> None:
        """Every effect of the batch is confirmed by the broker."""
        batch.finished = True
        self._in_effect.discard(batch)
        queue = self._delivered.get(batch.tp)
        if queue is not None and batch in queue:  # else: of an earlier assignment, nothing to commit
            while queue and queue[0].finished:
                first = queue.popleft()
                self._watermark[batch.tp] = first.next_offset
                self._held_bytes[batch.tp] -= first.bytes
        self._wake.set()

    def is_half_full(self, tp: TP) -> bool:
        """Half of the bytes that a partition may hold in memory are there."""
        return 2 * self._held_bytes[tp] > OUTSTANDING_BYTES_MAX

    def release(self, batch: Batch, size: int) -> None:
        """`size` bytes of the batch are not needed any more, though it is not finished: a slow record before them must not
        keep the partition full."""
        batch.bytes -= size
        if batch in self._delivered.get(batch.tp, ()):
            self._held_bytes[batch.tp] -= size
            self._wake.set()

    def allow(self, topic: str, records: int) -> None:
        """Read so many more records of a source, and then none until the next call: it is held back, the others go on."""
        self._allowed[topic] = records
        self._wake.set()

    def allowed(self, topic: str) -> int | None:
        """What is left of that; None where the source is not held back."""
        return self._allowed.get(topic)

    def outstanding(self, tp: TP) -> int:
        """Offsets from the first unfinished record of a partition to the last one read."""
        queue = self._delivered.get(tp)
        return queue[-1].next_offset - queue[0].first if queue else 0

    def abandon(self, work: Any) -> None:
        """`work` writes nothing more."""
        self._in_effect.discard(work)
        self._wake.set()

    # -- commit ----------------------------------------------------------------------------------------------------
    def ack(self, message: Any) -> bool:
        message.acked = True  # see the module's docstring: not what commits
        self._unacked_messages.discard(message)
        return True

    async def verify_all_partitions_active(self) -> None:
        """Faust's own watch raises for a partition that has no position yet; topics/stall.py looks instead."""

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        done = self._committed_offset
        offsets = {tp: o for tp, o in self._watermark.items() if done[tp] is None or o > done[tp]}
        if not offsets or not await self._commit(offsets):
            return False
        for tp, offset in offsets.items():
            if tp in self._watermark:  # not revoked while the commit was under way
                done[tp] = offset
        self.app.monitor.on_tp_commit(offsets)
        return True

    # -- rebalance -------------------------------------------------------------------------------------------------
    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """`app.rebalancing` is already set, so nothing begins; what has begun finishes and is committed."""
        self._revoking = True
        await self.wait_empty()
        self._forget(revoked)
        await super().on_partitions_revoked(revoked)

    async def wait_empty(self) -> None:
        """Also called when the worker stops (SIGTERM): then effects have its whole grace, unless the group wants to rebalance,
        which waits for nobody longer than its time-out. What has not ended then is begun again by the next owner."""
        settle = min(
            getattr(self.app, "settle_seconds", SETTLE_SECONDS), SETTLE * self.app.conf.broker_rebalance_timeout
        )
        grace = getattr(self.app, "grace_s", settle)
        deadline, rebalancing = self.loop.time() + (settle if self.app.rebalancing else grace), self.app.rebalancing
        while self._in_effect and self.loop.time() < deadline:
            if self.app.rebalancing and not rebalancing:
                rebalancing, deadline = True, min(deadline, self.loop.time() + settle)
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), 0.2)
            except TimeoutError:
                pass
        try:
            await asyncio.wait_for(self.force_commit(), settle)
        except TimeoutError:
            self.log.warning("commit before the rebalance timed out: records will be seen twice")
        if (give_up := getattr(self.app, "give_up_partitions", None)) is not None:
            await give_up()

    def _forget(self, tps: Iterable[Any]) -> None:
        for tp in tps:
            for mapping in (
                self._delivered,
                self._held_bytes,
                self._watermark,
                self._next_read,
                self._committed_offset,
            ):
                mapping.pop(ensure_TP(tp), None)
            self._sought.discard(ensure_TP(tp))

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """The signal of the last recovery is still set, and stock clears it only where `_recover` took over: without this
        every later recovery of the process ends before it has read anything."""
        self._revoking = False
        self.app.tables.recovery.signal_recovery_end.clear()
        await super().on_partitions_assigned(assigned, generation_id)

    async def perform_seek(self) -> None:
        """The last step of a recovery. Raises RebalanceAgain where the partitions are being given up meanwhile: Faust would go on
        to read and work until the next assignment, and its seek forget what had been written by then."""
        consumer, generation = self._thread._ensure_consumer(), self.app.consumer_generation_id
        mine = [tp for tp in self.assignment() if not self._is_changelog_tp(tp)]
        committed = await consumer._coordinator.fetch_committed_offsets([stock.ensure_aiokafka_TP(tp) for tp in mine])
        self._check_is_assigned(generation)
        self._forget(mine)
        unknown = []
        for tp in mine:
            found = committed.get(tp)
            if found is None or found.offset < 0:
                unknown.append(stock.ensure_aiokafka_TP(tp))
                continue
            consumer.seek(stock.ensure_aiokafka_TP(tp), found.offset)
            self._committed_offset[tp] = self._next_read[tp] = found.offset
        if unknown:
            earliest = self.app.conf.consumer_auto_offset_reset == "earliest"
            await (consumer.seek_to_beginning if earliest else consumer.seek_to_end)(*unknown)
            self._check_is_assigned(generation)
        self._sought.update(mine)

    def _check_is_assigned(self, generation: int) -> None:
        known = {generation, self.app.tables.recovery._generation_id, self.app.consumer_generation_id}
        if self._revoking or len(known) > 1:
            raise RebalanceAgain

    # -- reading ---------------------------------------------------------------------------------------------------
    def on_buffer_full(self, tp: TP) -> None:
        """Back-pressure is `_has_room` here."""

    def _has_room(self, tp: TP) -> bool:
        if not self._delivered.get(tp):
            return True
        limit: int = getattr(self.app, "outstanding_max", OUTSTANDING_MAX)
        return self.outstanding(tp) < limit and self._held_bytes[tp] < OUTSTANDING_BYTES_MAX

    def _fetchable(self) -> tuple[set[TP], float]:
        """Partitions to fetch from now, and for how long (s): not long where one was left out that may soon be ready."""
        ready, seconds = set(), 4 * POLL_SECONDS
        reads = not self.app.rebalancing  # a recovery may have sought them a moment before its rebalance is over
        for tp in self._get_active_partitions():
            held = self._allowed.get(tp.topic, 1) <= 0
            if self._is_changelog_tp(tp) or (reads and tp in self._sought and not held and self._has_room(tp)):
                ready.add(tp)
            elif tp in self._sought:
                seconds = min(seconds, HELD_POLL_SECONDS if held else POLL_SECONDS)
        return ready, seconds

    async def _getmany(self, active_partitions: set[TP], timeout: float) -> Any:  # noqa: ASYNC109  # stock has it
        """Sources that are held back are fetched apart, in turn with the others, so that what they may be read of is no bound for
        those. Not both in one call: what the first fetch brought would be lost, were the second to raise."""
        held = {tp for tp in active_partitions if tp.topic in self._allowed}
        if not held:
            return await self._thread.getmany(active_partitions, timeout)
        most = min(self._allowed[tp.topic] for tp in held)
        self._held_first = not self._held_first
        turns: list[tuple[set[TP], int | None]] = [(active_partitions - held, None), (held, most)]
        for tps, of_these in reversed(turns) if self._held_first else turns:
            if tps and (records := await self._thread.getmany(tps, 0, of_these)):
                return records
        return await self._thread.getmany(active_partitions, timeout, most)  # nothing is there: the first of what comes

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                if not self.flow_active:
                    await self.wait(self.can_resume_flow)
                    continue
                self._wake.clear()
                ready, seconds = self._fetchable()
                if not ready:
                    try:
                        await asyncio.wait_for(self._wake.wait(), POLL_SECONDS)
                    except TimeoutError:
                        pass
                    continue
                records = await self._getmany(ready, seconds)
                await asyncio.sleep(0)
                for tp, found in (records or {}).items():
                    self._take(ensure_TP(tp), found)
        except self.consumer_stopped_errors:
            if not self.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    def _take(self, tp: TP, records: list[Any]) -> None:
        changelog = self._is_changelog_tp(tp)
        if self._was_sought(tp, records):
            return
        if not self.flow_active or not (changelog or (tp in self._sought and not self.app.rebalancing)):
            # not ours to drop: whoever resumes the flow must see them
            self._thread._ensure_consumer().seek(stock.ensure_aiokafka_TP(tp), records[0].offset)
            return
        self.app.monitor.track_tp_end_offset(tp, self.highwater(tp))
        if changelog:
            self._recover(tp, records)
        else:
            if tp.topic in self._allowed:
                self._allowed[tp.topic] -= len(records)
            self._deliver(tp, records)

    def _was_sought(self, tp: TP, records: list[Any]) -> bool:
        """A seek or a new assignment came between the fetch of these records and now: the position is not behind them
        any more, they will be fetched again. Nothing but this test may drop records: comparing generations loses those
        that a fetch begun before a rebalance returns after it."""
        assignment = self._thread._ensure_consumer()._subscription.subscription.assignment
        state = assignment.state_value(stock.ensure_aiokafka_TP(tp))
        return state is None or not state.has_valid_position or state.position <= records[-1].offset

    def _deliver(self, tp: TP, records: list[Any]) -> None:
        next_read = self._next_read.get(tp)
        if next_read is not None and records[0].offset < next_read:
            records = [r for r in records if r.offset >= next_read]
        queue = self._delivered.setdefault(tp, deque())
        for i in range(0, len(records), BATCH_MAX):
            message = self._to_message(tp, records[min(i + BATCH_MAX, len(records)) - 1])
            batch = Batch(tp, records[i : i + BATCH_MAX], message.generation_id)
            channels = self.app.topics._tp_index[tp]
            message.incref(len(channels))
            for channel in channels:
                channel.queue.force_put_nowait(Event(self.app, None, batch, None, message))
            queue.append(batch)
            self._held_bytes[tp] += batch.bytes
            self._next_read[tp] = batch.next_offset

    def _recover(self, tp: TP, records: list[Any]) -> None:
        """Changelog records into RocksDB, one write batch; what Recovery._slurp_changelogs does one by one.

        A fetch that began in recovery may end after it, with records that this worker has itself written since. What RocksDB
        knows is passed over: else it would go back to a value of before, and the next write find the log longer (Overtaken).
        """
        recovery = self.app.tables.recovery
        if tp in recovery.active_tps:
            offsets = recovery.active_offsets
        elif tp in recovery.standby_tps:
            offsets = recovery.standby_offsets
        else:
            return
        table = recovery.tp_to_table[tp]
        db = table.data._db_for_partition(tp.partition)
        seen = max((int(known) for known in (offsets.get(tp), db.get(OFFSET_KEY)) if known is not None), default=-1)
        fresh = [record for record in records if record.offset > seen]
        offsets[tp] = last = max(seen, records[-1].offset)
        if fresh:
            write = rocksdict.WriteBatch(raw_mode=True)
            for key, value in table.take_from_changelog(tp.partition, fresh):
                if value is None:
                    write.delete(key)
                else:
                    write.put(key, value)
            write.put(OFFSET_KEY, b"%d" % last)
            db.write(write)
        if recovery.in_recovery and not recovery.need_recovery():
            recovery._set_recovery_ended()
            recovery.signal_recovery_end.set()
        if not self.app.tables.standbys_ready and not recovery.standby_remaining_total():
            self.app.tables.on_standbys_ready()
