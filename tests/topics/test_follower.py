"""A followed topic on a real broker: complete before it is ready, then live; what is broken changes nothing."""

import asyncio
import logging
from types import SimpleNamespace

import pytest

from topics.admin import ensure
from topics.catalogue import Output, Topic
from topics.client import Client
from topics.codec import Codec, RegistryUnavailable
from topics.follower import Follower
from topics.unreadable import Unreadable

SCHEMA = {"type": "record", "name": "Limit", "fields": [
    {"name": "tenant", "type": "string"}, {"name": "rate", "type": "int"}]}  # fmt: skip
LIMITS = Topic("limits", SCHEMA, lambda limit: limit["tenant"], partitions=2, compacted=True)
CODEC = Codec(SCHEMA)


def convert(value):
    if value["rate"] < 0:
        raise ValueError("a rate is not negative")
    return value["rate"]


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def following(installation):
    await ensure(installation, [LIMITS])
    follower = Follower(installation, LIMITS, convert)
    async with Client(installation) as client:
        yield follower, client
        await follower.stop()


async def test_complete_when_ready_then_live(following):
    follower, client = following
    for n in range(50):
        await client.send(LIMITS.send({"tenant": f"t{n % 10}", "rate": n}))
    async with asyncio.timeout(10):
        await follower.ready()
    assert dict(follower) == {f"t{n}": 40 + n for n in range(10)}
    await client.send(LIMITS.send({"tenant": "new", "rate": 7}))
    await until(lambda: follower.get("new") == 7)
    assert len(follower) == 11


async def test_ready_on_an_empty_topic(following):
    follower, _ = following
    async with asyncio.timeout(10):
        await follower.ready()
        await follower.ready()
    assert not follower


async def test_tombstone_takes_the_entry_away(following):
    follower, client = following
    await client.send(LIMITS.send({"tenant": "a", "rate": 1}))
    await client.send(LIMITS.send({"tenant": "b", "rate": 1}))
    await client.send(Output(LIMITS, b"a", None))
    await client.send(Output(LIMITS, b"nobody", None))
    await follower.ready()
    assert dict(follower) == {"b": 1}
    await client.send(Output(LIMITS, b"b", None))
    await until(lambda: not follower)


@pytest.mark.parametrize(
    "broken",
    [b"", b"garbage", b"\0\0\0\0\x07id of a registry", CODEC.encode({"tenant": "a", "rate": 1})[:-1],
     CODEC.encode({"tenant": "a", "rate": -5})],
)  # fmt: skip
async def test_a_broken_record_keeps_the_value_before(following, broken, caplog):
    follower, client = following
    await client.send(LIMITS.send({"tenant": "a", "rate": 5}))
    with caplog.at_level(logging.ERROR):
        await client.send_raw(LIMITS, b"a", broken)
        await client.send_raw(LIMITS, b"\xff not text", CODEC.encode({"tenant": "x", "rate": 2}))
        await client.send(LIMITS.send({"tenant": "last", "rate": 9}))
        await follower.ready()
        await until(lambda: "last" in follower)
    assert follower["a"] == 5
    assert "kept the value before" in caplog.text


async def test_a_registry_that_is_away_and_whatever_else_is_waited_for(following, monkeypatch):
    """The task ended at the first of them, and whoever waited for `ready` waited for ever."""
    monkeypatch.setattr("topics.follower.RETRY_SECONDS", 0.01)
    follower, client = following
    await client.send(LIMITS.send({"tenant": "a", "rate": 1}))
    right, errors = follower._codec.decode, [RegistryUnavailable("away"), RuntimeError("what nobody thought of")]

    def decode(raw):
        if errors:
            raise errors.pop()
        return right(raw)

    follower._codec = SimpleNamespace(decode=decode)
    async with asyncio.timeout(10):
        await follower.ready()
    assert dict(follower) == {"a": 1}


async def test_what_was_compacted_away_meanwhile_is_gone_after_a_reconnect(following, monkeypatch):
    monkeypatch.setattr("topics.follower.RETRY_SECONDS", 0.01)
    follower, client = following
    follower._values = {"compacted away": 3, "broken now": 4}
    await client.send(LIMITS.send({"tenant": "a", "rate": 1}))
    await client.send_raw(LIMITS, b"broken now", b"garbage")
    await follower.ready()
    assert dict(follower) == {"a": 1, "broken now": 4}


async def test_record_that_could_not_be_unpacked_takes_nothing_away(following):
    follower, _ = following
    values = {"": 1, "a": 2}
    await follower._apply(Unreadable("limits", 0, 7, 5, "BadGzipFile", b""), values)
    assert values == {"": 1, "a": 2}
