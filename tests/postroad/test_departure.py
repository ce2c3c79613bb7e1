"""Who leaves next, who is parked behind whom, and who begins where several have a connection and wait for their place in a rate."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from postroad import departure
from postroad.departure import PATIENCE_MS, Departures, Leave, Wait
from postroad.egress import Pool, Source
from postroad.orders import Orders
from postroad.pacing import Pace
from postroad.shaping.policy import Policy, parse
from postroad.used import NotNow

START = 1_790_000_000_000
PLACE = "s.test#0"
POOL = Pool("default", (Source("a", "", "a.test"),))


class Road:
    """Departures with a clock that the test sets."""

    def __init__(self, text: str, **known: Any) -> None:
        self.seconds, self.policy = 1000.0, self.read(text)
        self.departures = Departures(lambda: self.seconds, rests=False, **known)
        self.state = SimpleNamespace(partition=0, now=START, shaping={}, windows={}, warmup={}, rate_limits={})

    @staticmethod
    def read(text: str) -> Policy:
        return parse(text, "shaping.toml")

    def later(self, seconds: float) -> None:
        self.seconds += seconds
        self.state.now += round(seconds * 1000)

    def leave(self, stream: str = "transactional", tenant: str = "acme", pool: Pool = POOL) -> Leave | Wait:
        one = message(stream, tenant)
        return self.departures.leave(one, pool, PLACE, self.policy, Orders({}), self.state)

    def crowded(self, ahead: int, stream: str = "transactional", tenant: str = "acme", shard: int = 0) -> float:
        one = message(stream, tenant, shard)
        return self.seconds_until(self.departures.crowded(one, f"s.test#{shard}", self.policy, ahead, self.state))

    def seconds_until(self, wait: Leave | Wait) -> float:
        return (wait.until - self.state.now) / 1000 if isinstance(wait, Wait) else 0.0


def message(stream: str, tenant: str = "acme", shard: int = 0) -> Any:
    route = {"site": "s.test", "shard": shard, "source": "a"}
    return {"message_id": "m" * 26, "tenant": tenant, "stream": stream, "sender": "x@acme.test", "route": route}


def test_urgent_mail_is_parked_behind_its_like_not_behind_a_blast() -> None:
    road = Road('[site."s.test"]\nmessages_per_second = 10\n')
    blast = [road.leave("broadcast") for _ in range(5000)]
    assert road.seconds_until(blast[-1]) > 500
    road.later(5)
    resets = [road.seconds_until(road.leave()) for _ in range(30)]
    assert 0 < max(resets) < 4, "30 at 10 a second"
    assert road.seconds_until(road.leave("broadcast", "other")) < 5, "nor is another tenant's mail"


def test_a_crowd_of_broadcasts_is_in_front_of_no_urgent_mail() -> None:
    road = Road('[site."s.test"]\nmessages_per_second = 10\n')
    for _ in range(5000):
        last = road.crowded(100, "broadcast")
    assert last > 500
    assert road.crowded(100) == pytest.approx(10.5, abs=0.2)


def test_a_line_is_that_of_the_rate_which_holds_an_urgent_one_up() -> None:
    text = '[site."s.test"]\nmessages_per_second = 1\n[tenant.acme]\nmessages_per_second = 0.6\n'
    road = Road(text)
    for _ in range(2):
        assert isinstance(road.leave("broadcast", "other"), Leave)
    waits = [road.seconds_until(road.leave()) for _ in range(5)]
    assert waits == pytest.approx([0, 1.75, 3.5, 5.25, 7], abs=0.1), "as fast as the tenant may"


def test_mail_of_a_shard_that_was_removed_is_routed_anew_when_crowded() -> None:
    road = Road('[site."s.test"]\nshards = 4\n')
    assert road.crowded(1024, shard=7) == 0.0


def test_a_raised_limit_of_a_tenant_is_seen_while_all_mail_is_its() -> None:
    road = Road("[tenant.acme]\nmessages_per_day = 20\n")
    for _ in range(20):
        found = road.leave()
        assert isinstance(found, Leave)
        found.done()
    assert cast(Wait, road.leave()).reason == "tenant-limit"
    road.policy = road.read("[tenant.acme]\nmessages_per_day = 1000\n")
    assert isinstance(road.leave(), Leave)


def test_what_does_not_leave_gives_its_places_back() -> None:
    road = Road(
        '[site."s.test"]\nmessages_per_hour = 20\nmessages_per_second = 2\n[tenant.acme]\nmessages_per_day = 30\n'
    )
    for n in range(200):
        found = road.leave()
        assert isinstance(found, Leave), n
        found.give_back()
        found.give_back()
        found.done()
    own = road.departures._partitions[0]
    assert {window.used for pair in own.windows.values() for window in pair} == {0}
    assert {window.under_way for pair in own.windows.values() for window in pair} == {0}


async def test_a_connection_is_not_held_for_a_whole_interval_of_a_slow_rate() -> None:
    road = Road('[site."s.test"]\nmessages_per_second = 0.01\n')
    found = road.leave()
    assert isinstance(found, Leave)
    await road.departures.begin(found)
    with pytest.raises(NotNow) as late:
        await road.departures.begin(found)  # another host of the same attempt
    assert late.value.wait > 100_000 > PATIENCE_MS
    assert [pace.urgent for _, pace, _ in found.rates] == [0]


async def test_who_was_overtaken_at_a_slow_rate_comes_back_when_it_may() -> None:
    road = Road('[site."s.test"]\nmessages_per_second = 0.01\n')
    broadcast, reset = road.leave("broadcast"), road.leave()
    assert isinstance(broadcast, Leave) and isinstance(reset, Leave)
    await road.departures.begin(reset)

    class Client:
        async def deliver(self, *arguments: Any) -> None:
            await arguments[-1].begin()

    sent = road.departures.deliver(cast(Any, Client()), broadcast, {**message("broadcast"), "route": {
        **message("broadcast")["route"], "hosts": []}}, cast(Any, None), b"", road.state)  # fmt: skip
    wait = await sent
    assert isinstance(wait, Wait) and wait.reason == "rate-limit"
    assert road.seconds_until(wait) == pytest.approx(105, abs=3) and not broadcast.open


def test_an_effect_that_goes_on_after_its_partition_was_lost_leaves_nothing_behind() -> None:
    road = Road('[site."s.test"]\nmessages_per_hour = 20\n')
    found = road.leave()
    assert isinstance(found, Leave)
    assert road.departures.lost(0) == [PLACE] and found.is_lost
    road.departures.refuse(found, START + 1000)
    assert road.departures.kept(found, START) == ([], [])
    found.done()
    assert road.departures._partitions == {}
    assert road.departures.lost(0) == []


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


@pytest.mark.parametrize(
    ("stream", "free", "waits"), [("broadcast", 1, True), ("broadcast", 2, False), ("transactional", 1, False)]
)
async def test_a_broadcast_waits_for_its_rate_without_the_last_connection(
    stream: str, free: int, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    road, asked = Road('[site."s.test"]\nmessages_per_second = 10\n'), list[float]()

    async def sleep(seconds: float) -> None:
        road.later(seconds)

    class Client:
        pool = SimpleNamespace(free=lambda place, limits: free)

        async def deliver(self, *arguments: Any) -> Any:
            asked.append(road.seconds)
            await arguments[-1].begin()
            return SimpleNamespace(outcome="replied")

    monkeypatch.setattr(departure.asyncio, "sleep", sleep)
    first, found = road.leave(stream), road.leave(stream)
    assert isinstance(first, Leave) and isinstance(found, Leave)
    await road.departures.begin(first)
    began, one = road.seconds, {**message(stream), "route": {**message(stream)["route"], "hosts": []}}
    await road.departures.deliver(cast(Any, Client()), found, cast(Any, one), cast(Any, None), b"", road.state)
    assert found.has_begun and road.seconds - began > 0.08 and (asked[0] > began) == waits
