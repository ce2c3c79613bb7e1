"""What the stages of a process share: settings, tenants, DNS, content, SMTP connections. Handlers find it as `state.services`."""

from __future__ import annotations

from functools import cache
from typing import Any

from avro.records import Tenant
from postroad.content import Contents, ContentStore
from postroad.dkim import BodyHashes
from postroad.dns import DnsResolver, Resolver
from postroad.egress import Pool
from postroad.limits import Rates
from postroad.retry import RetrySchedule
from postroad.settings import Settings, SiteLimits, load
from postroad.smtp import AioTransport, Client, PoolSettings, SmtpTimeouts
from postroad.smtp import Pool as Connections
from topics.catalogue import TENANTS
from topics.follower import Follower
from topics.installation import Installation


class Services:
    """One per process. Nothing is opened before `start`, which any number of stages may await."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.installation = Installation(**settings.installation())
        self.tenants: Any = Follower[Tenant](self.installation, TENANTS)  # a mapping: tests give a dictionary
        self.pools: dict[str, Pool] = settings.pools()
        self.resolver: Resolver = DnsResolver(settings.dns_servers, settings.dns_timeout_s)
        self.contents: ContentStore = Contents(settings.content, settings.content_inline_max)
        self.retries = RetrySchedule(tuple(settings.retry_delays_s), settings.retry_jitter, tuple(settings.greylist_s))
        self.body_hashes = BodyHashes()
        self.rates = Rates()  # by partition, and site#shard and source; see agents/send.py
        self._clients: dict[SiteLimits, Client] = {}

    async def start(self) -> None:
        """Return when the tenants are known."""
        await self.tenants.ready()

    def store_options(self) -> dict[str, int]:
        """Bounds on the memory of each stage's tables."""
        settings = self.settings
        return {"cache_mib": settings.rocksdb_cache_mib, "write_buffer_mib": settings.rocksdb_write_buffer_mib,
                "cache_entries": settings.cache_entries}  # fmt: skip

    def messages_at_once(self, key: bytes) -> int:
        """How many messages of a key of mail.outbound (site#shard) are in work at once: one for each connection, and one
        behind it."""
        return 2 * self._connections(self.settings.site(key.decode(errors="replace").rpartition("#")[0]))

    @staticmethod
    def _connections(limits: SiteLimits) -> int:
        return max(1, limits.connections // limits.shards)

    def client(self, site: str) -> Client:
        """The SMTP client with the limits of a site."""
        limits = self.settings.site(site)
        client = self._clients.get(limits)
        if client is None:
            transport = AioTransport(SmtpTimeouts(scale=self.settings.smtp_timeout_scale))
            settings = PoolSettings(self._connections(limits), limits.messages_per_connection, limits.idle_s)
            pool = Connections(transport, settings, self.settings.smtp_port)
            client = self._clients[limits] = Client(pool, self.resolver)
        return client


@cache
def services() -> Services:
    """Those of this process, by its settings."""
    return Services(load())
