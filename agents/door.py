"""What a door (`postroad gateway ...`) tells at the setting `metrics`, from its first moment: not ready until it listens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agents.exporter import serve
from agents.health import Health
from agents.machine import Machine
from postroad.settings import Settings
from topics.metrics import Metrics


class Door:
    """Of one process. `name`: api, smtp or inbound; `certificate`: that it shows."""

    def __init__(self, settings: Settings, name: str, certificate: Path | None = None):
        self._name, self._metrics = name, Metrics()
        self._listens: Callable[[], bool] = lambda: False
        self._health = Health(settings.stall_timeout_s, self.waits)
        self._turning: asyncio.Task[None] | None = None
        self._end: Callable[[], Any] = lambda: None
        if settings.metrics:
            told = Machine(settings.data_dir, name, certificate)
            self._end = serve(settings.metrics, [(name, self._metrics)], also=[told], health=self._health)

    def waits(self) -> dict[str, str]:
        """Empty while it listens."""
        return {} if self._listens() else {self._name: "does not listen"}

    def opened(self, counts: Counter[str], listens: Callable[[], bool]) -> None:
        """It takes connections now, in the loop that runs, while `listens` says so."""
        self._metrics.counts, self._listens = counts, listens
        self._turning = asyncio.get_running_loop().create_task(self._health.turn())

    def end(self) -> None:
        """Answer no more."""
        self._end()
