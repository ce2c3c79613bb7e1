"""The producer of a worker: idempotent, acks=all, renewed after a batch that the broker refused for good."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from faust.transport.drivers import aiokafka as stock


class Producer(stock.Producer):
    """Faust's producer with `using` and `renew`; `add_batch` of aiokafka is reached through outputs.py."""

    _renewing: asyncio.Task[None] | None = None

    def _settings_extra(self) -> dict[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._users: Counter[Any] = Counter()

    @contextmanager
    def using(self) -> Iterator[Any]:
        """The aiokafka producer of the moment. One that was renewed is stopped when its last user has left: stopped
        earlier, a send that waits for a place in the queue is queued behind the last flush and never answered."""
        producer = self._ensure_producer()
        self._users[producer] += 1
        try:
            yield producer
        finally:
            self._users[producer] -= 1
            if not self._users[producer]:
                del self._users[producer]
                if producer is not self._producer and self._producer is not None:
                    self.add_future(producer.stop())

    async def renew(self, used: Any) -> None:
        """aiokafka counts the sequence numbers of a refused batch as used: everything after it on that partition fails
        with OutOfOrderSequenceNumber. A new producer id starts from 0. `used`: the producer that failed."""
        if self._producer is used:
            if self._renewing is None:
                self._renewing = asyncio.ensure_future(self._renew())
            await asyncio.shield(self._renewing)

    async def _renew(self) -> None:
        try:
            new = self._new_producer()
            await new.start()
            self._producer = new
        finally:
            self._renewing = None
