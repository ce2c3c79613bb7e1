"""What stands in place of the operating system on a model broker: an event loop without waiting, RocksDB in memory, the clock, and
the end of a process."""

from __future__ import annotations

import asyncio
import logging
from types import SimpleNamespace
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from model_broker import Clock

import tables.store
import topics.consumer
import topics.effects
import topics.pure
import topics.runner


class Loop(asyncio.SelectorEventLoop):
    """Its time is the model's; it never waits."""

    worker: Any  # model_worker.Worker

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        super().__init__()
        self.set_exception_handler(lambda loop, context: None)  # of tasks that died with their worker

    def time(self) -> float:
        return self.clock.now

    def run_up_to(self, iterations: int) -> None:
        """As `run_forever` does, which costs more than what runs here."""
        asyncio._set_running_loop(self)
        try:
            for _ in range(iterations):
                if self.is_idle() or self.worker.dead:
                    return
                self._run_once()
                self.worker.thawed = False
        finally:
            asyncio._set_running_loop(None)

    def is_idle(self) -> bool:
        return not self._ready and (not self._scheduled or self._scheduled[0]._when > self.clock.now)

    def next_at(self) -> float:
        """When the next timer is due."""
        return self._scheduled[0]._when if self._scheduled else float("inf")


class Batch:
    """rocksdict.WriteBatch."""

    def __init__(self, raw_mode: bool = True) -> None:
        self.changes: list[tuple[bytes, bytes | None]] = []

    def put(self, key: bytes, value: bytes) -> None:
        self.changes.append((key, value))

    def delete(self, key: bytes) -> None:
        self.changes.append((key, None))


class Disk:
    """The RocksDB of a partition: write batches, of which the last may be lost with the machine, but none in part."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.values: dict[bytes, bytes] = {}

    def write(self, batch: Batch) -> None:
        self.batches.append(batch)
        self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        for key, value in batch.changes:
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value

    def lose(self, n: int) -> None:
        self.batches, self.values = self.batches[: len(self.batches) - n], {}
        for batch in self.batches:
            self._apply(batch)

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def keys(self, from_key: bytes) -> list[bytes]:
        return sorted(key for key in self.values if key >= from_key)

    def items(self, from_key: bytes) -> list[tuple[bytes, bytes]]:
        return [(key, self.values[key]) for key in self.keys(from_key)]


class PerProcess:
    """topics.pure._turn, one for each worker."""

    def __init__(self) -> None:
        self.locks: WeakKeyDictionary[Any, asyncio.Lock] = WeakKeyDictionary()

    async def __aenter__(self) -> None:
        await self.locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()).acquire()

    async def __aexit__(self, *exc: object) -> None:
        self.locks[asyncio.get_running_loop()].release()


def replace_the_outside(patch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Time, RocksDB, the end of a process."""

    def give_up(exc: BaseException) -> None:
        asyncio.get_running_loop().worker.exit(exc)  # type: ignore[attr-defined]  # only Loops run it
        raise asyncio.CancelledError

    for module in (topics.consumer, topics.effects, topics.pure, topics.runner):
        patch.setattr(module, "time", clock)
    for module in (topics.effects, topics.pure):
        patch.setattr(module, "give_up", give_up)
    for module in (topics.consumer, tables.store):
        patch.setattr(module, "rocksdict", SimpleNamespace(WriteBatch=Batch))
    patch.setattr(topics.pure, "_turn", PerProcess())
    for name in ("topics.pure", "topics.effects", "topics.runner"):  # dead letters are what the test is about
        patch.setattr(logging.getLogger(name), "disabled", True)
