"""From an event to the answer that has it in: at 1,000 events a second, through Kafka, the sink and a query.

    python -m loadtest.analytics.freshness [--per-s 1000] [--seconds 60] [--engine server|chdb|both] [--report-only]

An event's age is the time from just before it was handed to Kafka until a query that began later has returned it; the query is asked every
`LOOK_S`, whose wait is part of the figure. Last line: RESULT; exit status 1 when a limit of `MUSTS` is broken, unless --report-only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from analytics.clickhouse import Warehouse
from deploy.local import ROOT
from loadtest.analytics.flow import Flow, lives
from loadtest.analytics.ingest import finish
from loadtest.analytics.rig import ENGINES, Engine, Rig
from loadtest.demo.checks import percentile
from loadtest.demo.road import stop_on_signals

MUST_P95_S = 3.0
LOOK_S = 0.1
WARM_S = 3.0  # of events that are not counted: first imports, first parts
REACHED = "SELECT k_partition, max(k_offset) FROM events WHERE ts >= toDateTime({since:UInt32}) GROUP BY k_partition"


def one(engine: Engine, per_s: int, seconds: float, folder: Path) -> dict[str, Any]:
    """One engine."""
    with Rig(folder, engine) as rig:
        rig.start_sink()
        warehouse = rig.warehouse()
        began = time.time_ns() // 1_000_000
        flow = Flow(rig.installation, lives(1, began), per_s, on_time=True)
        flow.start()
        flow.allow(int(per_s * (WARM_S + seconds)))
        reached: list[
            tuple[int, dict[int, int]]
        ] = []  # when a query had returned, and how far each partition was in it
        while flow.busy:
            _look(warehouse, began, reached)
        flow.end()
        deadline = time.monotonic() + 60
        last = {partition: first + count - 1 for partition, first, count, _ in flow.written}
        while any(reached[-1][1].get(partition, -1) < offset for partition, offset in last.items()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{engine}: the last events are not there after 60 s: {rig.sink.log}")
            _look(warehouse, began, reached)
        warehouse.close()
    ages = [age for at, age in _ages(flow, reached) if at >= began + WARM_S * 1000]
    return {
        "events": len(ages), "p50_s": round(percentile(ages, 0.5), 2), "p95_s": round(percentile(ages, 0.95), 2),
        "max_s": round(max(ages), 2), "per_s": round(len(ages) / seconds),
    }  # fmt: skip


def _look(warehouse: Warehouse, since_ms: int, reached: list[tuple[int, dict[int, int]]]) -> None:
    found = dict(warehouse.query(REACHED, {"since": since_ms // 1000}).rows)
    reached.append((time.time_ns() // 1_000_000, found))
    time.sleep(LOOK_S)


def _ages(flow: Flow, reached: list[tuple[int, dict[int, int]]]) -> list[tuple[int, float]]:
    """(When it was sent, seconds until it was seen) of each event. The sink stores each partition in its order, and `written` is in the order of
    time, so one walk through the answers does for each partition."""
    ages = []
    at: dict[int, int] = {}
    for partition, first, count, sent in flow.written:
        number = at.get(partition, 0)
        while reached[number][1].get(partition, -1) < first + count - 1:
            number += 1
        at[partition] = number
        ages += [(sent, (reached[number][0] - sent) / 1000)] * count
    return ages


def run(
    per_s: int = 1000, seconds: float = 60.0, engines: tuple[Engine, ...] = ENGINES, folder: Path | None = None
) -> dict[str, Any]:
    """Figures by engine, and `broken`. Main thread only."""
    result: dict[str, Any] = {"asked_per_s": per_s, "seconds": seconds, "broken": []}
    for engine in engines:
        with tempfile.TemporaryDirectory(prefix="freshness-", dir=folder) as scratch:
            found = result[engine] = one(engine, per_s, seconds, Path(scratch))
        if found["p95_s"] > MUST_P95_S:
            result["broken"].append(f"{engine}: p95 {found['p95_s']:g} s, must be at most {MUST_P95_S:g}")
        if found["per_s"] < per_s * 0.95:
            result["broken"].append(f"{engine}: only {found['per_s']} events a second were written")
    return result


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--per-s", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    engines = ENGINES if options.engine == "both" else (options.engine,)
    return finish(run(options.per_s, options.seconds, engines), options.report_only)


if __name__ == "__main__":
    sys.exit(main())
