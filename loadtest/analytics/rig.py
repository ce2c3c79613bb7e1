"""One broker, one events sink as a worker process, and ClickHouse: a server beside them, or chdb in the sink."""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from agents.events_sink import NAME
from analytics.clickhouse import Warehouse, connect
from analytics.server import Server
from deploy.local.kafka import LOOPBACK, Kafka, free_port
from loadtest.chaos.fleet import Fleet, Worker
from topics.admin import ensure
from topics.catalogue import EVENTS
from topics.installation import Installation
from topics.offsets import committed

Engine = Literal["server", "chdb"]
ENGINES: tuple[Engine, ...] = ("server", "chdb")
PARTITIONS = 4


class Rig:
    """`with Rig(folder, "server") as rig`: Kafka and ClickHouse run, the topics are there; `rig.start_sink()`. Main thread only."""

    def __init__(self, folder: Path, engine: Engine, heap: str = "512m"):
        self.folder, self.engine = folder.absolute(), engine
        self.kafka = Kafka(self.folder / "kafka", heap=heap)
        self.server = Server(self.folder / "clickhouse") if engine == "server" else None
        self.installation = Installation(self.kafka.bootstrap, partitions=PARTITIONS)
        self._http = f"{LOOPBACK}:{free_port()}" if engine == "chdb" else ""
        self.fleet: Fleet | None = None
        self._running = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._running.callback(self.kafka.kill)
            self.kafka.start()
            if self.server is not None:
                self._running.callback(self.server.kill)
                self.server.start()
            asyncio.run(ensure(self.installation))
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def start_sink(self) -> Worker:
        """Start the sink; returns when it has its partitions."""
        settings = {
            "kafka": self.kafka.bootstrap, "partitions": PARTITIONS, "clickhouse_http": self._http,
            "clickhouse": self.server.url if self.server else "",
        }  # fmt: skip
        self.fleet = Fleet(self.folder / "fleet", settings, [NAME], each=1)
        self._running.callback(self.stop_sink)
        self.fleet.start()
        return self.sink

    @property
    def sink(self) -> Worker:
        """The sink's process."""
        assert self.fleet is not None, "start_sink comes first"
        return self.fleet.of(NAME)[0]

    def stop_sink(self) -> None:
        """SIGTERM: it stores and commits what it has."""
        if self.fleet is not None:
            self.fleet.stop()
            self.fleet = None

    def warehouse(self) -> Warehouse:
        """For questions; of chdb over HTTP while the sink runs, else its folder."""
        if self.server is not None:
            return connect(self.server.url)
        if self.fleet is not None:
            return connect(f"http://{self._http}")
        return connect(str(self.folder / "fleet" / "data" / f"{NAME}-0" / "chdb"))

    def drain(self, timeout_s: float = 900.0) -> None:
        """Return when the sink has committed all of the topic. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while lag := self.lag():
            if self.fleet is not None:
                self.fleet.look()
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sink lags by {lag:,} records after {timeout_s:g} s: {self.sink.log}")
            time.sleep(0.1)

    def lag(self) -> int:
        """Records of mail.events that the sink has not committed; where Kafka does not say, very many."""
        try:
            return asyncio.run(self._lag())
        except (KafkaError, OSError):
            return 1 << 62

    async def _lag(self) -> int:
        done = await committed(self.installation, NAME)
        return sum(max(0, end - done.get(partition, 0)) for partition, end in (await ends(self.installation)).items())


async def ends(installation: Installation) -> dict[int, int]:
    """Where each partition of mail.events ends now."""
    consumer = AIOKafkaConsumer(bootstrap_servers=installation.bootstrap)
    await consumer.start()
    try:
        name = installation.name(EVENTS)
        found = await consumer.end_offsets([TopicPartition(name, n) for n in range(installation.partitions_of(EVENTS))])
        return {tp.partition: end for tp, end in found.items()}
    finally:
        await consumer.stop()
