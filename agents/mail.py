"""Mail as this process has seen it go, for Prometheus: `postroad_mail_<step>_total{class,site,source}`, and of what was accepted
`{class}`. Counted where a stage decides, so that a batch that is computed twice counts twice: for graphs, not for sums.

Labels are bounded: a site has its own name from its tenth message on, while there are fewer than `SITES_MAX` of them; the rest are "other".
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from avro.records import Message
from postroad.departure import Departures

SITES_MAX, SOURCES_MAX, NAMED_AFTER, HEARD_MAX = 50, 50, 10, 10_000
OTHER = "other"
NAMES = {
    "accepted": "postroad_mail_accepted_total", "delivered": "postroad_mail_delivered_total", "deferred": "postroad_mail_deferred_total",
    "bounced": "postroad_mail_bounced_total", "complained": "postroad_mail_complained_total",
}  # fmt: skip


class Mail(Collector):
    """Steps of messages, counted in the loop and told to another thread. `steps`: by step, class, site, source."""

    def __init__(self) -> None:
        self.steps: Counter[tuple[str, str, str, str]] = Counter()
        self._sites: set[str] = set()
        self._sources: set[str] = set()
        self._heard: Counter[str] = Counter()

    def accepted(self, message: Message) -> None:
        """One more was taken."""
        self.steps["accepted", message["stream"], "", ""] += 1

    def step(self, kind: str, message: Message, source: str = "") -> None:
        """One more has taken the step `kind`; other steps than those of `NAMES` are not counted. `source`: it left from, else its route's."""
        if kind not in NAMES:
            return
        route = message.get("route")
        site = self._named(route["site"]) if route else ""
        source = source or (route["source"] if route else "")
        if source not in self._sources:
            if len(self._sources) < SOURCES_MAX:
                self._sources.add(source)
            else:
                source = OTHER
        self.steps[kind, message["stream"], site, source] += 1

    def _named(self, site: str) -> str:
        if site in self._sites:
            return site
        if len(self._sites) < SITES_MAX:
            self._heard[site] += 1
            if self._heard[site] >= NAMED_AFTER:
                self._sites.add(site)
                return site
            if len(self._heard) > HEARD_MAX:
                self._heard.clear()
        return OTHER

    def collect(self) -> Iterable[Metric]:
        """As counted until now."""
        families = {
            kind: CounterMetricFamily(
                name, f"messages {kind}", labels=["class"] if kind == "accepted" else ["class", "site", "source"]
            )
            for kind, name in NAMES.items()
        }
        for (kind, *labels), count in sorted(self.steps.copy().items()):
            families[kind].add_metric(labels[:1] if kind == "accepted" else labels, count)
        return [family for family in families.values() if family.samples]


class Resting(Collector):
    """Sources that send nothing to a site for now: `postroad_source_suspended{site,source}`, `postroad_warmup_paused{site,source}`."""

    def __init__(self, departures: Departures):
        self._departures = departures

    def collect(self) -> Iterable[Metric]:
        """1 for each that rests."""
        for name, why, text in (
            (
                "postroad_source_suspended",
                "source-suspended",
                "1: the rules of shaping have suspended the source at the site",
            ),
            (
                "postroad_warmup_paused",
                "warm-up-paused",
                "1: the warm-up of the source at the site rests until tomorrow (UTC)",
            ),
        ):
            family = GaugeMetricFamily(name, text, labels=["site", "source"])
            for site, source in self._departures.resting(why, time.time_ns() // 1_000_000):
                family.add_metric([site, source], 1)
            if family.samples:
                yield family


mail = Mail()
"""Of this process."""
