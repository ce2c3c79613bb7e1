"""From a declared stage to a Faust app that runs it."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from agents.stage_app import StageApp, Tables
from postroad import logs
from postroad.shaping.layers import ATTEMPT_MAX_S
from tables.store import Store
from topics.batches import BatchRunner
from topics.effects import EffectRunner
from topics.installation import Installation
from topics.metrics import Metrics
from topics.pure import StageRunner
from topics.runner import Wiring
from topics.stage import BatchStage, EffectStage, Stage
from topics.transport import SCHEME, settings

if TYPE_CHECKING:
    from postroad.settings import Settings
    from topics.tracing import Tracing

BESIDE_SMTP_S = 600.0  # of a delivery: place in the site's rate, content, DNS with the queue before it, pool


def wall_clock() -> int:
    """Milliseconds since 1970: the clock of every app that `build` gets none for. Loadtests put another in its place."""
    return time.time_ns() // 1_000_000


def application(stage: Stage | EffectStage | BatchStage) -> Callable[[str], StageApp]:
    """The `__getattr__` of a stage's module: its `app`, by this process's settings, is made when it is first asked for, so
    that importing a stage reads no settings and opens nothing."""

    @cache
    def attribute(name: str) -> StageApp:
        if name != "app":
            raise AttributeError(name)
        from agents.services import services  # settings are read here

        shared = services()
        if isinstance(stage, EffectStage):
            fit(stage, shared.settings)
        logging_config = logs.config("worker", shared.settings)  # where Faust's own command runs it
        return build(
            stage, shared.installation, shared, store_options=shared.store_options(),
            tracing=shared.tracing, app_settings={"logging_config": logging_config},
        )  # fmt: skip

    return attribute


def fit(stage: EffectStage, own: Settings) -> None:
    """Set what depends on the settings: how many deliveries run at once, and how long (s) one may before it counts as hung,
    which is longer than the slowest host can make it."""
    from agents.send import SOURCES_MAX  # of stages that send: the others do without

    stage.limit = own.send_concurrency
    timeouts = own.limits().timeouts  # the shaping file may have others, of each site, at any time
    stage.effect_s = SOURCES_MAX * max(timeouts.longest, ATTEMPT_MAX_S * timeouts.scale) + BESIDE_SMTP_S


def build(
    stage: Stage | EffectStage | BatchStage,
    installation: Installation,
    services: Any = None,
    *,
    store_options: dict[str, int] | None = None,
    clock: Callable[[], int] | None = None,
    app_settings: dict[str, Any] | None = None,
    tracing: Tracing | None = None,
) -> StageApp:
    """The app of `stage`. `services`: what handlers find as `state.services`; `start()` is awaited first. `tracing`: None for off."""
    logging.disable(logging.DEBUG)  # faust.md 12: the root logger stays at DEBUG whatever -l says, 20 % of CPU
    # records in work live for one batch: at Python's 700 they are traversed again and again
    gc.set_threshold(20_000, 20, 50)
    data_dir = installation.data_dir / stage.name
    data_dir.mkdir(parents=True, exist_ok=True)
    app = StageApp(
        installation.group(stage.name),
        broker=f"{SCHEME}://{installation.bootstrap.replace(',', f';{SCHEME}://')}",
        store="rocksdb://?driver=rocksdict",
        datadir=str(data_dir),
        topic_partitions=installation.partitions,
        topic_replication_factor=installation.replication_factor,
        consumer_group_instance_id=f"{installation.instance_id}-{stage.name}" if installation.instance_id else None,
        TableManager=Tables,
        **{**settings(installation.session_s), **(app_settings or {})},
    )
    topics = stage.topics()
    max_bytes = {installation.name(topic): topic.max_bytes for topic in topics}
    wiring = Wiring(
        names={topic: installation.name(topic) for topic in topics},
        codecs=installation.codecs(tuple(topics)),
        partitions={installation.name(topic): installation.partitions_of(topic) for topic in topics},
        max_bytes=max_bytes,
        services=services, clock=clock or wall_clock, metrics=Metrics(), delivery_s=installation.delivery_s,
        tracer=tracing.of(stage.name) if tracing is not None else None,
    )  # fmt: skip
    store = None
    if stage.tables or isinstance(stage, EffectStage):
        store = Store(app, stage.tables, installation.partitions_of(stage.reads[0]), **(store_options or {}))
        max_bytes[store.topic] = store.max_bytes
    app.installation, app.services, app.grace_s = installation, services, installation.grace_s
    if isinstance(stage, BatchStage):
        app.runner = BatchRunner(app, stage, wiring)
    elif isinstance(stage, EffectStage):
        assert store is not None  # made just above
        app.runner = EffectRunner(app, stage, wiring, store)
    else:
        app.runner = StageRunner(app, stage, wiring, store)
    return app
