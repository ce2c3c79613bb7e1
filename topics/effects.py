"""Runner of effect stages: slow work on the outside world (SMTP), many records at a time, ending in any order.

`await perform(record, state, possible_duplicate)` is the effect; `settle(record, result, state)` turns its result into
outputs and state, in memory, as a handler of a pure stage does. "Park until t" is a result like any other: `settle` sends it
to mail.scheduled, and the record is finished.

One cycle every few milliseconds, for all partitions at once: results settled in memory and the next records chosen, outputs
confirmed, changelog confirmed (per partition ONE record batch: changes, and per source what is begun and what finished),
RocksDB, offsets, and only then the chosen effects begin. What a crash after each step leaves, frozen workers, rebalances and
stops: topics/guarantees.md.

Progress (`Window`) is two bit sets above the first unfinished offset, so records of one key may overtake those of a key at its
limit and are still told apart exactly.

The window: offsets per partition between the first unfinished record and the last one read. A record that takes t seconds
stops the others of its partition only if more than the window of them pass meanwhile; after a crash up to so many records per
partition are read again and passed over. What waits in memory is far less: where many records of a partition wait, the last ones of
the keys that have most are settled without an effect (`EffectStage.crowded`).

Keys that are slow leave room for the others: a key begins with few effects at once and gets more as they end in time, and
effects that take long do not count in `limit`.

Left as it is: one output partition that cannot be written holds the cycle of all of them (exit after `delivery_s`).
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
import zlib
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Iterable
from functools import partial
from typing import Any

import faust
from faust.types import TP

from topics.codec import DecodeError, UnknownSchema
from topics.consumer import Batch
from topics.fair import FairQueue
from topics.outputs import Outputs
from topics.runner import PERFORMED, REST_MAX_SECONDS, SWEEP_SECONDS, Runner, Store, TooMuchChange, Wiring, give_up
from topics.stage import EffectStage, outputs_of
from topics.state import View
from topics.trace import Span

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.005  # results are gathered this long at least, and as long as the last cycle took: see pure.Lane
WINDOW = (
    65_536  # 5 min at 200 records/s of one partition, as long as a host may keep silent; the consumer bounds the bytes
)
SHORT = 512  # bytes of progress; longer ones, nearly all ones, are packed
SLOW_SECONDS, SLOW_TIMES = 1.0, 5  # an effect that takes longer gives up its place in `limit`, up to 5 times the limit
HANG_SECONDS = 10.0  # ... and one that takes longer than this takes the places of its key: receivers think for seconds
FEW = 2  # effects at once that a key begins with; one more for each that ends in time
MANY_KEYS = 10_000  # of which that is remembered
CROWD = 2048  # waiting records of a partition: from here on some of them are settled without an effect...
CROWD_LEFT = 1024  # ... until so many are left,
CROWD_KEY = 16  # and of a key never fewer than these,
CROWD_STEP = 500  # so many in one cycle
LOST_SECONDS = 3.0  # for `EffectStage.lost`
SETTLE_SECONDS = 15.0  # most SMTP transactions end in this time; stays below the rebalance time-out
_progress = struct.Struct(">qI")
_PACKED = 1 << 31  # in the length: the rest is packed


def _name(place: tuple[TP, int]) -> str:
    return f"{place[0].topic}[{place[0].partition}]@{place[1]}"


def _pack_bits(bits: int) -> bytes:
    return bits.to_bytes((bits.bit_length() + 7) // 8, "little")


class Window:
    """Progress in one source partition. Bit n of `begun` and `finished` is offset `low + n`; below `low` all is finished."""

    def __init__(self, tp: TP, first: int, source: int, raw: bytes | None):
        self.tp, self.source = tp, source
        self.batches: deque[Batch] = deque()
        self.order: deque[int] = deque()  # offsets read, from the first unfinished one
        self.busy = 0  # begun, result not yet written
        self.dirty = False  # has to be written although nothing else changed
        self.waiting = Counter[bytes]()  # by key: records in `EffectRunner._queues`
        self.low, self.begun, self.finished = first, 0, 0
        if raw is not None:
            self.low, n = _progress.unpack_from(raw)
            bits = raw[12:]
            if n & _PACKED:
                n, bits = n & ~_PACKED, zlib.decompress(bits)
            self.begun = int.from_bytes(bits[:n], "little")
            self.finished = int.from_bytes(bits[n:], "little")
        self._doubt, self._doubt_low = self.begun & ~self.finished, self.low

    def is_finished(self, offset: int) -> bool:
        return offset < self.low or bool(self.finished >> (offset - self.low) & 1)

    def in_doubt(self, offset: int) -> bool:
        """Begun by an earlier owner who left no result."""
        return offset >= self._doubt_low and bool(self._doubt >> (offset - self._doubt_low) & 1)

    @property
    def doubts(self) -> int:
        """How many there are of those."""
        return self._doubt.bit_count()

    def begin(self, offset: int) -> None:
        self.begun |= 1 << (offset - self.low)

    def take_back(self, offset: int) -> None:
        """What was to begin has not."""
        if not self.in_doubt(offset):
            self.begun &= ~(1 << (offset - self.low))
        self.dirty = True

    def finish(self, offset: int) -> None:
        self.finished |= 1 << (offset - self.low)

    def move(self) -> None:
        """`low` goes to the first unfinished offset."""
        while self.order and self.is_finished(self.order[0]):
            self.order.popleft()
        low = self.order[0] if self.order else self.batches[-1].next_offset
        if low > self.low:
            self.begun >>= low - self.low
            self.finished >>= low - self.low
            self.low = low

    def pack(self) -> bytes:
        begun = _pack_bits(self.begun)
        bits = begun + _pack_bits(self.finished)
        if len(bits) <= SHORT:
            return _progress.pack(self.low, len(begun)) + bits
        return _progress.pack(self.low, len(begun) | _PACKED) + zlib.compress(bits, 1)


class Item:
    """One record in work. `value`: decoded, or the error that says why not, from its first turn on: a whole window of decoded
    records is 150 MB, and half of the processor's time in the garbage collector. `identity`: None where it has none."""

    __slots__ = ("batch", "identity", "place", "record", "span", "value", "window")

    def __init__(self, window: Window, record: Any, batch: Batch):
        self.window, self.record, self.batch = window, record, batch
        self.place: tuple[TP, int] = (window.tp, record.offset)
        self.value: Any = None
        self.identity: str | None = None
        self.span: Span | None = None


