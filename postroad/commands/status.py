"""postroad status: the road at a glance, live."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from postroad.commands.printing import cut, safe

if TYPE_CHECKING:
    from topics.overview import StageState

OLD_S = (
    300  # a record that waits for longer is an alarm: schedule holds what waits on purpose in tables, not in a topic
)
LOOK_TIMEOUT_S = 30
SITES = 10
QUEUE_DAYS = 14  # longer than mail is tried


def status(
    every: Annotated[float, typer.Option(min=0.5, max=3600, help="Seconds between two looks.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Two looks, for the rates; print the second and end.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, then end.")] = False,
) -> None:
    """Show stages with replicas, lag, rate and oldest record, the sites that mail waits for, and alarms; until Ctrl-C."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it says what we say, many times
    with suppress(KeyboardInterrupt):
        asyncio.run(_watch(every, once or as_json, as_json))


async def _watch(every: float, once: bool, as_json: bool) -> None:
    from aiokafka.errors import KafkaError

    from agents.worker import STAGES
    from postroad import settings
    from postroad.cli import CommandError, console
    from topics.installation import Installation
    from topics.overview import Overview

    ours = settings.load()
    group = Installation(**ours.installation()).group("")
    async with Overview(ours.kafka, group, STAGES) as overview:
        try:
            stages = await asyncio.wait_for(overview.look(), LOOK_TIMEOUT_S)
            await asyncio.sleep(every)
            if once:
                stages = await asyncio.wait_for(overview.look(), LOOK_TIMEOUT_S)
        except TimeoutError:
            raise CommandError(f"Kafka at {ours.kafka} did not answer within {LOOK_TIMEOUT_S} s") from None
        sites, trouble = await asyncio.to_thread(_sites, ours.warehouse)
        if as_json:
            told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "kafka": ours.kafka,
                    "stages": [dataclasses.asdict(stage) for stage in stages], "sites": sites, "clickhouse": trouble or "ok",
                    "alarms": alarms(stages)}  # fmt: skip
            print(json.dumps(told))
            return
        if once:
            console.print(picture(stages, sites, trouble))
            return
        with Live(picture(stages, sites, trouble), console=console, auto_refresh=False) as live:
            while True:
                try:
                    stages = await asyncio.wait_for(overview.look(), LOOK_TIMEOUT_S)
                    sites, trouble = await asyncio.to_thread(_sites, ours.warehouse)
                    live.update(picture(stages, sites, trouble), refresh=True)
                except (KafkaError, OSError, TimeoutError) as error:
                    live.update(Text(f"Kafka at {ours.kafka} does not answer ({type(error).__name__})"), refresh=True)
                await asyncio.sleep(every)


def alarms(stages: list[StageState]) -> list[str]:
    """What an operator should look at, in words; empty where all is well."""
    found = []
    for stage in stages:
        if not stage.replicas:
            found.append(f"{stage.stage}: no worker in its group" + (f", {stage.lag:,} wait" if stage.lag else ""))
        elif stage.state != "Stable":
            found.append(f"{stage.stage}: its group is {stage.state}")
        elif stage.lag and not stage.rate:
            found.append(f"{stage.stage}: {stage.lag:,} wait and nothing moved between two looks")
        if stage.oldest_s is not None and stage.oldest_s > OLD_S:
            found.append(f"{stage.stage}: the oldest record waits for {stage.oldest_s:,.0f} s")
    return found


def picture(stages: list[StageState], sites: list[dict[str, Any]], trouble: str) -> Group:
    """The tables for people. `trouble`: why there are no sites."""
    road = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "group"):
        road.add_column(column)
    for column in ("replicas", "lag", "records/s", "oldest"):
        road.add_column(column, justify="right")
    for stage in stages:
        oldest = "-" if stage.oldest_s is None else f"{stage.oldest_s:,.1f} s"
        road.add_row(stage.stage, stage.state, str(stage.replicas), f"{stage.lag:,}", f"{stage.rate:,.1f}", oldest)
    waits = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("site", "waiting", "oldest", "last reply"):
        waits.add_column(column, overflow="fold")
    for row in sites:
        waits.add_row(*(escape(safe(str(cut(row[name])))) for name in ("site", "waiting", "oldest", "reply")))
    below: Any = waits if sites else Text(trouble or "no mail waits for any site")
    found = alarms(stages)
    said = Text(
        "\n".join(f"ALARM {line}" for line in found) if found else "no alarms", style="bold red" if found else ""
    )
    return Group(road, Text(""), below, Text(""), said)


def _sites(url: str) -> tuple[list[dict[str, Any]], str]:
    """The sites that most mail waits for, as ClickHouse has them; or why they are not known."""
    from analytics import queries
    from analytics.clickhouse import WarehouseError, connect

    if not url:
        return [], "sites are not known: no ClickHouse is set (POSTROAD_CLICKHOUSE, or POSTROAD_CLICKHOUSE_HTTP)"
    try:
        since = datetime.now(UTC) - timedelta(days=QUEUE_DAYS)
        rows = queries.run(connect(url), "queue", site="", tenant="", since=since).dicts()[:SITES]
    except (WarehouseError, OSError) as error:
        return [], f"sites are not known: ClickHouse does not answer ({type(error).__name__})"
    return [
        {"site": row["site"] or "(not known yet)", "waiting": int(row["waiting"]),
         "oldest": row["oldest"].isoformat(timespec="seconds"),
         "reply": f"{row['reply_code'] or ''} {row['reply']}".strip()}
        for row in rows
    ], ""  # fmt: skip
