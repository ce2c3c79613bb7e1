"""What the stages of a process share: settings, tenants, DNS, content, SMTP connections. Handlers find it as `state.services`."""

from __future__ import annotations

import asyncio
from functools import cache
from typing import Any

from avro.records import Order, Tenant
from postroad.content import Contents, ContentStore
from postroad.departure import Departures, share
from postroad.dkim import BodyHashes
from postroad.dns import DnsResolver, Resolver
from postroad.egress import Pool
from postroad.lame import Lame
from postroad.retry import RetrySchedule
from postroad.settings import Settings, load
from postroad.shaping.policy import Watched
from postroad.smtp import AioTransport, Client
from postroad.smtp import Pool as Connections
from topics.catalogue import ORDERS, TENANTS
from topics.follower import Follower
from topics.installation import Installation


class Services:
    """One per process. Nothing is opened before `start`, which any number of stages may await."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.installation = Installation(**settings.installation())
        self.tenants: Any = Follower[Tenant](self.installation, TENANTS)  # a mapping: tests give a dictionary
        self.orders: Any = Follower[Order](self.installation, ORDERS)  # likewise
        self.pools: dict[str, Pool] = settings.pools()
        self.resolver: Resolver = DnsResolver(settings.dns_servers, settings.dns_timeout_s)
        self.contents: ContentStore = Contents(settings.content, settings.content_inline_max)
        self.retries = RetrySchedule(tuple(settings.retry_delays_s), settings.retry_jitter, tuple(settings.greylist_s))
        self.body_hashes = BodyHashes()
        self.shaping = Watched(settings.shaping, settings.limits())
        self.departures = Departures()
        self.lame = Lame()
        self._client: Client | None = None

    async def start(self) -> None:
        """Return when tenants and orders are known."""
        await asyncio.gather(self.tenants.ready(), self.orders.ready())

    def store_options(self) -> dict[str, int]:
        """Bounds on the memory of each stage's tables."""
        settings = self.settings
        return {"cache_mib": settings.rocksdb_cache_mib, "write_buffer_mib": settings.rocksdb_write_buffer_mib,
                "cache_entries": settings.cache_entries}  # fmt: skip

    def messages_at_once(self, key: bytes) -> int:
        """How many messages of a key of mail.outbound (site#shard) are in work at once: one for each connection, and one
        behind it."""
        site, _, shard = key.decode(errors="replace").rpartition("#")
        limits = self.shaping.policy.limits(site)
        return 2 * max(1, share(limits, int(shard) if shard.isdecimal() else 0).connections)

    def client(self) -> Client:
        """The SMTP client, with the connections of this process."""
        if self._client is None:
            pool = Connections(AioTransport(), self.settings.smtp_port)
            self._client = Client(pool, self.resolver, lame=self.lame)
        return self._client

    async def lost(self, partition: int) -> None:
        """Another worker gets a partition of send: return when no connection of its sites is open."""
        pool = self.client().pool
        await asyncio.gather(*(pool.close_site(place) for place in self.departures.lost(partition)))


@cache
def services() -> Services:
    """Those of this process, by its settings."""
    return Services(load())
