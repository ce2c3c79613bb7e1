"""The checker of caps, which has to find what is wrong, and what the farm tells it."""

import asyncio
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.delivery.windows import Caps, by_source, mean_open, most_at_once, most_in_window, use, violations
from loadtest.mxfarm import Behaviour, Connection, FarmServer, Host, Site
from loadtest.mxfarm.connections import CONNECTIONS, read
from loadtest.mxfarm.sites import read as read_sites
from loadtest.mxfarm.sites import write as write_sites

CAPS = Caps(connections=2, new_per_minute=3, per_second=4, messages_per_connection=5)


def connection(opened: float, ended: float | None = None, mails: tuple[float, ...] = ()) -> Connection:
    return Connection("site", "127.0.0.1", "mx", opened, list(mails), ended)


def test_a_window_begins_anywhere() -> None:
    times = [0.9, 0.95, 1.0, 1.05, 1.5]
    assert most_in_window(times, 0.2) == (4, 0.9)  # two before the full second, two after
    assert most_in_window([0.0, 1.0, 2.0], 1.0) == (1, 0.0)  # half-open: what is a window apart is not in one
    assert most_in_window([], 1.0) == (0, 0.0)


@given(st.lists(st.integers(0, 200), max_size=40), st.integers(1, 50))
def test_windows_as_counted_one_by_one(times: list[int], window: int) -> None:
    slow = max((sum(start <= time < start + window for time in times) for start in times), default=0)
    assert most_in_window(times, window)[0] == slow


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=30))
def test_at_once_as_counted_one_by_one(spans: list[tuple[int, int]]) -> None:
    intervals = [(start, start + length) for start, length in spans]
    slow = max((sum(start <= moment < end for start, end in intervals) for moment in range(70)), default=0)
    assert most_at_once(intervals)[0] == slow


def test_open_for_ever_counts() -> None:
    assert most_at_once([(0.0, None), (5.0, None), (9.0, 10.0)]) == (3, 9.0)


@pytest.mark.parametrize(
    ("seen", "cap"),
    [
        ([connection(0, 9), connection(1, 9), connection(2, 9)], "connections at once"),
        ([connection(n * 19.0, n * 19.0 + 1) for n in range(4)], "new connections in 60 s"),
        ([connection(0, 9, (1.0, 1.2, 1.4)), connection(0, 9, (1.3, 1.9))], "messages in 1 s"),
        ([connection(0, 9, (1, 2, 3, 4, 5, 6))], "messages on one connection"),
    ],
)
def test_each_cap_can_be_broken_alone(seen: list[Connection], cap: str) -> None:
    assert [violation.cap for violation in violations(seen, CAPS)] == [cap]


def test_what_uses_every_cap_to_the_end_is_right() -> None:
    seen = [
        connection(0, 9, (0.0, 0.25, 0.5, 0.75, 1.0)),
        connection(1, 20.0),
        connection(20.0, 30),
        connection(60, 61),
    ]
    assert violations(seen, CAPS) == []
    assert violations([], CAPS) == []


def test_sources_have_caps_of_their_own() -> None:
    both = [connection(0, 9), connection(0, 9), Connection("site", "127.0.0.2", "mx", 0.0, [], 9.0)]
    assert [len(one) for one in by_source(both).values()] == [2, 1]


def test_use_is_that_of_the_cap_which_binds() -> None:
    seen = [connection(0, 10), connection(5, 10)]
    assert mean_open(seen, [(0, 10)]) == pytest.approx(1.5)
    assert use(seen, CAPS, [(0, 10)]) == pytest.approx(2 / 0.5)  # connections of one minute's three, in 10 s
    assert use(seen, Caps(2, 1000, 1000, 5), [(0, 10)]) == pytest.approx(0.75)
    assert use(seen, Caps(2, 1000, 1000, 5), [(0, 4), (6, 8)]) == pytest.approx(
        (4 + 2 * 2) / 6 / 2
    )  # what is between does not count
    assert use([connection(0, 10, (1, 2, 3, 4))], Caps(100, 1000, 1, 5), [(0, 10)]) == pytest.approx(0.4)


def site(name: str, octet: int, **behaviour: object) -> Site:
    return Site(name, (Host(f"mx.{name}.test", f"127.0.0.{octet}"),), (f"{name}.test",), Behaviour(**behaviour))  # type: ignore[arg-type]


async def test_the_farm_tells_when_packets_came_not_when_it_read_them(tmp_path: Path) -> None:
    async with FarmServer(tmp_path, sites=[site("a", 211)]) as farm:
        reader, writer = await asyncio.open_connection("127.0.0.211", farm.smtp_port)
        await reader.readline()
        writer.write(b"EHLO x.test\r\n")
        while b" " not in (await reader.readline())[:4]:
            pass
        sent = time.monotonic()
        writer.write(b"MAIL FROM:<a@b.test>\r\n")
        await asyncio.sleep(0)
        time.sleep(0.3)  # the farm, in this loop, is busy
        await reader.readline()
        writer.write(b"QUIT\r\n")
        await reader.readline()
        ended = time.monotonic()
        await asyncio.sleep(0.1)
        writer.close()
        (seen,) = read(tmp_path)
        assert (seen.site, seen.source, seen.host) == ("a", "127.0.0.1", "mx.a.test")
        assert len(seen.mails) == 1 and abs(seen.mails[0] - sent) < 0.15
        jiffies = 0.02  # the kernel counts in them, some milliseconds each
        assert seen.ended is not None and seen.opened - jiffies < seen.mails[0] < seen.ended <= ended + jiffies


async def test_a_connection_that_is_refused_or_cut_counts_and_ends(tmp_path: Path) -> None:
    async with FarmServer(tmp_path, sites=[site("a", 211, connections=1)]) as farm:
        first = await asyncio.open_connection("127.0.0.211", farm.smtp_port)
        assert (await first[0].readline()).startswith(b"220")
        second = await asyncio.open_connection("127.0.0.211", farm.smtp_port)
        assert (await second[0].read()).startswith(b"421")
        first[1].close()
        second[1].close()
        for _ in range(100):
            if all(one.ended for one in read(tmp_path)):
                break
            await asyncio.sleep(0.02)
        assert [one.ended is not None for one in read(tmp_path)] == [True, True]
    with (tmp_path / CONNECTIONS).open("ab") as log:
        log.write(b'["open", 1')  # of a farm that was killed
    assert len(read(tmp_path)) == 2


async def test_sites_from_a_file_and_an_address_that_answers_no_syn(tmp_path: Path) -> None:
    sites = [site("a", 211, replies={"full": "552 5.2.2 full"}), site("deaf", 212, mode="unreachable")]
    assert read_sites(write_sites(tmp_path / "sites.json", sites)) == tuple(sites)
    async with FarmServer(tmp_path, sites=sites) as farm:
        with socket.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.212", farm.smtp_port))
