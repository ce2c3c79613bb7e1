"""Connections per place: never more open, nor more new ones in a minute, than the limits of the moment say."""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smtp_hosts import ENVELOPE, LIMITS, MAIL, PLACE, QUICK, SITE, SOURCE, Farm, Host, deliver, until

from postroad.dns import ScriptedResolver
from postroad.egress import Source
from postroad.smtp import Client, Failure, Place, Pool, ScriptedTransport
from postroad.smtp_pool import spacing

OTHER = Place(SITE, Source("s2", "127.0.0.1", "two.example.com"))


async def test_no_more_connections_than_the_limit(farm: Farm) -> None:
    host = Host()
    client = await farm(host, wait_s=5)
    results = await asyncio.gather(*(deliver(client, connections=2) for _ in range(30)))
    assert all(result.delivered for result in results)
    assert host.most_open == 2 and len(host.bodies) == 30


async def test_a_connection_counts_until_the_host_has_closed_it(farm: Farm) -> None:
    """One message each: as the host sees it, the next one comes after the last has gone."""

    class Slow(Host):
        async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await super().talk(reader, writer)
            await asyncio.sleep(0.02)  # QUIT was read, and the connection is still there

    host = Slow()
    client = await farm(host, wait_s=5)
    results = await asyncio.gather(*(deliver(client, connections=3, messages_per_connection=1) for _ in range(15)))
    assert all(result.delivered for result in results)
    assert (host.connections, host.most_open) == (15, 3)


async def test_connections_that_fail_count_too(farm: Farm) -> None:
    host = Host({"BODY": b"nonsense"})
    client = await farm(host, wait_s=5)
    await asyncio.gather(*(deliver(client, connections=2) for _ in range(6)))
    assert (host.connections, host.most_open) == (6, 2)


async def test_connection_limit_is_an_outcome(farm: Farm) -> None:
    client = await farm(Host({"BODY": None}), wait_s=0.1)
    waiting = asyncio.create_task(deliver(client, connections=1, timeouts=QUICK))
    await asyncio.sleep(0.05)
    result = await deliver(client, connections=1)
    assert (result.phase, result.outcome, result.reply.code) == ("connect", "connection-limit", 0)
    assert (await waiting).outcome == "timeout"
    await until(lambda: client.pool.connections == {})


@pytest.mark.parametrize("none", [{"connections": 0}, {"new_per_minute": 0}])
async def test_a_share_of_nothing_gets_no_connection(none: dict[str, Any]) -> None:
    with pytest.raises(Failure, match="connection-limit"):
        await Pool(ScriptedTransport()).acquire(PLACE, "mx", "127.0.0.2", replace(LIMITS, **none))


async def test_sources_have_limits_of_their_own() -> None:
    pool, one = Pool(ScriptedTransport(), wait_s=0.01), replace(LIMITS, connections=1)
    for place in (PLACE, OTHER):
        await pool.acquire(place, "mx", "127.0.0.2", one)
    assert pool.connections_for(SITE) == 2 and pool.connections == {SITE: 2}
    with pytest.raises(Failure):
        await pool.acquire(PLACE, "mx", "127.0.0.2", one)


async def test_a_place_is_full_after_somebody_has_waited_in_vain_and_until_a_connection_is_free() -> None:
    now, limits = 0.0, replace(LIMITS, connections=1)
    pool = Pool(ScriptedTransport(), clock=lambda: now, wait_s=0.01, full_s=3)
    session, _ = await pool.acquire(PLACE, "mx.test", "127.0.0.2", limits)
    assert not pool.is_full(PLACE, limits) and not pool.is_full(OTHER, limits)
    with pytest.raises(Failure):
        await pool.acquire(PLACE, "mx.test", "127.0.0.2", limits)
    assert pool.is_full(PLACE, limits) and not pool.is_full(PLACE, LIMITS), "10 would do"
    now = 3.0
    assert not pool.is_full(PLACE, limits), "one may wait again"
    now = 2.0
    pool.release(PLACE, session)
    assert not pool.is_full(PLACE, limits)
    pool.close()


