"""`postroad gateway api`: REST as a process of its own, any number of replicas, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import uvicorn

from avro.records import ApiKey, DomainClaim, RateUse, Tenant, Webhook
from gateway.accept import Acceptor
from gateway.api import all_routes
from gateway.api.app import application
from gateway.api.batch import maker
from gateway.api.door import Door, Warehouse
from gateway.batch import Batch
from gateway.idempotency import KEPT_MS, Idempotency, Memory
from gateway.identity import Identity
from gateway.inbound import Unavailable
from gateway.jobs import Jobs, work
from gateway.limits import Limits
from gateway.lookup import Lookup
from gateway.suppressed import Suppressed
from gateway.tail import Tail
from gateway.writer import KafkaProducer
from postroad.content import Contents
from postroad.settings import READY_FILE, Settings
from topics.catalogue import (
    ALL,
    DOMAIN_CLAIMS,
    IDEMPOTENT_USES,
    IN_FORCE,
    JOBS,
    KEY_USES,
    KEYS,
    RATE_USES,
    TENANTS,
    WEBHOOKS,
)
from topics.follower import Follower
from topics.installation import Installation

log = logging.getLogger(__name__)
AGAIN_S = 1.0
BACKLOG = 1024
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of mallopt(3)
RATES_S = 0.1
USES_S = 60.0


class Service:
    """What a process of REST runs beside its routes."""

    def __init__(self, settings: Settings, warehouse: Warehouse | None, dns: Callable[[], Any]) -> None:
        here = self.installation = Installation(**settings.installation())
        self.replica = secrets.token_hex(8)
        self.producer = KafkaProducer(here, ALL)
        self.tenants, self.keys = Follower[Tenant](here, TENANTS), Follower[ApiKey](here, KEYS)
        self.webhooks = Follower[Webhook](here, WEBHOOKS)
        self.lookup = Lookup(here)
        contents = Contents(settings.content, settings.content_inline_max, cache_bytes=0)
        spool = settings.data_dir.absolute() / "spool"
        tokens = [secret.get_secret_value() for secret in settings.api_token_secret]
        identity = Identity(self.keys, self.tenants, tokens, settings.api_token_s)
        self.door = Door(
            settings, self.tenants, self.keys, self.webhooks, self.producer, Acceptor(self.producer, contents), contents, self.lookup,
            warehouse, spool, identity, Limits(self._rate_of),
        )  # fmt: skip
        self.claims = Follower[DomainClaim](here, DOMAIN_CLAIMS)
        self.key_uses = Follower[int](here, KEY_USES, lambda use: int(use["used_at"]))
        self.suppressed = Suppressed(spool)
        self.jobs = Jobs(self.replica, self.producer)
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
        self._tails = [uses, Tail(here, RATE_USES, self._heard, lambda: None), self.jobs.tail]
        self._lists = Tail(here, IN_FORCE, self.suppressed.hear, lambda: 0)
        self._told_uses: dict[str, int] = {}

    async def ready(self) -> None:
        """Return when everything that requests need has been read, and Kafka takes records."""
        followers = [one.ready() for one in (self.tenants, self.keys, self.webhooks, self.claims, self.key_uses)]
        await asyncio.gather(*followers, *(tail.ready() for tail in self._tails))
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

    async def tell_rates(self) -> None:
        """What passed here, to the other replicas; for ever."""
        while True:
            await asyncio.sleep(RATES_S)
            if uses := self.door.limits.untold():
                with suppress(Unavailable):
                    await self.producer.send(RATE_USES, RateUse(replica=self.replica, uses=uses))

    async def tell_uses(self) -> None:
        """When keys were used last, for people; for ever."""
        while True:
            await asyncio.sleep(USES_S)
            for key_id, at in self.door.identity.used.items():
                if at > self._told_uses.get(key_id, 0) and (key := self.keys.get(key_id)) is not None:
                    with suppress(Unavailable):
                        await self.producer.send(
                            KEY_USES, {"key_id": key_id, "tenant": key["tenant"], "used_at": at, "door": "rest"}
                        )
                        self._told_uses[key_id] = at

    async def stop(self) -> None:
        """Let go of Kafka."""
        followers = (self.tenants, self.keys, self.webhooks, self.claims, self.key_uses)
        parts: list[Any] = [*followers, *self._tails, self._lists, self.lookup, self.producer]
        await asyncio.gather(*(part.stop() for part in parts))

    def _rate_of(self, subject: str) -> float | None:
        settings = self.door.settings
        if subject.startswith("t:"):
            return settings.api_tenant_per_second
        key = self.keys.get(subject[2:])
        return None if key is None else key.get("rate_per_second") or settings.api_key_per_second

    def _heard(self, record: Any, use: RateUse | None) -> None:
        if use is not None and use["replica"] != self.replica:
            self.door.limits.heard(use["uses"])


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
        application(service.door, all_routes()), host=host.strip("[]"), port=int(port), loop="uvloop", http="httptools", ws="none",
        lifespan="off", access_log=False, log_level="warning", server_header=False, proxy_headers=bool(settings.api_proxies),
        forwarded_allow_ips=settings.api_proxies or "", timeout_keep_alive=75, timeout_graceful_shutdown=int(settings.grace_s),
        backlog=BACKLOG, h11_max_incomplete_event_size=64 << 10, **tls,
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
        for_ever = [asyncio.create_task(do()) for do in (service.tell_rates, service.tell_uses, service.run_jobs)]
        tasks += [*for_ever, asyncio.create_task(service.read_lists())]
        opened(service)
        listening.listen(BACKLOG)  # uvicorn would a moment after we have said so
        _tell_ready(settings.api)
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


def _tell_ready(address: str) -> None:
    print(f"READY: answers REST at {address}", flush=True)
    if path := os.environ.get(READY_FILE):
        Path(path).write_text(str(os.getpid()), "ascii")
