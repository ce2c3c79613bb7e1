"""How long a worker needs until it works again: after the loss of its RocksDB, with its RocksDB kept, and after kill -9.

    python -m loadtest.bench_recovery [--keys 1000000]

1. a changelog of so many keys over 8 partitions, as the store writes it; a pure worker of loadtest.engine starts with an empty
   data folder: seconds, and CPU seconds, from the start of its process until it reads from its partitions;
2. the same worker starts again with what it has kept: the same;
3. two workers with static membership under load, one is killed with -9 and started again at once: seconds until the first new
   output of every partition.

A Kafka of its own in a folder that is removed. The last line is RESULT and JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from agents.application import build
from deploy.local import child
from deploy.local.kafka import Kafka
from loadtest.engine import stages
from loadtest.engine.harness import Load, Worker
from tables.store import EPOCH
from topics.admin import ensure
from topics.installation import Installation
from topics.outputs import partition_for

TARGETS = {"lost_s": 10.0, "kept_cpu_s": 3.0, "killed_s": 5.0}
FILLED, KILLED = "filled-", "killed-"  # prefixes: each scene has topics of its own
RATE = 1000


async def fill(installation: Installation, keys: int) -> None:
    """The changelog of the counters, as one owner has written it: a claim, then the keys, 40 bytes each."""
    await ensure(installation, stages.TOPICS)
    app = build(stages.pure, installation)
    store = app.runner.store
    await store.table.changelog_topic.maybe_declare()
    epoch = (1).to_bytes(4, "big")
    producer = AIOKafkaProducer(bootstrap_servers=installation.bootstrap, acks="all", enable_idempotence=True,
                                max_batch_size=512 * 1024)  # fmt: skip
    await producer.start()
    waiting: dict[int, list[tuple[bytes, bytes]]] = {n: [(EPOCH, epoch)] for n in range(stages.PARTITIONS)}

    async def flush(partition: int) -> None:
        builder = producer.create_batch()
        for key, value in waiting[partition]:
            builder.append(timestamp=None, key=key, value=value, headers=[("e", epoch)])
        await (await producer.send_batch(builder, store.topic, partition=partition))
        waiting[partition] = []

    for n in range(keys):
        actor = f"user-{n:032d}".encode()
        partition = partition_for(actor, stages.PARTITIONS)
        waiting[partition].append((b"\x01" + actor, b"%d" % n))
        if len(waiting[partition]) == 2000:
            await flush(partition)
    await asyncio.gather(*(flush(partition) for partition in waiting))
    await producer.stop()
    await app.producer.stop()


async def recovery(installation: Installation, folder: Path, run: str) -> tuple[float, float]:
    """Seconds from the start of the process until it reads from its partitions, and its CPU seconds until then."""
    began = time.monotonic()
    worker = Worker(installation, "pure", folder, "recovering", SESSION_S=6)
    pid = worker.process.pid
    async with asyncio.timeout(120):
        while not any(told["pid"] == pid and told["ready"] for told in worker.counts()):
            await asyncio.sleep(0.05)
    took, cpu = time.monotonic() - began, child.cpu_s(pid)
    print(f"{run}: works {took:.1f} s after its start, {cpu:.1f} s CPU", flush=True)
    await worker.stop()
    return took, cpu


async def ends(installation: Installation, consumer: AIOKafkaConsumer) -> dict[int, int]:
    """How far each partition of the outputs goes."""
    tps = [TopicPartition(installation.name(stages.TARGET), n) for n in range(stages.PARTITIONS)]
    return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}


async def killed(installation: Installation, folder: Path) -> float:
    """Seconds from kill -9 until every partition that stood still has a new output."""
    await ensure(installation, stages.TOPICS)
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.bootstrap, enable_auto_commit=False)
    await consumer.start()
    over = asyncio.Event()
    async with Load(installation) as load:
        flow = asyncio.create_task(load.flow(RATE, over))
        workers = [Worker(installation, "pure", folder, name, INSTANCE=name, SESSION_S=10) for name in ("one", "two")]
        await asyncio.gather(*(worker.busy() for worker in workers))
        await asyncio.sleep(5)
        workers[0].process.kill()
        began = time.monotonic()
        await asyncio.sleep(0.3)
        stood = await ends(installation, consumer)
        while True:
            await asyncio.sleep(0.02)
            now = await ends(installation, consumer)
            if all(now[n] > end for n, end in stood.items()):
                break
        took = time.monotonic() - began
        over.set()
        await flow
        await asyncio.gather(*(worker.stop() for worker in workers))
    await consumer.stop()
    print(f"kill -9 of one of two: {took:.1f} s until all partitions move", flush=True)
    return took


async def main(keys: int) -> None:
    """Run the three scenes."""
    with tempfile.TemporaryDirectory(prefix="recovery-") as name:
        folder = Path(name)
        broker = Kafka(folder / "kafka").start()
        try:
            filled = Installation(broker.bootstrap, FILLED, stages.PARTITIONS, data_dir=folder / "fill")
            began = time.monotonic()
            await fill(filled, keys)
            print(f"{keys} keys in the changelog after {time.monotonic() - began:.0f} s", flush=True)
            lost_s, lost_cpu_s = await recovery(filled, folder, "RocksDB lost")
            kept_s, kept_cpu_s = await recovery(filled, folder, "RocksDB kept")
            killed_s = await killed(Installation(broker.bootstrap, KILLED, stages.PARTITIONS, data_dir=folder), folder)
        finally:
            broker.kill()
    found = {"keys": keys, "lost_s": lost_s, "lost_cpu_s": lost_cpu_s, "kept_s": kept_s, "kept_cpu_s": kept_cpu_s,
             "killed_s": killed_s}  # fmt: skip
    ok = all(found[what] <= most for what, most in TARGETS.items())
    print("RESULT", json.dumps({**{what: round(value, 2) for what, value in found.items()}, "ok": ok}))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000)
    asyncio.run(main(parser.parse_args().keys))
