"""Every kind of fault: how it begins and how it ends. `FAULTS[kind](stage_of_action)` is a context manager around its time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError

from loadtest.chaos.cluster import Cluster
from loadtest.chaos.fleet import Fleet, Worker
from loadtest.chaos.schedule import Fault
from topics.catalogue import ALL
from topics.client import Client
from topics.installation import Installation

FARM_SITES = ("accept", "starttls", "half")  # those that most of the load goes to
TOO_SMALL = 400  # bytes of max.message.bytes: no record of the road fits
SLOW_MS, SLOW_KB = 150, 2000
SUBMISSIONS_STAGE = "ingest"  # it writes contents
POISON = (
    b"",
    b"\x00",
    b"\xc3\x01",
    b"\xc3\x01" + bytes(8) + b"no such schema",
    b"\xff" * 300,
    b"\x00\x00\x00\x00\x07?",
)


@dataclass
class Field:
    """What faults act on. `wait(seconds)` passes the time and keeps the workers supervised; `meanwhile` is one
    look after them; `left` takes the exit statuses of those that were told to end. `poisoned`: places of the
    records that nobody can read, as dead letters name them."""

    cluster: Cluster
    fleet: Fleet
    installation: Installation
    dice: random.Random
    wait: Callable[[float], object]
    meanwhile: Callable[[], None]
    left: Callable[[Mapping[str, int]], None]
    session_s: float
    poisoned: set[str] = field(default_factory=set)

    def worker(self, stage: str) -> Worker:
        """One of a stage's workers that runs and is ready, else one that runs."""
        mine = [worker for worker in self.fleet.of(stage) if not worker.frozen]
        return self.dice.choice([worker for worker in mine if worker.ready] or mine)


Kind = Callable[[Field, Fault], AbstractContextManager[None]]


@contextmanager
def worker_kill(on: Field, fault: Fault) -> Iterator[None]:
    on.fleet.kill(on.worker(fault.target))
    yield


@contextmanager
def worker_freeze(on: Field, fault: Fault) -> Iterator[None]:
    """SIGSTOP for longer than its session, then it goes on as if nothing had been: a zombie."""
    worker = on.worker(fault.target)
    on.fleet.freeze(worker)
    if not worker.frozen:
        raise RuntimeError(f"{worker.name} has no process to freeze")
    try:
        yield
        on.wait(on.session_s)
    finally:
        on.fleet.thaw(worker)


@contextmanager
def join_leave(on: Field, fault: Fault) -> Iterator[None]:
    """1 -> 3 -> 2 workers. Each is ready before it is told to leave: Python takes SIGTERM only once it has loaded the code."""
    on.fleet.wait_ready(on.fleet.of(fault.target))
    for worker in on.fleet.of(fault.target)[1:]:
        on.left({worker.name: on.fleet.leave(worker)})
    on.wait(1.0)
    joined = [on.fleet.join(fault.target) for _ in range(2)]
    on.fleet.wait_ready(joined)
    on.wait(2.0)
    on.left({joined[1].name: on.fleet.leave(joined[1])})
    yield


@contextmanager
def state_lost(on: Field, fault: Fault) -> Iterator[None]:
    on.fleet.lose_state(on.worker(fault.target))
    yield


@contextmanager
def broker_kill(on: Field, fault: Fault) -> Iterator[None]:
    number = int(fault.target)
    on.cluster.kill_broker(number)
    try:
        yield
    finally:
        on.cluster.start_broker(number, on.meanwhile)


@contextmanager
def clickhouse_kill(on: Field, fault: Fault) -> Iterator[None]:
    on.cluster.kill_clickhouse()
    try:
        yield
    finally:
        on.cluster.start_clickhouse()


@contextmanager
def clickhouse_freeze(on: Field, fault: Fault) -> Iterator[None]:
    on.cluster.freeze_clickhouse()
    try:
        yield
    finally:
        on.cluster.start_clickhouse()


@contextmanager
def farm(on: Field, sites: dict[str, object] | None, dns: bool = True) -> Iterator[None]:
    changes: dict[str, object] = {"sites": {name: sites for name in FARM_SITES}} if sites else {}
    on.cluster.farm.control({**changes, "dns": {"answer": dns}})
    try:
        yield
    finally:
        on.cluster.farm.control({})


