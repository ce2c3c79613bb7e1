"""The Faust app of one stage: how it starts, when it is ready, how it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import faust
from faust.tables.manager import TableManager
from faust.types import TP

from postroad.logs import in_stage
from topics.admin import check, ensure, ensure_changelog
from topics.batches import BatchRunner
from topics.catalogue import SCHEMAS
from topics.effects import EffectRunner
from topics.installation import Installation
from topics.pure import StageRunner
from topics.road import Brake, Lag
from topics.runner import give_up
from topics.stall import Beat, Watch
from topics.writers import Writers


class _WithoutWeb(faust.App.BootStrategy):
    """`faust worker` turns the web server on whatever the settings say, and its /table views would serve table data."""

    enable_web = False


class Tables(TableManager):
    """Faust waits a second for tables to be declared (faust.md 19); ours are when the app is built."""

    async def on_start(self) -> None:
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


class StageApp(faust.App):
    """A Faust app that runs one stage; it starts only where the topics are what the catalogue says."""

    BootStrategy = _WithoutWeb
    runner: StageRunner | EffectRunner | BatchRunner
    installation: Installation
    services: Any
    grace_s: float
    _beat: Beat | None = None

    async def on_start(self) -> None:
        try:
            async with asyncio.timeout(self.installation.stall_s):
                await self._prepare()
        except TimeoutError:  # a broker that went meanwhile: before it is in its group nobody else would notice
            give_up(TimeoutError(f"not ready to join its group after {self.installation.stall_s:g} s"))
        in_stage(self.runner.stage.name)  # behind the services, which are those of all stages here
        await super().on_start()
        here, rebalance_s = self.installation, self.conf.broker_rebalance_timeout
        self.add_future(Watch(self, self.runner, here.stall_s, 2 * rebalance_s + here.stall_s).run())
        self._beat = Beat(here.stall_s)
        self._beat.start()
        self.add_future(self._beat.turn())

    async def _prepare(self) -> None:
        """Topics, schemas and services, before the group gives us partitions."""
        await check(self.installation, self.runner.stage.topics())
        await ensure(self.installation, [SCHEMAS])
        if (changelog := self.runner.changelog) is not None:
            await ensure_changelog(self.installation, *changelog)
        await Writers(self.installation.bootstrap, self.installation.name(SCHEMAS)).publish()  # before the first record
        if self.installation.registry_url:
            for topic in self.runner.stage.writes:
                await self.runner.wiring.codecs[topic].register(self.installation.name(topic))
        if self.services is not None:
            await self.services.start()
        if (road := getattr(self.runner.stage, "road", None)) is not None:
            lag = Lag(self.installation, road.legs)
            self.add_future(Brake(self, self.runner, road, self.installation.road_max, lag).run())

    async def stop(self) -> None:
        """What has begun has the grace to end; a stop that hangs ends the process."""
        if self._beat is not None:
            self._beat.end_within(self.installation.grace_s + self.installation.stall_s)
        await super().stop()
        if self._beat is not None:
            self._beat.close()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        if self.should_stop:  # Faust would close the consumer while we still finish what has begun
            await self.consumer.wait_empty()
        else:
            await super()._on_partitions_revoked(revoked)

    def _on_rebalance_when_stopped(self) -> None:
        """The stop closes the consumer in its turn."""

    @property
    def stage_name(self) -> str:
        """Of its stage."""
        return self.runner.stage.name

    def databases(self) -> Mapping[int, Any]:
        """Its RocksDB by partition, of those that are open."""
        return {} if self.runner.store is None else self.runner.store.databases()

    def recovering(self) -> int:
        """Records of changelogs that it has still to read."""
        return max(0, int(self.tables.recovery.active_remaining_total())) if self.runner.store is not None else 0

    def is_ready(self) -> bool:
        """Every source partition that the group gave us is recovered and read from. One of more workers than there are partitions
        has none: it stands by, and is ready too."""
        return not StageApp.waits(self)

    def waits(self) -> str:
        """What it waits for before it is ready; empty when it is."""
        if self._consumer is None:
            return "its topics and services"
        mine = {tp for tp in self.consumer.assignment() if tp.topic in self.runner.sources}
        if not mine:
            return "" if self.consumer_generation_id > 0 and not self.rebalancing else "its place in the group"
        if missing := len(mine - self.consumer.sought()):
            return f"recovery: {missing} of {len(mine)} partitions are not read yet"
        return "" if self.runner.ready else "its store"
