"""A broker's side of the producer in memory: what is sent is a log per partition, and can be refused."""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError

from topics.writers import Writers

sys.path.append(str(Path(__file__).parent))  # for model_faults.py and what it stands on


@dataclass
class Written:
    """A record as a consumer sees it."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


class Builder:
    def __init__(self, limit: int):
        self.limit, self.size, self.records = limit, 0, []

    def append(self, *, timestamp: None, key: bytes | None, value: bytes | None, headers: list[Any]) -> object | None:
        size = len(key or b"") + len(value or b"") + sum(len(k) + len(v) for k, v in headers) + 10
        if self.records and self.size + size > self.limit:
            return None
        self.size += size
        self.records.append((key, value, headers))
        return self


@dataclass
class ScriptedProducer:
    """`refuses`: values that make the batch they are in too large. `batches`: (topic, partition, number of records)."""

    max_batch_size: int = 512 * 1024
    refuses: set[bytes] = field(default_factory=set)
    logs: dict[tuple[str, int], list[Written]] = field(default_factory=lambda: defaultdict(list))
    batches: list[tuple[str, int, int]] = field(default_factory=list)
    renewed: int = 0

    @contextmanager
    def using(self):
        yield self

    async def renew(self, used: object) -> None:
        self.renewed += 1

    def create_batch(self) -> Builder:
        return Builder(self.max_batch_size)

    async def send_batch(self, builder: Builder, topic: str, *, partition: int) -> asyncio.Future[Written]:
        answer: asyncio.Future[Written] = asyncio.get_running_loop().create_future()
        if any(value in self.refuses for _, value, _ in builder.records):
            answer.set_exception(MessageSizeTooLargeError())
            return answer
        log = self.logs[topic, partition]
        base = log[-1].offset + 1 if log else 0
        log.extend(Written(base + i, *record) for i, record in enumerate(builder.records))
        self.batches.append((topic, partition, len(builder.records)))
        answer.set_result(Written(base, None, None, []))
        return answer

    def values(self, topic: str) -> list[bytes | None]:
        """All values of a topic, by partition."""
        return [r.value for (name, _), log in sorted(self.logs.items()) if name == topic for r in log]


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> ScriptedProducer:
    async def look(self: Writers) -> None:
        """There is no broker to ask, so nothing was published."""

    monkeypatch.setattr(Writers, "look", look)
    return ScriptedProducer()
