"""Runner of pure stages: reads batches, calls plain code per record, owns errors, outputs, state and offsets.

The steps of one batch, their order and what a crash after each leaves: topics/guarantees.md. In short: handlers in memory,
outputs confirmed, changelog confirmed (changes, mark), RocksDB, offset.

A batch whose changes do not fit one changelog record batch is taken in parts, each written whole and with a mark of its own.

All sources have the same number of partitions and the same key. Batches of partition n of all of them, and its ticks, go
through one lane, one after another: each change sees every change before it. Between sources there is no order but arrival.

`Hold` and a schema that the registry cannot give now stop the lane until it works: nothing is passed over.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import faust
from faust.types import TP

from topics.catalogue import Output
from topics.codec import DecodeError, UnknownSchema
from topics.consumer import Batch, Consumer, Tick
from topics.outputs import Outputs
from topics.runner import HOLD_SECONDS, REST_MAX_SECONDS, SWEEP_SECONDS, Runner, Store, TooMuchChange, Wiring, give_up
from topics.stage import Handler, Hold, Preparer, Stage, Ticker, outputs_of
from topics.state import Database, Memory, View

log = logging.getLogger(__name__)

EVERYTHING = 1 << 62
PREPARE_SLACK_S = 5.0  # beyond `prepare_s`, for a cancelled `prepare` to end

#: One batch is computed per turn of the loop, first come first served, whatever app or partition it is of. Without it a stage
#: with a backlog computes a batch of each partition in every turn, and all I/O of the stages behind it waits.
_turn = asyncio.Lock()


class Passed(RuntimeError):
    """A mark would pass over records that nobody has worked on: the worker ends, and its next life reads them again."""


class Lane:
    """Batches and ticks of one partition number, in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Batch | tuple[Tick, Ticker]] = deque()
        self._some = asyncio.Event()
        self._rested_at = 0.0

    def put_nowait(self, work: Batch | tuple[Tick, Ticker]) -> None:
        self._waiting.append(work)
        self._some.set()

    async def get(self, consumer: Consumer) -> Batch | tuple[Tick, Ticker]:
        """The next one; neighbours of a batch that wait behind it come with it.

        Not before the lane has rested for as long as it worked: under load work comes in larger pieces, which are cheaper,
        and what comes alone does not wait.
        """
        await self._some.wait()
        if (rest := self._rested_at - time.monotonic()) > 0:
            await asyncio.sleep(rest)
        work = self._waiting.popleft()
        while isinstance(work, Batch) and self._waiting and isinstance(other := self._waiting[0], Batch):
            if other.tp != work.tp or not consumer.join(work, other):
                break
            self._waiting.popleft()
        if not self._waiting:
            self._some.clear()
        return work

    def worked(self, since: float) -> None:
        """Work that began at `since` (monotonic seconds) is done."""
        now = time.monotonic()
        self._rested_at = now + min(now - since, REST_MAX_SECONDS)


class Some:
    """A `Database` that lists `left` entries at most, all in all. `found`: how many it has listed."""

    def __init__(self, database: Database, left: int):
        self.database, self.left, self.found = database, left, 0

    def get(self, key: bytes) -> bytes | None:
        return self.database.get(key)

    def items(self, first: bytes, limit: int) -> Sequence[tuple[bytes, bytes]]:
        items = self.database.items(first, min(limit, self.left))
        self.left -= len(items)
        self.found += len(items)
        return items


