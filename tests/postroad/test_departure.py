"""Who begins next where several messages have a connection and wait for their place in a rate."""

import asyncio
from typing import Any, cast

import pytest

from postroad import departure
from postroad.departure import Departures, Leave
from postroad.pacing import Pace


def leaves(departures: Departures, pace: Pace, every: float, urgent: bool) -> Leave:
    pace.reserve(0, every, urgent)
    due = departures._now()
    return Leave(cast(Any, None), cast(Any, None), "v", due, [("site#0", pace, every)], urgent=urgent)


async def began(departures: Departures, each: tuple[str, Leave], order: list[str]) -> None:
    await departures.begin(each[1])
    order.append(each[0])


async def test_urgent_mail_begins_before_a_broadcast_that_waits_at_the_same_rate() -> None:
    departures, pace, order = Departures(rests=False), Pace(), list[str]()
    pace.begin(departures._now(), 60.0)
    broadcast = [("broadcast", leaves(departures, pace, 60.0, False)) for _ in range(3)]
    tasks = [asyncio.create_task(began(departures, each, order)) for each in broadcast]
    await asyncio.sleep(0)
    tasks.append(asyncio.create_task(began(departures, ("reset", leaves(departures, pace, 60.0, True)), order)))
    await asyncio.gather(*tasks)
    assert order == ["reset", "broadcast", "broadcast", "broadcast"]
    assert pace.urgent == 0


async def test_a_broadcast_does_not_yield_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departure, "YIELDS_MS", 30)
    departures, pace, order = Departures(rests=False), Pace(), list[str]()
    pace.urgent = 1  # one that waits and waits: the others are always more urgent
    async with asyncio.timeout(5):
        await began(departures, ("broadcast", leaves(departures, pace, 5.0, False)), order)
    assert order == ["broadcast"]
