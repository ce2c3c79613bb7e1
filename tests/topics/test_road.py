"""A source that can wait: how much of it is read, what is told of the wait, and a real worker that holds it back."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.records_to_delete import RecordsToDelete
from aiokafka.errors import GroupAuthorizationFailedError, KafkaConnectionError, KafkaError
from faust.types import TP

from deploy.local import ROOT, child
from loadtest.engine import stages
from topics import road
from topics.admin import ensure
from topics.catalogue import DEAD_LETTERS, Topic
from topics.consumer import POLL_SECONDS, Consumer
from topics.road import WEIGHT, Brake, Lag, Road
from topics.runner import Runner

WAITS: Topic = Topic("bench.waits", stages.SCHEMA, lambda event: event["actor"])
HELD, OTHER = TP("bench.waits", 0), TP("other", 0)


def light(**fields):
    """A road whose records make one message each."""
    found = Road(WAITS, [])
    found._weight = 1.0
    return found


@pytest.mark.parametrize(
    ("length", "waiting", "share", "room"),
    [
        (0, 0, 1, 100),
        (60, 0, 1, 40),
        (75, 0, 1, 25),
        (76, 0, 1, 0),  # some at a time
        (5000, 0, 1, 0),
        (0, 30, 1, 70),  # what was read comes too
        (0, 80, 1, 0),
        (40, 0, 0.25, 15),
        (0, 10, 0.25, 15),
        (0, 20, 0.25, 0),
    ],
)
def test_room_is_what_is_left_of_the_bound(length, waiting, share, room):
    assert light().room(length, 100, waiting, share) == room


def test_room_goes_by_the_messages_that_records_make():
    found = Road(WAITS, [])
    assert found.room(0, 1000, 0, 1) == 1000 / WEIGHT, "careful at first"
    rooms = []
    for _ in range(10):
        for _ in range(5):
            found.weigh(1)
        rooms.append(found.room(0, 1000, 0, 1))
    assert rooms[:2] == [20, 40] and rooms[-1] == 1000
    found.weigh(500)
    assert found.room(0, 1000, 0, 1) == 2
    assert found.room(0, 1000, 0, 1) == 2, "nothing new was seen"
    found.weigh(5000)
    assert found.room(0, 1000, 0, 1) == 1, "one at least: a submission of more than the bound must go at some time"
    found.weigh(0)
    assert found.room(0, 1000, 0, 1) >= 1


def consumer():
    found = Consumer.__new__(Consumer)
    found._delivered, found._allowed, found._held_bytes, found._sought = {}, {}, {HELD: 0, OTHER: 0}, {HELD, OTHER}
    found._wake, found.app, found._held_first = asyncio.Event(), SimpleNamespace(rebalancing=False), False
    found._get_active_partitions = lambda: {HELD, OTHER}
    found._is_changelog_tp = lambda tp: False
    return found


def test_a_source_that_is_held_back_is_not_fetched_and_the_others_are():
    found = consumer()
    assert found._fetchable() == ({HELD, OTHER}, 4 * POLL_SECONDS)
    found.allow(HELD.topic, 0)
    ready, seconds = found._fetchable()
    assert ready == {OTHER} and seconds < POLL_SECONDS, "it is to go on soon after it may"
    found.allow(HELD.topic, 3)
    assert found._fetchable() == ({HELD, OTHER}, 4 * POLL_SECONDS)


class Fetcher:
    """What was fetched from the broker and waits to be read, by partition; `asked`: records that each call may bring."""

    def __init__(self, **there):
        self.there, self.asked = {HELD: list(range(there["held"])), OTHER: list(range(there["other"]))}, []

    async def getmany(self, tps, seconds, most=None):
        assert tps, "of none would be of all"
        self.asked.append(most)
        most, found = 2000 if most is None else most, {}
        for tp in sorted(tps):
            found[tp], self.there[tp] = self.there[tp][:most], self.there[tp][most:]
            most -= len(found[tp])
        return {tp: records for tp, records in found.items() if records}


async def test_a_source_that_is_held_back_slows_no_other():
    found = consumer()
    found._thread = fetcher = Fetcher(held=10, other=10_000)
    found.allow(HELD.topic, 1)
    read = {HELD: 0, OTHER: 0}
    for _ in range(12):
        for tp, records in (await found._getmany(found._fetchable()[0], 1)).items():
            read[tp] += len(records)
            if tp == HELD:
                found.allow(HELD.topic, 1)
    assert read[OTHER] == 10_000, "six calls would do"
    assert read[HELD] >= 5 and max(most for most in fetcher.asked if most is not None) == 1


async def test_no_more_is_fetched_than_was_allowed():
    found = consumer()
    found._thread = fetcher = Fetcher(held=0, other=0)
    found._deliver = lambda tp, records: None
    found._was_sought = lambda tp, records: False
    found.flow_active, found.highwater = True, lambda tp: 0
    found.app.monitor = SimpleNamespace(track_tp_end_offset=lambda *of: None)
    found.allow(HELD.topic, 5)
    await found._getmany({HELD, OTHER}, 1)
    await found._getmany({OTHER}, 1)
    found._take(HELD, [1, 2, 3])
    found._take(OTHER, [1, 2, 3])
    await found._getmany({HELD, OTHER}, 1)
    assert fetcher.asked == [5, None, 5, None, None, 2, 2]
    assert (found.allowed(HELD.topic), found.allowed(OTHER.topic)) == (2, None)


class Scene:
    """A brake of 100 on a road whose length the test says."""

    def __init__(self):
        self.consumer, self.length, self.asked = consumer(), 0, 0
        self.consumer.sought = lambda: self.consumer._sought
        self.app = SimpleNamespace(consumer=self.consumer, _consumer=self.consumer)
        self.runner = Runner.__new__(Runner)
        self.runner.stage, self.runner._waits = SimpleNamespace(name="st"), {}
        self.runner.wiring = SimpleNamespace(names={WAITS: HELD.topic}, partitions={HELD.topic: 1})
        self.brake = Brake(self.app, self.runner, light(), 100, self)

    async def count(self):
        self.asked += 1
        if isinstance(self.length, Exception):
            raise self.length
        return self.length

    async def allowed(self):
        """What may be read after a look."""
        await self.brake.look()
        return self.consumer.allowed(HELD.topic)

    def read(self, n):
        self.consumer._allowed[HELD.topic] -= n


@pytest.fixture
async def scene():
    return Scene()


async def test_nothing_is_read_before_the_first_look(scene):
    assert scene.consumer.allowed(HELD.topic) == 0
    scene.consumer._sought = {OTHER}
    assert await scene.allowed() == 0 and scene.asked == 0, "not ours: nobody is asked"


async def test_the_bound_holds_and_hands_out_what_is_free(scene):
    assert await scene.allowed() == 100
    assert await scene.allowed() == 100 and scene.asked == 1, "unused: nobody is asked again"
    scene.read(1)
    scene.length = 40
    assert await scene.allowed() == 60
    scene.read(60)
    scene.length = 100
    assert await scene.allowed() == 0
    scene.length = 80
    assert await scene.allowed() == 0
    scene.length = 70
    assert await scene.allowed() == 30


async def test_the_wait_is_told_and_is_that_of_this_source_alone(scene):
    scene.length = 1000
    await scene.brake.look()
    assert scene.runner.wait_of(HELD) == "road"
    assert scene.runner.wait_of(TP(OTHER.topic, HELD.partition)) == ""
    scene.length = 0
    await scene.brake.look()
    assert scene.runner.wait_of(HELD) == ""


async def test_what_was_read_and_stands_still_is_no_wait_for_the_road(scene):
    scene.length = 1000
    scene.consumer._delivered[HELD] = deque([SimpleNamespace(first=5, next_offset=9)])
    await scene.brake.look()
    assert scene.runner.wait_of(HELD) == ""


async def test_a_wait_ends_where_nobody_looks_any_more(scene, monkeypatch):
    monkeypatch.setattr(road, "WAIT_SECONDS", -1.0)
    scene.length = 1000
    await scene.brake.look()
    assert scene.runner.wait_of(HELD) == "", "the worker then counts as stalled, and starts again"


@pytest.mark.parametrize(
    "error", [KafkaConnectionError("away"), GroupAuthorizationFailedError("no right"), TimeoutError()]
)
async def test_where_the_broker_does_not_say_a_little_is_read(scene, caplog, error):
    scene.length = error
    for _ in range(3):
        assert await scene.allowed() == 10
        assert scene.runner.wait_of(HELD) == ""
        scene.read(10)
    assert caplog.text.count("does not say how long the road is") == 1, "said once"
    scene.length = 1000
    assert await scene.allowed() == 0
    scene.length = error
    assert await scene.allowed() == 10
    assert caplog.text.count("does not say how long the road is") == 2


async def commit(installation, stage, offsets):
    reader = AIOKafkaConsumer(
        bootstrap_servers=installation.bootstrap, group_id=installation.group(stage), enable_auto_commit=False
    )
    await reader.start()
    reader.assign(list(offsets))
    await reader.commit(offsets)
    await reader.stop()


async def put(installation, topic, n, partition=0):
    """Records with numbers, as the stages of the benchmark know them."""
    encode = installation.codecs((stages.SOURCE,))[stages.SOURCE].encode
    async with AIOKafkaProducer(bootstrap_servers=installation.bootstrap, acks="all") as producer:
        sent = [
            await producer.send(installation.name(topic), encode(stages.record(i)), key=b"k", partition=partition)
            for i in range(n)
        ]
        await asyncio.gather(*sent)


async def test_real_broker_says_how_long_the_road_is(installation):
    here = replace(installation, partitions=2)
    await ensure(here, [stages.SOURCE, stages.TARGET, WAITS])
    lag = Lag(here, [(stages.SOURCE, "a"), (stages.TARGET, "b"), (WAITS, "b")])
    try:

        async def answers():
            try:
                return await lag.count() == 0
            except KafkaError:  # a new broker has no coordinator for a moment
                return False

        await until(answers)
        await put(here, stages.SOURCE, 10)
        await put(here, stages.TARGET, 5, partition=1)
        assert await lag.count() == 15, "nobody has committed anything yet"
        await commit(here, "a", {TopicPartition(here.name(stages.SOURCE), 0): 4})
        await commit(here, "b", {TopicPartition(here.name(stages.TARGET), 1): 5})
        assert await lag.count() == 6
        await commit(here, "a", {TopicPartition(here.name(stages.TARGET), 0): 9})
        assert await lag.count() == 6, "of another group"
        admin = AIOKafkaAdminClient(bootstrap_servers=here.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(here.name(stages.SOURCE), 0): RecordsToDelete(before_offset=8)})
        await admin.close()
        assert await lag.count() == 2, "what retention has taken is no road"
        await lag.close()
        assert await lag.count() == 2, "it opens again"
    finally:
        await lag.close()


async def test_a_broker_that_is_away_is_said(installation):
    lag = Lag(replace(installation, bootstrap="127.0.0.1:1"), [(stages.SOURCE, "a")])
    with pytest.raises((KafkaConnectionError, TimeoutError)):
        await lag.count()
    await lag.close()


WORKER = """
import dataclasses, sys
from agents.application import build
from loadtest.engine import stages
from topics.catalogue import Topic
from topics.road import Road
from topics.stage import Stage

