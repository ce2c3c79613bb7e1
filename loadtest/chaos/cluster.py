"""What the road stands on, as a production has it: three Kafka brokers, a network, ClickHouse, and receivers to send to.

    with Cluster(folder) as cluster:            # main thread only; FOLDER/kafka-1.., clickhouse/, farm/
        cluster.kill_broker(1)
        cluster.cut(2)

Every broker has two listeners: DIRECT for brokers, producers and checks, WORKERS for workers, whose advertised address is
toxiproxy's. So a fault of the network meets workers alone, and what is counted does not go through it.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from analytics.server import Server
from deploy.local.kafka import LOOPBACK, Kafka, free_port
from loadtest.chaos.proxy import Cut, Toxiproxy
from loadtest.mxfarm import Farm

REPLICAS, IN_SYNC = 3, 2
SYNC_TIMEOUT_S = 120.0  # two cores carry 25 processes, some of them just starting
ASK_TIMEOUT_S = 10.0
POLL_S = 0.2

CONFIG = {
    "inter.broker.listener.name": "DIRECT",
    "listener.security.protocol.map": "DIRECT:PLAINTEXT,WORKERS:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "default.replication.factor": str(REPLICAS),
    "min.insync.replicas": str(IN_SYNC),
    "offsets.topic.replication.factor": str(REPLICAS),
    "offsets.topic.num.partitions": "6",  # coordinators on every broker
    "transaction.state.log.replication.factor": str(REPLICAS),
    "transaction.state.log.min.isr": str(IN_SYNC),
    "share.coordinator.state.topic.replication.factor": str(REPLICAS),
    "share.coordinator.state.topic.min.isr": str(IN_SYNC),
    "unclean.leader.election.enable": "false",  # a partition without an in-sync replica waits rather than forgets
    # A dead broker is noticed after 6 s (default 9), its partitions have other leaders then. Cost: a broker that stands still
    # for 6 s (collector, disk, a full machine) loses its partitions for nothing, and moves them twice.
    "broker.session.timeout.ms": "6000",
    "broker.heartbeat.interval.ms": "1000",
    # A follower that hangs holds up every acks=all for so long (default 30 s). Cost: a short fall behind shrinks the ISR, and
    # with one broker away already writes are refused.
    "replica.lag.time.max.ms": "10000",
    # A quorum elects a new controller after 3 s (default 2): two cores carry 30 processes here, and elections for nothing
    # would stop topic and leader changes.
    "controller.quorum.fetch.timeout.ms": "3000",
    # A broker that is back leads again after a minute at most (default 5). Cost: one more move for clients.
    "leader.imbalance.check.interval.seconds": "60",
    "num.network.threads": "2",
}


class ClusterError(RuntimeError):
    """Something of the cluster that should run has ended, or does not get well."""


class Cluster:
    """See the module. Brokers are numbered from 1. `folder` should be fresh: addresses are chosen anew."""

    def __init__(self, folder: Path, brokers: int = 3, heap: str = "320m"):
        self.folder = folder.absolute()
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        self.brokers = {
            number: Kafka(self.folder / f"kafka-{number}", node_id=number, heap=heap)
            for number in range(1, brokers + 1)
        }
        self.network = Toxiproxy(self.folder)
        self.clickhouse = Server(self.folder / "clickhouse")
        self._advertised = {number: f"{LOOPBACK}:{free_port()}" for number in self.brokers}
        self._behind = {number: f"{LOOPBACK}:{free_port()}" for number in self.brokers}
        quorum = ",".join(f"{number}@{LOOPBACK}:{kafka.ports[1]}" for number, kafka in self.brokers.items())
        for number, kafka in self.brokers.items():
            direct, workers = kafka.bootstrap, self._behind[number]
            controller = f"CONTROLLER://{LOOPBACK}:{kafka.ports[1]}"
            kafka.config.update(CONFIG)
            kafka.config |= {
                "cluster.id": cluster, "controller.quorum.voters": quorum,
                "listeners": f"DIRECT://{direct},WORKERS://{workers},{controller}",
                "advertised.listeners": f"DIRECT://{direct},WORKERS://{self._advertised[number]}",
            }  # fmt: skip
        self._wanted: set[int] = set()
        self._farm: Farm | None = None
        self._running = ExitStack()

    @property
    def direct(self) -> str:
        """Bootstrap past the network: producers, ledgers, checks."""
        return ",".join(kafka.bootstrap for kafka in self.brokers.values())

    @property
    def proxied(self) -> str:
        """Bootstrap for workers."""
        return ",".join(self._advertised.values())

    @property
    def farm(self) -> Farm:
        """The receiving side. DNS is silenced by `farm.control({"dns": {"answer": False}})`."""
        if self._farm is None:
            raise RuntimeError("the cluster was not entered")
        return self._farm

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._running.enter_context(self.network)
            for number in self.brokers:
                self.network.open(
                    _name(number), listen=self._advertised[number], upstream=self._behind[number])  # fmt: skip
            for number, kafka in self.brokers.items():
                self._running.callback(kafka.kill)  # a clean shutdown takes seconds, and nobody reads the data again
                kafka.spawn()
                self._wanted.add(number)
            self._running.callback(self.clickhouse.kill)  # waits for its clients otherwise
            self.clickhouse.start()
            self._farm = Farm.start(self.folder / "farm")
            self._running.callback(self._farm.stop)
            for kafka in self.brokers.values():
                kafka.wait_ready()
        except BaseException:
            self._running.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.close()

    def look(self) -> None:
        """Raises ClusterError where a broker, the network or the farm has ended by itself."""
        for number in self._wanted:
            if not self.broker_alive(number):
                raise ClusterError(f"broker {number} has ended by itself:\n{self.brokers[number].log_tail()}")
        for name, process in (("toxiproxy", self.network.process), ("the farm", self.farm.process)):
            if process is not None and process.poll() is not None:
                raise ClusterError(f"{name} has ended with status {process.returncode}")

    # -- brokers ---------------------------------------------------------------------------------------------------
    def kill_broker(self, n: int) -> None:
        """kill -9."""
        self._wanted.discard(n)
        self.brokers[n].kill()

    def start_broker(self, n: int, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Start it again and return when it is in every ISR, calling `meanwhile` until then a few times a second. Raises
        ClusterError."""
        self.brokers[n].spawn()
        self._wanted.add(n)
        self.wait_in_sync(meanwhile)

    def broker_alive(self, n: int) -> bool:
        """Whether its process runs."""
        process = self.brokers[n].process
        return process is not None and process.poll() is None

    def wait_in_sync(self, meanwhile: Callable[[], None] = lambda: None, timeout_s: float = SYNC_TIMEOUT_S) -> None:
        """Return when no partition lacks a replica on a broker that should run. Raises ClusterError."""
        deadline = time.monotonic() + timeout_s
        while behind := self.behind():
            self.look()
            meanwhile()
            if time.monotonic() > deadline:
                raise ClusterError(f"not in sync after {timeout_s:g} s: {', '.join(behind[:10])}")
            time.sleep(POLL_S)

    def behind(self) -> list[str]:
        """Partitions that lack a replica of a broker that should run, "topic[partition] 1,2 of 1,2,3"; ["unknown"] where the
        cluster does not say."""
        with ThreadPoolExecutor(1) as pool:  # a loop in a thread of its own: callers may be inside a loop themselves
            try:
                topics, present = pool.submit(asyncio.run, self._metadata()).result()
            except (KafkaError, OSError, TimeoutError) as error:
                return [f"unknown ({type(error).__name__})"]
        if missing := self._wanted - present:
            return [f"broker {number} is not part of the cluster" for number in sorted(missing)]
        return [
            f"{topic['topic']}[{partition['partition']}] {_list(partition['isr'])} of {_list(partition['replicas'])}"
            for topic in topics
            for partition in topic["partitions"]
            if (self._wanted & set(partition["replicas"])) - set(partition["isr"])
        ]

    async def _metadata(self) -> tuple[list[dict[str, Any]], set[int]]:
        direct = [kafka.bootstrap for number, kafka in self.brokers.items() if number in self._wanted]
        admin = AIOKafkaAdminClient(bootstrap_servers=direct, request_timeout_ms=int(ASK_TIMEOUT_S * 1000))
        try:
            async with asyncio.timeout(ASK_TIMEOUT_S):
                await admin.start()
                topics = await admin.describe_topics()
                return topics, {broker["node_id"] for broker in (await admin.describe_cluster())["brokers"]}
        finally:
            await admin.close()

    # -- network ---------------------------------------------------------------------------------------------------
    def cut(self, n: int | None = None, kind: Cut = "silent") -> None:
        """Cut the network between workers and broker `n`, None: all; see proxy.py for the kinds."""
        self.network.cut(self._names(n), kind)

    def slow(self, latency_ms: float, rate_kb: int, n: int | None = None) -> None:
        """Each way so much later, and so many KB a second for each connection."""
        self.network.slow(self._names(n), latency_ms, rate_kb)

    def heal(self) -> None:
        """The whole network as it was."""
        self.network.heal()

    def _names(self, n: int | None) -> list[str]:
        return [_name(number) for number in self.brokers if n in (None, number)]

    # -- ClickHouse ------------------------------------------------------------------------------------------------
    def kill_clickhouse(self) -> None:
        """kill -9: its port refuses until `start_clickhouse`."""
        self.clickhouse.kill()

    def freeze_clickhouse(self) -> None:
        """It takes connections and answers nothing until `start_clickhouse`."""
        self._signal_clickhouse(signal.SIGSTOP)

    def start_clickhouse(self) -> None:
        """It runs again, whatever was done to it."""
        self._signal_clickhouse(signal.SIGCONT)
        self.clickhouse.start(SYNC_TIMEOUT_S)

    def _signal_clickhouse(self, number: signal.Signals) -> None:
        if self.clickhouse.process is not None:
            os.kill(self.clickhouse.process.pid, number)


def _name(number: int) -> str:
    return f"kafka-{number}"


def _list(numbers: Iterable[int]) -> str:
    return ",".join(map(str, sorted(numbers)))
