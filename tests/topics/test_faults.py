"""The engine under load while its workers and its broker are killed, frozen, joined and left: every account is exact.

Workers are real processes under a supervisor; the effects go to a receiver that logs what reached it. Each test runs
loadtest.engine for some seconds; loadtest/README.md has the longer runs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.kafka import Kafka
from loadtest.engine import stages
from loadtest.engine.harness import Account, Load, Receiver, Worker, account, caught_up
from topics.admin import ensure
from topics.installation import Installation

pytestmark = pytest.mark.timeout(90)
PURE, EFFECT = stages.pure.name, stages.effect.name
COUNTS, EFFECT_COUNTS = 1, 2  # numbers of the counters' tables


@asynccontextmanager
async def flowing(installation: Installation, rate: int, repeat: bool = False) -> AsyncIterator[Load]:
    """Topics, and load until the block ends; one record in 500 is poison."""
    await ensure(installation, stages.TOPICS)
    over = asyncio.Event()
    async with Load(installation, actors=200, poison_every=500) as load:
        flow = asyncio.create_task(load.flow(rate, over, repeat))
        try:
            yield load
        finally:
            over.set()
            await flow


async def finished(installation: Installation, load: Load, stage: str, *workers: Worker) -> Account:
    """Wait until the group has read everything, end the workers, count."""
    try:
        await caught_up(installation, installation.group(stage))
    finally:
        exits = [await worker.stop() for worker in workers]
    assert not any(exits), f"workers leave SIGTERM with status 0: {exits}"
    return await account(
        installation, load, stage, EFFECT_COUNTS if stage == EFFECT else COUNTS, each_once=stage == EFFECT
    )


def is_exact(found: Account) -> None:
    print(found)  # the figures, with -s
    assert found.sent > 1000
    assert (found.lost, found.unexpected, found.dead_wrong, found.counters_wrong) == (0, 0, 0, 0), found


def is_flagged(found: Account, receiver: Receiver) -> int:
    """Every delivery after the first of an id has the flag, and its result tells. Returns how many ids came twice."""
    deliveries = receiver.deliveries()
    assert deliveries.keys() == found.flags.keys(), "what was performed has a result, and nothing else has"
    unflagged = {event: flags for event, flags in deliveries.items() if flags.count(False) > 1}
    assert not unflagged
    silent = {event: flags for event, flags in deliveries.items() if len(flags) > 1 and not any(found.flags[event])}
    assert not silent, "the result of the second delivery says so"
    twice = sum(len(flags) > 1 for flags in deliveries.values())
    print(f"delivered {sum(map(len, deliveries.values()))}, twice {twice}, with a flag",
          sum(any(flags) for flags in deliveries.values()))  # fmt: skip
    return twice


async def members(installation: Installation, group: str) -> int:
    """How many the broker counts."""
    admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
    await admin.start()
    try:
        (described,) = (await admin.describe_consumer_groups([group]))[0].groups
        return len(described[5])
    finally:
        await admin.close()


async def kills_and_a_rebalance(worker: Worker, start: object) -> None:
    """kill -9 twice, each under load and soon after its first records; then a second worker joins and leaves."""
    for _ in range(2):
        await worker.busy()
        await asyncio.sleep(0.3)
        worker.process.kill()
        await asyncio.sleep(0.2)
    await worker.busy()
    second = start("second")
    await second.busy()
    await asyncio.sleep(0.5)
    assert await second.stop() == 0


async def test_stages_survive_kills_and_a_rebalance(installation, tmp_path):
    """Both kinds at the same time, each with topics of its own."""

    async def pure(installation):
        def start(name):
            return Worker(installation, "pure", tmp_path, f"pure-{name}", INSTANCE=name, SESSION_S=6)

        async with flowing(installation, 2000) as load:
            worker = start("first")
            await kills_and_a_rebalance(worker, start)
        is_exact(await finished(installation, load, PURE, worker))
        assert worker.exits == [-signal.SIGKILL] * 2

    async def effect(installation):
        receiver = Receiver(tmp_path)
        await receiver.ready()

        def start(name):
            return Worker(installation, "effect", tmp_path, f"effect-{name}", INSTANCE=name, SESSION_S=6,
                          EFFECT=f"tcp:{receiver.port}")  # fmt: skip

        async with flowing(installation, 600, repeat=True) as load:
            worker = start("first")
            await kills_and_a_rebalance(worker, start)
        found = await finished(installation, load, EFFECT, worker)
        receiver.stop()
        assert load.repeated
        is_exact(found)
        assert is_flagged(found, receiver), "two kills in the middle of effects leave some in doubt"
        assert worker.exits == [-signal.SIGKILL] * 2

    await asyncio.gather(
        *(run(replace(installation, prefix=installation.prefix + run.__name__)) for run in (pure, effect))
    )


async def test_clean_stops_joins_and_leaves_make_no_duplicates(installation, tmp_path):
    """Two static members under load, each restarted with SIGTERM; then a third joins, and two leave."""

    async def scene(which, stage, rate):
        here = replace(installation, prefix=installation.prefix + which)
        exits = []

        def start(name):
            return Worker(here, which, tmp_path, f"{which}-{name}", INSTANCE=name, SESSION_S=6,
                          EFFECT=f"tcp:{receiver.port}")  # fmt: skip

        async with flowing(here, rate) as load:
            workers = {name: start(name) for name in ("one", "two")}
            await asyncio.gather(*(worker.busy() for worker in workers.values()))
            for name in ("one", "two"):
                exits.append(await workers[name].stop())
                workers[name] = start(name)
                await workers[name].busy()
            workers["three"] = start("three")
            await workers["three"].busy()
            exits += [await workers.pop(name).stop() for name in ("one", "three")]
            assert await members(here, here.group(stage)) == 1, (
                "they have left: nothing waits for their sessions to end"
            )
        found = await finished(here, load, stage, *workers.values())
        is_exact(found)
        assert found.repeats == 0
        assert exits == [0] * 4
        return found

    receiver = Receiver(tmp_path)
    await receiver.ready()
    _, found = await asyncio.gather(scene("pure", PURE, 1000), scene("effect", EFFECT, 400))
    receiver.stop()
    assert is_flagged(found, receiver) == 0, "performed twice"


async def test_stages_survive_the_broker(tmp_path):
    broker = Kafka(tmp_path / "kafka").start()
    try:
        installation = Installation(broker.bootstrap, partitions=8)
        receiver = Receiver(tmp_path)
        await receiver.ready()
        async with flowing(installation, 1000) as load:
            pure = Worker(installation, "pure", tmp_path, "pure", INSTANCE="one", SESSION_S=6)
            effect = Worker(
                installation, "effect", tmp_path, "effect", INSTANCE="one", SESSION_S=6, EFFECT=f"tcp:{receiver.port}"
            )
            await asyncio.gather(pure.busy(), effect.busy())
            broker.kill()
            await asyncio.sleep(0.5)
            broker.start()
            await asyncio.sleep(3)
        # both wrote to one target: they are counted apart by what only one of them has
        await caught_up(installation, installation.group(PURE))
        await caught_up(installation, installation.group(EFFECT))
        exits = [await worker.stop() for worker in (pure, effect)]
        assert exits == [0, 0]
        for stage, table in ((PURE, COUNTS), (EFFECT, EFFECT_COUNTS)):
            is_exact(await account(installation, load, stage, table, each_once=True))
        deliveries = receiver.deliveries()
        receiver.stop()
        assert len(deliveries) == load.sent - load.sent // 500
        assert not {event: flags for event, flags in deliveries.items() if flags.count(False) > 1}
        assert pure.exits == effect.exits == [], "they go on by themselves"
    finally:
        broker.kill()


async def test_frozen_worker_neither_rolls_back_nor_doubles_in_silence(installation, tmp_path):
    """SIGSTOP for longer than the session, while another worker takes the partitions over; then SIGCONT."""
    receiver = Receiver(tmp_path)
    await receiver.ready()

    async def scene(which, stage):
        here = replace(installation, prefix=installation.prefix + which)

        def start(name):
            return Worker(here, which, tmp_path, f"{which}-{name}", SESSION_S=6, EFFECT=f"tcp:{receiver.port}")

        async with flowing(here, 600) as load:
            frozen, other = start("frozen"), start("other")
            await asyncio.gather(frozen.busy(), other.busy())
            frozen.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(8)
            frozen.process.send_signal(signal.SIGCONT)
            await asyncio.sleep(2)
        found = await finished(here, load, stage, frozen, other)
        is_exact(found)
        return found

    _, found = await asyncio.gather(scene("pure", PURE), scene("effect", EFFECT))
    receiver.stop()
    is_flagged(found, receiver)