async def test_free_connections_are_those_that_nobody_uses_or_waits_for() -> None:
    limits = replace(LIMITS, connections=2)
    pool = Pool(ScriptedTransport(), wait_s=5)
    assert pool.free(PLACE, limits) == 2, "none is open yet"
    first, _ = await pool.acquire(PLACE, "mx.test", "127.0.0.2", limits)
    second, _ = await pool.acquire(PLACE, "mx.test", "127.0.0.2", limits)
    third = asyncio.create_task(pool.acquire(PLACE, "mx.test", "127.0.0.2", limits))
    await asyncio.sleep(0)
    assert pool.free(PLACE, limits) == -1 and pool.free(OTHER, limits) == 2
    pool.release(PLACE, first)
    pool.release(PLACE, (await third)[0])
    assert pool.free(PLACE, limits) == 1, "an idle one"
    pool.release(PLACE, second)
    pool.close()


async def test_messages_per_connection_and_idle_time(farm: Farm) -> None:
    host = Host()
    client = await farm(host)
    for _ in range(3):
        await deliver(client, messages_per_connection=2, idle_s=0.1)
    assert host.connections == 2
    await until(lambda: client.pool.connections == {} and host.now_open == 0)


async def test_limits_that_become_smaller_close_what_is_idle(farm: Farm) -> None:
    host = Host()
    client = await farm(host)
    await asyncio.gather(*(deliver(client, connections=5) for _ in range(5)))
    assert host.now_open == 5
    assert (await deliver(client, connections=2)).reused
    await until(lambda: host.now_open == 2 and client.pool.connections == {SITE: 2})
    results = await asyncio.gather(*(deliver(client, connections=4) for _ in range(20)))
    assert all(result.delivered for result in results) and host.now_open == 4
    assert (await deliver(client, messages_per_connection=1)).delivered
    await until(lambda: host.now_open < 4)  # those that have sent more are closed when they are met


async def test_limits_that_become_smaller_in_use_close_at_release() -> None:
    pool = Pool(ScriptedTransport(), wait_s=0.01)
    sessions = [(await pool.acquire(PLACE, "mx", "127.0.0.2", LIMITS))[0] for _ in range(4)]
    pool.release(PLACE, sessions[0])
    with pytest.raises(Failure):  # the idle one is closed, since three others are in use
        await pool.acquire(PLACE, "mx", "127.0.0.2", replace(LIMITS, connections=2))
    assert pool.connections_for(SITE) == 3
    for session in sessions[1:]:
        pool.release(PLACE, session)
    assert pool.connections_for(SITE) == 2
    pool.close()


async def test_more_connections_at_once_for_those_who_wait() -> None:
    pool = Pool(ScriptedTransport())
    await pool.acquire(PLACE, "mx", "127.0.0.2", replace(LIMITS, connections=1))
    waiting = asyncio.create_task(pool.acquire(PLACE, "mx", "127.0.0.2", replace(LIMITS, connections=1)))
    await asyncio.sleep(0)
    await pool.acquire(PLACE, "mx", "127.0.0.2", replace(LIMITS, connections=3))
    await waiting
    assert pool.connections_for(SITE) == 3


async def test_cancelled_delivery_gives_its_place_back(farm: Farm) -> None:
    host = Host({"BODY": None})
    client = await farm(host)
    stuck, waiting = (asyncio.create_task(deliver(client, connections=1)) for _ in range(2))
    await asyncio.sleep(0.05)
    waiting.cancel()
    stuck.cancel()
    await asyncio.gather(stuck, waiting, return_exceptions=True)
    await until(lambda: client.pool.connections == {})
    host.says["BODY"] = b"250 OK"
    assert (await deliver(client, connections=1)).delivered


