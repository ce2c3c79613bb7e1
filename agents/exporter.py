"""What the stages of a process count, for Prometheus, at the setting `metrics`: `postroad_<name>_total{stage="..."}`, and
as of the last look (topics/stall.py) `postroad_lag{stage,topic,partition}`, records not yet committed, and
`postroad_waiting{stage,why}`, partitions that wait on purpose. Of sources that warm up, those that have used most of their day:
`postroad_warmup_used{source,site}` and `postroad_warmup_allowance{source,site}`."""

from __future__ import annotations

import logging
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from agents.endpoint import Endpoint
from agents.health import Health
from topics.metrics import Metrics

log = logging.getLogger(__name__)
Warming = Callable[[int], Iterable[tuple[str, str, int, int]]]  # of a UTC day: source, site, used, allowance
_DAY_S = 86_400
SITES_SHOWN = 20


def none_warms(day: int) -> Iterable[tuple[str, str, int, int]]:
    """Of a worker that does not send."""
    return ()


class Counters(Collector):
    """Counters and gauges as they are when somebody asks, which is in another thread. `sources`: (name of a stage, what it counts)."""

    def __init__(self, sources: Sequence[tuple[str, Metrics]], warming: Warming = none_warms):
        self.sources, self.warming = sources, warming

    def collect(self) -> Iterable[Metric]:
        """One family a name, one sample a stage; then the gauges."""
        found: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for stage, metrics in self.sources:
            for name, count in list(metrics.counts.items()):
                found[name][stage] = found[name].get(stage, 0) + count
        for name, counts in sorted(found.items()):
            family = CounterMetricFamily(
                f"postroad_{re.sub(r'[^a-zA-Z0-9_]', '_', name)}", f"{name}, by stage", labels=["stage"]
            )
            for stage, count in sorted(counts.items()):
                family.add_metric([stage], count)
            yield family
        lag = GaugeMetricFamily("postroad_lag", "records not yet committed", labels=["stage", "topic", "partition"])
        waiting = GaugeMetricFamily("postroad_waiting", "partitions that wait on purpose", labels=["stage", "why"])
        for stage, metrics in self.sources:
            for tp, records in sorted(metrics.lag.copy().items()):
                lag.add_metric([stage, tp.topic, str(tp.partition)], records)
            for why, partitions in sorted(metrics.waiting.copy().items()):
                waiting.add_metric([stage, why], partitions)
        yield from _ages(self.sources)
        yield from _batches(self.sources)
        used = GaugeMetricFamily("postroad_warmup_used", "messages sent today (UTC)", labels=["source", "site"])
        allowance = GaugeMetricFamily("postroad_warmup_allowance", "of today's plan", labels=["source", "site"])
        for source, site, sent, allowed in self.warming(int(time.time()) // _DAY_S):
            used.add_metric([source, site], sent)
            allowance.add_metric([source, site], allowed)
        yield from (family for family in (lag, waiting, used, allowance) if family.samples)


def _batches(sources: Sequence[tuple[str, Metrics]]) -> Iterable[Metric]:
    """How large batches are, and how long they take."""
    sizes = HistogramMetricFamily("postroad_batch_records", "records of a batch", labels=["stage"])
    seconds = HistogramMetricFamily(
        "postroad_batch_duration_seconds",
        "from the first step of a batch, or of a cycle of effects, to the last",
        labels=["stage"],
    )
    for stage, metrics in sources:
        for family, histogram in ((sizes, metrics.sizes), (seconds, metrics.seconds)):
            if any(histogram.counts):
                sums = list(accumulate(histogram.counts))
                bounds = [*map(floatToGoString, histogram.bounds), "+Inf"]
                family.add_metric([stage], list(zip(bounds, sums, strict=True)), histogram.total)
    return (family for family in (sizes, seconds) if family.samples)


def _ages(sources: Sequence[tuple[str, Metrics]]) -> Iterable[Metric]:
    """Of partitions that have something to commit, and of the sites that most messages wait for."""
    places, now = ["stage", "topic", "partition"], time.time()
    oldest = GaugeMetricFamily(
        "postroad_oldest_record_age_seconds", "of the oldest record not yet committed, by its batch", labels=places
    )
    commit = GaugeMetricFamily(
        "postroad_commit_age_seconds",
        "since the committed offset moved, where there is something to commit",
        labels=places,
    )
    sites: Counter[str] = Counter()
    for stage, metrics in sources:
        for family, since in ((oldest, metrics.oldest), (commit, metrics.committed)):
            for tp, at in sorted(since.items()):  # replaced whole by each look, never changed
                family.add_metric([stage, tp.topic, str(tp.partition)], max(0.0, now - at))
        for key, records in metrics.queued().items():
            sites[key.decode(errors="replace").rpartition("#")[0]] += records
    waiting = GaugeMetricFamily(
        "postroad_site_waiting", "messages that wait for a site in memory, of most", labels=["site"]
    )
    for site, records in sites.most_common(SITES_SHOWN):
        if records:
            waiting.add_metric([site], records)
    return (family for family in (oldest, commit, waiting) if family.samples)


def serve(
    address: str, sources: Sequence[tuple[str, Metrics]], warming: Warming = none_warms, also: Sequence[Collector] = (),
    health: Health | None = None,
) -> Callable[[], Any]:  # fmt: skip
    """Answer at `address` (host:port) from threads of its own, also how the process is (agents/endpoint.py); returns what ends it.
    `also`: who tells more. A port that is taken is logged: mail goes on without figures."""
    registry = CollectorRegistry()
    for collector in (Counters(sources, warming), *also):
        registry.register(collector)
    try:
        return Endpoint(address, registry, health or Health(math.inf, dict)).end
    except OSError as exc:
        log.error(
            "no metrics: %s is not free: %s; give each worker of a machine its own (setting metrics)", address, exc
        )
        return lambda: None
