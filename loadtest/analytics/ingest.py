"""A backlog of events from Kafka into ClickHouse: events a second, CPU of the sink's process an event, its memory.

    python -m loadtest.analytics.ingest [--events 1000000] [--engine server|chdb|both] [--report-only]

The sink is the worker process as it is deployed; Kafka and the server have the same machine. Measured between the first tenth and
the last tenth of the backlog, so neither start nor end counts. CPU is user and system time of the sink's process, Avro decoding
included (on chdb the engine too, so no limit holds there). Last line: RESULT; exit status 1 when a limit of `MUSTS` is broken, unless --report-only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from deploy.local import ROOT
from deploy.local.child import cpu_s, rss_mib
from loadtest.analytics.exactness import START_MS
from loadtest.analytics.flow import Flow, lives
from loadtest.analytics.rig import ENGINES, Engine, Rig, ends
from loadtest.demo.road import stop_on_signals

MUSTS = {"per_s": 100_000.0, "cpu_us": 10.0, "rss_mib": 300.0}  # at least, at most, at most
LOOK_S = 0.4


class _Sample(NamedTuple):
    at: float
    done: int
    cpu: float


def one(engine: Engine, events: int, folder: Path) -> dict[str, Any]:
    """One backlog on one engine."""
    with Rig(folder, engine) as rig:
        flow = Flow(rig.installation, lives(1, START_MS))
        flow.start()
        flow.allow(events)
        flow.end(600.0)
        total = sum(asyncio.run(ends(rig.installation)).values())
        worker = rig.start_sink()
        samples: list[_Sample] = []
        rss = 0.0
        deadline = time.monotonic() + 600.0
        while not samples or samples[-1].done < total:
            before = _Sample(time.monotonic(), 0, cpu_s(worker.pid))
            samples.append(before._replace(done=max(0, total - rig.lag())))
            rss = max(rss, rss_mib(worker.pid))
            if time.monotonic() > deadline or worker.exits:
                raise RuntimeError(f"{samples[-1].done:,} of {total:,} after {worker.exits}: {worker.log}")
            time.sleep(LOOK_S)
        rows = rig.warehouse().query("SELECT count() FROM events").rows[0][0]
    inner = [sample for sample in samples if total / 10 <= sample.done <= total * 9 / 10]
    first, last = (inner[0], inner[-1]) if len(inner) > 1 and inner[0].done < inner[-1].done else _ends(samples)
    count = last.done - first.done
    return {
        "records": total, "rows": rows, "per_s": round(count / (last.at - first.at)), "cpu_us": round((last.cpu - first.cpu) / count * 1e6, 2),
        "rss_mib": round(rss), "measured": count,
    }  # fmt: skip


def _ends(samples: list[_Sample]) -> tuple[_Sample, _Sample]:
    """A small backlog has few samples: from the last one before something was done to the first one after all was."""
    first = max((each for each in samples if each.done == samples[0].done), key=lambda each: each.at)
    last = next(each for each in samples if each.done == samples[-1].done)
    if first.done == last.done:
        raise RuntimeError(f"{last.done:,} events are too few to measure: take more")
    return first, last


def run(events: int = 1_000_000, engines: tuple[Engine, ...] = ENGINES, folder: Path | None = None) -> dict[str, Any]:
    """Figures by engine, and `broken`. Main thread only."""
    result: dict[str, Any] = {"events": events, "broken": []}
    for engine in engines:
        with tempfile.TemporaryDirectory(prefix="ingest-", dir=folder) as scratch:
            found = result[engine] = one(engine, events, Path(scratch))
        if found["rows"] != found["records"]:
            result["broken"].append(f"{engine}: {found['rows']:,} rows of {found['records']:,} records")
        if engine == "server":
            for name, limit in MUSTS.items():
                if found[name] < limit if name == "per_s" else found[name] > limit:
                    result["broken"].append(
                        f"{engine}: {name} {found[name]:g}, must be at {'least' if name == 'per_s' else 'most'} {limit:g}"
                    )
    return result


def main() -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--engine", choices=[*ENGINES, "both"], default="both")
    parser.add_argument("--report-only", action="store_true", help="exit 0 whatever the figures are")
    options = parser.parse_args()
    os.chdir(ROOT)
    stop_on_signals()
    return finish(run(options.events, ENGINES if options.engine == "both" else (options.engine,)), options.report_only)


def finish(result: dict[str, Any], report_only: bool) -> int:
    """Print what is broken, then the result; returns the exit status."""
    for line in result["broken"]:
        print("MISSED", line)
    print("RESULT", json.dumps(result))
    return 1 if result["broken"] and not report_only else 0


if __name__ == "__main__":
    sys.exit(main())