async def test_an_idle_connection_makes_room_for_another_host() -> None:
    transport = ScriptedTransport()
    client = Client(Pool(transport), ScriptedResolver())
    for host in ("127.0.0.2", "127.0.0.3", "127.0.0.3"):
        one = replace(LIMITS, connections=1)
        assert (await client.deliver(ENVELOPE, MAIL, [host], SOURCE, SITE, one)).delivered
    assert transport.connections == [("s1", "127.0.0.2"), ("s1", "127.0.0.3")]
    client.pool.close()


async def test_close_site_returns_when_the_host_has_no_connection_any_more(farm: Farm) -> None:
    host = Host()
    client = await farm(host)
    await asyncio.gather(*(deliver(client) for _ in range(4)))
    assert host.now_open == 4
    assert await client.pool.close_site(SITE) == 0
    assert host.now_open == 0 and client.pool.connections == {}
    assert await client.pool.close_site("never seen") == 0
    assert (await deliver(client)).delivered, "it may come back"


async def test_close_site_waits_for_what_is_in_use_and_aborts_nothing(farm: Farm) -> None:
    class Late(Host):
        async def say(self, verb: str, writer: asyncio.StreamWriter) -> bool:
            await asyncio.sleep(0.2 if verb == "BODY" else 0)
            return await super().say(verb, writer)

    host = Late()
    client = await farm(host, wait_s=5)
    sending = asyncio.create_task(deliver(client, connections=1))
    waiting = asyncio.create_task(deliver(client, connections=1))
    await until(lambda: "DATA" in host.commands)
    assert await client.pool.close_site(SITE, wait_s=0.01) == 1, "one is left"
    assert (await waiting).outcome == "connection-limit", "nobody waits for a site that is given away"
    assert await client.pool.close_site(SITE) == 0
    assert (await sending).delivered and host.now_open == 0 and host.connections == 1


async def test_what_is_in_use_when_a_site_goes_to_another_worker_is_closed_and_kept_once_it_is_back() -> None:
    pool = Pool(ScriptedTransport())
    first, _ = await pool.acquire(PLACE, "mx", "127.0.0.2", LIMITS)
    other, _ = await pool.acquire(OTHER, "mx", "127.0.0.2", LIMITS)
    assert await pool.close_site(SITE, wait_s=0) == 2
    pool.release(PLACE, first)
    assert not first.alive and pool.connections_for(SITE) == 1, "idle here it would be beside those of the other worker"
    again = asyncio.create_task(pool.acquire(OTHER, "mx", "127.0.0.3", LIMITS))
    await asyncio.sleep(0)
    pool.release(OTHER, other)
    assert other.alive and pool.connections_for(SITE) == 1, "it is ours again"
    again.cancel()
    pool.close()


async def test_the_session_of_a_delivery_that_was_cancelled_is_not_kept() -> None:
    pool = Pool(ScriptedTransport())
    session, _ = await pool.acquire(PLACE, "mx", "127.0.0.2", LIMITS)
    pool.release(PLACE, session, keep=False)
    assert not session.alive and pool.connections == {}


# new connections a minute


class Clock:
    """A loop's time that runs as fast as its timers allow."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now, self._select = 0.0, loop._selector.select  # type: ignore[attr-defined]

    def select(self, timeout: float | None) -> Any:
        self.now += timeout or 0
        return self._select(0)


@contextmanager
def warped() -> Iterator[Callable[[], float]]:
    """The running loop, and a clock, without waiting."""
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    before = loop.time
    loop._selector.select = clock.select  # type: ignore[attr-defined]
    loop.time = lambda: clock.now  # type: ignore[method-assign]
    try:
        yield lambda: clock.now
    finally:
        loop.time = before  # type: ignore[method-assign]
        loop._selector.select = clock._select  # type: ignore[attr-defined]


class Counting(ScriptedTransport):
    """Notes when each connection began."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.clock, self.begun = clock, list[float]()

    async def connect(self, *given: Any) -> Any:
        self.begun.append(self.clock())
        return await super().connect(*given)


