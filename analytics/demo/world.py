"""The world of the demo data: who sends, who receives, what goes wrong and when. Nothing in it exists (RFC 2606 names)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from math import pi, sin
from typing import NamedTuple


class Tenant(NamedTuple):
    """`weight`: its share of all mail. Rates are of its messages."""

    name: str
    weight: float
    stream: str = "transactional"
    unknown: float = 1.0  # times as many unknown users as a site has usually
    complained: float = 0.0002
    suppressed: float = 0.01
    rejected: float = 0.001


class Site(NamedTuple):
    """Who runs the mailboxes of some domains. Rates are of the messages that are delivered to it."""

    name: str
    weight: float
    domains: tuple[str, ...]
    unknown: float = 0.008
    policy: float = 0.002
    deferred: float = 0.02
    latency_ms: int = 250
    tls: str = "TLSv1.3"


TENANTS = (
    Tenant("harbour-books", 30),
    Tenant("northwind", 22, suppressed=0.004),
    Tenant("lighthouse-news", 25, "broadcast", unknown=1.5, complained=0.0008, suppressed=0.03),
    Tenant("acme", 12),
    Tenant("tidal-bank", 8, unknown=0.3, complained=0.00005),
    Tenant("seaglass", 3, "broadcast", unknown=2.0, complained=0.001),
)
SITES = (
    Site("granite.test", 34, ("granite.test", "granitemail.test"), latency_ms=320),
    Site("lark.test", 22, ("lark.test", "lark-live.test", "oldlark.test"), deferred=0.035, latency_ms=480),
    Site("ferry.test", 13, ("ferry.test",), unknown=0.012, policy=0.004),
    Site("quill.test", 8, ("quill.test", "quill-office.test"), latency_ms=180),
    Site("orchard.test", 7, ("orchard.test",), latency_ms=210),
    Site("post-office.test", 5, ("post-office.test",), deferred=0.06, tls="TLSv1.2"),
    *(Site(f"hoster-{n:02}.test", 11 / 30, (f"company-{n:02}.test", f"shop-{n:02}.test"), unknown=0.02, deferred=0.03)
      for n in range(1, 31)),
)  # fmt: skip
SOURCES = ("out-1", "out-2", "out-3", "out-4")
NEW_SOURCE = "out-5"  # in warm-up


class Cause(NamedTuple):
    """Why an attempt failed: a reason of postroad/bounces, the rule that found it, and what the host said."""

    reason: str
    rule: str
    code: int
    enhanced: str
    reply: str


CAUSES = {
    "unknown": Cause("user-unknown", "user-unknown", 550, "5.1.1", "no such user here"),
    "policy": Cause("policy", "policy", 550, "5.7.1", "message refused by local policy"),
    "spam": Cause("spam-detected", "spam", 550, "5.7.1", "message looks like spam"),
    "full": Cause("mailbox-full", "mailbox-full", 452, "4.2.2", "mailbox full"),
    "greylisted": Cause("greylisted", "greylisted", 451, "4.7.1", "greylisted, please come back later"),
    "busy": Cause("rate-limited", "rate-limited", 421, "4.7.0", "too much mail from your network, try again later"),
    "blocked": Cause("blocked", "blocked", 550, "5.7.1", "your address is on our block list"),
}


@dataclass(frozen=True, slots=True)
class Incident:
    """What goes wrong from `begins` up to `ends`, at one site, source or tenant; `says` is the truth to be found."""

    name: str
    begins: datetime
    ends: datetime
    says: str
    site: str = ""
    source: str = ""
    tenant: str = ""
    deferred: float = 0.0  # share of first attempts that are put off
    cause: str = ""
    unknown: float = 0.0  # share of the tenant's messages
    complained: float = 0.0
    more: float = 1.0  # times as much mail of the tenant
    latency_ms: int = 0

    def is_at(self, hour: datetime) -> bool:
        """Whether it goes on in the hour that begins then."""
        return self.begins <= hour < self.ends


@dataclass(frozen=True, slots=True)
class Month:
    """When what happens: `hours` begin at `first`, each with its weight; the last one ends where the data ends."""

    first: datetime
    hours: int
    incidents: tuple[Incident, ...] = field(default=())

    @property
    def end(self) -> datetime:
        """The first moment after it."""
        return self.first + timedelta(hours=self.hours)

    def weight(self, hour: datetime) -> float:
        """How much is sent in an hour (UTC): by day more than by night, on Saturday and Sunday less."""
        by_day = 1 + 0.75 * sin((hour.hour - 8) / 24 * 2 * pi)
        return by_day * (0.55 if hour.weekday() >= 5 else 1.0)


def incidents(end: datetime, days: int) -> Month:
    """The month that ends with the hour before `end`. Incidents lie at shares of it; those of under a day need two days at least."""
    end = end.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    first = end - timedelta(days=days)

    def at(share: float, hour: int = 0) -> datetime:
        day = (first + timedelta(days=int(days * share))).replace(hour=0)
        return max(first, day) + timedelta(hours=hour)

    block, storm, slow, bought = at(0.5), at(0.64, 13), at(0.8, 9), at(0.7, 7)
    found = (
        Incident("block", block, block + timedelta(days=1), "lark.test refuses out-2 for a day; the others go on",
                 site="lark.test", source="out-2", deferred=0.97, cause="blocked"),
        Incident("storm", storm, storm + timedelta(hours=3), "granite.test puts off most mail of everybody for three hours",
                 site="granite.test", deferred=0.7, cause="busy"),
        Incident("bought list", bought, bought + timedelta(hours=6),
                 "seaglass sends to a bought list: unknown users and complaints", tenant="seaglass", unknown=0.22,
                 complained=0.03, more=8.0),
        Incident("slow", slow, slow + timedelta(hours=5), "ferry.test takes 20 s for each message", site="ferry.test",
                 latency_ms=20_000),
        Incident("warm-up", at(0.33), end, "out-5 is new, and takes more of the mail every day", source=NEW_SOURCE),
    )  # fmt: skip
    return Month(first, days * 24, found)
