"""What a policy says of a site's shard: resolved once, and remembered until the policy is another one."""

from __future__ import annotations

from dataclasses import dataclass

from postroad.shaping.limits import Limits, TenantLimits
from postroad.shaping.policy import Policy
from postroad.shaping.warmup import Plan

MANY = 10_000  # remembered of each


@dataclass(frozen=True, slots=True)
class Share:
    """Of a source at a site#shard."""

    limits: Limits
    plan: Plan | None
    warm_to: tuple[int, int]  # shard, shards


class Shares:
    """One per process."""

    def __init__(self) -> None:
        self._version = ""
        self._sources: dict[tuple[str, int, str], Share] = {}
        self._tenants: dict[tuple[str, str, int], TenantLimits | None] = {}

    def follow(self, policy: Policy) -> None:
        """What was resolved from another policy goes."""
        if policy.version != self._version:
            self._version = policy.version
            self._sources.clear()
            self._tenants.clear()

    def of_source(self, policy: Policy, site: str, shard: int, source: str) -> Share:
        """What a source may do at a shard, after `follow`."""
        key = (site, shard, source)
        if (found := self._sources.get(key)) is None:
            if len(self._sources) > MANY:
                self._sources.clear()
            whole = policy.limits(site, source)
            found = Share(whole.share(shard), policy.warmup(source), (shard, whole.shards))
            self._sources[key] = found
        return found

    def of_tenant(self, policy: Policy, site: str, shard: int, tenant: str) -> TenantLimits | None:
        """What a tenant may do there, over all sources, after `follow`; None: no limit of its own."""
        key = (tenant, site, shard)
        if key not in self._tenants:
            if len(self._tenants) > MANY:
                self._tenants.clear()
            whole = policy.tenant(tenant, site)
            self._tenants[key] = whole.share(shard, policy.limits(site).shards) if whole else None
        return self._tenants[key]
