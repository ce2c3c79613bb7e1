"""What the stages of a process share."""

import asyncio

from agents.services import Services
from postroad.egress import Pool, Source
from postroad.settings import Settings

SITES = """
[site."small.test"]
connections = 2
[site."large.test"]
connections = 10
shards = 4
[site."tiny.test"]
connections = 1
shards = 4
"""


def services(tmp_path, **settings):
    file = tmp_path / "shaping.toml"
    file.write_text(SITES)
    return Services(Settings(data_dir=tmp_path, ehlo="out.test", shaping=file, **settings))


async def test_messages_in_work_follow_the_connections_of_a_shard(tmp_path):
    shared = services(tmp_path)
    keys = (b"small.test#0", b"large.test#0", b"large.test#3", b"tiny.test#0", b"\xff")
    assert [shared.messages_at_once(key) for key in keys] == [4, 6, 4, 2, 20]
    assert shared.client() is shared.client(), "one pool for all"


async def test_messages_in_work_follow_the_sources_of_a_pool_and_leave_room_for_other_sites(tmp_path):
    sources = tuple(Source(f"s{n}", "", "out.test", 1.0 if n < 3 else 0.0) for n in range(9))
    shared = services(tmp_path, send_concurrency=60)
    shared.pools["default"] = Pool("default", sources)
    assert [shared.messages_at_once(key) for key in (b"small.test#0", b"large.test#0", b"else.test#0")] == [12, 18, 30]


async def test_a_partition_with_many_quiet_places_is_let_go_at_once(tmp_path, monkeypatch):
    shared = services(tmp_path)
    pool, closed = shared.client().pool, []
    open_at = {"s7#0": 1}
    slow = asyncio.Event()

    async def close_site(place):
        if place in open_at:
            await slow.wait()
        closed.append(place)

    monkeypatch.setattr(pool, "close_site", close_site)
    monkeypatch.setattr(pool, "connections_for", lambda place: open_at.get(place, 0))
    monkeypatch.setattr(shared.departures, "lost", lambda partition: [f"s{n}#0" for n in range(1000)])
    before = len(asyncio.all_tasks())
    task = asyncio.create_task(shared.lost(0))
    await asyncio.sleep(0)
    assert len(closed) == 999 and len(asyncio.all_tasks()) == before + 2, "one for the open one"
    slow.set()
    await task
    assert len(closed) == 1000


async def test_settings_reach_what_uses_them(tmp_path):
    shared = services(
        tmp_path, rocksdb_cache_mib=3, rocksdb_write_buffer_mib=2, cache_entries=7, content_inline_max=10,
        retry_delays_s=[1, 2], greylist_s=[3], retry_jitter=0.5, smtp_port=2525,
    )  # fmt: skip
    assert shared.store_options() == {"cache_mib": 3, "write_buffer_mib": 2, "cache_entries": 7}
    assert (shared.retries.delays_s, shared.retries.greylist_s, shared.retries.jitter) == ((1, 2), (3,), 0.5)
    assert shared.client().pool._port == 2525
    stored = await shared.contents.put(b"x" * 11)
    assert stored["blob"] and await shared.contents.get(stored) == b"x" * 11


def test_two_processes_share_nothing(tmp_path):
    assert services(tmp_path).departures is not services(tmp_path).departures
