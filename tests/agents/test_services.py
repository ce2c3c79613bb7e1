"""What the stages of a process share."""

from agents.services import Services
from postroad.settings import Settings, Site


def services(tmp_path, **settings):
    return Services(Settings(data_dir=tmp_path, ehlo="out.test", **settings))


async def test_one_client_for_sites_of_the_same_limits(tmp_path):
    shared = services(tmp_path, sites={"small.test": Site(connections=2)})
    assert shared.client("a.test") is shared.client("b.test")
    assert shared.client("small.test") is not shared.client("a.test")
    assert shared.client("small.test").pool._settings.connections == 2


async def test_shards_of_a_site_share_its_connections(tmp_path):
    shared = services(
        tmp_path, sites={"large.test": Site(connections=10, shards=4), "tiny.test": Site(connections=1, shards=4)}
    )
    assert shared.client("large.test").pool._settings.connections == 2
    assert shared.client("tiny.test").pool._settings.connections == 1, "at least one, or nothing could ever go"
    assert [shared.messages_at_once(key) for key in (b"large.test#3", b"tiny.test#0", b"\xff")] == [4, 2, 20]


async def test_settings_reach_what_uses_them(tmp_path):
    shared = services(
        tmp_path, rocksdb_cache_mib=3, rocksdb_write_buffer_mib=2, cache_entries=7, content_inline_max=10,
        retry_delays_s=[1, 2], greylist_s=[3], retry_jitter=0.5, smtp_port=2525,
    )  # fmt: skip
    assert shared.store_options() == {"cache_mib": 3, "write_buffer_mib": 2, "cache_entries": 7}
    assert (shared.retries.delays_s, shared.retries.greylist_s, shared.retries.jitter) == ((1, 2), (3,), 0.5)
    assert shared.client("a.test").pool._port == 2525
    stored = await shared.contents.put(b"x" * 11)
    assert stored["blob"] and await shared.contents.get(stored) == b"x" * 11


def test_two_processes_share_nothing(tmp_path):
    assert services(tmp_path).rates is not services(tmp_path).rates