@contextmanager
def disk_full(on: Field, stage: str) -> Iterator[None]:
    on.fleet.fill_disk(stage)
    try:
        yield
    finally:
        on.fleet.free_disk(stage)


@contextmanager
def topic_small(on: Field, fault: Fault) -> Iterator[None]:
    _configure(on.installation, fault.target, TOO_SMALL)
    try:
        yield
    finally:
        normal = next(topic for topic in ALL if topic.name == fault.target).max_bytes
        _configure(on.installation, fault.target, normal)


def _configure(installation: Installation, topic: str, max_bytes: int) -> None:
    async def alter() -> None:
        name = installation.prefix + topic
        known = next(known for known in ALL if known.name == topic)
        config = {**known.configuration(), "max.message.bytes": str(max_bytes)}
        while True:
            admin = AIOKafkaAdminClient(bootstrap_servers=installation.bootstrap)
            try:
                await admin.start()
                await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=config)])
                return
            except (KafkaError, OSError):
                await asyncio.sleep(1.0)
            finally:
                with suppress(Exception):
                    await admin.close()

    asyncio.run(alter())


@contextmanager
def poison(on: Field, fault: Fault) -> Iterator[None]:
    """Records that nobody can read, in every topic of the road."""

    async def write() -> None:
        async with Client(on.installation) as client:
            for topic in ALL:
                for value in (*POISON, None):
                    if topic.compacted and value is None:
                        continue  # a tombstone of a tenant that never was
                    place = await client.send_raw(topic, b"poison", value)
                    on.poisoned.add(f"{on.installation.name(topic)}[{place.partition}]@{place.offset}")

    asyncio.run(write())
    yield


@contextmanager
def network_cut(on: Field, fault: Fault) -> Iterator[None]:
    number, kind = fault.target.split()
    on.cluster.cut(int(number), kind)  # type: ignore[arg-type]  # one of proxy.Cut
    try:
        yield
    finally:
        on.cluster.heal()


@contextmanager
def network_slow(on: Field, fault: Fault) -> Iterator[None]:
    on.cluster.slow(SLOW_MS, SLOW_KB)
    try:
        yield
    finally:
        on.cluster.heal()


@contextmanager
def clock_step(on: Field, fault: Fault) -> Iterator[None]:
    milliseconds = 1000 * int(fault.target)
    on.fleet.step_clock(milliseconds)
    try:
        yield
    finally:
        on.fleet.step_clock(-milliseconds)


FAULTS: dict[str, Kind] = {
    "worker-kill": worker_kill,
    "worker-freeze": worker_freeze,
    "join-leave": join_leave,
    "state-lost": state_lost,
    "broker-kill": broker_kill,
    "clickhouse-kill": clickhouse_kill,
    "clickhouse-freeze": clickhouse_freeze,
    "clickhouse-away": clickhouse_kill,
    "dns-silent": lambda on, fault: farm(on, None, dns=False),
    "farm-refuse": lambda on, fault: farm(on, {"mode": "refuse"}),
    "farm-stall": lambda on, fault: farm(on, {"mode": "stall-in-data"}),
    "farm-close": lambda on, fault: farm(on, {"mode": "close-after-data"}),
    "disk-full-content": lambda on, fault: disk_full(on, SUBMISSIONS_STAGE),
    "disk-full-tables": lambda on, fault: disk_full(on, fault.target),
    "topic-small": topic_small,
    "poison": poison,
    "network-cut": network_cut,
    "network-slow": network_slow,
    "clock-step": clock_step,
}

#: Stages that stand still while a fault lasts, since what they need is away; "target": that of the fault; "all": every one.
#: Their time is counted from its end, that of all others from its beginning.
EXCUSED: dict[str, tuple[str, ...]] = {
    "clickhouse-kill": ("events_sink",),
    "clickhouse-freeze": ("events_sink",),
    "clickhouse-away": ("events_sink",),
    "dns-silent": ("validate", "route"),
    "farm-refuse": ("send",),
    "farm-stall": ("send",),
    "farm-close": ("send",),
    "disk-full-content": ("ingest",),
    "disk-full-tables": ("target",),
    "network-cut": ("all",),
    "network-slow": ("all",),
}
#: Faults that end a worker of their target; one that ends none has not bitten.
ENDING: dict[str, str] = {
    "worker-kill": "target", "state-lost": "target", "disk-full-tables": "target", "disk-full-content": SUBMISSIONS_STAGE,
}  # fmt: skip