async def use(pool: Pool, limits: Any, until_s: float, clock: Callable[[], float], seed: int) -> None:
    """Senders, more than enough, that want a new connection all the time but for a pause now and then."""
    chance = random.Random(seed)

    async def sender() -> None:
        while clock() < until_s:
            try:
                session, _ = await pool.acquire(PLACE, "mx", "127.0.0.2", limits)
            except Failure:
                continue
            session.sent += 1
            await asyncio.sleep(chance.choice([0, 0, 0.3, 5]))
            pool.release(PLACE, session)

    await asyncio.gather(*(sender() for _ in range(10 + limits.new_per_minute // 10)))


def most_in_a_minute(begun: list[float]) -> int:
    """Of all windows of 60 s, both ends included."""
    begun, last = sorted(begun), 0
    most = 0
    for first, start in enumerate(begun):
        while last < len(begun) and begun[last] <= start + 60:
            last += 1
        most = max(most, last - first)
    return most


@pytest.mark.parametrize("cap", [1, 2, 5, 20, 39, 40, 100, 1000])
async def test_new_connections_in_any_minute(cap: int) -> None:
    """With a move to another worker in the middle, which knows nothing of the first."""
    limits = replace(LIMITS, new_per_minute=cap, messages_per_connection=1, connections=1000)
    with warped() as clock:
        transports = [Counting(clock), Counting(clock)]
        for number, (transport, end) in enumerate(zip(transports, (300, 600), strict=True)):
            pool = Pool(transport, clock=clock)
            await use(pool, limits, end, clock, number)
            await pool.close_site(SITE)
    begun = [at for transport in transports for at in transport.begun]
    assert most_in_a_minute(begun) <= cap
    assert len(begun) >= 0.9 * cap * 10 - 2, "90 % of it is used where somebody waits, but for the start of each worker"


@pytest.mark.parametrize("cap", [1, 30, 40, 100, 1000])
@pytest.mark.parametrize("workers", [1, 2])
async def test_new_connections_in_any_minute_of_many_moves(cap: int, workers: int) -> None:
    """Every 5 s the site goes to the next worker and is back in its turn, of one worker at once."""
    limits = replace(LIMITS, new_per_minute=cap, messages_per_connection=1, connections=1000)
    with warped() as clock:
        transport = Counting(clock)
        pools = [Pool(transport, clock=clock) for _ in range(workers)]
        for move in range(30):
            pool = pools[move % workers]
            while clock() < 5 * move + 5:
                try:
                    session, _ = await pool.acquire(PLACE, "mx", "127.0.0.2", limits)
                except Failure:
                    continue
                session.sent = 1
                pool.release(PLACE, session)
            await pool.close_site(SITE)
        assert cap < 40 or len(transport.begun) > 0.6 * cap * clock() / 60, "it goes on nevertheless"
    assert most_in_a_minute(transport.begun) <= cap


async def test_a_first_connection_waits_only_where_the_cap_is_small() -> None:
    with warped() as clock:
        for cap, most in ((100, 0), (20, 3.2)):
            pool, since = Pool(ScriptedTransport(), clock=clock, wait_s=10), clock()
            await pool.acquire(PLACE, "mx", "127.0.0.2", replace(LIMITS, new_per_minute=cap))
            assert clock() - since <= most


async def test_a_place_is_full_while_no_connection_may_begin() -> None:
    now, limits = 0.0, replace(LIMITS, new_per_minute=2, messages_per_connection=1)
    pool = Pool(ScriptedTransport(), clock=lambda: now)
    assert pool.is_full(PLACE, limits)
    now = 31.6
    assert not pool.is_full(PLACE, limits)
    session, _ = await pool.acquire(PLACE, "mx", "127.0.0.2", limits)
    session.sent = 1
    pool.release(PLACE, session)
    assert pool.is_full(PLACE, limits), "nobody need wait to find that out"
    pool.close()


@given(st.integers(1, 5000))
def test_spacing_keeps_any_window_also_over_two_owners(cap: int) -> None:
    every, at_once = spacing(cap)

    def begun(start: float, end: float) -> list[float]:
        earliest = (start + max(0.0, (n - (at_once - 1)) * every) for n in itertools.count())
        return list(itertools.takewhile(lambda at: at <= end, earliest))

    assert len(begun(0, 60)) <= cap
    assert 60 / every >= 0.94 * cap
    if cap >= 40:  # below, the second owner waits before its first one
        assert max(len(begun(0, cut)) + len(begun(cut, 60)) for cut in (0, 10, 30, 59.9)) <= cap


async def test_urgent_mail_gets_the_next_connection() -> None:
    pool = Pool(ScriptedTransport())
    limits = replace(LIMITS, connections=1)
    session, _ = await pool.acquire(PLACE, "mx1", "127.0.0.2", limits)
    order: list[str] = []

    async def ask(name: str, urgent: bool) -> None:
        mine, _ = await pool.acquire(PLACE, "mx1", "127.0.0.2", limits, urgent=urgent)
        order.append(name)
        pool.release(PLACE, mine)

    tasks = [asyncio.create_task(ask(*each)) for each in (("b1", False), ("b2", False), ("t1", True), ("t2", True))]
    await asyncio.sleep(0)
    pool.release(PLACE, session)
    await asyncio.gather(*tasks)
    assert order == ["t1", "t2", "b1", "b2"]


async def two_hosts(pool: Pool, limits: Any) -> Any:
    """An idle session to 127.0.0.3, and somebody in line for one to 127.0.0.2, which may not begin yet."""
    session, _ = await pool.acquire(PLACE, "b", "127.0.0.3", limits)
    pool.release(PLACE, session)
    waits = asyncio.create_task(pool.acquire(PLACE, "a", "127.0.0.2", limits, urgent=True))
    await asyncio.sleep(0)
    return waits


async def test_who_waits_for_a_new_connection_holds_up_nobody_who_needs_none() -> None:
    pool, limits = Pool(ScriptedTransport()), replace(LIMITS, new_per_minute=40)
    waits = await two_hosts(pool, limits)
    session, reused = await asyncio.wait_for(pool.acquire(PLACE, "b", "127.0.0.3", limits), 0.1)
    order: list[str] = []

    async def ask(name: str, urgent: bool) -> None:
        mine, _ = await pool.acquire(PLACE, "b", "127.0.0.3", limits, urgent=urgent)
        order.append(name)
        pool.release(PLACE, mine)

    behind = [asyncio.create_task(ask(*each)) for each in (("b", False), ("t", True))]
    await asyncio.sleep(0)
    pool.release(PLACE, session)
    await asyncio.wait_for(asyncio.gather(*behind), 0.1)
    assert reused and order == ["t", "b"] and not waits.done()
    waits.cancel()
    pool.close()


async def test_a_new_connection_has_its_turn_however_busy_the_others_are() -> None:
    limits = replace(LIMITS, new_per_minute=40, connections=1)
    with warped() as clock:
        transport = Counting(clock)
        pool = Pool(transport, clock=clock)
        waits = await two_hosts(pool, limits)

        async def busy() -> None:
            while not waits.done():
                session, _ = await pool.acquire(PLACE, "b", "127.0.0.3", limits)
                await asyncio.sleep(0.25)
                pool.release(PLACE, session)

        senders = [asyncio.create_task(busy()) for _ in range(3)]
        session, reused = await waits
        assert (session.address, reused) == ("127.0.0.2", False)
        assert clock() <= 60 / (0.92 * 40) + 0.25, "as soon as it may begin and the only connection is free"
        for sender in senders:
            sender.cancel()
        await asyncio.gather(*senders, return_exceptions=True)
    pool.close()
