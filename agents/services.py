"""What the stages of a process share: settings, tenants, DNS, content, SMTP connections. Handlers find it as `state.services`."""

from __future__ import annotations

import asyncio
import time
from functools import cache, lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from avro.records import Grade, Order, Tenant, Webhook
from postroad.content import Contents, ContentStore
from postroad.departure import Departures
from postroad.dkim import BodyHashes
from postroad.dns import DnsResolver, Resolver
from postroad.egress import Pool
from postroad.lame import Lame
from postroad.reputation import counts_of_today
from postroad.retry import RetrySchedule
from postroad.settings import Settings, SettingsError, load
from postroad.shaping.policy import Watched
from postroad.smtp import AioTransport, Client
from postroad.smtp import Pool as Connections
from postroad.webhooks.notifier import Notifier
from topics.catalogue import BROADCASTS, ORDERS, STANDINGS, SUBMISSIONS, TENANTS, WEBHOOKS
from topics.follower import Follower
from topics.installation import Installation
from topics.trace import Sampling

if TYPE_CHECKING:
    from topics.tracing import Tracing


class Services:
    """One per process. Nothing is opened before `start`, which any number of stages may await."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.installation = Installation(**settings.installation())
        self.tenants: Any = Follower[Tenant](self.installation, TENANTS)  # a mapping: tests give a dictionary
        self.orders: Any = Follower[Order](self.installation, ORDERS)  # likewise
        self.standings: Any = Follower[Grade](self.installation, STANDINGS)  # likewise
        self.webhooks: Any = Follower[Webhook](self.installation, WEBHOOKS)  # likewise
        self.notifier = Notifier(settings.webhook_rules())
        self.pools: dict[str, Pool] = settings.pools()
        self.resolver: Resolver = DnsResolver(settings.dns_servers, settings.dns_timeout_s)
        self.contents: ContentStore = Contents(settings.content, settings.content_inline_max)
        self.retries = RetrySchedule(tuple(settings.retry_delays_s), settings.retry_jitter, tuple(settings.greylist_s))
        self.body_hashes = BodyHashes()
        self.shaping = Watched(settings.shaping, settings.limits())
        self.departures = Departures(complaints=self.complaints, standings=self.standings)
        self.lame = Lame()
        self.tracing = _tracing(settings, self.installation)
        self._client: Client | None = None
        self._at_once = lru_cache(maxsize=8192)(self._connections_twice)

    async def start(self) -> None:
        """Return when tenants, orders, standings and webhooks are known."""
        await asyncio.gather(self.tenants.ready(), self.orders.ready(), self.standings.ready(), self.webhooks.ready())

    async def close(self) -> None:
        """End what is under way to webhooks, and close its connections: what has no result yet is tried again by the next worker. Give
        the last spans away."""
        await self.notifier.close()
        if self.tracing is not None:
            await asyncio.to_thread(self.tracing.close)

    def complaints(self, source: str) -> tuple[int, int]:
        """Of the mail of a source today: sent, complained of."""
        return counts_of_today(self.standings, source, time.time_ns() // 1_000_000)

    def store_options(self) -> dict[str, int]:
        """Bounds on the memory of each stage's tables."""
        settings = self.settings
        return {"cache_mib": settings.rocksdb_cache_mib, "write_buffer_mib": settings.rocksdb_write_buffer_mib,
                "cache_entries": settings.cache_entries}  # fmt: skip

    def messages_at_once(self, key: bytes) -> int:
        """How many messages of a key of mail.outbound (site#shard) are in work at once: one for each connection of each source, and
        one behind it; where there are several sources, no more than half of what the worker does at once."""
        return self._at_once(self.shaping.policy.version, key)

    def _connections_twice(self, version: str, key: bytes) -> int:
        site, _, shard = key.decode(errors="replace").rpartition("#")
        limits = self.shaping.policy.limits(site)
        twice = 2 * max(1, limits.share(int(shard) if shard.isdecimal() else 0).connections)
        sources = max(sum(source.weight > 0 for source in pool.sources) for pool in self.pools.values())
        return max(twice, min(twice * sources, self.settings.send_concurrency // 2))

    def client(self) -> Client:
        """The SMTP client, with the connections of this process."""
        if self._client is None:
            pool = Connections(AioTransport(), self.settings.smtp_port)
            self._client = Client(pool, self.resolver, lame=self.lame)
        return self._client

    async def lost(self, partition: int) -> None:
        """Another worker gets a partition of send: return when no connection of its sites is open."""
        pool = self.client().pool
        places = self.departures.lost(partition)
        are_open = [place for place in places if pool.connections_for(place)]
        closing = asyncio.gather(*(pool.close_site(place) for place in are_open))
        for place in set(places).difference(are_open):
            await pool.close_site(place)  # at once: only when its next connection may begin is remembered
        await closing


def _tracing(settings: Settings, installation: Installation) -> Tracing | None:
    """None where nothing is traced: OpenTelemetry is not even imported then."""
    if not settings.tracing_endpoint:
        return None
    try:
        from topics.tracing import Tracing, otlp
    except ImportError as error:
        raise SettingsError(
            f"tracing_endpoint wants OpenTelemetry ({error}): pip install 'postroad[tracing]'"
        ) from None
    roots = [installation.name(topic) for topic in (SUBMISSIONS, BROADCASTS)]
    return Tracing(otlp(settings.tracing_endpoint), Sampling(settings.trace_sample), roots, version("postroad"))


@cache
def services() -> Services:
    """Those of this process, by its settings."""
    return Services(load())
