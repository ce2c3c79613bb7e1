"""Sink, ClickHouse and Kafka killed with -9 while events flow: every table's totals must equal the topic's.

    python -m loadtest.analytics.exactness [--events 1000000] [--kills 10] [--engine server|chdb|both] [--seed 1]

Each kill comes at a moment that dice choose, in an order that they choose; events are let flow so that the last kill still finds
them flowing. On chdb the engine dies with the sink, so the sink is killed twice as often there. Afterwards the whole topic is
read and counted in Python (totals.py), and compared with each cell and message that the tables have; then row by row
(`analytics.verify`). Last line: RESULT; exit status 1 when anything differs or a kill did not take place.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from agents.events_sink import NAME
from analytics.verify import compare
from deploy.local import ROOT
from loadtest.analytics.flow import Flow, lives
from loadtest.analytics.rig import ENGINES, Engine, Rig
from loadtest.analytics.totals import TABLES, Totals, of_table, of_topic
from loadtest.demo.road import stop_on_signals
from topics.offsets import committed

START_MS = 1_790_000_000_000  # a fixed day, so that cells are the same in every run
RESTART_S = 15.0
PAUSE_S = (0.1, 2.5)  # between a recovery and the next kill


def one(engine: Engine, events: int, kills: int, seed: int, folder: Path) -> dict[str, Any]:
    """One run on one engine."""
    dice = random.Random(seed)
    wanted = ["sink"] * kills + ["kafka"] * kills + ["clickhouse" if engine == "server" else "sink"] * kills
    dice.shuffle(wanted)
    done: Counter[str] = Counter()
    began = time.monotonic()
    with Rig(folder, engine) as rig:
        flow = Flow(rig.installation, lives(seed, START_MS))
        flow.start()
        rig.start_sink()
        for number, target in enumerate(wanted):
            flow.allow(events * (number + 1) // (len(wanted) + 1))
            _watch(rig, dice.uniform(*PAUSE_S))
            done[target] += _kill(rig, target)
            if dice.random() < 0.7:  # else the next kill meets one that is just starting
                assert rig.fleet is not None
                rig.fleet.wait_ready()
        flow.allow(events)
        _until_written(rig, flow)
        rig.drain()
        assert rig.fleet is not None
        _kill(rig, "sink")  # what was not rolled yet, the next life rolls
        rig.fleet.wait_ready()
        seconds = time.monotonic() - began
        exits = list(rig.sink.exits)
        rig.stop_sink()
        found = asyncio.run(_account(rig))
    unexpected = [
        status for status in exits if status != -9
    ]  # by itself: one that starts while Kafka is away does, and comes again
    return {
        **found, "engine": engine, "kills": dict(done), "asked": len(wanted), "repeated": flow.repeated, "exits": unexpected,
        "seconds": round(seconds, 1),
    }  # fmt: skip


def _watch(rig: Rig, seconds: float) -> None:
    assert rig.fleet is not None
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        rig.fleet.look()
        time.sleep(0.02)


def _until_written(rig: Rig, flow: Flow) -> None:
    """Look after the sink until all is in Kafka."""
    while flow.busy:
        _watch(rig, 0.1)
    flow.end()


def _kill(rig: Rig, target: str) -> bool:
    """kill -9, and start again; whether there was something to kill."""
    if target == "sink":
        assert rig.fleet is not None
        until = time.monotonic() + RESTART_S
        while not (was := rig.sink.running) and time.monotonic() < until:  # it waits to be started again
            _watch(rig, 0.05)
        rig.fleet.kill(rig.sink)
        while rig.sink.running:
            time.sleep(0.005)
    elif target == "kafka":
        was = rig.kafka.process is not None and rig.kafka.process.poll() is None
        rig.kafka.kill()
        rig.kafka.start()
    else:
        assert rig.server is not None
        was = rig.server.process is not None and rig.server.process.poll() is None
        rig.server.kill()
        rig.server.start()
    return was


async def _account(rig: Rig) -> dict[str, Any]:
    """What topic and tables say."""
    expected = await of_topic(rig.installation)
    warehouse = rig.warehouse()
    try:
        rows, places = warehouse.query("SELECT count(), uniqExact(k_partition, k_offset) FROM events").rows[0]
        wrong = {table: _differences(expected.tables[table], of_table(warehouse, table)) for table in TABLES}
        report = await compare(rig.installation, warehouse, await committed(rig.installation, NAME))
    finally:
        warehouse.close()
    return {
        "records": expected.records, "rows": rows, "duplicates": rows - places, "lost": expected.records - places,
        "cells": {table: len(cells) for table, cells in expected.tables.items()}, "cells_wrong": {t: n for t, n in wrong.items() if n},
        "rows_wrong": dict(report.counts), "compared": report.records,
    }  # fmt: skip


def _differences(expected: Totals, found: Totals) -> int:
    return sum(expected.get(cell) != found.get(cell) for cell in expected.keys() | found.keys())


def run(
    events: int = 1_000_000,
    kills: int = 10,
    engines: tuple[Engine, ...] = ENGINES,
    seed: int = 1,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Figures by engine, and `broken`: what is not as it must be. Main thread only."""
    result: dict[str, Any] = {"events": events, "broken": []}
    for engine in engines:
        with tempfile.TemporaryDirectory(prefix="exactness-", dir=folder) as scratch:
            found = None
            try:
                found = one(engine, events, kills, seed, Path(scratch))
            finally:
                if found is None or found["exits"]:
                    logs = ROOT / ".local" / "exactness-logs"
                    shutil.copytree(Path(scratch) / "fleet" / "logs", logs, dirs_exist_ok=True)
        result[engine] = found
        result["broken"] += [
            f"{engine}: {name} is {found[name]}"
            for name in ("duplicates", "lost", "cells_wrong", "rows_wrong")
            if found[name]
        ]
        if found["records"] < events or sum(found["kills"].values()) < found["asked"]:
            result["broken"].append(
                f"{engine}: {found['records']} records and kills {found['kills']} are fewer than asked for"
            )
    return result


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--kills", type=int, default=10, help="of each kind")
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    engines = ENGINES if options.engine == "both" else (options.engine,)
    result = run(options.events, options.kills, engines, options.seed)
    for line in result["broken"]:
        print("MISSED", line)
    print("RESULT", json.dumps(result))
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
