"""A worker that stands still: what ends it and what does not, with faked causes; and real processes that end with status 70."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError
from faust.types import TP

from deploy.local import ROOT, child
from loadtest.engine import stages
from loadtest.engine.harness import Load
from topics.admin import ensure
from topics.metrics import Metrics
from topics.runner import Runner
from topics.stall import Stalled, Watch

HERE, THERE = TP("s", 0), TP("s", 1)


class Consumer:
    """Two partitions; `end` of each as the broker says."""

    def __init__(self):
        self.committed, self.end = {HERE: 10, THERE: 10}, {HERE: 10, THERE: 10}
        self.has_group, self.lease, self.read, self.error = True, True, {HERE, THERE}, None

    def sought(self):
        return self.read

    def assignment(self):
        return {HERE, THERE}

    def holds_lease(self):
        return self.lease

    async def ends(self, tps):
        if self.error:
            raise self.error
        return {tp: self.end[tp] for tp in tps}

    def committed_offset(self, tp):
        return self.committed[tp]

    def oldest(self, tp):
        return getattr(self, "written", {}).get(tp)

    def state_of(self, tp):
        return ""


class Scene:
    """A watch of 60 s, looked at every 5 s."""

    def __init__(self):
        self.runner = Runner.__new__(Runner)
        self.runner.stage, self.runner.metrics = SimpleNamespace(name="st"), Metrics()
        self.runner.sources, self.runner._waits = {"s": 0}, {}
        self.runner.doing = lambda tp: "thinking"
        self.consumer = Consumer()
        self.changelog = Counter({"c": 1})
        self.app = SimpleNamespace(
            consumer=self.consumer, _consumer=self.consumer, rebalancing=False, should_stop=False,
            tables=SimpleNamespace(recovery=SimpleNamespace(active_offsets=self.changelog)),
        )  # fmt: skip
        self.watch = Watch(self.app, self.runner, 60.0, 100.0)

    async def looks(self, n, each=lambda: None):
        for _ in range(n):
            each()
            await self.watch.look(5.0)


@pytest.fixture
def scene():
    return Scene()


async def test_lag_without_progress_is_a_stall_after_its_time(scene):
    scene.consumer.end[HERE] = 15
    await scene.looks(12)
    with pytest.raises(Stalled, match=r"stage st: s\[0\] stands at 10 for 60 s, lag 5: thinking$"):
        await scene.looks(1)
    assert scene.runner.metrics.lag == {HERE: 5, THERE: 0}


async def test_a_partition_that_has_gone_has_no_lag_here(scene):
    scene.consumer.end[HERE] = 15
    await scene.looks(1)
    scene.consumer.read = {THERE}
    scene.consumer.assignment = lambda: {THERE}
    await scene.looks(1)
    assert scene.runner.metrics.lag == {THERE: 0}


async def test_progress_and_an_empty_partition_are_none(scene):
    await scene.looks(50)

    def move():
        scene.consumer.committed[HERE] += 1
        scene.consumer.end[HERE] = scene.consumer.committed[HERE] + 100

    await scene.looks(50, move)


async def test_nothing_ever_committed_is_lag_too(scene):
    scene.consumer.committed[HERE] = None
    with pytest.raises(Stalled, match="stands at 0 for 60 s, lag 10"):
        await scene.looks(14)


@pytest.mark.parametrize("partition", [None, 0])
async def test_what_waits_on_purpose_is_shown_and_has_no_end(scene, partition):
    scene.consumer.end = {HERE: 15, THERE: 15}
    scene.runner.wait("it", "hold", partition)

    def other():
        scene.consumer.committed[THERE] = (scene.consumer.committed[THERE] + 1) % 10

    await scene.looks(100, other)
    assert scene.runner.metrics.waiting == {"hold": 1 if partition == 0 else 2}
    scene.runner.wait_over("it")
    with pytest.raises(Stalled):
        await scene.looks(13, other)


async def test_a_wait_of_one_partition_does_not_excuse_another(scene):
    scene.consumer.end = {HERE: 15, THERE: 15}
    scene.runner.wait("it", "hold", 0)
    with pytest.raises(Stalled, match=r"s\[1\]"):
        await scene.looks(14)


async def test_a_wait_with_a_limit_counts_when_that_is_over(scene):
    scene.consumer.end[HERE] = 15
    scene.runner.wait("it", "store", limit_s=0.0)
    with pytest.raises(Stalled):
        await scene.looks(14)


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("rebalance", lambda scene: setattr(scene.app, "rebalancing", True)),
        ("rebalance", lambda scene: setattr(scene.consumer, "has_group", False)),
        ("lease", lambda scene: setattr(scene.consumer, "lease", False)),
        ("recovery", lambda scene: setattr(scene.consumer, "read", {HERE})),
        ("broker", lambda scene: setattr(scene.consumer, "error", KafkaConnectionError("away"))),
    ],
)
async def test_a_worker_that_cannot_work_for_long_is_stalled_as_well(scene, why, change):
    scene.consumer.end[HERE] = 15
    await scene.looks(12)
    change(scene)
    with pytest.raises(Stalled, match=f"no partitions that it may work on for 100 s: {why}"):
        await scene.looks(22)
    assert scene.runner.metrics.waiting == {why: 1}


async def test_recovery_that_goes_on_has_no_end(scene):
    scene.consumer.read = set()
    await scene.looks(100, lambda: scene.changelog.update(c=1))
    with pytest.raises(Stalled, match="recovery"):
        await scene.looks(22)


# -- real processes ----------------------------------------------------------------------------------------------------
BLOCKED = """
import asyncio, re, sys, time
from topics.stall import Beat

