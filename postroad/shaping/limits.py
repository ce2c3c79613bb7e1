"""The limits that hold for one site, one source, one tenant, with nothing left open; and what a shard of the site gets of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from postroad.retry import RetrySchedule
from postroad.smtp_timeouts import SmtpTimeouts

Tls = Literal["none", "opportunistic", "required"]
DAY_S = 86_400
SHARDS_MAX = 256


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one source at one site. None: no limit. `shards`: parts of the site's queue, each with `share` of the rest."""

    connections: int = 10  # open at a time, idle ones too
    new_per_minute: int = 100  # connections begun in any 60 seconds
    messages_per_connection: int = 100
    per_second: float = 100.0  # messages
    per_hour: int | None = None
    per_day: int | None = None
    idle_s: float = 60.0
    tls: Tls = "opportunistic"
    verify: bool = False  # the certificate must be valid, and name the host
    broken_tls_s: float = 3.0 * DAY_S  # a host whose STARTTLS fails is tried without it for so long, where not required
    timeouts: SmtpTimeouts = field(default_factory=SmtpTimeouts)
    retry: RetrySchedule = field(default_factory=RetrySchedule)
    shards: int = 1

    def share(self, shard: int) -> Limits:
        """What one shard may use. The shares of all shards add up exactly to the whole, remainders go to the lowest.

        No shard is left with 0 as long as `shards` is at most each whole, which `Policy.limits` sees to. A shard that is
        none (any more: the file has changed) gets 0 connections: its messages are to be routed anew.
        """
        if self.shards == 1 and shard == 0:
            return self
        shards = self.shards
        return replace(
            self,
            connections=split(self.connections, shard, shards),
            new_per_minute=split(self.new_per_minute, shard, shards),
            per_second=split_float(self.per_second, shard, shards),
            per_hour=_split_optional(self.per_hour, shard, shards),
            per_day=_split_optional(self.per_day, shard, shards),
        )

    @property
    def smallest(self) -> int:
        """More shards than this would leave some with nothing."""
        return min(self.connections, self.new_per_minute, *(n for n in (self.per_hour, self.per_day) if n is not None))


BUILT_IN = Limits()


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """Of one tenant at one site, over all sources. None: no limit of its own."""

    per_second: float | None = None
    per_hour: int | None = None
    per_day: int | None = None
    connections: int | None = None

    def share(self, shard: int, shards: int) -> TenantLimits:
        """As `Limits.share`, for the `shards` of the site's Limits."""
        return TenantLimits(
            None if self.per_second is None else split_float(self.per_second, shard, shards),
            _split_optional(self.per_hour, shard, shards),
            _split_optional(self.per_day, shard, shards),
            _split_optional(self.connections, shard, shards),
        )

    @property
    def smallest(self) -> int:
        """As `Limits.smallest`."""
        return min((n for n in (self.per_hour, self.per_day, self.connections) if n is not None), default=SHARDS_MAX)


def split(whole: int, shard: int, shards: int) -> int:
    """The share of one of `shards`: all of them add up to the whole, remainders go to the lowest. 0 of a shard that is none."""
    return whole // shards + (shard < whole % shards) if shard < shards else 0


def split_float(whole: float, shard: int, shards: int) -> float:
    """The same for a rate: a double is a whole number of its smallest steps, and these are shared."""
    mantissa, exponent = math.frexp(whole)
    return math.ldexp(split(int(math.ldexp(mantissa, 53)), shard, shards), exponent - 53)


def _split_optional(whole: int | None, shard: int, shards: int) -> int | None:
    return None if whole is None else split(whole, shard, shards)
