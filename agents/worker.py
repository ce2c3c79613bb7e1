"""Run chosen stages in this process: several Faust apps in one loop."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from mode import Service, Worker
from prometheus_client.registry import Collector

from agents.exporter import Warming, none_warms, serve
from agents.health import Health
from agents.machine import Machine
from agents.mail import Resting, mail
from agents.stage_app import StageApp
from agents.stores import Stores
from postroad import logs
from postroad.settings import READY_FILE, load
from topics.metrics import Metrics

STAGES = ("ingest", "validate", "score", "suppress", "route", "send", "classify", "schedule", "events_sink", "audit",
          "reputation", "notify")  # fmt: skip
READY_POLL_S = 0.1
log = logging.getLogger(__name__)


class UnknownStage(ValueError):
    """No stage has this name; the text names those that there are."""


class Fleet(Service):
    """The apps of this process, started and stopped together: one after another each would wait a second (faust.md 19).
    `metrics`: host:port where their counters are told, and what `warming` and `also` tell; empty for nowhere. `close`: awaited when all have
    stopped."""

    def __init__(
        self, apps: Sequence[StageApp], metrics: str = "", warming: Warming = none_warms, close: Callable[[], Awaitable[None]] | None = None,
        also: Sequence[Collector] = (),
    ):  # fmt: skip
        super().__init__()
        self._close = close
        self.apps, self.metrics, self.warming, self.also = apps, metrics, warming, also
        self._end_metrics: Callable[[], None] = lambda: None
        for app in apps:
            app.beacon.reattach(self.beacon)  # a crash of one ends the process

    async def on_start(self) -> None:
        if self.metrics:
            sources = [source for app in self.apps for source in counters(app)]
            health = Health(min((app.installation.stall_s for app in self.apps), default=60.0), self.waits)
            self._end_metrics = serve(self.metrics, sources, self.warming, self.also, health)
            self.add_future(health.turn())
        await asyncio.gather(*(app.maybe_start() for app in self.apps))

    def waits(self) -> dict[str, str]:
        """What is not ready, and what for; empty when all stages work."""
        found = {app.runner.stage.name: "stops" if self.should_stop else app.waits() for app in self.apps}
        return {stage: why for stage, why in found.items() if why}

    async def on_started(self) -> None:
        self.add_future(self._tell_ready())

    async def on_stop(self) -> None:
        log.info("stops")
        await asyncio.gather(*(app.stop() for app in self.apps))
        if self._close is not None:
            await self._close()
        self._end_metrics()

    async def _tell_ready(self) -> None:
        while not all(app.is_ready() for app in self.apps):
            await asyncio.sleep(READY_POLL_S)
        log.info("READY: %s", ", ".join(app.runner.stage.name for app in self.apps))
        if path := os.environ.get(READY_FILE):
            Path(path).write_text(str(os.getpid()), "ascii")  # noqa: ASYNC240  # once, some bytes


def chosen(names: Sequence[str]) -> list[str]:
    """Names of stages in the order of the road; "all" is all of them. Raises UnknownStage."""
    unknown = [name for name in names if name not in STAGES and name != "all"]
    if unknown or not names:
        raise UnknownStage(f"no stage {', '.join(unknown) or 'was named'}: there are {', '.join(STAGES)}, and all")
    return [name for name in STAGES if name in names or "all" in names]


def app_of(name: str) -> StageApp:
    """The app of one stage."""
    app: StageApp = importlib.import_module(f"agents.{name}").app
    return app


def counters(app: StageApp) -> list[tuple[str, Metrics]]:
    """What the runner of a stage counts, and what its module does where it has `metrics` of its own."""
    name = app.runner.stage.name
    own = getattr(importlib.import_module(f"agents.{name}"), "metrics", None)
    return [(name, app.runner.metrics), *([(name, own)] if own else [])]


def run(names: Sequence[str]) -> None:
    """Until SIGTERM or SIGINT; leaves the process. Once every stage has its partitions, "READY" is logged, and its process id written to the
    file that the environment names as POSTROAD_READY_FILE."""
    import uvloop

    uvloop.install()
    names = chosen(names)
    logs.set_up("worker", load())
    from agents.services import services

    apps = [app_of(name) for name in names]
    if not load().return_path_secret:
        log.warning("return_path_secret is not set: return paths are signed with a key that anybody can work out, and bounces can be "
                    "forged; set one secret for all workers")  # fmt: skip
    # What is there now lives as long as the process: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    Worker(
        Fleet(apps, load().metrics, services().departures.warming, services().close,
              [Machine(load().data_dir), mail, Resting(services().departures), Stores(apps)]),
        override_logging=False, quiet=True, daemon=True,
    ).execute_from_commandline()  # fmt: skip
