"""Runner of batch stages: records of all partitions, gathered, into a store outside Kafka (ClickHouse).

Rows with their places into the store, then dead letters, then offsets; after an error, or for a new assignment, `recover` asks
the store what it has: topics/guarantees.md.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import faust
from faust.types import TP

from topics.codec import DecodeError, UnknownSchema
from topics.consumer import Batch
from topics.runner import Runner, Wiring, give_up
from topics.stage import BatchStage
from topics.trace import Tracer

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0


class BatchRunner(Runner):
    """Runs a `BatchStage`."""

    stage: BatchStage

    def __init__(self, app: faust.App, stage: BatchStage, wiring: Wiring):
        super().__init__(app, stage, wiring, None)
        if stage.recoverer is None or stage.writer is None:
            raise ValueError(f"stage {stage.name} needs recover and write")
        if len(stage.reads) != 1:
            raise ValueError(f"stage {stage.name}: a batch stage reads one topic, its partitions name its rows")
        self._recoverer, self._writer = stage.recoverer, stage.writer
        self._waiting: list[Batch] = []
        self._full = asyncio.Event()
        self._recovered: tuple[int, frozenset[TP]] | None = None  # the assignment that the store was asked for
        self._flusher: asyncio.Future[None] | None = None
        app.outstanding_max = stage.flush_records

    async def _read(self, stream: Any) -> None:
        if self._flusher is None:
            self._flusher = self.app.add_future(self._flush_for_ever())
        async for batch in stream.noack():
            self._waiting.append(batch)
            self._full.set()

    @property
    def ready(self) -> bool:
        """The store has answered for what we own."""
        return self._recovered is not None

    async def _flush_for_ever(self) -> None:
        try:
            await self._open()
            while True:
                await self._full.wait()
                if sum(len(batch.records) for batch in self._waiting) < self.stage.flush_records:
                    await asyncio.sleep(self.stage.flush_s)
                self._full.clear()
                await self._flush(self._take())
        except asyncio.CancelledError:
            raise
        except BaseException as exc:
            give_up(exc)

    def _take(self) -> list[Batch]:
        """About `flush_records` of what waits; while they are stored, the fetcher goes on with the partitions that have room."""
        number = records = 0
        while number < len(self._waiting) and records < self.stage.flush_records:
            records += len(self._waiting[number].records)
            number += 1
        taken, self._waiting = self._waiting[:number], self._waiting[number:]
        if self._waiting:
            self._full.set()
        return taken

    async def _flush(self, batches: list[Batch]) -> None:
        """Until the batches are stored, or not ours any more."""
        while batches := [batch for batch in batches if await self.consumer.begin_effects(batch)]:
            started, began = time.monotonic(), time.time_ns()
            self.wait(self, "store", limit_s=self.stage.store_s)
            try:
                refused = await self._store(batches)
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                log.warning(
                    "%s: the store did not take %d batches, trying again: %r", self.stage.name, len(batches), exc
                )
                self.metrics.count("held")
                self._recovered = None
                self.wait(self, "store")
                for batch in batches:  # a rebalance need not wait for a store that is away
                    self.consumer.abandon(batch)
                await asyncio.sleep(RETRY_SECONDS)
            else:  # what ends the worker here, as in all stages: letters that are not taken, or not in `delivery_s`
                outputs = self.outputs()
                for place, record, error in refused:
                    self.dead(outputs, record, error, place)
                async with asyncio.timeout(self.wiring.delivery_s):
                    await self.deliver(outputs, str)
                for batch in batches:
                    self.consumer.finish(batch)
                    self.metrics.batch(len(batch.records), time.monotonic() - started)
                if self.tracer is not None:
                    self._trace(self.tracer, batches, began, refused)
                break
        self.wait_over(self)

    def _trace(
        self, tracer: Tracer, batches: list[Batch], began: int, refused: list[tuple[tuple[int, int], Any, Exception]]
    ) -> None:
        """Of each record that is traced, that the store has it now."""
        errors = {place: error for place, _, error in refused}
        spans = []
        for batch in batches:
            for record in batch.records:
                if record.headers and (span := tracer.begin(record)) is not None:
                    span.started_at = began
                    if error := errors.get((record.partition, record.offset)):
                        span.fail(error)
                    else:
                        span.about(self.decoded(record))
                    spans.append(span)
        tracer.end(spans)

    def doing(self, tp: TP) -> str:
        return (
            f"{len(self._waiting)} batches wait, the store has been asked"
            if self.ready
            else "the store has not answered"
        )

    async def _open(self) -> None:
        """Ask the store at once, so that what it makes and serves is there before the first record comes."""
        while not self.ready:
            try:
                if self.consumer.sought():
                    self.wait(self, "store", limit_s=self.stage.store_s)
                    await self._ask()
            except asyncio.CancelledError:
                raise
            except Exception as exc:
                log.warning("%s: the store does not answer, asking again: %r", self.stage.name, exc)
                self.wait(self, "store")
            await asyncio.sleep(RETRY_SECONDS / 10)
        self.wait_over(self)

    async def _ask(self) -> None:
        """`recover`, where the store was not asked for this assignment."""
        mine = frozenset(tp for tp in self.consumer.sought() if tp.topic in self.sources)
        assignment = (self.app.consumer_generation_id, mine)
        if self._recovered != assignment:
            await self._recoverer(self.consumer.committed(mine), self.wiring.services)
            self._recovered = assignment

    async def _store(self, batches: list[Batch]) -> list[tuple[tuple[int, int], Any, Exception]]:
        """Returns what is for the dead letters: place, record, why."""
        await self._ask()
        rows: list[tuple[int, int, Any]] = []
        refused: list[tuple[tuple[int, int], Any, Exception]] = []
        records = {(record.partition, record.offset): record for batch in batches for record in batch.records}
        body_of = self.wiring.codecs[self.stage.reads[0]].body if self.stage.packed else None
        for place, record in records.items():
            if body_of is not None and (body := body_of(record.value)) is not None:
                rows.append((*place, body))
                continue
            value = await self._value(record)
            if isinstance(value, DecodeError):
                refused.append((place, record, value))
            else:
                rows.append((*place, value))
        for partition, offset, error in await self._writer(rows, self.wiring.services):
            record = records[partition, offset]
            value = (
                await self._value(record) if body_of is not None else None
            )  # the store has read it, and says only that it cannot
            refused.append(
                ((partition, offset), record, value if isinstance(value, DecodeError) else ValueError(error))
            )
        return refused

    async def _value(self, record: Any) -> Any:
        while True:
            try:
                return self.decoded(record)
            except UnknownSchema as unknown:
                await self.learn(record.topic, unknown)
