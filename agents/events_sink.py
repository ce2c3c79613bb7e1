"""Events sink: every event of the road becomes a row that analysts query, once.

mail.events (key: message id) -> ClickHouse, by the protocol of analytics/sink.py: tables events and messages at once, hours within
a minute
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from functools import cache

from agents.application import application
from agents.services import Services
from analytics.access import readers
from analytics.clickhouse import ChdbWarehouse, Warehouse, WarehouseError, connect
from analytics.http import serve
from analytics.migrate import migrate
from analytics.rolling import pause
from analytics.sink import Sink
from avro.records import Event
from topics.catalogue import EVENTS
from topics.stage import BatchStage, Unstorable

log = logging.getLogger(__name__)

NAME = "events_sink"

stage = BatchStage(NAME, reads=[EVENTS], writes=[], packed=True)
__getattr__ = application(stage)


@cache
def warehouse(services: Services) -> Warehouse:
    """The ClickHouse of this process: the server that is configured, or chdb in its data folder."""
    return connect(services.settings.clickhouse or str(services.settings.data_dir.absolute() / "chdb"))


@cache
def _sink(services: Services) -> Sink:
    migrate(warehouse(services), note=log.info, cluster=services.settings.clickhouse_cluster)
    return Sink(warehouse(services), services.installation.group(NAME), masking=services.settings.masking())


_answering: list[object] = []
_rolling: list[asyncio.Task[None]] = []


async def _answer(services: Services) -> None:
    """Let other processes query chdb, which one process alone can open, over ClickHouse's HTTP interface."""
    if _answering or services.settings.clickhouse or not services.settings.clickhouse_http:
        return
    engine = await asyncio.to_thread(warehouse, services)
    assert isinstance(engine, ChdbWarehouse)  # no server is configured
    try:
        port = int(services.settings.clickhouse_http.rpartition(":")[2])
        _answering.append(await serve(engine, port, readers(services.settings)))
    except OSError as exc:
        log.error("no queries over HTTP: %s is not free: %s", services.settings.clickhouse_http, exc)


async def _roll(services: Services) -> None:
    """Keep `hours` up to date, also while nothing comes."""
    took = 0.0
    while True:
        await asyncio.sleep(pause(took))
        began = time.monotonic()
        try:
            await asyncio.to_thread(_sink(services).roll)
        except WarehouseError as exc:
            log.warning("the hours written to are not rolled up yet, trying again: %s", exc)
        took = time.monotonic() - began


@stage.recover
async def recover(committed: dict[int, int], services: Services) -> None:
    """What the table has at or above the committed offsets; makes the table where there is none."""
    await _answer(services)

    def ask() -> None:
        _sink(services).recover(committed)

    await asyncio.to_thread(ask)
    if not _rolling:
        _rolling.append(asyncio.create_task(_roll(services)))


@stage.write
async def write(rows: list[tuple[int, int, Event | bytes]], services: Services) -> Sequence[Unstorable]:
    """Insert what is not there yet."""
    rejected = await asyncio.to_thread(_sink(services).write, rows)
    return [Unstorable(row.partition, row.offset, row.error) for row in rejected]
