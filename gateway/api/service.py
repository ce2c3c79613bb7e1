"""`postroad gateway api`: REST as a process of its own, any number of replicas, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

from avro.records import DomainClaim, Webhook
from gateway.accept import Acceptor
from gateway.api import all_routes
from gateway.api.app import application
from gateway.api.batch import maker
from gateway.api.connection import within
from gateway.api.door import Door, Warehouse
from gateway.batch import Batch
from gateway.callers import Callers
from gateway.idempotency import KEPT_MS, Idempotency, Memory
from gateway.inbound import Unavailable
from gateway.jobs import Jobs, work
from gateway.lookup import Lookup
from gateway.service import AGAIN_S, tell_ready
from gateway.suppressed import Suppressed
from gateway.tail import Tail
from gateway.writer import KafkaProducer
from postroad.content import Contents
from postroad.settings import Settings
from topics.catalogue import (
    ALL,
    DOMAIN_CLAIMS,
    IDEMPOTENT_USES,
    IN_FORCE,
    JOBS,
    KEY_USES,
    WEBHOOKS,
)
from topics.follower import Follower
from topics.installation import Installation

log = logging.getLogger(__name__)
BACKLOG = 1024
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of mallopt(3)


class Service:
    """What a process of REST runs beside its routes."""

    def __init__(self, settings: Settings, warehouse: Warehouse | None, dns: Callable[[], Any]) -> None:
        here = self.installation = Installation(**settings.installation())
        self.producer = KafkaProducer(here, ALL)
        self.callers = Callers(settings, here, self.producer, "rest")
        self.tenants, self.keys = self.callers.tenants, self.callers.keys
        self.webhooks = Follower[Webhook](here, WEBHOOKS)
        self.lookup = Lookup(here)
        contents = Contents(settings.content, settings.content_inline_max, cache_bytes=0)
        spool = settings.data_dir.absolute() / "spool"
        self.door = Door(
            settings, self.tenants, self.keys, self.webhooks, self.producer, Acceptor(self.producer, contents), contents, self.lookup,
            warehouse, spool, self.callers.identity, self.callers.limits,
        )  # fmt: skip
        self.claims = Follower[DomainClaim](here, DOMAIN_CLAIMS)
        self.key_uses = Follower[int](here, KEY_USES, lambda use: int(use["used_at"]))
        self.suppressed = Suppressed(spool)
        self.jobs = Jobs(self.callers.replica, self.producer)
        door, make = self.door, maker(self.tenants, self.door.now, settings.size_max)
        door.claims, door.key_uses, door.dns, door.suppressions, door.jobs = (
            self.claims,
            self.key_uses,
            dns,
            self.suppressed,
            self.jobs,
        )
        self.batch = Batch(contents, door.acceptor, self.lookup, make, spool)
        memory = Memory(spool)
        uses = Tail(here, IDEMPOTENT_USES, memory.hear, lambda: self.door.now() - KEPT_MS)
        self.door.idempotency = Idempotency(self.producer, uses, memory, self.lookup.find, self.door.now)
        self.jobs.tail = Tail(here, JOBS, self.jobs.hear, lambda: 0)
        self._tails = [uses, self.jobs.tail]
        self._lists = Tail(here, IN_FORCE, self.suppressed.hear, lambda: 0)
        self.listens: Callable[[], bool] = lambda: False
        """Whether it takes connections."""

    async def ready(self) -> None:
        """Return when everything that requests need has been read, and Kafka takes records."""
        followers = [one.ready() for one in (self.webhooks, self.claims, self.key_uses)]
        await asyncio.gather(self.callers.ready(), *followers, *(tail.ready() for tail in self._tails))
        while True:
            with suppress(Unavailable):
                return await self.producer.start()
            await asyncio.sleep(AGAIN_S)

    async def read_lists(self) -> None:
        """The suppression lists, beside everything else: there may be millions."""
        await self._lists.ready()
        self.suppressed.ready = True

    async def run_jobs(self) -> None:
        """Jobs that nobody runs; for ever."""
        await work(self.jobs, self.batch.run, self.door.now)

    async def stop(self) -> None:
        """Let go of Kafka."""
        followers = (self.webhooks, self.claims, self.key_uses)
        parts: list[Any] = [self.callers, *followers, *self._tails, self._lists, self.lookup, self.producer]
        await asyncio.gather(*(part.stop() for part in parts))


class _Server(uvicorn.Server):
    """uvicorn's, which ends when told and leaves the signals to us: its own raises them again before we have let go of Kafka."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run(
    settings: Settings,
    warehouse: Warehouse | None,
    dns: Callable[[], Any],
    opened: Callable[[Service], None] = lambda service: None,
) -> None:
    """Answer at the setting `api`. It listens when Kafka has told who may call. Raises OSError where the port is taken or the
    certificate cannot be read."""
    _give_memory_back()
    host, _, port = settings.api.rpartition(":")
    service = Service(settings, warehouse, dns)
    tls: dict[str, Any] = {}
    if settings.api_certificate is not None:
        tls = {
            "ssl_certfile": str(settings.api_certificate),
            "ssl_keyfile": str(settings.api_key or settings.api_certificate),
        }
    server = _Server(uvicorn.Config(
        application(service.door, all_routes()), host=host.strip("[]"), port=int(port), loop="uvloop", http=within(settings.api_timeout_s), ws="none",
        lifespan="off", access_log=False, log_config=None, server_header=False, proxy_headers=bool(settings.api_proxies),
        forwarded_allow_ips=settings.api_proxies or "", timeout_keep_alive=75, timeout_graceful_shutdown=int(settings.grace_s),
        backlog=BACKLOG, **tls,
    ))  # fmt: skip
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    tasks: list[asyncio.Task[Any]] = []
    listening = _socket(host.strip("[]"), int(port))
    try:
        starting = asyncio.create_task(service.ready())
        stopped = asyncio.create_task(stopping.wait())
        tasks = [starting, stopped]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if stopping.is_set():
            return
        await starting
        for_ever = [asyncio.ensure_future(do()) for do in (*service.callers.for_ever(), service.run_jobs)]
        tasks += [*for_ever, asyncio.create_task(service.read_lists())]
        service.listens = lambda: server.started and not stopping.is_set()
        opened(service)
        listening.listen(BACKLOG)  # uvicorn would a moment after we have said so
        tell_ready(f"answers REST at {settings.api}")
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        tasks.append(serving)
        await asyncio.wait([serving, stopped, *for_ever], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        for task in for_ever:
            if task.done():
                task.result()  # it failed: a supervisor starts us again
    finally:
        for task in tasks:
            task.cancel()
        listening.close()
        await service.stop()


def _give_memory_back() -> None:
    """glibc keeps what large bodies have taken, unless it is told to map each by itself; elsewhere there is nothing to tell."""
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 256 << 10)
        libc.mallopt(M_ARENA_MAX, 2)


def _socket(host: str, port: int) -> socket.socket:
    """Several processes of one machine may share a port: the kernel shares its connections out."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made