async def main(how):
    beat = Beat(1.0)
    beat.start()
    turning = asyncio.create_task(beat.turn())
    await asyncio.sleep(1.5)
    print("turned", flush=True)
    if how == "loop":
        while True:
            pass
    elif how == "interpreter":
        re.match("(a*)*b", "a" * 60)
    elif how == "stop":
        beat.end_within(0.5)
        await asyncio.sleep(60)
    beat.close()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(("how", "status", "said"), [
    ("loop", 70, "the event loop has been blocked for 1 s"), ("interpreter", 1, "Timeout"),
    ("stop", 70, "the worker was to end and has not"), ("nothing", 0, ""),
])  # fmt: skip
async def test_a_loop_that_does_not_turn_ends_the_process(how, status, said):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BLOCKED, how, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, error = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, out) == (status, b"turned\n"), error
    assert said in error.decode()
    if how in ("loop", "interpreter"):
        assert "in main" in error.decode(), "the stack tells what it was doing"


STANDING = """
import asyncio, dataclasses, sys
from agents.application import build
from loadtest.engine import stages
from topics.consumer import Consumer, InlineConsumer
from topics.stage import Hold

cause, stage = sys.argv.pop(), stages.pure

async def refused(self, offsets):
    return False

read = Consumer._getmany

async def nothing(self, active, timeout):
    if not self._sought:
        return await read(self, active, timeout)
    await asyncio.sleep(0.5)
    return {}

def spin(event, state):
    while True:
        pass

def hold(event, state):
    raise Hold("away")

match cause:
    case "commit": InlineConsumer._commit = refused
    case "fetcher": Consumer._getmany = nothing
    case "handler": stage.handlers[stages.SOURCE] = spin
    case "hold": stage.handlers[stages.SOURCE] = hold
    case _: stage = dataclasses.replace(stages.effect, effect_s=1.0 if cause == "effect" else 3600.0)
app = build(stage, dataclasses.replace(stages.installation(), stall_s=3.0))
sys.argv[1:] = ["worker", "-l", "warn", "--without-web"]
app.main()
"""
SAID = {
    "commit": "finished up to 20, and the broker does not take the commit",
    "fetcher": "the fetcher brings nothing",
    "handler": "the event loop has been blocked for 3 s",
    "effect": "2 effects run, the oldest, of offset 0",
}
ON_PURPOSE = ("hold", "effect within its time")


@pytest.mark.timeout(120)
async def test_real_workers_that_stand_still_end_themselves_and_those_that_wait_do_not(installation, tmp_path):
    """All of a topic is in one partition; the end of it is known from the broker, whatever stands still."""
    processes = {}
    for cause in (*SAID, *ON_PURPOSE):
        here = replace(installation, prefix=f"{installation.prefix}{cause.replace(' ', '-')}-")
        await ensure(here, stages.TOPICS)
        async with Load(here, actors=1) as load:
            await load.send(20)
        environment = {**os.environ, "BOOTSTRAP": here.bootstrap, "TOPIC_PREFIX": here.prefix, "SESSION_S": "6",
                       "DATA": str(tmp_path / cause), "PYTHONPATH": str(ROOT), "EFFECT": "sleep:1000"}  # fmt: skip
        command = [sys.executable, "-c", STANDING, cause]
        processes[cause] = child.spawn(command, tmp_path / f"{cause}.log", env=environment)
    try:
        deadline = time.monotonic() + 60
        while any(processes[cause].poll() is None for cause in SAID) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        assert {cause: processes[cause].poll() for cause in SAID} == dict.fromkeys(SAID, 70)
        for cause, said in SAID.items():
            assert said in (tmp_path / f"{cause}.log").read_text("utf-8")
        assert {cause: processes[cause].poll() for cause in ON_PURPOSE} == dict.fromkeys(ON_PURPOSE)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


async def test_ages_of_what_is_behind(scene, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("topics.stall.time.time", lambda: now[0])
    metrics = scene.runner.metrics
    await scene.looks(1)
    assert metrics.oldest == metrics.committed == {}, "nothing is behind"
    scene.consumer.end[HERE], scene.consumer.written = 15, {HERE: 900.0}
    for _ in range(2):
        now[0] += 5
        await scene.looks(1)
    assert metrics.oldest == {HERE: 900.0} and metrics.committed == {HERE: 1005.0}
    scene.consumer.committed[HERE], scene.consumer.written, now[0] = 12, {}, 1020.0
    await scene.looks(1)
    assert metrics.oldest == metrics.committed == {HERE: 1020.0}, "it moved; the next has not been read yet"
