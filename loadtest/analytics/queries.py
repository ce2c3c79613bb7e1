"""Each named query timed on a month of demo data: rollup queries, the timeline of a message, raw scans.

    python -m loadtest.analytics.queries [--events 20000000] [--engine server|chdb|both] [--folder FOLDER] [--again] [--report-only]

The data are made once (minutes) and kept in the folder, 2 GB an engine. A query is asked for the largest tenant and for all, over the seven days
that it takes by default, three times, each time another window, so that no answer is a cached one; its figure is the slower of the two medians.
The timeline is asked for messages of all ages. What reads `events` is a raw scan, what reads rollups alone is a rollup query.
Last line: RESULT; exit status 1 when a limit of `MUSTS` is broken, unless --report-only.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from analytics import queries
from analytics.clickhouse import Warehouse, connect
from analytics.demo import load
from analytics.demo.world import TENANTS
from analytics.migrate import migrate
from analytics.server import Server
from analytics.sql import parameters, without_literals
from deploy.local import ROOT
from loadtest.analytics.ingest import finish
from loadtest.analytics.rig import ENGINES, Engine

MUSTS = {"rollup": 200.0, "timeline": 50.0, "raw": 3000.0}  # ms
END = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 30
EVENTS_A_MESSAGE = 6.0  # of demo data, about
LARGEST = max(TENANTS, key=lambda tenant: tenant.weight).name
TIMES = 3
START_S = 180.0  # a server reads what it has of every part first, from a cold disk
MESSAGES = 15  # whose timelines are asked for


def kind_of(name: str) -> str:
    """rollup, timeline or raw."""
    if name == "timeline":
        return name
    return "raw" if "FROM events" in without_literals(queries.sql(name)) else "rollup"


@contextmanager
def filled(engine: Engine, events: int, folder: Path, again: bool = False) -> Iterator[Warehouse]:
    """A warehouse with about so many events, made now or taken from the folder."""
    home = folder / f"{engine}-{events}"
    done = home / "filled"
    if again or not done.exists():
        shutil.rmtree(home, ignore_errors=True)
    with ExitStack() as running:
        server = Server(home / "clickhouse") if engine == "server" else None
        if server is not None:
            running.callback(server.stop)
            server.start(START_S)
        warehouse = connect(server.url if server else str(home / "chdb"))
        running.callback(warehouse.close)
        migrate(warehouse)
        if not done.exists():
            load(warehouse, days=DAYS, messages=round(events / EVENTS_A_MESSAGE), end=END, note=_progress(engine))
            done.touch()
        yield warehouse


def _progress(engine: Engine) -> Any:
    told = [0]

    def note(share: float) -> None:
        if share * 10 >= told[0] + 1:
            told[0] = int(share * 10)
            print(f"{engine}: {share:.0%} of the data made", file=sys.stderr)

    return note


def timed(warehouse: Warehouse, name: str, **params: Any) -> float:
    """ms."""
    begun = time.perf_counter()
    queries.run(warehouse, name, **params)
    return (time.perf_counter() - begun) * 1000


def measure(warehouse: Warehouse) -> dict[str, float]:
    """ms by query."""
    found = {}
    for name in queries.names():
        wanted = parameters(queries.sql(name))
        if "message" in wanted:
            ids = warehouse.query(
                "SELECT any(message_id) FROM events WHERE kind = 'accepted' AND accepted_ms < 100"
                f" GROUP BY intDiv(toUInt32(ts), {DAYS * 86400 // MESSAGES})"
            ).rows
            found[name] = median(timed(warehouse, name, message=message) for (message,) in ids)
            continue
        slowest = 0.0
        for tenant in (LARGEST, ""):
            times = []
            for number in range(TIMES):
                until = END - timedelta(hours=number)
                times.append(timed(warehouse, name, tenant=tenant, since=until - queries.WINDOW, until=until))
            slowest = max(slowest, median(times))
        found[name] = slowest
    return {name: round(ms, 1) for name, ms in found.items()}


def run(
    events: int = 20_000_000, engines: tuple[Engine, ...] = ENGINES, folder: Path | None = None, again: bool = False
) -> dict[str, Any]:
    """Figures by engine, the slowest of each kind, and `broken`. Main thread only."""
    result: dict[str, Any] = {"events": 0, "engine": {}, "broken": []}
    slowest = dict.fromkeys(MUSTS, 0.0)
    for engine in engines:
        with filled(engine, events, folder or ROOT / ".local" / "bench-analytics", again) as warehouse:
            result["events"] = warehouse.query("SELECT count() FROM events").rows[0][0]
            found = result["engine"][engine] = measure(warehouse)
        for name, ms in found.items():
            kind = kind_of(name)
            print(f"{engine:7} {kind:9} {name:24} {ms:8.1f} ms")
            slowest[kind] = max(slowest[kind], ms)
            if ms > MUSTS[kind]:
                result["broken"].append(f"{engine}: {name} takes {ms:g} ms, must be at most {MUSTS[kind]:g} ({kind})")
    result |= {
        "slowest_rollup_ms": slowest["rollup"], "timeline_ms": slowest["timeline"], "slowest_raw_ms": slowest["raw"],
    }  # fmt: skip
    return result


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--folder", type=Path, help="default: .local/bench-analytics")
    parser.add_argument("--again", action="store_true", help="make the data anew")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    engines = ENGINES if options.engine == "both" else (options.engine,)
    return finish(run(options.events, engines, options.folder, options.again), options.report_only)


if __name__ == "__main__":
    sys.exit(main())
