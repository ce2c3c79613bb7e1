"""One hop of the benchmark records (decode, count per actor, encode, send), as a worker process that measures itself.

    python -m loadtest.engine.hop pure|stock|bare|effect ROUND WARM RECORDS     with the environment BOOTSTRAP and DATA

All four read bench.source from its beginning, in a group of their own per ROUND, with the same codec. The last line of
their output is {"records", "us" (CPU of the whole process per record), "rate" (records/s)}, counted from record WARM on.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import time
from collections import Counter, defaultdict
from typing import Any

from loadtest.engine import stages
from topics.codec import Codec
from topics.metrics import Metrics
from topics.outputs import partition_for

SOURCE, TARGET = stages.SOURCE.name, stages.TARGET.name


class Meter(Metrics):
    """Counts records of the hop and ends the process when the last one is done."""

    def __init__(self, warm: int, records: int, counted: str = "records"):
        super().__init__()
        self.warm, self.records, self.counted = warm, records, counted
        self.begun: tuple[int, float, float] | None = None

    def count(self, what: str, n: int = 1) -> None:
        super().count(what, n)
        if what == "cycles":
            self.look(self.counts[self.counted])

    def batch(self, records: int, seconds: float) -> None:
        super().batch(records, seconds)
        self.look(self.counts["records"])

    def look(self, seen: int) -> None:
        """`seen` records are done by now."""
        if self.begun is None and seen >= self.warm:
            self.begun = seen, time.monotonic(), sum(os.times()[:2])
        elif self.begun is not None and seen >= self.records:
            first, started, used = self.begun
            n, cpu = seen - first, sum(os.times()[:2]) - used
            rate = round(n / (time.monotonic() - started))
            line = json.dumps({"records": n, "us": round(cpu / n * 1e6, 2), "rate": rate})
            os.write(1, f"\n{line}\n".encode())  # not print: Faust makes a log line of it
            os._exit(0)


def ours(name: str, turn: str, meter: Meter) -> None:
    """A stage on our engine."""
    from agents.application import build

    stage = {"pure": stages.pure, "effect": stages.effect}[name]
    app = build(dataclasses.replace(stage, name=f"{stage.name}-{turn}"), stages.installation())
    app.runner.metrics = meter
    run(app)


def stock(turn: str, meter: Meter) -> None:
    """Faust as it comes: its own transport, its table in RocksDB, an agent per record."""
    import faust

    from topics.transport import settings

    codec = Codec(stages.SCHEMA)
    batches = {"producer_linger": 0.005, "producer_max_batch_size": 16384, "broker_commit_interval": 2.8}
    app = faust.App(
        f"bench-stock-{turn}", broker=f"kafka://{os.environ['BOOTSTRAP']}", store="rocksdb://?driver=rocksdict",
        datadir=os.environ["DATA"], topic_partitions=stages.PARTITIONS, topic_replication_factor=1,
        **{**settings(), **batches},
    )  # fmt: skip
    raw = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    source = app.topic(SOURCE, partitions=stages.PARTITIONS, **raw)
    target = app.topic(TARGET, partitions=stages.PARTITIONS, **raw)
    counts = app.Table("counts", default=int, partitions=stages.PARTITIONS)

    @app.agent(source)
    async def hop(stream: Any) -> None:
        async for key, value in stream.items():
            event = codec.decode(value)
            counts[event["actor"]] += 1
            event["score"] = 0.5
            await target.send(key=key, value=codec.encode(event))
            meter.counts["records"] += 1
            meter.look(meter.counts["records"])

    run(app)


def run(app: Any) -> None:
    import logging

    logging.disable(logging.DEBUG)
    sys.argv[1:] = ["worker", "-l", "warn", "--without-web"]
    app.main()


async def bare(turn: str, meter: Meter) -> None:
    """aiokafka without any engine: no state that lasts, no changelog, no dead letters; whole batches in and out."""
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

    codec, counts = Codec(stages.SCHEMA), Counter[str]()
    bootstrap = os.environ["BOOTSTRAP"]
    consumer = AIOKafkaConsumer(SOURCE, bootstrap_servers=bootstrap, group_id=f"bench-bare-{turn}",
                                enable_auto_commit=False, auto_offset_reset="earliest")  # fmt: skip
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True,
                                max_batch_size=512 * 1024)  # fmt: skip
    await consumer.start()
    await producer.start()

    async def send(partition: int, records: list[tuple[bytes, bytes]]) -> None:
        builder = producer.create_batch()
        for key, value in records:
            builder.append(timestamp=None, key=key, value=value, headers=[])
        await (await producer.send_batch(builder, TARGET, partition=partition))

    committed = time.monotonic()
    while True:
        found = await consumer.getmany(timeout_ms=500, max_records=500)
        out: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        n = 0
        for records in found.values():
            n += len(records)
            for record in records:
                event = codec.decode(record.value)
                counts[event["actor"]] += 1
                event["score"] = 0.5
                key = event["actor"].encode()
                out[partition_for(key, stages.PARTITIONS)].append((key, codec.encode(event)))
        await asyncio.gather(*(send(partition, records) for partition, records in out.items()))
        if time.monotonic() - committed > 1:
            await consumer.commit()
            committed = time.monotonic()
        if n:
            meter.batch(n, 0.0)


def main() -> None:
    which, turn, warm, records = sys.argv[1:]
    meter = Meter(int(warm), int(records), "performed" if which == "effect" else "records")
    if which == "bare":
        asyncio.run(bare(turn, meter))
    elif which == "stock":
        stock(turn, meter)
    else:
        ours(which, turn, meter)


if __name__ == "__main__":
    main()
