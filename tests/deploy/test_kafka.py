"""The broker as a child: keeps its data and port over every kind of end, and never outlives its parent."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import ROOT, child
from deploy.local.kafka import LOOPBACK, BrokerDied, Kafka, free_port

LARGE = b"x" * (9 << 20)
# After kill -9 the controller waits for the old broker's session: short here, 6 s by default.
QUICK = {"broker.session.timeout.ms": "1500", "broker.heartbeat.interval.ms": "300"}


async def write(bootstrap: str, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=16 << 20)
    await producer.start()
    await producer.send_and_wait("kept", value)
    await producer.stop()


async def read(bootstrap: str) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    partition = TopicPartition("kept", 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    end = (await consumer.end_offsets([partition]))[partition]
    values = []
    while await consumer.position(partition) < end:
        values += [r.value for records in (await consumer.getmany(timeout_ms=200)).values() for r in records]
    await consumer.stop()
    return values


async def create(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1, topic_configs={"max.message.bytes": str(10 << 20)})])
    await admin.close()


def test_data_and_port_outlive_stop_and_kill(tmp_path):
    hyphen = {"cluster.id": "-kFmZ0s1T5yM0oJw2a7qXg"}  # one random id in 64 begins so
    kafka = Kafka(tmp_path / "kafka", config=QUICK | hyphen).start()
    try:
        bootstrap = kafka.bootstrap
        asyncio.run(create(bootstrap))
        asyncio.run(write(bootstrap, b"first"))
        asyncio.run(write(bootstrap, LARGE))
        with pytest.raises(RuntimeError, match="runs already"):
            kafka.spawn()
        kafka.stop()
        kafka = Kafka(tmp_path / "kafka", config=QUICK).start()  # as another process would
        assert kafka.bootstrap == bootstrap
        asyncio.run(write(bootstrap, b"second"))
        kafka.kill()
        kafka.start()
        assert asyncio.run(read(bootstrap)) == [b"first", LARGE, b"second"]
        assert child.rss_mib(kafka.process.pid) <= 400
    finally:
        kafka.stop()


def parent_of_broker(folder: Path) -> subprocess.Popen[bytes]:
    code = f"""
import time
from pathlib import Path
from deploy.local.kafka import Kafka
kafka = Kafka(Path({str(folder)!r}))
kafka.spawn()
print(kafka.process.pid, flush=True)
time.sleep(60)
"""
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)


def test_the_broker_ends_with_a_killed_parent_and_the_next_start_waits_for_that(tmp_path):
    parent = parent_of_broker(tmp_path / "kafka")
    broker = int(parent.stdout.readline())
    assert Path(f"/proc/{broker}").exists()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    with Kafka(tmp_path / "kafka") as kafka:  # at once: the old one still holds folder and port
        assert kafka.process.pid != broker
        assert not Path(f"/proc/{broker}").exists() or "Z" in Path(f"/proc/{broker}/stat").read_text().split()[2]


def test_a_taken_port_is_named(tmp_path):
    import socket

    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        with pytest.raises(RuntimeError, match=f"port {other.getsockname()[1]} .* is taken"):
            Kafka(tmp_path / "kafka", port=other.getsockname()[1]).spawn()


def test_a_broker_that_dies_says_why(tmp_path):
    kafka = Kafka(tmp_path / "kafka", port=free_port(), config={"num.io.threads": "many"})
    with pytest.raises(BrokerDied, match=r"num\.io\.threads"):
        kafka.start()


def test_children_only_from_the_main_thread(tmp_path):
    async def elsewhere():
        await asyncio.to_thread(child.spawn, ["true"], tmp_path / "out")

    with pytest.raises(RuntimeError, match="main thread"):
        asyncio.run(elsewhere())


def test_stop_kills_what_does_not_listen(tmp_path):
    deaf = child.spawn(["bash", "-c", "trap '' TERM; echo up; while :; do sleep 0.05; done"], tmp_path / "out")
    while not child.tail(tmp_path / "out"):
        time.sleep(0.01)
    assert child.stop(deaf, 0.2) == -signal.SIGKILL


def test_a_long_output_is_put_aside(tmp_path):
    log = tmp_path / "out"
    log.write_bytes(b"old\n" * (child.OUTPUT_MAX // 4 + 1))
    child.spawn(["echo", "new"], log).wait()
    assert child.tail(log) == "new"
    assert child.tail(tmp_path / "out.1", 1) == "old"
