"""The producer's rate rises and falls as it is told."""

import asyncio
import io
import time

from loadtest.chaos.plan import Planned
from loadtest.chaos.producer import Producer
from topics.client import Place
from topics.installation import Installation


async def test_a_surge_is_ten_times_as_much_for_its_time(monkeypatch):
    written: list[float] = []
    producer = Producer(Installation("127.0.0.1:1"), io.StringIO())

    async def write(one: Planned) -> Place:
        written.append(time.monotonic())
        return Place(0, 0, 0)

    async def close(client: object) -> None:
        await asyncio.sleep(0)

    monkeypatch.setattr(producer, "_write", write)
    monkeypatch.setattr(producer, "_close", close)
    planned = (Planned(n, "plain", {"recipients": [{"address": "a@b.test"}]}) for n in range(60))
    began = time.monotonic()
    await producer.run(planned, 10.0, (0.5, 1.0, 100.0))
    assert time.monotonic() - began > 1.3  # 5 in the first half second, 50 in the next, 5 in the last
    early, high = sum(at < began + 0.45 for at in written), sum(began + 0.55 <= at < began + 0.95 for at in written)
    assert early <= 6
    assert 25 <= high <= 50