class EffectRunner(Runner):
    """Runs an `EffectStage`. `state` in `perform` is read only, as of the last cycle."""

    stage: EffectStage
    store: Store

    def __init__(self, app: faust.App, stage: EffectStage, wiring: Wiring, store: Store, window: int = WINDOW):
        super().__init__(app, stage, wiring, store)
        if stage.performer is None or stage.settler is None:
            raise ValueError(f"stage {stage.name} needs perform and settle")
        self._performer, self._settler = stage.performer, stage.settler
        app.outstanding_max, app.settle_seconds, app.give_up_partitions = window, SETTLE_SECONDS, self._give_up
        app.on_partitions_assigned.connect(self._assigned)
        self._windows: dict[TP, Window] = {}
        self._queues: dict[bytes, FairQueue[Item]] = defaultdict(FairQueue)  # key -> records that wait
        self.metrics.queued = lambda: {key: len(queue) for key, queue in list(self._queues.items())}
        self._ready: OrderedDict[bytes, None] = OrderedDict()  # keys that have a waiting record and a free place
        self._unknown: dict[tuple[str, int], list[Item]] = {}  # (topic, schema id) -> records that wait for it
        self._twins: dict[str, deque[Item]] = {}  # identity in work -> others of the same identity
        self._young: dict[Item, float] = {}  # running -> since when (monotonic), the first begun first
        self._slow: dict[Item, float] = {}  # running for long: hosts that say nothing are not to stop all the others
        self._hung: dict[Item, float] = {}  # running for so long that their key gets few at once
        self._in_doubt: dict[int, int] = {}  # by partition: `View.in_doubt`
        self._per_key = Counter[bytes]()
        self._first_lane = Counter[bytes]()  # of `_per_key`, those of the first lane
        self._at_once: dict[bytes, int] = {}  # key -> effects that it may have now; none: FEW
        self._tasks: dict[tuple[TP, int], asyncio.Task[Any]] = {}  # until the result is written
        self._done: list[tuple[Item, asyncio.Future[Any]]] = []
        self._wake, self._turn = asyncio.Event(), asyncio.Lock()
        self._expires = any(table.expires for table in stage.tables)
        self._swept_at = self._cycle_s = 0.0
        self._flusher: asyncio.Future[None] | None = None

    # -- records in ------------------------------------------------------------------------------------------------
    async def _read(self, stream: Any) -> None:
        if self._flusher is None:
            self._flusher = self.app.add_future(self._flush())
        async for batch in stream.noack():
            async with self._turn:  # a window begins from what the last cycle of its predecessor has written
                if self.consumer.owns(batch):
                    self._accept(batch)

    def _accept(self, batch: Batch) -> None:
        tp, window = batch.tp, self._windows.get(batch.tp)
        if window is None or not self.consumer.owns(window.batches[0]):
            if window is not None:
                self.consumer.abandon(window)
            if not self.store.is_ours(tp.partition):  # another worker was here since: it knows of ours as begun
                self._cancel(place for place in self._tasks if place[0] == tp)
            source = self.sources[tp.topic]
            if all(other.partition != tp.partition for other in self._windows):
                windows = (Window(tp, 0, n, self.store.progress(tp.partition, n)) for n in self.sources.values())
                self._in_doubt[tp.partition] = sum(each.doubts for each in windows)
            window = self._windows[tp] = Window(tp, batch.first, source, self.store.progress(tp.partition, source))
        for record in batch.records:
            window.order.append(record.offset)
            item = Item(window, record, batch)
            if window.is_finished(record.offset):
                self.metrics.count("passed_over")
                self.consumer.release(batch, len(record.value or b""))
                if self._tasks.pop(item.place, None) and self._open(item):
                    self._again(item, [])
            else:
                self._enqueue(item)
        batch.records = ()  # a finished record's memory is free, whatever its neighbours do
        window.batches.append(batch)
        self._wake.set()

    def _open(self, item: Item) -> bool:
        """Decode the record. False: it has to wait for its writer's schema, and comes back by itself."""
        if item.value is not None:
            return True
        try:
            item.value = self.decoded(item.record)
        except UnknownSchema as unknown:
            which = item.record.topic, unknown.id
            if which not in self._unknown:
                self._unknown[which] = []
                self.app.add_future(self._learn(which, unknown))
            self._unknown[which].append(item)
            return False
        if self.stage.identity is not None and not isinstance(item.value, DecodeError):
            try:
                item.identity = self.stage.identity(item.value)
            except Exception as exc:  # whatever mail can do to us: `perform` raises it
                item.value = exc
        return True

    async def _learn(self, which: tuple[str, int], unknown: UnknownSchema) -> None:
        await self.learn(which[0], unknown)
        for item in reversed(self._unknown.pop(which, [])):
            if self._is_live(item.window):
                self._enqueue(item, first=True)
        self._wake.set()

    def _enqueue(self, item: Item, first: bool = False) -> None:
        key = item.record.key
        self._queues[key].put(item, item.window.source, self._owner(item.record), first)
        item.window.waiting[key] += 1
        self._offer(key)

    def _owner(self, record: Any) -> bytes:
        name = self.stage.owner_header
        return next((value for header, value in record.headers if header == name), b"") if name else b""

    def _taken(self, item: Item) -> Item:
        """It does not wait any more."""
        key, waiting = item.record.key, item.window.waiting
        waiting[key] -= 1
        if not waiting[key]:
            del waiting[key]
        if not self._queues[key]:
            del self._queues[key]
        return item

    def _offer(self, key: bytes) -> None:
        if self._queues.get(key):
            running = self._per_key[key]
            if running < self._at_once.get(key, FEW):
                limit = self._key_limit(key)
                if self._queues[key].has_first_lane():  # it does not wait for effects of the other lanes to end
                    running = self._first_lane[key]
                if running < limit:
                    self._ready[key] = None

    def _key_limit(self, key: bytes) -> int:
        limit = self.stage.key_limit
        return limit if isinstance(limit, int) else limit(key or b"", self.wiring.services)

    def _age(self) -> None:
        now = time.monotonic()
        while self._slow:
            item, since = next(iter(self._slow.items()))
            if since > now - HANG_SECONDS:
                break
            self._hung[item] = self._slow.pop(item)
            self._at_once[item.record.key] = FEW
        while self._young and len(self._slow) + len(self._hung) < SLOW_TIMES * self.stage.limit:
            item, since = next(iter(self._young.items()))
            if since > now - SLOW_SECONDS:
                return
            self._slow[item] = self._young.pop(item)

    def _pick(self) -> list[Item]:
        """What begins after this cycle's write, in turns between keys."""
        chosen: list[Item] = []
        live, now = self._live(), time.monotonic()
        current = {window for window in live if self.consumer.is_current(window.batches[0])}
        self._age()
        while self._ready and len(self._young) < self.stage.limit:
            key, _ = self._ready.popitem(last=False)
            if key not in self._queues:  # all of it was crowded out
                continue
            item = self._taken(self._queues[key].pop())
            if item.window not in live:  # was read before a seek: it comes again
                pass
            elif item.window not in current:
                self._enqueue(item, first=True)
                break
            elif self._open(item) and not self._waits_for_twin(item):
                self._young[item] = now
                self._per_key[key] += 1
                self._first_lane[key] += item.window.source == 0
                item.window.begin(item.record.offset)
                self._hold(item.window, 1)
                chosen.append(item)
            self._offer(key)
        return chosen

    def _crowd(self) -> None:
        """Where too many records of a partition wait, or some for too long, they get their result now."""
        if self.stage.crowder is None:
            return
        for window in self._windows.values():
            if not self._is_live(window) or not self.consumer.is_current(window.batches[0]):
                continue
            self._crowd_old(window)
            waiting = sum(window.waiting.values())
            if waiting < CROWD and not self.consumer.is_half_full(window.tp):
                continue
            share = max(CROWD_KEY, CROWD_LEFT // max(1, len(window.waiting)))
            left = min(CROWD_STEP, waiting - CROWD_LEFT if waiting >= CROWD else waiting)
            for key, count in window.waiting.most_common():
                surplus = min(left, count - share)
                if surplus <= 0:
                    break
                queue = self._queues[key]
                stay = len(queue) - (count - share)
                newest = [queue.pop_last(window.source) for _ in range(surplus)]
                left -= self._crowd_out(key, window, reversed(newest), stay)
            if waiting - CROWD_LEFT > CROWD_STEP:
                self._wake.set()

    def _crowd_old(self, window: Window) -> None:
        """What waits while half a window passes it: a key that hangs has few records here, and would stop the others of its
        partition all the same."""
        first = window.batches[-1].next_offset - self.app.outstanding_max // 2
        if window.low >= first:
            return
        for key in list(window.waiting):
            old = self._queues[key].take(
                window.source, lambda item: item.window is window and item.record.offset < first
            )
            self._crowd_out(key, window, old, len(self._queues[key]))

    def _crowd_out(self, key: bytes, window: Window, items: Iterable[Item], ahead: int) -> int:
        """How many of a key, taken out of its queue, were settled: `ahead` others stay in it."""
        settled, back = 0, list[Item]()
        for item in items:
            self._taken(item)
            if not self._is_live(item.window):  # was read before a seek: it comes again
                continue
            if (
                item.window is not window  # of another partition: records without a key have one queue
                or window.in_doubt(item.record.offset)  # its effect may have happened: only its turn tells
                or PERFORMED in item.record.headers
            ):
                back.append(item)
            elif self._open(item) and not self._waits_for_twin(item):
                self._done.append((item, self._crowded(item, ahead)))
                self._hold(window, 1)
                settled += 1
        for item in back:
            self._enqueue(item, first=True)
        self.metrics.count("crowded", settled)
        return settled

    def _crowded(self, item: Item, ahead: int) -> asyncio.Future[Any]:
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            if isinstance(item.value, Exception):
                raise item.value
            assert self.stage.crowder is not None  # `_crowd` has looked
            result.set_result(self.stage.crowder(item.value, self._view(item), ahead))
        except Exception as exc:  # whatever mail can do to us: a dead letter, of which nothing was performed
            item.value = exc
            result.set_exception(exc)
        return result

    def _waits_for_twin(self, item: Item) -> bool:
        if item.identity is None:
            return False
        if item.identity in self._twins and item.place not in self._tasks:  # else its own, to be adopted
            self._twins[item.identity].append(item)
            return True
        self._twins.setdefault(item.identity, deque())
        return False

    # -- what stands still: topics/stall.py ------------------------------------------------------------------------
    def _running(self, tp: TP) -> list[tuple[float, Item]]:
        running = [*self._young.items(), *self._slow.items(), *self._hung.items()]
        return [(since, item) for item, since in running if item.window.tp == tp]

    def wait_of(self, tp: TP) -> str:
        if why := super().wait_of(tp):
            return why
        running, oldest = self._running(tp), time.monotonic() - self.stage.effect_s
        if any(since < oldest for since, _ in running):
            return ""
        behind_twin = any(item.window.tp == tp for twins in self._twins.values() for item in twins)
        return "effect" if running or behind_twin or len(self._young) >= self.stage.limit else ""

    def doing(self, tp: TP) -> str:
        if running := self._running(tp):
            since, item = min(running, key=lambda pair: pair[0])
            took = time.monotonic() - since
            return f"{len(running)} effects run, the oldest, of offset {item.record.offset}, for {took:.0f} s"
        return f"no effect runs, {len(self._done)} results wait, {sum(map(len, self._queues.values()))} records wait"

    # -- effects ---------------------------------------------------------------------------------------------------
    def _start(self, item: Item, live: bool, may_begin: bool) -> None:
        window = item.window
        task = self._tasks.get(item.place)
        if not live:
            self._leave(item)
            self._again(item, [])
            return
        if task is not None:  # begun before a rebalance that gave the partition back to us
            self.metrics.count("adopted")
            self._leave(item)
        elif may_begin:
            task = self._tasks[item.place] = asyncio.create_task(
                self._perform(item, window.in_doubt(item.record.offset) or PERFORMED in item.record.headers)
            )
        else:
            self._leave(item)
            window.take_back(item.record.offset)
            self._hold(window, -1)
            self._again(item, [item])
            self._wake.set()
            return
        task.add_done_callback(partial(self._ended, item))

    async def _perform(self, item: Item, possible_duplicate: bool) -> Any:
        self.metrics.count("performed")
        if possible_duplicate:
            self.metrics.count("flagged")
        span = item.span = None if self.tracer is None else self.tracer.begin(item.record)
        try:
            if isinstance(item.value, Exception):
                raise item.value
            return await self._performer(item.value, self._view(item), possible_duplicate)
        finally:
            self._leave(item)
            if span is not None:
                span.performed_at = time.time_ns()

    def _view(self, item: Item) -> View:
        view = self.store.view(item.record.partition)
        view.services, view.now, view.record = self.wiring.services, self.wiring.clock(), item.record
        view.in_doubt = self._in_doubt.get(item.record.partition)
        return view

    def _leave(self, item: Item) -> None:
        key = item.record.key
        if self._young.pop(item, None) is None and self._slow.pop(item, None) is None:
            self._hung.pop(item, None)
        elif key in self._queues and (allowed := self._at_once.get(key, FEW)) < 2 * self._key_limit(key):
            if len(self._at_once) > MANY_KEYS:
                self._at_once.clear()
            self._at_once[key] = allowed + 1
        self._per_key[key] -= 1
        self._first_lane[key] -= item.window.source == 0
        if not self._per_key[key]:
            del self._per_key[key], self._first_lane[key]
        self._offer(key)

    def _ended(self, item: Item, task: asyncio.Task[Any]) -> None:
        self._done.append((item, task))
        self._wake.set()

    def _again(self, item: Item, waiting: list[Item]) -> None:
        """The identity of `item` is free: whoever waits for it, and `waiting`, may be chosen."""
        twins = self._twins.pop(item.identity, ()) if item.identity is not None else ()
        for other in [*reversed(twins), *waiting]:
            self._enqueue(other, first=True)

    def _is_live(self, window: Window) -> bool:
        return self._windows.get(window.tp) is window and self.consumer.owns(window.batches[0])

    def _live(self) -> set[Window]:
        """The windows whose results may be written, at this moment."""
        return {window for window in self._windows.values() if self._is_live(window)}

    def _hold(self, window: Window, change: int) -> None:
        """A rebalance waits while a window has results to come or to be written."""
        window.busy += change
        if change and window.busy != max(change, 0):
            return  # one of many: said already
        if (window.busy or window.dirty) and self._is_live(window):
            self.consumer.hold(window)
        else:
            self.consumer.abandon(window)

    async def _assigned(self, app: faust.App, assigned: set[TP], **kwargs: Any) -> None:
        """After every rebalance all windows begin anew, from what recovery has read."""
        for window in self._windows.values():
            self.consumer.abandon(window)
        for waiting in (self._windows, self._queues, self._ready, self._unknown, self._twins):
            waiting.clear()
        self._cancel(place for place in self._tasks if place[0] not in assigned)

    async def _give_up(self) -> None:
        """What is begun has ended, or its time is over: another worker may get any of the partitions."""
        if self.stage.loser is None:
            return
        partitions = {tp.partition for tp in self._windows}
        try:
            async with asyncio.timeout(LOST_SECONDS):
                await asyncio.gather(*(self.stage.loser(each, self.wiring.services) for each in partitions))
        except Exception as exc:  # a rebalance goes on whatever a connection does when it is closed
            self.metrics.count("lost_late")
            log.warning("%s: not all of its partitions' belongings were let go: %r", self.stage.name, exc)

    def _cancel(self, places: Iterable[tuple[TP, int]]) -> None:
        for place in list(places):
            self.metrics.count("cancelled", self._tasks.pop(place).cancel())

    # -- cycle -----------------------------------------------------------------------------------------------------
    async def _flush(self) -> None:
        try:
            while True:
                if not self._wake.is_set():
                    try:
                        await asyncio.wait_for(self._wake.wait(), 1.0 if self._ready else SWEEP_SECONDS)
                    except TimeoutError:
                        pass  # nothing to do but, perhaps, to sweep, or to give the places of slow effects to others
                if len(self._done) < self.stage.limit // 4:
                    await asyncio.sleep(max(FLUSH_SECONDS, min(self._cycle_s, REST_MAX_SECONDS)))
                self._wake.clear()
                if self.consumer.holds_lease():
                    async with asyncio.timeout(self.wiring.delivery_s), self._turn:
                        started = time.monotonic()
                        await self._cycle()
                        self._cycle_s = time.monotonic() - started
                        self.metrics.seconds.observe(self._cycle_s)
                else:  # frozen, or the broker is away: the next heartbeat tells
                    if self.app.rebalancing:  # it has told: nothing to wait for
                        for window in self._windows.values():
                            self.consumer.abandon(window)
                    await asyncio.sleep(0.05)
                    self._wake.set()
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            give_up(exc)

    async def _cycle(self) -> None:
        self.metrics.count("cycles")
        outputs, settled = self.outputs(), []
        views: dict[int, View] = {}
        entries: dict[int, dict[bytes, bytes | None]] = defaultdict(dict)
        self._sweep(entries, outputs)
        for partition, items in self._results().items():
            view = views[partition] = self._view(items[0][0])
            settled += self._settle(items, view, outputs, entries[partition])
        self._crowd()
        chosen = self._pick()
        await self.deliver(outputs, _name)
        begun = [item for item, _ in settled] + chosen
        if not self.consumer.holds_lease():  # frozen while the outputs were under way
            lost = {item.window.tp.partition for item in begun}
        else:
            lost = {window.tp.partition for window in {item.window for item in begun} - self._live()}
        self._done += [
            done for done in settled if done[0].window.tp.partition in lost
        ]  # `_results` drops what is not ours
        settled = [done for done in settled if done[0].window.tp.partition not in lost]
        for partition in lost:
            entries.pop(partition, None)
            views.pop(partition, None)
        for item, _ in settled:
            item.window.finish(item.record.offset)
        touched = {item.window for item in begun} | {window for window in self._windows.values() if window.dirty}
        touched = {window for window in touched if window.tp.partition not in lost}
        await self._write(entries, touched, outputs)
        for view in views.values():
            view.written()
        self._advance()
        live = self._live()
        freed, ended = Counter[Batch](), Counter[Window]()
        for item, _ in settled:
            if item.window in live:
                self._tasks.pop(item.place, None)
                freed[item.batch] += len(item.record.value or b"")
                ended[item.window] += 1
                self._again(item, [])
                if item.span is not None and self.tracer is not None:
                    self.tracer.end([item.span])
        for window, n in ended.items():
            self._hold(window, -n)
        for batch, size in freed.items():
            self.consumer.release(batch, size)
        lease = self.consumer.holds_lease()
        current = {window for window in live if lease and self.consumer.is_current(window.batches[0])}
        for item in chosen:
            window = item.window
            self._start(item, window in live, window in current and window.tp.partition not in lost)
        if self._done:
            self._wake.set()
        for window in touched:
            self._hold(window, 0)

    def _sweep(self, entries: dict[int, dict[bytes, bytes | None]], outputs: Outputs) -> None:
        """From time to time, delete what has expired."""
        if not self._expires or time.monotonic() - self._swept_at < SWEEP_SECONDS:
            return
        self._swept_at, now = time.monotonic(), self.wiring.clock()
        for partition in {window.tp.partition for window in self._windows.values() if self._is_live(window)}:
            expired: dict[bytes, bytes | None] = dict.fromkeys(self.store.expired(partition, now))
            if self.store.size(expired) < self.store.room(outputs) // 2:
                entries[partition].update(expired)

    async def _write(
        self, entries: dict[int, dict[bytes, bytes | None]], touched: set[Window], outputs: Outputs
    ) -> None:
        progress: dict[int, dict[int, bytes]] = defaultdict(dict)
        for window in self._windows.values():
            window.move()
        for window in touched:
            progress[window.tp.partition][window.source] = window.pack()
            window.dirty = False
        partitions = {*(partition for partition, changes in entries.items() if changes), *progress}
        await asyncio.gather(*(self.store.write(p, entries[p], outputs, progress[p]) for p in partitions))

    def _advance(self) -> None:
        for window in list(self._windows.values()):
            while window.batches and window.batches[0].next_offset <= window.low and len(window.batches) > 1:
                self.consumer.finish(window.batches.popleft())
            self.consumer.advance(window.batches[0], window.low)

    def _results(self) -> dict[int, list[tuple[Item, asyncio.Future[Any]]]]:
        """Ended effects by partition; those of a handed-over partition are dropped, its owner does them again, flagged."""
        done, self._done = self._done, []
        live, found = self._live(), defaultdict(list)
        for item, task in done:
            if item.window in live and not task.cancelled():
                found[item.window.tp.partition].append((item, task))
            else:
                self.metrics.count("dropped")
        return found

    def _settle(self, items: list[tuple[Item, asyncio.Future[Any]]], view: View, outputs: Outputs,
                entries: dict[bytes, bytes | None]) -> list[tuple[Item, asyncio.Future[Any]]]:  # fmt: skip
        """Results of one partition, as many as one write takes; what they change is added to `entries`."""
        room = self.store.room(outputs) - self.store.size(entries)
        for n, (item, task) in enumerate(items):
            view.begin()
            view.record = item.record
            if self.tracer is not None and item.span is None:  # crowded out, or begun before a rebalance
                item.span = self.tracer.begin(item.record)
            span = item.span
            try:
                if error := task.exception():
                    raise error
                result = task.result()
                told = (
                    self._settler(item.value, result, view)
                    if span is None
                    else span.settle(self.stage, item.value, result, view)
                )
                for output in outputs_of(told):
                    self.add(outputs, output, item.place)
                changes = view.changes()
                room -= self.store.size(changes)
                if room < 0:
                    if n:
                        outputs.drop(item.place)
                        self._done += items[n:]
                        self._wake.set()
                        return items[:n]
                    raise TooMuchChange("the changes of one result do not fit one write")
            except Exception as exc:
                outputs.drop(item.place)
                self.dead(outputs, item.record, exc, item.place, performed=exc is not item.value)
                if span is not None:
                    span.fail(exc)
            else:
                view.keep()
                entries.update(changes)
        return items
