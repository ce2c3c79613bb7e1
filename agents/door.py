"""What a door (`postroad gateway ...`) tells at the setting `metrics`, from its first moment: not ready until it listens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agents.exporter import serve
from agents.health import Health
from agents.machine import Machine
from postroad.settings import Settings
from topics.metrics import Metrics

KEYS_SHOWN = 100
Ends = Callable[[], list[tuple[str, str, int]]]


class Keys(Collector):
    """When keys that end do, the soonest first. `ends`: tenant, key, time in ms."""

    def __init__(self) -> None:
        self.ends: Ends = list

    def collect(self) -> Iterable[Metric]:
        """Nothing where none ends."""
        name = "postroad_api_key_end_timestamp_seconds"
        family = GaugeMetricFamily(name, "when a key ends, in Unix time; the soonest", labels=["tenant", "key"])
        for tenant, key, end in self.ends()[:KEYS_SHOWN]:
            family.add_metric([tenant, key], end / 1000)
        return [family] if family.samples else []


class Door:
    """Of one process. `name`: api, smtp or inbound; `certificate`: that it shows."""

    def __init__(self, settings: Settings, name: str, certificate: Path | None = None):
        self._name, self._metrics, self._keys = name, Metrics(), Keys()
        self._listens: Callable[[], bool] = lambda: False
        self._health = Health(settings.stall_timeout_s, self.waits)
        self._turning: asyncio.Task[None] | None = None
        self._end: Callable[[], Any] = lambda: None
        if settings.metrics:
            told = Machine(settings.data_dir, name, certificate)
            self._end = serve(settings.metrics, [(name, self._metrics)], also=[told, self._keys], health=self._health)

    def waits(self) -> dict[str, str]:
        """Empty while it listens."""
        return {} if self._listens() else {self._name: "does not listen"}

    def opened(self, counts: Counter[str], listens: Callable[[], bool], ends: Ends = list) -> None:
        """It takes connections now, in the loop that runs, while `listens` says so. `ends`: of the keys that it knows."""
        self._keys.ends = ends
        self._metrics.counts, self._listens = counts, listens
        self._turning = asyncio.get_running_loop().create_task(self._health.turn())

    def end(self) -> None:
        """Answer no more."""
        self._end()
