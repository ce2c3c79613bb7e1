"""Bytes an event on disk, by table and by column, when parts are merged: the sink's own rows of whole lives of messages.

    python -m loadtest.analytics.storage [--events 1000000] [--engine server|chdb|both] [--report-only]

No Kafka: rows go in by the sink's own code, spread over an hour as 300 events a second would be. Last line: RESULT; exit status 1 when a limit of
`MUSTS` is broken, unless --report-only.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from analytics.clickhouse import connect
from analytics.migrate import migrate
from analytics.retention import days_of
from analytics.server import Server
from analytics.sink import TABLE, Sink
from deploy.local import ROOT
from loadtest.analytics.exactness import START_MS
from loadtest.analytics.flow import lives
from loadtest.analytics.ingest import finish
from loadtest.analytics.rig import ENGINES, PARTITIONS, Engine
from topics.catalogue import EVENTS
from topics.outputs import partition_for

MUSTS = {"server": 65.0, "chdb": 55.0}  # bytes an event
AT_ONCE = 20_000
BY_TABLE = """
SELECT table, sum(bytes_on_disk), sum(rows) FROM system.parts WHERE database = {database:String} AND active AND table != 'migrations' GROUP BY table
"""
BY_COLUMN = """
SELECT name, sum(data_compressed_bytes) FROM system.columns WHERE database = {database:String} AND table = {table:String} GROUP BY name
"""


def one(engine: Engine, events: int, folder: Path) -> dict[str, Any]:
    """One engine."""
    with ExitStack() as running:
        server = running.enter_context(Server(folder / "clickhouse")) if engine == "server" else None
        warehouse = connect(server.url if server else str(folder / "chdb"))
        running.callback(warehouse.close)
        migrate(warehouse)
        sink = Sink(warehouse, "storage")
        sink.recover(dict.fromkeys(range(PARTITIONS), 0))
        offsets = [0] * PARTITIONS
        source = lives(1, START_MS)
        for start in range(0, events, AT_ONCE):
            rows = []
            for event in islice(source, min(AT_ONCE, events - start)):
                partition = partition_for(EVENTS.key(event).encode(), PARTITIONS)
                rows.append((partition, offsets[partition], event))
                offsets[partition] += 1
            sink.write(rows)
        for day in days_of(warehouse):
            warehouse.command(f"OPTIMIZE TABLE {TABLE} PARTITION {day:%Y%m%d} FINAL")
        asked = {"database": warehouse.database}
        tables = {table: size for table, size, _ in warehouse.query(BY_TABLE, asked).rows}
        columns = warehouse.query(BY_COLUMN, {**asked, "table": TABLE}).rows
    largest = sorted(((size / events, name) for name, size in columns), reverse=True)[:8]
    return {
        "per_event": round(tables[TABLE] / events, 1),
        "others_per_event": {table: round(size / events, 2) for table, size in tables.items() if table != TABLE},
        "largest": {name: round(size, 1) for size, name in largest},
    }


def run(events: int = 1_000_000, engines: tuple[Engine, ...] = ENGINES, folder: Path | None = None) -> dict[str, Any]:
    """Figures by engine, and `broken`. Main thread only."""
    result: dict[str, Any] = {"events": events, "broken": []}
    for engine in engines:
        with tempfile.TemporaryDirectory(prefix="storage-", dir=folder) as scratch:
            found = result[engine] = one(engine, events, Path(scratch))
        if found["per_event"] > MUSTS[engine]:
            result["broken"].append(f"{engine}: {found['per_event']} bytes an event, must be at most {MUSTS[engine]:g}")
    return result


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    return finish(run(options.events, ENGINES if options.engine == "both" else (options.engine,)), options.report_only)


if __name__ == "__main__":
    sys.exit(main())
