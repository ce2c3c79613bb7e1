"""The limits that hold for one site, one source, one tenant, with nothing left open; and what a shard of the site gets of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

from avro.records import MessageStream
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
    retry_broadcast: RetrySchedule | None = None  # of broadcasts, where it is another
    shards: int = 1

    def retry_of(self, stream: MessageStream) -> RetrySchedule:
        """When a deferred message of a stream is tried again."""
        return self.retry if stream != "broadcast" or self.retry_broadcast is None else self.retry_broadcast

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
            per_second=split_rate(self.per_second, shard, shards),
            per_hour=_split_optional(self.per_hour, shard, shards),
            per_day=_split_optional(self.per_day, shard, shards),
        )

    @property
    def smallest(self) -> int:
        """More shards than this would leave some with nothing."""
        counts = (n for n in (self.per_hour, self.per_day) if n is not None)
        return min(self.connections, self.new_per_minute, _at_least_one(self.per_second), *counts)


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
            None if self.per_second is None else split_rate(self.per_second, shard, shards),
            _split_optional(self.per_hour, shard, shards),
            _split_optional(self.per_day, shard, shards),
            _split_optional(self.connections, shard, shards),
        )

    @property
    def smallest(self) -> int:
        """As `Limits.smallest`."""
        rate = None if self.per_second is None else _at_least_one(self.per_second)
        counts = (rate, self.per_hour, self.per_day, self.connections)
        return min((n for n in counts if n is not None), default=SHARDS_MAX)


def split(whole: int, shard: int, shards: int) -> int:
    """The share of one of `shards`: all of them add up to the whole, remainders go to the lowest. 0 of a shard that is none."""
    return whole // shards + (shard < whole % shards) if shard < shards else 0


def split_rate(whole: float, shard: int, shards: int) -> float:
    """The same for a rate, in whole messages a second where there are enough: two shards with half a message each would let
    two through in one second. What is behind the point is the lowest shard's."""
    if whole >= shards:
        return split(int(whole), shard, shards) + (whole % 1 if shard == 0 else 0.0)
    return split_float(whole, shard, shards)


def split_float(whole: float, shard: int, shards: int) -> float:
    """The same for any number: a double is a whole number of its smallest steps, and these are shared."""
    mantissa, exponent = math.frexp(whole)
    return math.ldexp(split(int(math.ldexp(mantissa, 53)), shard, shards), exponent - 53)


def _at_least_one(per_second: float) -> int:
    """How many shards get a message a second; a rate below that is one shard's."""
    return max(1, int(per_second))


def _split_optional(whole: int | None, shard: int, shards: int) -> int | None:
    return None if whole is None else split(whole, shard, shards)