class StageRunner(Runner):
    """Runs a `Stage`."""

    stage: Stage

    def __init__(self, app: faust.App, stage: Stage, wiring: Wiring, store: Store | None):
        super().__init__(app, stage, wiring, store)
        missing = [topic.name for topic in stage.reads if topic not in stage.handlers]
        if missing:
            raise ValueError(f"stage {stage.name} has no handler for {', '.join(missing)}")
        self._handlers = {wiring.names[topic]: handler for topic, handler in stage.handlers.items()}
        self._glances = {
            wiring.names[topic]: (wiring.codecs[topic].head(last), glance)
            for topic, (last, glance) in stage.glances.items()
        }
        self._preparers = {wiring.names[topic]: preparer for topic, preparer in stage.preparers.items()}
        self._lanes: dict[int, Lane] = {}
        self._steps: dict[int, tuple[str, float]] = {}  # what each lane does, and since when (monotonic)
        self._ticking: set[tuple[int, Ticker]] = set()
        tickers = list(stage.tickers)
        if store is not None and any(table.expires for table in stage.tables):
            tickers.append((SWEEP_SECONDS, self._sweep))
        if tickers and store is None:
            raise ValueError(f"stage {stage.name}: a tick changes state, so the stage needs a table")
        for seconds, ticker in tickers:
            app.task(self._clockwork(seconds, ticker))

    # -- in --------------------------------------------------------------------------------------------------------
    async def _read(self, stream: Any) -> None:
        """One lane per partition number: in order within it, while others wait for the broker."""
        async for batch in stream.noack():
            self._lane(batch.tp.partition).put_nowait(batch)

    def _lane(self, partition: int) -> Lane:
        lane = self._lanes.get(partition)
        if lane is None:
            lane = self._lanes[partition] = Lane()
            self.app.add_future(self._work(lane))
        return lane

    def _clockwork(self, seconds: float, ticker: Ticker) -> Callable[[], Any]:
        first = next(iter(self.sources))

        async def tick() -> None:
            while not self.app.should_stop:
                await self.app.sleep(seconds)
                for tp in [tp for tp in self.consumer.sought() if tp.topic == first]:
                    if (tp.partition, ticker) not in self._ticking:
                        self._ticking.add((tp.partition, ticker))
                        self._lane(tp.partition).put_nowait((Tick(tp, self.app.consumer_generation_id), ticker))

        return tick

    async def _work(self, lane: Lane) -> None:
        while True:
            work = await lane.get(self.consumer)
            started = time.monotonic()
            self._steps[work.tp.partition if isinstance(work, Batch) else work[0].tp.partition] = "computing", started
            try:
                if isinstance(work, Batch):
                    if await self._run(work):
                        self.metrics.batch(len(work.records), time.monotonic() - started)
                    else:
                        self.metrics.count("dropped_batches")
                else:
                    tick, ticker = work
                    self._ticking.discard((tick.tp.partition, ticker))
                    if await self._tick(tick, ticker):
                        self._ticking.add((tick.tp.partition, ticker))
                        lane.put_nowait(work)  # there may be more that is due
            except asyncio.CancelledError:
                raise
            except BaseException as exc:
                give_up(exc)
            lane.worked(started)

    def doing(self, tp: TP) -> str:
        step, since = self._steps.get(tp.partition, ("waiting for its turn", time.monotonic()))
        return f"its lane has been {step} for {time.monotonic() - since:.0f} s"

    # -- one batch -------------------------------------------------------------------------------------------------
    async def _run(self, batch: Batch) -> bool:
        """False: the partition was taken away, the records come again to its owner."""
        topic, source = batch.tp.topic, self.sources[batch.tp.topic]
        preparer = self._preparers.get(topic)
        found: dict[Any, Any] | None = {} if preparer is None else None
        todo: list[Any] | None = None
        fit: int | None = None  # records that one write may take, as the part before showed; None: all
        values: dict[int, Any] = {}  # by offset: decoded for `prepare`, not given to the handler yet
        try:
            while todo is None or todo:
                try:
                    if preparer is not None and found is None:
                        async with _turn:
                            if todo is None:
                                todo = self._unfinished(batch, source)
                            values = {record.offset: self.decoded(record) for record in todo}
                        found = await self._prepare(todo, values, batch.tp.partition, preparer)
                    if not await self.consumer.until_current(batch):
                        return False
                    async with _turn:
                        if not self.consumer.is_current(batch):
                            continue
                        if todo is None:
                            todo = self._unfinished(batch, source)
                        n, view, entries, outputs = self._compute(todo[:fit], values, batch.tp.partition, found or {})
                        await asyncio.sleep(0)
                except UnknownSchema as unknown:
                    await self.learn(topic, unknown)
                    continue
                except Hold as exc:
                    log.warning("%s: holding %s[%d]: %s", self.stage.name, topic, batch.tp.partition, exc)
                    self.metrics.count("held")
                    self.wait(batch, "hold", batch.tp.partition)
                    await asyncio.sleep(HOLD_SECONDS)
                    if preparer is not None:
                        found = None
                    if not await self.consumer.until_current(batch):
                        return False
                    continue
                self.wait_over(batch)
                part = todo[:n]
                mark = part[-1].offset if part else None
                if not await self._write(batch, view, entries, outputs, {} if mark is None else {source: mark}):
                    return False
                if outputs.spans and self.tracer is not None:
                    self.tracer.end(outputs.spans)
                if todo := todo[n:]:
                    fit = self._fit(n, entries, outputs)
            self.consumer.finish(batch)
            return True
        finally:
            self.wait_over(batch)
            self.consumer.abandon(batch)

    def _unfinished(self, batch: Batch, source: int) -> list[Any]:
        """Records that the state does not know yet."""
        records = list(batch.records)
        if self.store is not None and batch.first <= (mark := self.store.mark(batch.tp.partition, source)):
            records = [record for record in records if record.offset > mark]
            self.metrics.count("passed_over", len(batch.records) - len(records))
        return records

    async def _prepare(
        self, todo: list[Any], values: dict[int, Any], partition: int, preparer: Preparer
    ) -> dict[Any, Any]:
        view = self._view(partition, {})
        pairs = [(record, value) for record in todo if not isinstance(value := values[record.offset], DecodeError)]
        if pairs:
            key = "prepare", partition
            self.wait(key, "prepare", partition, limit_s=self.stage.prepare_s + PREPARE_SLACK_S)
            try:
                async with asyncio.timeout(self.stage.prepare_s):
                    await preparer(pairs, view)
            except TimeoutError:
                self.metrics.count("prepare_timeouts")
            except Hold:
                raise
            except Exception:
                log.exception("%s: prepare failed; its handlers put off what they miss", self.stage.name)
            finally:
                self.wait_over(key)
        return view.found

    def _view(self, partition: int, found: dict[Any, Any]) -> View:
        view = View({}, Memory(), {}, partition) if self.store is None else self.store.view(partition)
        view.services, view.found, view.now = self.wiring.services, found, self.wiring.clock()
        return view

    def _compute(
        self, todo: list[Any], values: dict[int, Any], partition: int, found: dict[Any, Any]
    ) -> tuple[int, View, dict[bytes, bytes | None], Outputs]:
        """As many records as one write takes; processing is free of effects, so it may be done again."""
        n = len(todo)
        while True:
            outputs, view = self.outputs(), self._view(partition, found)
            self._process(todo[:n], values, view, outputs)
            entries: dict[bytes, bytes | None] = {}
            try:
                entries = view.entries()
            except Exception as exc:  # a value that its table cannot hold: of which record is found by halves
                refused = exc
            else:
                if self.store is None or self.store.size(entries) <= self.store.room(outputs):
                    return n, view, entries, outputs
                refused = TooMuchChange(f"{self.store.size(entries)} bytes of changes of state")
            if n == 1:
                record = todo[0]
                outputs.drop(record.offset)
                self.dead(outputs, record, refused, record.offset)
                for span in outputs.spans:
                    span.fail(refused)
                return n, self._view(partition, found), {}, outputs
            n = min(n // 2, self._fit(n, entries, outputs) or n)

    def _fit(self, n: int, entries: dict[bytes, bytes | None], outputs: Outputs) -> int | None:
        """How many records one write may take, from what `n` of them changed. None: all."""
        if self.store is None or not entries:
            return None
        return max(1, n * self.store.room(outputs) // self.store.size(entries))

    def _process(self, todo: list[Any], values: dict[int, Any], view: View, outputs: Outputs) -> None:
        """Each value is given to a handler once, for it may change it, and lives no longer than that: a batch of decoded
        records at once costs 6 us a record more, in cache misses and in the garbage collector."""
        if not todo:
            return
        topic = todo[0].topic
        handler: Handler = self._handlers[topic]
        decode, add, keep = self.codec_of[topic].decode, self.add, view.keep
        head_of, glance = self._glances.get(topic, (None, None))
        tracer, span = self.tracer, None
        for record in todo:
            offset = record.offset
            view.record = record
            if head_of is not None and glance is not None:
                try:
                    if (head := head_of(record.value)) is not None and not glance(head, view):
                        continue
                except Exception:  # the handler, or its codec, says what is wrong
                    pass
            if tracer is not None:
                view.trace = span = tracer.begin(record)
                if span is not None:
                    outputs.spans.append(span)
            try:
                if values and (value := values.pop(offset, None)) is not None:
                    if isinstance(value, DecodeError):
                        raise value
                else:
                    try:
                        value = decode(record.value)
                    except (TypeError, UnknownSchema):  # no value, or a schema that the registry may not have
                        value = self.decode(record)
                result = handler(value, view) if span is None else span.handle(handler, value, view)
                if type(result) is Output:
                    add(outputs, result, offset)
                else:
                    for output in outputs_of(result):
                        add(outputs, output, offset)
            except (Hold, UnknownSchema):
                raise
            except Exception as exc:  # whatever mail can do to us: contained, the batch goes on
                view.begin()
                outputs.drop(offset)
                self.dead(outputs, record, exc, offset)
                if span is not None:
                    span.fail(exc)
            else:
                keep()

    async def _write(self, work: Batch | Tick, view: View, entries: dict[bytes, bytes | None], outputs: Outputs,
                     progress: Mapping[int, bytes | int]) -> bool:  # fmt: skip
        """Outputs, changelog and RocksDB, in this order; False: not ours any more."""
        self._steps[work.tp.partition] = "writing", time.monotonic()
        if not await self.consumer.begin_effects(work):
            return False
        async with asyncio.timeout(self.wiring.delivery_s):  # aiokafka tries again for ever when idempotent
            # not a tick: nobody reads one again, so what it has deleted would never be told
            if self.stage.state_first and isinstance(work, Batch) and self.store is not None and entries:
                await self.store.write(work.tp.partition, entries, outputs, {})
                view.written()
                entries = {}
            await self.deliver(outputs, partial(self._place, work, self.wiring.clock()))
            if self.store is not None and (entries or progress):
                if not await self.consumer.may_finish(work):  # frozen meanwhile: this write would be void, and
                    return False  # end its successor too (Overtaken)
                if isinstance(work, Batch) and not self.consumer.is_oldest(work):
                    raise Passed(
                        f"{work.tp.topic}[{work.tp.partition}]: a batch before {work.first} was never finished"
                    )
                await self.store.write(work.tp.partition, entries, outputs, progress)
                view.written()
        self.metrics.count("parts")
        return True

    def _place(self, work: Batch | Tick, now: int, source: int | None) -> str:
        if isinstance(work, Tick):
            return f"tick:{self.stage.name}[{work.tp.partition}]@{now}"
        return f"{work.tp.topic}[{work.tp.partition}]@{source}"

    # -- ticks -----------------------------------------------------------------------------------------------------
    async def _tick(self, tick: Tick, ticker: Ticker) -> bool:
        """True: it changed something, so there may be more that is due."""
        try:
            async with _turn:
                if not self.consumer.is_current(tick):
                    return False
                try:
                    view, entries, outputs = self._compute_tick(tick.tp.partition, ticker)
                except UnknownSchema:
                    raise
                except Exception:
                    log.exception("%s: a tick failed and is tried again at its next turn", self.stage.name)
                    self.metrics.count("failed_ticks")
                    return False
            if not entries and not outputs.pending:
                return False
            await self._write(tick, view, entries, outputs, {})
            return True
        except UnknownSchema as unknown:  # of a value that a newer release has written: again at the next turn
            log.warning(
                "%s: a tick of partition %d waits for a schema: %s", self.stage.name, tick.tp.partition, unknown
            )
            await self.learn(next(iter(self.sources)), unknown)
            return False
        finally:
            self.consumer.abandon(tick)

    def _compute_tick(self, partition: int, ticker: Ticker) -> tuple[View, dict[bytes, bytes | None], Outputs]:
        """A turn of which one write takes all: one that changes more is done again and finds fewer entries in its tables; the
        others have their turn at once. Raises TooMuchChange where that does not help: one entry is too much by itself."""
        assert self.store is not None  # checked where tickers are set up
        left, refused = EVERYTHING, ""
        while True:
            outputs, view = self.outputs(), self._view(partition, {})
            view._database = some = Some(view._database, left)
            for output in outputs_of(ticker(view)):
                self.add(outputs, output, None)
            view.keep()
            entries = view.entries()
            size, room = self.store.size(entries), self.store.room(outputs)
            if size <= room and (entries or outputs.pending or not refused):
                return view, entries, outputs
            refused = refused or f"{size} bytes of changes of state in one turn of a ticker, and one write takes {room}"
            if size <= room or some.found < 2:
                raise TooMuchChange(refused)
            left = some.found // 2

    def _sweep(self, view: View) -> None:
        """Delete entries of tables with expiry whose time is over."""
        assert self.store is not None  # checked where the sweep is set up
        view.remove(self.store.expired(view.partition, view.now))