waits = Topic("bench.waits", stages.SCHEMA, lambda event: event["actor"])
road = Road(waits, [(stages.TARGET, "reader")])
stage = Stage("held", reads=[stages.SOURCE, waits], writes=[stages.TARGET], tables=[stages.COUNTS], road=road)

@stage.on(stages.SOURCE)
@stage.on(waits)
def count(event, state):
    if state.record.topic.endswith(waits.name):
        road.weigh(1)
    return stages.count(event, state)

app = build(stage, dataclasses.replace(stages.installation(), stall_s=3.0, road_max=200))
sys.argv[1:] = ["worker", "-l", "warn", "--without-web"]
app.main()
"""


async def ends(installation, topic):
    tps = [TopicPartition(installation.name(topic), n) for n in range(installation.partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, enable_auto_commit=False) as reader:
        return {tp: end for tp, end in (await reader.end_offsets(tps)).items() if end}


async def until(true, seconds=30.0):
    for _ in range(round(seconds / 0.2)):
        if await true():
            return
        await asyncio.sleep(0.2)
    raise AssertionError("it did not come")


@pytest.mark.timeout(90)
async def test_real_worker_holds_its_source_back_goes_on_with_the_other_and_does_not_count_as_stalled(
    installation, tmp_path
):
    """Nobody reads what it writes, so the road is full after 200; then somebody does."""
    await ensure(installation, [stages.SOURCE, stages.TARGET, WAITS, DEAD_LETTERS])
    await put(installation, WAITS, 3000)
    environment = {**os.environ, "BOOTSTRAP": installation.bootstrap, "TOPIC_PREFIX": installation.prefix, "SESSION_S": "6",
                   "DATA": str(tmp_path), "PYTHONPATH": str(ROOT)}  # fmt: skip
    process = child.spawn([sys.executable, "-c", WORKER], tmp_path / "worker.log", env=environment)

    async def written():
        assert process.poll() is None, (tmp_path / "worker.log").read_text("utf-8")
        return sum((await ends(installation, stages.TARGET)).values())

    try:
        await until(lambda: _at_least(written, 151))
        await asyncio.sleep(4.5)  # longer than a stall takes
        held = await written()
        assert 150 < held <= 200
        await put(installation, stages.SOURCE, 500)
        await until(lambda: _at_least(written, held + 500))
        assert await written() == held + 500, "what is not held back goes on"

        async def drained():
            await commit(installation, "reader", await ends(installation, stages.TARGET))
            return await written() >= held + 500 + 150

        await until(drained)
    finally:
        process.kill()
        process.wait()


async def _at_least(written, n):
    return await written() >= n
